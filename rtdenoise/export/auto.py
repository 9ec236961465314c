"""The fastest engine of this machine that still computes what PyTorch computes: every one is judged on clips and measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from rtdenoise import bundle as bundles
from rtdenoise import machine
from rtdenoise.bundle import Bundle, GraphKind
from rtdenoise.config import Settings
from rtdenoise.engine.backends import BACKENDS
from rtdenoise.engine.cuda import NO_DRIVER
from rtdenoise.errors import BundleError, EngineError, MissingExtraError
from rtdenoise.export import fidelity
from rtdenoise.export.clips import Clips, clips_of
from rtdenoise.export.fidelity import Fidelity, Outputs
from rtdenoise.export.prove import extended
from rtdenoise.export.target import LIMITS, Target
from rtdenoise.trial import Question, Trial, trial


class Wish(Settings):
    """What the engine is for. movies: to judge and calibrate on, instead of the bundle's own clips."""

    shape: tuple[int, int] = (512, 512)
    fps: float = Field(default=30.0, gt=0)
    threads: int = Field(default=0, ge=0)
    movies: tuple[Path, ...] = ()


class Candidate(Settings):
    """One engine. why_not: empty when it is within tolerance and runs here."""

    engine: str
    graphs: GraphKind
    why_not: str = ""
    fidelity: Fidelity | None = None
    trial: Trial | None = None


class AutoReport(Settings):
    """All engines, and the chosen one: the lowest median per frame among those that are within tolerance."""

    bundle: str
    model: str
    wish: Wish
    chosen: str
    candidates: tuple[Candidate, ...]
    date: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    cpu: str = Field(default_factory=machine.cpu_name)
    cores: int = os.cpu_count() or 1
    load_before: float | None = None
    load_after: float | None = Field(default_factory=machine.load)
    versions: dict[str, str] = Field(default_factory=lambda: machine.versions((*machine.PACKAGES, "nncf", "torch")))


