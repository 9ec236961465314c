"""FAST on the CPU: ms per frame of every engine, beside PyTorch eager, in one run.

Every engine has its own process and all of them stay up; they are measured in turn, round after round, so that what else the machine
does hits all of them alike. `plain` has as many convolution groups as published, the others as many per two-frame branch as --groups
says, and for the fastest engine as --search says besides.
Frames go through StreamingDenoiser and MergedEngine as in a live run, normalisation and merging included.

    python tools/bench_fast.py                        # about three minutes on two idle cores
    python tools/bench_fast.py --frames 4 --groups 1 2 4 8 --engines openvino-bf16
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from benching import EAGER, Head, TorchGraph, in_turn, save, serve
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rtdenoise import machine
from rtdenoise.config import Settings
from rtdenoise.engine.backends import BACKENDS, open_runtime, taking
from rtdenoise.engine.base import EngineInfo
from rtdenoise.engine.graph import Graph
from rtdenoise.engine.merged import BlockGraphs, MergedEngine
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.normalize import Normalization
from rtdenoise.stream import StreamingDenoiser

CPU_ENGINES = tuple(name for name in taking("fp32") if not BACKENDS[name].gpu)
HOPS = (1, 2, 4)
N_NEWEST = 2
REPORT = Path(__file__).parents[1] / "export" / "reports" / "bench-fast.json"


@dataclass(slots=True, frozen=True)
class Form:
    """One way to run the network. groups: convolution groups per two-frame branch, 0: as published."""

    frames: int
    engine: str
    groups: int

    def __str__(self) -> str:
        return f"C={self.frames} {self.engine} {f'{self.groups} groups' if self.groups else 'plain'}"


class Row(Settings):
    """ms per frame by hop (median over rounds, and lowest and highest round).  wait_ms: at hop 1, from the newest frame to its output.

    worst_sd: largest difference to PyTorch eager, in sd of its output.
    speedup: eager's fastest network run in any round, over our median at hop 1.
    """

    frames: int
    engine: str
    groups_per_branch: int
    ms_per_frame: dict[int, float]
    spread_ms: dict[int, tuple[float, float]]
    wait_ms: float
    worst_sd: float
    speedup: float


class Report(Head):
    """The whole run."""

    shape: tuple[int, int]
    weights: str
    rounds: int
    rows: tuple[Row, ...]


def network_of(frames: int) -> Any:
    """The demo model at its own size, the same network with fixed random weights at another. (Any: a torch module.)"""
    import torch

    from rtdenoise import bundle as bundles
    from rtdenoise.export.weights import load_network
    from rtdenoise.methods.fast import FastNetwork

    demo = bundles.read(bundles.DEMO)
    if demo.manifest.window.size == frames:
        return load_network(demo)[1]
    torch.manual_seed(0)
    return FastNetwork(frames).eval()


def export_forms(forms: Sequence[Form], folder: Path) -> None:
    """ONNX files of every form, named by frames, groups and role; as many exports at a time as there are cores."""
    wanted = sorted({(form.frames, form.groups) for form in forms if form.engine != EAGER})
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_export, *zip(*wanted, strict=True), [folder] * len(wanted)))


def _export(frames: int, groups: int, folder: Path) -> None:
    import torch

    from rtdenoise.export.to_onnx import to_onnx

    torch.set_num_threads(1)
    inputs = {
        "window": {"frames": frames},
        "older": {"frames": frames - N_NEWEST},
        "newest": {"frames": N_NEWEST, "partial": frames},
    }
    published = 32 // (frames // 2)  # 32 groups in the widest layers, over two-frame branches
    for role, module in network_of(frames).deploy(groups_per_branch=groups or published).graphs.items():
        path = folder / f"{frames}-{groups}-{role}.onnx"
        path.write_bytes(to_onnx(module, inputs[role], "partial" if role == "older" else "denoised"))


def graphs_of(form: Form, shape: tuple[int, int], folder: Path) -> BlockGraphs:
    """The form's compiled graphs; eager runs the whole published network, as its authors do."""
    if form.engine == EAGER:
        return BlockGraphs(TorchGraph(network_of(form.frames)))
    runtime, maps = open_runtime(form.engine), (1, form.frames, *shape)
    older, newest = (1, form.frames - N_NEWEST, *shape), (1, N_NEWEST, *shape)

    def compiled(role: str, *shapes: tuple[int, ...]) -> Graph:
        return runtime.compile(folder / f"{form.frames}-{form.groups}-{role}.onnx", shapes)

    return BlockGraphs(compiled("window", maps), compiled("older", older), compiled("newest", newest, maps), N_NEWEST)


