"""Write a bundle, and make one bundle into another for a target."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle, Manifest, NormalizationFacts, WindowFacts
from rtdenoise.errors import BundleError
from rtdenoise.export import parity
from rtdenoise.export import target as targets
from rtdenoise.export.clips import FILE as CLIPS
from rtdenoise.export.parity import Gap
from rtdenoise.export.prove import extended
from rtdenoise.export.report import Report, refuse, stamped
from rtdenoise.export.target import Target
from rtdenoise.export.variants import files_of, graphs_of
from rtdenoise.export.weights import WEIGHTS, load_network, weights_of
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Method, Network
from rtdenoise.normalize import Normalization

__all__ = ["BundleFacts", "export_bundle", "load_network", "run_export"]


@dataclass(slots=True, frozen=True)
class BundleFacts:
    """What a manifest says beyond the network itself; see `rtdenoise.bundle.Manifest`. files: others that travel with it."""

    name: str
    normalization: Normalization
    rule: Literal["mean-sd", "min-max", "fixed"] = "mean-sd"
    frame_rate_hz: float | None = None
    pixel_um: float | None = None
    indicator: str | None = None
    noise_gain: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def export_bundle(
    method: Method, network: Network, out: Path, facts: BundleFacts, target: Target | None = None
) -> tuple[Bundle, Report]:
    """Export `network` into the folder `out`: FP32 graphs, and the form that `target` asks for beside them.

    Nothing is written unless they agree with the network: raises EngineError where the target's tolerances are exceeded.
    """
    target = target or Target()
    plain = target if target.graphs == "fp32" else Target(shape=target.shape)
    manifest, files, gaps = _draft(method, network, facts, plain)
    if target.graphs == "fp32":
        sizes = {name: len(content) for name, content in files.items()}
        return bundles.write(out, manifest, files), stamped(
            Report(bundle=facts.name, target=target, gaps=tuple(gaps), bytes=sizes)
        )
    with _folder() as folder:
        base = bundles.write(folder / "base", manifest, files)
        made, report = extended(base, target, folder / "made")
        refuse(report)
        return _kept(made, out), report


def run_export(bundle_path: str | Path, target_name: str | None, out: Path, movies: Sequence[Path] = ()) -> Report:
    """Export a bundle for a target into `out`; the report also lies beside it as `<out>.report.json`.

    A target of FP32 graphs exports them anew; any other adds its form to those that the bundle has. movies: to calibrate
    and judge with instead of the bundle's own clips.
    Raises BundleError for a bundle without weights, ConfigError for an unknown target or a bundle without clips where they
    are needed, EngineError for graphs outside the target's tolerances.
    """
    source, target = bundles.read(bundle_path), targets.find(target_name)
    if out.resolve() == source.path.resolve():
        raise BundleError(f"{out}: a bundle cannot be exported onto itself; choose another folder")
    with _folder() as folder:
        base, gaps = (_anew(source, target, folder / "base")) if target.graphs == "fp32" else (source, ())
        made, report = extended(base, target, folder / "made", movies, gaps=gaps)
        refuse(report)
        _kept(made, out)
    out.with_name(out.name + ".report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return report


def _window_facts(spec: WindowSpec) -> WindowFacts:
    """`hop` is for networks that give more frames than a run should keep."""
    kept = spec.hop if 1 < spec.hop < len(spec.emits) else None
    return WindowFacts(size=spec.size, emits=tuple(spec.emits), hop=kept)


def _draft(
    method: Method, network: Network, facts: BundleFacts, target: Target
) -> tuple[Manifest, dict[str, bytes], list[Gap]]:
    """Manifest and files of the FP32 bundle, after parity."""
    deployed = network.eval().deploy(**target.deploy)
    graphs = graphs_of(network, deployed)
    gaps = parity.compare(network, graphs, deployed, target)
    parity.refuse(gaps, target, facts.name)
    named = files_of("fp32", graphs)
    manifest = Manifest(
        name=facts.name,
        method=method.name,
        method_config=network.facts,
        window=_window_facts(network.window),
        min_side=network.min_side,
        merge=method.merge,
        graphs={role: next(iter(files)) for role, files in named.items()},
        newest_frames=deployed.newest_frames,
        step=deployed.step,
        stages=deployed.stages,
        normalization=NormalizationFacts(
            rule=facts.rule, offset=facts.normalization.offset, scale=facts.normalization.scale
        ),
        frame_rate_hz=facts.frame_rate_hz,
        pixel_um=facts.pixel_um,
        indicator=facts.indicator,
        noise_gain=facts.noise_gain,
        provenance={**facts.provenance, "target": target.model_dump(mode="json")},
    )
    files = {name: content for graph in named.values() for name, content in graph.items()}
    return manifest, files | {WEIGHTS: weights_of(network), **facts.files}, gaps


def _anew(source: Bundle, target: Target, folder: Path) -> tuple[Bundle, list[Gap]]:
    """The bundle's network exported again."""
    method, network = load_network(source)
    made = source.manifest
    facts = BundleFacts(
        name=made.name,
        normalization=Normalization(made.normalization.offset, made.normalization.scale),
        rule=made.normalization.rule,
        frame_rate_hz=made.frame_rate_hz,
        pixel_um=made.pixel_um,
        indicator=made.indicator,
        noise_gain=made.noise_gain,
        provenance=made.provenance,
        files={name: (source.path / name).read_bytes() for name in (CLIPS,) if name in made.checksums},
    )
    manifest, files, gaps = _draft(method, network, facts, target)
    kept = {"latency_cost_db": made.latency_cost_db, "engine": made.engine}
    return bundles.write(folder, manifest.model_copy(update=kept), files), gaps


def _kept(made: Bundle, out: Path) -> Bundle:
    """The bundle at its place."""
    files = {name: (made.path / name).read_bytes() for name in made.manifest.checksums}
    return bundles.write(out, made.manifest, files)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # a mapped file cannot go on Windows
        yield Path(folder)
