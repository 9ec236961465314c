"""How faithful an engine is to PyTorch FP32 on a bundle's clips: what a mean hides is looked at, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rtdenoise.bundle import Bundle, GraphKind
from rtdenoise.config import Settings
from rtdenoise.engine.backends import BACKENDS
from rtdenoise.engine.graph import Runtime
from rtdenoise.errors import BundleError, EngineError
from rtdenoise.export.clips import Clip
from rtdenoise.export.parity import BRIGHT
from rtdenoise.export.reference import OtherKind, TorchRuntime
from rtdenoise.export.streams import Stack, all_forms_of, streamed
from rtdenoise.export.target import Target
from rtdenoise.export.weights import load_network
from rtdenoise.metrics.traces import pearson_r

CELL = 6
"""Side of the square whose mean over time is a trace, px: a soma at 2 um/px. Engineering choice."""
N_TRACES = 12
"""Places that are compared: those whose FP32 output changes most. Engineering choice."""

Place = tuple[str, str, tuple[int, int]]
"""Form of the graphs, clip, size."""
Outputs = dict[Place, Stack]
"""(T, Y, X) counts."""


class Row(Settings):
    """One clip at one size in one form of the graphs, against PyTorch FP32 in the same stream.

    loss_db: PSNR against the truth that is lost; None where there is no truth.  psnr_db: against PyTorch, over its range.
    worst: largest error of a pixel, in sd of PyTorch's output.  trace_r: lowest correlation over time of the places
    that change most.  bright_percent: 99th percentile of the error on the brightest 0.1 % of pixels, in percent of
    their mean; counts are above the darkest 0.1 % of PyTorch's output, so that a detector's offset hides nothing.
    """

    form: str
    clip: str
    shape: tuple[int, int]
    loss_db: float | None
    psnr_db: float
    worst: float
    bright_percent: float
    trace_r: float


class Fidelity(Settings):
    """One engine on all clips. engine: as on the wire.  graphs: which form of the bundle's graphs it ran."""

    engine: str
    graphs: GraphKind
    rows: tuple[Row, ...] = Field(min_length=1)

    @property
    def loss_db(self) -> float | None:
        """The most PSNR that any clip loses."""
        return max((row.loss_db for row in self.rows if row.loss_db is not None), default=None)

    @property
    def bright_percent(self) -> float:
        """The worst over the clips."""
        return max(row.bright_percent for row in self.rows)

    @property
    def trace_r(self) -> float:
        """The worst over the clips."""
        return min(row.trace_r for row in self.rows)

    @property
    def worst(self) -> float:
        """The worst over the clips."""
        return max(row.worst for row in self.rows)


def judge(
    bundle: Bundle,
    backend: str,
    clips: Sequence[Clip],
    wanted: Outputs | None = None,
    *,
    kind: GraphKind | None = None,
    threads: int = 0,
) -> Fidelity:
    """Run the engine `backend` over the clips, at their size and at a second one. wanted: what `reference` gave for them.

    kind: a form of the graphs that `backend` is not made for: ONNX Runtime then stands in for what runs them.
    Raises EngineError or MissingExtraError where the engine does not open here.
    """
    wanted = reference(bundle, clips, threads) if wanted is None else wanted
    stand_in = None if kind is None else partial(OtherKind, kind=kind, threads=threads)
    truth = {(clip.name, clip.shape): clip.clean for clip in _sizes(clips)}
    rows = [
        _row(place, output, wanted[place], truth[place[1:]])
        for place, output in _outputs(bundle, backend, clips, threads, stand_in).items()
    ]
    return Fidelity(engine=backend, graphs=kind or BACKENDS[backend].graphs, rows=tuple(rows))


def reference(bundle: Bundle, clips: Sequence[Clip], threads: int = 0) -> Outputs:
    """PyTorch FP32 on the clips, through the same stream; ONNX Runtime where the bundle ships no weights."""
    try:
        _, network = load_network(bundle)
    except BundleError:
        return _outputs(bundle, "onnxruntime-cpu", clips, threads)
    return _outputs(bundle, "onnxruntime-cpu", clips, threads, partial(TorchRuntime, modules=network.deploy().graphs))