def export_fastest(
    name_or_path: str | Path, out: Path, wish: Wish | None = None, progress: Callable[[str], None] = lambda line: None
) -> AutoReport:
    """Try every engine on a bundle; write it to `out` with the graphs of the fastest one that is within tolerance, which
    `auto` then takes first. The report also lies beside it as `<out>.report.json`.

    Raises BundleError, ConfigError for a bundle without clips, EngineError when no engine is within tolerance.
    """
    wish, source, load_before = wish or Wish(), bundles.read(name_or_path), machine.load()
    if out.resolve() == source.path.resolve():
        raise BundleError(f"{out}: a bundle cannot be exported onto itself; choose another folder")
    progress("making clips")
    clips = clips_of(source, wish.movies)
    progress("running PyTorch on the clips")
    judge = _Judge(clips, fidelity.reference(source, clips.judged, wish.threads), wish.threads)
    with _all_forms(source, judge, progress) as whole:
        candidates = tuple(_candidates(whole, judge, wish, progress))
        chosen = _chosen(source, candidates)
        _write(whole, chosen, out)
    report = AutoReport(
        bundle=source.name,
        model=f"{source.name}@{source.hash}",
        wish=wish,
        chosen=chosen.engine,
        candidates=candidates,
        load_before=load_before,
    )
    out.with_name(out.name + ".report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return report


@dataclass(slots=True)
class _Judge:
    """The clips, what PyTorch makes of them, and what is known of each engine. refused: forms of the graphs that cannot be made."""

    clips: Clips
    wanted: Outputs
    threads: int
    known: dict[str, Fidelity] = field(default_factory=dict)
    refused: dict[GraphKind, str] = field(default_factory=dict)

    def of(self, bundle: Bundle, engine: str) -> Fidelity:
        """How faithful it is; see `rtdenoise.export.fidelity.judge`."""
        if engine not in self.known:
            self.known[engine] = fidelity.judge(bundle, engine, self.clips.judged, self.wanted, threads=self.threads)
        return self.known[engine]


@contextmanager
def _all_forms(source: Bundle, judge: _Judge, progress: Callable[[str], None]) -> Iterator[Bundle]:
    """The bundle in a folder of its own, with every form of its graphs that an engine here may take."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # a mapped file cannot go on Windows
        whole = source
        for kind in sorted({BACKENDS[name].graphs for name in _names()} - {"fp32"}):
            if source.has_graphs(kind):
                continue
            progress(f"making {kind} graphs")
            try:
                target = _target(source, kind)
                place = Path(folder) / kind / source.path.name
                whole, report = extended(
                    whole, target, place, clips=judge.clips, wanted=judge.wanted, threads=judge.threads
                )
                judge.known |= {found.engine: found for found in report.fidelity}
            except (EngineError, MissingExtraError, BundleError) as error:
                judge.refused[kind] = str(error)
        yield whole


def _target(source: Bundle, kind: GraphKind) -> Target:
    """What the form is made for: the engines here that take it, and the form of the network that the bundle was exported in."""
    engines = tuple(name for name in _names() if BACKENDS[name].graphs == kind)
    deploy = source.manifest.provenance.get("target", {}).get("deploy", {})
    precision = _precision(engines[0])
    return Target(
        name=f"auto-{kind}",
        precision=precision,
        graphs=kind,
        engines=engines,
        deploy=deploy,
        tolerance=LIMITS[precision],
    )


def _names() -> list[str]:
    """Engines that can be tried here at all; without a driver those of a card cannot."""
    has_driver = machine.cuda_driver() is not None
    return [name for name, backend in BACKENDS.items() if has_driver or not backend.gpu]


def _candidates(bundle: Bundle, judge: _Judge, wish: Wish, progress: Callable[[str], None]) -> Iterator[Candidate]:
    here = _names()
    for name, backend in BACKENDS.items():
        why_not = judge.refused.get(backend.graphs, "") if name in here else NO_DRIVER
        if why_not:
            yield Candidate(engine=name, graphs=backend.graphs, why_not=why_not)
            continue
        progress(f"trying {name}")
        yield _tried(bundle, name, judge, wish)


def _tried(bundle: Bundle, name: str, judge: _Judge, wish: Wish) -> Candidate:
    kind = BACKENDS[name].graphs
    question = Question(model=str(bundle.path), backend=name, shape=wish.shape, fps=wish.fps, threads=wish.threads)
    measured = trial(question)  # first, and in a process of its own: what crashes does so there
    if not measured.usable:
        return Candidate(engine=name, graphs=kind, why_not=measured.why_not, fidelity=judge.known.get(name))
    try:
        found = judge.of(bundle, name)
    except (EngineError, MissingExtraError) as error:
        return Candidate(engine=name, graphs=kind, why_not=str(error), trial=measured)
    tolerance = LIMITS[_precision(name)]
    try:
        fidelity.refuse(found, Target(name=f"auto-{_precision(name)}", tolerance=tolerance), bundle.name)
    except EngineError as error:
        return Candidate(engine=name, graphs=kind, why_not=str(error), trial=measured, fidelity=found)
    return Candidate(engine=name, graphs=kind, trial=measured, fidelity=found)


def _precision(engine: str) -> Literal["fp32", "fp16", "bf16", "int8"]:
    """What an engine computes in, by its name; those that do not say so compute in FP32."""
    last = engine.rpartition("-")[2]
    return last if last in ("fp16", "bf16", "int8") else "fp32"  # type: ignore[return-value]


def _chosen(source: Bundle, candidates: Sequence[Candidate]) -> Candidate:
    running = [(c.trial.ms_p50, i) for i, c in enumerate(candidates) if c.trial is not None and not c.why_not]
    if not running:
        reasons = "; ".join(f"{c.engine}: {c.why_not}" for c in candidates)
        raise EngineError(f"{source.name}: no engine is within tolerance here: {reasons}")
    return candidates[min(running)[1]]


def _write(whole: Bundle, chosen: Candidate, out: Path) -> None:
    """The bundle with the chosen engine's graphs beside the FP32 ones, which are what other machines fall back to."""
    kept = {kind: graphs for kind, graphs in whole.manifest.variants.items() if kind == chosen.graphs}
    named = {file for graphs in whole.manifest.variants.values() for file in graphs.values()}
    dropped = {Path(file).stem for file in named - {f for graphs in kept.values() for f in graphs.values()}}
    files = {
        name: (whole.path / name).read_bytes() for name in whole.manifest.checksums if Path(name).stem not in dropped
    }
    bundles.write(out, whole.manifest.model_copy(update={"variants": kept, "engine": chosen.engine}), files)