class Stream:
    """An endless stream of noise at one hop; every measurement goes on where the last one stopped."""

    def __init__(self, graphs: BlockGraphs, frames: int, hop: int, shape: tuple[int, int]) -> None:
        engine = MergedEngine(graphs, frames, hop, "full", shape, EngineInfo("", "", "", "", 0))
        self._denoiser = StreamingDenoiser(engine, Normalization(0.0, 1.0), shape)
        self._pool = np.random.default_rng(0).standard_normal((8, *shape), np.float32)
        self._hop, self._n = hop, 0
        for _ in range(engine.window.size // hop + 2):
            self.run()

    def run(self) -> tuple[float, float]:
        """Push `hop` frames. (ms per frame, ms from the last push to its first output)."""
        start = time.perf_counter_ns()
        for _ in range(self._hop):
            pushed, wait = time.perf_counter_ns(), 0
            for _ in self._denoiser.push(Frame(self._pool[self._n % 8], FrameStamp("bench", self._n, self._n, 0))):
                wait = wait or time.perf_counter_ns() - pushed
            self._n += 1
        return (time.perf_counter_ns() - start) / 1e6 / self._hop, wait / 1e6


def _work(form: Form, shape: tuple[int, int], folder: Path, n_runs: int, pipe: Connection) -> None:
    """In the engine's own process: first the network's output on fixed noise, then a measurement for every word from the pipe."""
    graphs = graphs_of(form, shape, folder)
    window = np.random.default_rng(1).standard_normal((1, form.frames, *shape), np.float32)
    out = np.empty_like(window)
    graphs.whole.run((window,), out)
    streams = {hop: Stream(graphs, form.frames, hop, shape) for hop in HOPS}

    def measured() -> dict[int, NDArray[np.float64]]:
        streams[HOPS[0]].run()  # wakes threads and caches: we slept while others were measured
        return {hop: np.median([stream.run() for _ in range(n_runs)], axis=0) for hop, stream in streams.items()}

    serve(pipe, out, measured)


def measure(forms: Sequence[Form], shape: tuple[int, int], rounds: int, n_runs: int, console: Console) -> list[Row]:
    """All forms, in turn. The first form of every C must be eager: the others are compared with it."""
    with tempfile.TemporaryDirectory() as folder:
        console.print("exporting ...")
        export_forms(forms, Path(folder))
        outputs, figures = in_turn(_work, forms, (shape, Path(folder), n_runs), rounds, console)
    return list(_rows(figures, outputs))


def _rows(
    figures: dict[Form, list[dict[int, NDArray[np.float64]]]], outputs: dict[Form, NDArray[np.float32]]
) -> Iterator[Row]:
    eager_ms: dict[int, float] = {}
    eager_out: dict[int, NDArray[np.float32]] = {}
    for form, rounds in figures.items():
        per_hop = {hop: np.array([figure[hop] for figure in rounds]) for hop in HOPS}
        ms = {hop: float(np.median(array[:, 0])) for hop, array in per_hop.items()}
        fastest_run = min(float(array[:, 0].min()) * hop for hop, array in per_hop.items())
        reference_ms = eager_ms.setdefault(form.frames, fastest_run)
        reference = eager_out.setdefault(form.frames, outputs[form])
        yield Row(
            frames=form.frames,
            engine=form.engine,
            groups_per_branch=form.groups,
            ms_per_frame=ms,
            spread_ms={hop: (float(array[:, 0].min()), float(array[:, 0].max())) for hop, array in per_hop.items()},
            wait_ms=float(np.median(per_hop[1][:, 1])),
            worst_sd=float(np.abs(outputs[form] - reference).max() / reference.std()),
            speedup=reference_ms / ms[1],
        )


def show(console: Console, report: Report) -> None:
    table = Table(title=f"FAST at {report.shape[0]} x {report.shape[1]}, ms per frame (lowest .. highest round)")
    for column in ("C", "engine", "groups", *(f"hop {hop}" for hop in HOPS), "wait", "speed-up", "worst sd"):
        table.add_column(column)
    for row in report.rows:
        cells = (f"{row.ms_per_frame[h]:.1f} ({row.spread_ms[h][0]:.1f} .. {row.spread_ms[h][1]:.1f})" for h in HOPS)
        groups = str(row.groups_per_branch or "plain")
        ends = (f"{row.wait_ms:.1f}", f"{row.speedup:.1f}x", f"{row.worst_sd:.1e}")
        table.add_row(str(row.frames), row.engine, groups, *cells, *ends)
    console.print(table)
    console.print(report.line())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=2, default=(512, 512), metavar=("Y", "X"))
    parser.add_argument("--frames", type=int, nargs="+", default=(4, 8), help="C, frames per window")
    parser.add_argument("--groups", type=int, nargs="+", default=(2,), help="groups per branch, besides plain")
    parser.add_argument("--search", type=int, nargs="*", default=(1, 4), help="more of them, for the fastest engine")
    parser.add_argument("--engines", nargs="+", default=CPU_ENGINES, choices=CPU_ENGINES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=2, help="network runs per round, hop and form")
    parser.add_argument("--json", type=Path, default=REPORT)
    args = parser.parse_args()
    console = Console(width=150)
    forms = [Form(c, EAGER, 0) for c in args.frames]
    forms += [Form(c, engine, g) for c in args.frames for engine in args.engines for g in (0, *args.groups)]
    forms += [Form(c, args.engines[0], g) for c in args.frames for g in args.search if g not in args.groups]
    forms.sort(key=lambda form: form.frames)
    load, shape = machine.load(), (args.shape[0], args.shape[1])
    rows = measure(forms, shape, args.rounds, args.runs, console)
    weights = "C=4: demo model, else random"
    report = Report(
        load_before=load, load_after=machine.load(), shape=shape, weights=weights, rounds=args.rounds, rows=tuple(rows)
    )
    show(console, report)
    save(report, args.json)


if __name__ == "__main__":
    main()
