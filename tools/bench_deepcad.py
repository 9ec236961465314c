"""DeepCAD-RT as a stream against the authors' protocol, same weights, same frames, same engine, in one run.

The protocol (sheet B 4.6): tiles of 200 x 200 px and 40 frames that overlap by 0.4 in t, y and x, so that a new 24 frames
come out of every 40 that go in. The stream: 8 new frames per step, nothing computed twice. Both run in one process per
engine, in turn, round after round, so that what else the machine does hits both alike; PyTorch eager runs the tiles too.

    python tools/bench_deepcad.py                          # random weights at the published width, 256 x 256
    python tools/bench_deepcad.py --width 8 --shape 512 512 --engines openvino-bf16
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from bench_fast import CPU_ENGINES
from benching import EAGER, Head, apart, in_turn, save, serve, spread
from rich.console import Console
from rich.table import Table

from rtdenoise import machine
from rtdenoise.config import Settings
from rtdenoise.engine.backends import open_runtime
from rtdenoise.engine.graph import Array
from rtdenoise.engine.load import open_engine
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.normalize import Normalization
from rtdenoise.stream import StreamingDenoiser

TILE, BLOCK, OVERLAP = 200, 40, 0.4
"""The published real-time protocol (sheet B 4.3, 4.6)."""
KEPT = round(BLOCK * (1 - OVERLAP))
N_NOISE = 108
COMPARED = range(56, 64)
"""Frames of the noise that goes round, and those that are compared with PyTorch: no edge in sight."""
REPORT = Path(__file__).parents[1] / "export" / "reports" / "bench-deepcadrt.json"


@dataclass(slots=True, frozen=True)
class Asked:
    """What every process needs to know."""

    folder: Path
    shape: tuple[int, int]
    width: int
    threads: int


class Row(Settings):
    """ms per frame that comes out: median over rounds, lowest and highest.  ratio: tiles over stream, round by round.

    start_ms: the stream's first output, when it runs through a whole window.  worst_sd: the largest difference of the
    stream's output to one PyTorch pass over the same frames, in sd of that. The last three are 0 for eager.
    """

    engine: str
    stream_ms: tuple[float, float, float]
    tiles_ms: tuple[float, float, float]
    ratio: tuple[float, float, float]
    start_ms: float
    worst_sd: float


class Report(Head):
    """The whole run."""

    threads: int
    shape: tuple[int, int]
    width: int
    tiles_per_block: int
    rounds: int
    rows: tuple[Row, ...]


def n_tiles(shape: tuple[int, int]) -> int:
    """Tiles of one block of frames; the last of a row ends with the frame."""
    gap = TILE - round(TILE * OVERLAP)
    return int(np.prod([1 + -(-max(0, side - TILE) // gap) for side in shape]))


def network_of(width: int) -> Any:
    """The published network with fixed random weights. (Any: a torch module.)"""
    import torch

    from rtdenoise.methods.deepcadrt import METHOD

    torch.manual_seed(0)
    return METHOD.network(width=width).eval()


def export(width: int, shape: tuple[int, int], folder: Path) -> None:
    """In a process of its own: `bundle` with the stream, `tile.onnx`, and what PyTorch makes of frames 56 to 63."""
    import torch

    from rtdenoise.export import BundleFacts, export_bundle
    from rtdenoise.export.to_onnx import to_onnx
    from rtdenoise.methods.deepcadrt import METHOD

    network = network_of(width)
    export_bundle(METHOD, network, folder / "bundle", BundleFacts("deepcadrt", Normalization(0.0, 1.0)))
    tiles = METHOD.network(width=width, frames=BLOCK).eval()
    tiles.load_state_dict(network.state_dict())
    (folder / "tile.onnx").write_bytes(to_onnx(tiles, {"frames": BLOCK}, "denoised"))
    with torch.inference_mode():
        whole = network(torch.from_numpy(noise(shape)[None, np.arange(6, 110) % N_NOISE]))
    np.save(folder / "wanted.npy", whole[0, 50:58].numpy())


def noise(shape: tuple[int, int]) -> Array:
    """The frames that go round."""
    return np.random.default_rng(0).standard_normal((N_NOISE, *shape), np.float32)


class _Stream:
    """An endless stream of noise."""

    def __init__(self, folder: Path, engine: str, shape: tuple[int, int], threads: int) -> None:
        opened = open_engine(folder / "bundle", shape=shape, backend=engine, threads=threads)
        self.hop = opened.window.hop
        self._denoiser = StreamingDenoiser(opened, Normalization(0.0, 1.0), shape)
        self._frames, self._n = noise(shape), 0
        start_ms, outputs = 0.0, []
        while len(outputs) < COMPARED.stop:
            start = time.perf_counter_ns()
            outputs += [out.pixels.copy() for out in self._push()]
            start_ms = start_ms or (time.perf_counter_ns() - start) / 1e6 * bool(outputs)
        wanted = np.load(folder / "wanted.npy")
        error = np.abs(np.array(outputs)[COMPARED.start : COMPARED.stop] - wanted).max()
        self.start_ms, self.worst_sd = start_ms, float(error / wanted.std())

    def measure(self) -> float:
        """ms per frame over three steps."""
        n, start = 3 * self.hop, time.perf_counter_ns()
        for _ in range(n):
            for _ in self._push():
                pass
        return (time.perf_counter_ns() - start) / 1e6 / n

    def _push(self) -> Iterator[Frame]:
        frame = Frame(self._frames[self._n % N_NOISE], FrameStamp("bench", self._n, self._n, 0))
        self._n += 1
        return self._denoiser.push(frame)


class _Tiles:
    """The authors' protocol on one engine: every tile of a block of frames, of which `KEPT` are new. Eager runs one tile."""

    def __init__(self, folder: Path, engine: str, shape: tuple[int, int], threads: int, width: int) -> None:
        self._tile = np.random.default_rng(1).standard_normal((1, BLOCK, TILE, TILE), np.float32)
        self._out, self._tiles = np.empty_like(self._tile), n_tiles(shape)
        self._eager = engine == EAGER
        if self._eager:
            import torch

            torch.set_num_threads(threads)
            self._torch, self._network = torch, network_of(width)
        else:
            self._graph = open_runtime(engine, threads).compile(folder / "tile.onnx", (self._tile.shape,))
        self.measure()

    def measure(self) -> float:
        """ms per frame that comes out."""
        n, start = 1 if self._eager else self._tiles, time.perf_counter_ns()
        for _ in range(n):
            self._run()
        return (time.perf_counter_ns() - start) / 1e6 / n * self._tiles / KEPT

    def _run(self) -> None:
        if self._eager:
            with self._torch.inference_mode():
                self._out[...] = self._network(self._torch.from_numpy(self._tile)).numpy()
        else:
            self._graph.run((self._tile,), self._out)