def refuse(fidelity: Fidelity, target: Target, name: str) -> None:
    """Raise EngineError that names the first excess over the target's tolerances, if there is one."""
    limits = target.tolerance
    for row in fidelity.rows:
        found = {
            f"PSNR loss {row.loss_db or 0.0:.3f} dB": ((row.loss_db or 0.0) <= limits.loss_db, f"{limits.loss_db:g}"),
            f"PSNR {row.psnr_db:.1f} dB against FP32": (
                row.loss_db is not None or row.psnr_db >= limits.psnr_db,
                f"{limits.psnr_db:g}",
            ),
            f"error {row.bright_percent:.2f} % on bright pixels": (
                row.bright_percent <= limits.bright_percent,
                f"{limits.bright_percent:g}",
            ),
            f"trace correlation {row.trace_r:.4f}": (row.trace_r >= limits.trace_r, f"{limits.trace_r:g}"),
        }
        for what, (kept, limit) in found.items():
            if not kept:
                place = f"{row.form}, {row.clip} at {row.shape[0]} x {row.shape[1]}"
                raise EngineError(
                    f"{name}: {fidelity.engine} on {fidelity.graphs} graphs, {place}: {what}, target {target.name} "
                    f"allows {limit}; export for another target"
                )


def _outputs(
    bundle: Bundle,
    backend: str,
    clips: Sequence[Clip],
    threads: int,
    runtime: Callable[[Bundle], Runtime] | None = None,
) -> Outputs:
    found: Outputs = {}
    with all_forms_of(bundle) as forms:
        for i, form in enumerate(forms):
            for clip in _sizes(clips if i == 0 else clips[:1]):
                factory = form.factory(backend, clip.shape, threads)
                factory = factory if runtime is None else factory.over(runtime(form.bundle))
                found[form.name, clip.name, clip.shape] = streamed(factory, clip)
    return found


def _sizes(clips: Sequence[Clip]) -> list[Clip]:
    """All clips, and the first at its second size."""
    return [*clips, clips[0].cropped()]


def _row(place: Place, output: Stack, wanted: Stack, clean: Stack | None) -> Row:
    error, spread = np.abs(output - wanted, dtype=np.float64), float(wanted.std())
    mse = float(np.square(error).mean())
    dark, bright = np.quantile(wanted, [BRIGHT, 1 - BRIGHT])
    is_bright = wanted >= bright
    above = float(wanted[is_bright].mean(dtype=np.float64)) - float(dark)
    return Row(
        form=place[0],
        clip=place[1],
        shape=place[2],
        loss_db=None if clean is None else _db(_mse(output, clean) / _mse(wanted, clean)),
        psnr_db=_db(float(np.ptp(wanted)) ** 2 / mse) if mse else 999.0,
        worst=float(error.max()) / spread,
        bright_percent=100 * float(np.quantile(error[is_bright], 0.99)) / above,
        trace_r=float(pearson_r(_traces(output, wanted), _traces(wanted, wanted)).min()),
    )


def _traces(movie: Stack, wanted: Stack) -> NDArray[np.float64]:
    """(N, T) mean over the squares where `wanted` changes most over time."""
    n, y, x = (wanted.shape[0], wanted.shape[1] // CELL, wanted.shape[2] // CELL)
    squares, those = (
        stack[:, : y * CELL, : x * CELL].reshape(n, y, CELL, x, CELL).mean(axis=(2, 4), dtype=np.float64).reshape(n, -1)
        for stack in (movie, wanted)
    )
    chosen = np.argsort(those.std(axis=0))[-N_TRACES:]
    return np.ascontiguousarray(squares[:, chosen].T)


def _mse(image: Stack, clean: Stack) -> float:
    return float(np.square(image - clean, dtype=np.float64).mean())


def _db(ratio: float) -> float:
    return float(10 * np.log10(ratio))
