"""A bundle with one more form of its graphs, and the evidence for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rtdenoise.bundle import Bundle
from rtdenoise.engine.backends import BACKENDS
from rtdenoise.errors import EngineError
from rtdenoise.export import parity
from rtdenoise.export.clips import Clips, can_make, clips_of
from rtdenoise.export.fidelity import Fidelity, Outputs, judge, reference
from rtdenoise.export.parity import Gap
from rtdenoise.export.quantize import TRIED, Sample
from rtdenoise.export.report import Report, stamped
from rtdenoise.export.target import Target
from rtdenoise.export.variants import (
    HALVES,
    Made,
    files_of,
    graphs_of,
    peak_activation,
    quantized,
    samples_of,
    with_form,
)
from rtdenoise.export.weights import load_network


def extended(
    base: Bundle,
    target: Target,
    folder: Path,
    movies: Sequence[Path] = (),
    *,
    gaps: Sequence[Gap] = (),
    clips: Clips | None = None,
    wanted: Outputs | None = None,
    threads: int = 0,
) -> tuple[Bundle, Report]:
    """`base` with the target's form of its graphs, in `folder`, and what was measured of it; refuses nothing.

    Without clips only probe frames are looked at, which int8 cannot do without. gaps: what is known of `base`.  clips,
    wanted: where the caller has them already; see `rtdenoise.export.fidelity.judge`.
    Raises BundleError, ConfigError, EngineError or MissingExtraError where the form cannot be made or judged here.
    """
    if clips is None and (movies or can_make(base) or target.precision == "int8"):
        clips = clips_of(base, movies)
    wanted = reference(base, clips.judged, threads) if clips and wanted is None else wanted
    if target.precision == "int8" and clips is not None:
        return _quantized(base, target, folder, clips, wanted, threads)
    made, more = _half(base, target) if target.graphs in HALVES else ({}, [])
    bundle = with_form(base, target.graphs, made, folder) if made else base
    return bundle, stamped(
        Report(
            bundle=base.name,
            target=target,
            gaps=(*gaps, *more),
            fidelity=_judged(bundle, target, clips, wanted, threads) if clips else (),
            bytes=_sizes(bundle, made),
            peak_activation=_peak(base, clips, threads) if clips and target.graphs == "fp16" else None,
        )
    )


def _quantized(
    base: Bundle, target: Target, folder: Path, clips: Clips, wanted: Outputs | None, threads: int
) -> tuple[Bundle, Report]:
    """The first way to quantise that is within tolerance, or the one that is truest to bright pixels."""
    samples: dict[float, dict[str, list[Sample]]] = {}
    tried: list[tuple[Bundle, Report]] = []
    for i, how in enumerate(TRIED[target.graphs]):
        if how.headroom not in samples:
            samples[how.headroom] = samples_of(base, clips.calibration, threads, how.headroom)
        try:
            made = quantized(base, target.graphs, samples[how.headroom], how)
        except EngineError:  # a short network has no more layers to spare
            if not tried:
                raise
            break
        bundle = with_form(base, target.graphs, made, folder / str(i))
        fidelity = _judged(bundle, target, clips, wanted, threads)
        report = Report(bundle=base.name, target=target, how=str(how), fidelity=fidelity, bytes=_sizes(bundle, made))
        tried.append((bundle, stamped(report)))
        if not tried[-1][1].refused:
            return tried[-1]
    return min(tried, key=lambda one: max(found.bright_percent for found in one[1].fidelity))


def _half(base: Bundle, target: Target) -> tuple[Made, list[Gap]]:
    _, network = load_network(base)
    deployed = network.deploy(**target.deploy)
    graphs = graphs_of(network, deployed, HALVES[target.graphs])
    # ONNX Runtime, which compares on probe frames, has no bf16.
    gaps = [] if target.graphs == "bf16" else parity.compare(network, graphs, deployed, target)
    return files_of(target.graphs, graphs), gaps


def _sizes(bundle: Bundle, made: Made) -> dict[str, int]:
    files = [name for graph in made.values() for name in graph] or sorted(bundle.manifest.checksums)
    return {name: (bundle.path / name).stat().st_size for name in files}


def _judged(bundle: Bundle, target: Target, clips: Clips, wanted: Outputs | None, threads: int) -> tuple[Fidelity, ...]:
    found = []
    for engine in target.engines:
        other = None if BACKENDS[engine].graphs == target.graphs else target.graphs
        found.append(judge(bundle, engine, clips.judged, wanted, kind=other, threads=threads))
    return tuple(found)


def _peak(base: Bundle, clips: Clips, threads: int) -> float:
    return peak_activation(base, samples_of(base, clips.calibration[:1], threads))