def _work(engine: str, asked: Asked, pipe: Connection) -> None:
    """In the engine's own process: what a start costs and how exact it is, then a pair of figures for every word."""
    stream = None if engine == EAGER else _Stream(asked.folder, engine, asked.shape, asked.threads)
    tiles = _Tiles(asked.folder, engine, asked.shape, asked.threads, asked.width)
    greeting = (stream.start_ms, stream.worst_sd) if stream else (0.0, 0.0)
    serve(pipe, greeting, lambda: (stream.measure() if stream else 0.0, tiles.measure()))


def measure(engines: Sequence[str], asked: Asked, rounds: int, console: Console) -> list[Row]:
    """All engines, in turn."""
    console.print("exporting ...")
    apart(export, asked.width, asked.shape, asked.folder)
    starts, figures = in_turn(_work, engines, (asked,), rounds, console)
    return [_row(engine, np.array(figures[engine]), starts[engine]) for engine in engines]


def _row(engine: str, rounds: Array, start: tuple[float, float]) -> Row:
    ratio = rounds[:, 1] / rounds[:, 0] if rounds[:, 0].all() else np.zeros(len(rounds))
    spreads = [spread(column) for column in (rounds[:, 0], rounds[:, 1], ratio)]
    return Row(
        engine=engine,
        stream_ms=spreads[0],
        tiles_ms=spreads[1],
        ratio=spreads[2],
        start_ms=start[0],
        worst_sd=start[1],
    )


def show(console: Console, report: Report) -> None:
    size = f"{report.shape[0]} x {report.shape[1]}, width {report.width}, {report.threads} threads"
    table = Table(title=f"DeepCAD-RT at {size}: ms per frame, median (lowest .. highest round)")
    for column in (
        "engine",
        "stream",
        f"{report.tiles_per_block} tiles per block",
        "ratio",
        "first output",
        "worst sd",
    ):
        table.add_column(column)
    for row in report.rows:
        cells = [
            f"{m:.1f} ({low:.1f} .. {high:.1f})" if m else ""
            for m, low, high in (row.stream_ms, row.tiles_ms, row.ratio)
        ]
        table.add_row(row.engine, *cells, f"{row.start_ms:.0f} ms" if row.start_ms else "", f"{row.worst_sd:.1e}")
    console.print(table)
    console.print(report.line())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=2, default=(256, 256), metavar=("Y", "X"), help="at least 200 px")
    parser.add_argument("--width", type=int, default=16, help="maps of the first level; 16 as published")
    parser.add_argument("--engines", nargs="+", default=CPU_ENGINES, choices=CPU_ENGINES)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=REPORT)
    args = parser.parse_args()
    console, load, shape = Console(width=150), machine.load(), (args.shape[0], args.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(Path(folder), shape, args.width, args.threads)
        rows = measure((*args.engines, EAGER), asked, args.rounds, console)
    report = Report(
        threads=args.threads,
        load_before=load,
        load_after=machine.load(),
        shape=shape,
        width=args.width,
        tiles_per_block=n_tiles(shape),
        rounds=args.rounds,
        rows=tuple(rows),
    )
    show(console, report)
    save(report, args.json)


if __name__ == "__main__":
    main()
