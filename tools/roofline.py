"""How much of this machine each engine uses: share of the convolution peak and of the memory bandwidth, and what limits the rest.

Peaks are measured in the same run (tools/peaks.py). Multiplications are counted from the graph (tools/graph_cost.py), bytes as a
lower bound. Where neither peak is near, the limit is the kind of layer that takes most of the time, by OpenVINO's own account.

    python tools/roofline.py                                      # all methods; about ten minutes on two idle cores
    python tools/roofline.py --methods umvd deepvidv2 --sizes 512
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import graph_cost
import numpy as np
import peaks
from bench_engines import CPU_PACKAGES, arguments, cases_of
from bench_forms import Case, graph_path, prepare, roles, shapes_of, why_not
from benching import Head, in_turn, save, serve
from graph_cost import Layer
from rich.console import Console
from rich.table import Table

from rtdenoise import machine, registry
from rtdenoise.bundle import GraphKind
from rtdenoise.config import Settings
from rtdenoise.engine.backends import BACKENDS
from rtdenoise.engine.ov import with_half_states

ENGINES = ("openvino-fp32", "openvino-bf16", "openvino-int8")
ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
GOAL = 0.7
"""Of the peak, for dense 2-D networks in bf16 and int8: the project's own. Also where a peak counts as the limit."""
REPORT = Path(__file__).parents[1] / "export" / "reports" / "roofline.json"
MOVED = (
    "Reorder",
    "Transpose",
    "Pad",
    "Concatenation",
    "Concat",
    "Split",
    "StridedSlice",
    "Reshape",
    "Interpolate",
    "Pooling",
)
ATTENTION = ("FullyConnected", "MatMul", "Softmax", "MHA", "ScaledDotProductAttention", "MVN")
Profile = list[tuple[str, str, str, float]]


class Part(Settings):
    """What one kind of layer takes. gflops: GFLOP/s while it runs, 0 for layers that do not multiply."""

    kind: str
    share: float
    gflops: float


class Row(Settings):
    """One graph on one engine. mb: at least moved per run.  intensity: FLOP per byte.  ms: fastest of all rounds.

    of_peak, of_bandwidth: shares of what this machine can do.  dense: whether the goal applies.
    slowest: type of layer with the largest share of the time.
    """

    method: str
    side: int
    role: str
    engine: str
    gflop: float
    mb: float
    intensity: float
    ms: float
    gflops: float
    of_peak: float
    of_bandwidth: float
    dense: bool
    limit: str
    slowest: str
    parts: tuple[Part, ...]


class Report(Head):
    """The whole run. peaks: GFLOP/s by precision, and GB/s of memory."""

    peaks: dict[str, float]
    rows: tuple[Row, ...]
    missing: dict[str, str] = {}


def measured(case: Case, role: str, engines: Sequence[str], folder: Path, rounds: int, console: Console) -> list[Row]:
    """One graph on all engines; the machine's share is filled in by `_row`."""
    shapes = shapes_of(folder, role, case.shape)
    forms = [(engine, str(graph_path(folder, role, engine))) for engine in engines]
    _, answers = in_turn(_work, forms, (shapes, os.cpu_count() or 1), rounds, console)
    counted = graph_cost.layers(folder / f"{role}.onnx", shapes)
    rows = []
    for (engine, _), figures in answers.items():
        ms, profile = min(figures, key=lambda figure: figure[0])
        rows.append(_row(case, role, engine, ms, counted, profile))
    return rows


def _work(form: tuple[str, str], shapes: graph_cost.Shapes, threads: int, pipe: Connection) -> None:
    """In the engine's own process: compiled as the engine does, but with the times of all layers."""
    import openvino

    engine, path = form
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({port.get_any_name(): list(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
    settings = peaks.settings(engine.partition("-")[2], threads)
    if settings["INFERENCE_PRECISION_HINT"] == "bf16":
        model = with_half_states(openvino, model)
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    for i, port in enumerate(compiled.inputs):
        if port.element_type == openvino.Type.f32:  # states begin as zeros
            frames = np.random.default_rng(0).standard_normal(tuple(port.shape), np.float32)
            request.set_input_tensor(i, openvino.Tensor(frames))
    request.infer()

    def run() -> tuple[float, Profile]:
        request.infer()  # wakes threads and caches
        start = time.perf_counter_ns()
        request.infer()
        return (time.perf_counter_ns() - start) / 1e6, peaks.profile(compiled)

    serve(pipe, engine, run)


def _row(case: Case, role: str, engine: str, ms: float, counted: Sequence[Layer], profile: Profile) -> Row:
    precision = engine.partition("-")[2]
    gflop, mb = graph_cost.gflop(counted), graph_cost.megabytes(counted, ELEMENT_BYTES[precision])
    kinds: dict[str, float] = defaultdict(float)
    for _, kind, _, cost in profile:
        kinds[kind] += cost
    slowest = max(kinds, key=lambda kind: kinds[kind])
    return Row(
        method=case.method,
        side=case.side,
        role=role,
        engine=engine,
        gflop=gflop,
        mb=mb,
        intensity=gflop * 1e3 / mb,
        ms=ms,
        gflops=gflop / ms * 1e3,
        of_peak=0.0,
        of_bandwidth=0.0,
        dense=graph_cost.is_dense(counted),
        limit="",
        slowest=f"{slowest} {kinds[slowest] / sum(kinds.values()):.0%}",
        parts=tuple(parts(counted, profile)),
    )


def parts(counted: Sequence[Layer], profile: Profile) -> list[Part]:
    """The time by what it is spent on, most first."""
    by_name = {layer.name: layer for layer in counted}
    flop: dict[str, float] = defaultdict(float)
    cost: dict[str, float] = defaultdict(float)
    three_d = any(layer.axes == 3 for layer in counted)
    for name, kind, originals, ms in profile:
        multiplying = [by_name[original] for original in {name, *originals.split(",")} if original in by_name]
        bucket = (
            max(multiplying, key=lambda layer: layer.flop).bucket if multiplying else _bucket(kind, three_d=three_d)
        )
        cost[bucket] += ms
        flop[bucket] += sum(layer.flop for layer in multiplying)
    whole = sum(cost.values())
    found = [Part(kind=k, share=ms / whole, gflops=flop[k] / ms / 1e6) for k, ms in cost.items()]
    return sorted(found, key=lambda part: -part.share)


def _bucket(kind: str, *, three_d: bool) -> str:
    if kind.endswith("onvolution"):  # one that OpenVINO renamed
        return "dense 3-D" if three_d else "dense 2-D"
    if kind in ATTENTION:
        return "attention"
    if kind in MOVED:
        return "3-D pooling/reorders" if three_d else "reorders and copies"
    return "elementwise"


def judged(row: Row, peak: dict[str, float]) -> Row:
    """With shares of the machine's peaks and the limit.

    The limit is `compute` or `memory` from 70 % of that peak on, otherwise the kind of layer that takes most of the time.
    """
    of_peak = row.gflops / peak[row.engine.partition("-")[2]]
    of_bandwidth = row.mb / row.ms / peak["memory"]  # MB/ms is GB/s
    limit = f"{row.parts[0].kind} {row.parts[0].share:.0%}"
    if max(of_peak, of_bandwidth) >= GOAL:
        limit = "compute" if of_peak >= of_bandwidth else "memory"
    return row.model_copy(update={"of_peak": of_peak, "of_bandwidth": of_bandwidth, "limit": limit})


def show(console: Console, rows: Iterable[Row]) -> None:
    table = Table(title="Share of this machine's peak")
    for column in (
        "graph",
        "engine",
        "GFLOP",
        "FLOP/byte",
        "ms",
        "GFLOP/s",
        "of peak",
        "of memory",
        "limit",
        "slowest",
    ):
        table.add_column(column)
    for row in rows:
        goal = " !" if row.dense and not row.engine.endswith("fp32") and row.of_peak < GOAL else ""
        table.add_row(
            f"{row.method} {row.side} {row.role}",
            row.engine.removeprefix("openvino-"),
            f"{row.gflop:.1f}",
            f"{row.intensity:.0f}",
            f"{row.ms:.1f}",
            f"{row.gflops:.0f}",
            f"{row.of_peak:.0%}{goal}",
            f"{row.of_bandwidth:.0%}",
            row.limit,
            row.slowest,
        )
    console.print(table)
    console.print(f"!: a dense 2-D network below {GOAL:.0%} of the peak", highlight=False)


def main() -> None:
    args = arguments(__doc__, registry.names(registry.METHODS), ENGINES, REPORT)
    console, head, rows, missing = Console(width=170), Head(versions=machine.versions(CPU_PACKAGES)), [], {}
    peak = peaks.peaks(console)
    console.print({name: round(value) for name, value in peak.items()})
    kinds: set[GraphKind] = {BACKENDS[engine].graphs for engine in args.engines}
    for case in cases_of(args.methods, args.sizes, narrow=args.narrow):
        folder = prepare(case, args.cache, kinds)
        engines = [e for e in args.engines if BACKENDS[e].graphs != "int8" or not why_not(folder)]
        missing |= {f"{case.method} {e}": why_not(folder) for e in args.engines if e not in engines}
        for role in roles(folder):
            made = measured(case, role, engines, folder, args.rounds, console)
            rows += [judged(row, peak) for row in made]
        show(console, [row for row in rows if (row.method, row.side) == (case.method, case.side)])
    report = Report(
        **head.model_dump(exclude={"load_after"}), load_after=machine.load(), peaks=peak, rows=rows, missing=missing
    )
    show(console, report.rows)
    console.print(report.line())
    save(report, args.json)


if __name__ == "__main__":
    main()
