"""What the pipeline itself costs: no network (`identity`), raw and denoised streams to a subscriber in another process.

Flat out, nothing lost: frames per second, beside bare pyzmq that sends the same messages, in turn. Then, at a fixed rate, the
latency from a frame's arrival in our process to its denoised form at the subscriber, and what bare pyzmq needs at that rate for the
same pair of messages: the part of it that no pipeline can save.

    python tools/bench_pipeline.py                # under a minute
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np
import zmq
from bench_wire import bare_fps
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rtdenoise import machine
from rtdenoise.bench import BenchReport, BenchSettings, run_bench
from rtdenoise.config import Settings
from rtdenoise.settings import EngineSettings

REPORT = Path(__file__).parents[1] / "export" / "reports" / "bench-pipeline.json"
MIN_FPS, MIN_RATIO, MAX_P50_MS, MAX_P99_MS = 1000.0, 0.4, 1.0, 5.0
"""What we hold ourselves to at 512 x 512 on two idle cores."""
FIRST_FRAMES = 500
"""Bare frames that are sent before anything is measured, so that both sides meet a warm machine."""


class Report(Settings):
    """fps, bare_fps: one figure per repeat, taken in turn.  ratio: the median of fps over that of bare_fps, and pair by pair.

    lost: messages that did not arrive in any repeat.  paced: the run at a fixed rate.
    bare_paced_ms: p50, p95, p99 of bare pyzmq at that rate, from before the raw message is sent to after the denoised one came.
    """

    date: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    shape: tuple[int, int]
    frames: int
    fps: tuple[float, ...]
    bare_fps: tuple[float, ...]
    ratio: float
    ratios: tuple[float, ...]
    lost: int
    bare_paced_ms: tuple[float, float, float]
    paced: BenchReport

    def verdicts(self) -> dict[str, tuple[str, bool]]:
        """Target -> (what was measured, whether it was met)."""
        total = self.paced.stages["total"]
        lost_paced = sum(self.paced.lost.values()) + sum(self.paced.dropped.values())
        return {
            f"at least {MIN_FPS:.0f} frames/s": (_spread(self.fps), median(self.fps) >= MIN_FPS),
            "no frame lost": (f"{self.lost} flat out, {lost_paced} paced", self.lost + lost_paced == 0),
            f"at least {MIN_RATIO} of bare pyzmq": (
                f"{self.ratio:.2f} of {_spread(self.bare_fps)}, pair by pair {_spread(self.ratios, 2)}",
                self.ratio >= MIN_RATIO,
            ),
            f"p50 under {MAX_P50_MS:g} ms": (
                f"{total.p50_ms:.2f} ms, bare {self.bare_paced_ms[0]:.2f}",
                total.p50_ms < MAX_P50_MS,
            ),
            f"p99 under {MAX_P99_MS:g} ms": (
                f"{total.p99_ms:.2f} ms, bare {self.bare_paced_ms[2]:.2f}",
                total.p99_ms < MAX_P99_MS,
            ),
        }


def measure(shape: tuple[int, int], n_frames: int, repeats: int, paced_fps: float, seconds: float) -> Report:
    """Bare and pipeline in turn, then the paced run."""
    identity = EngineSettings(model="identity")
    flat_out = BenchSettings(engine=identity, shape=shape, fps=None, frames=n_frames)
    bare_fps(shape, FIRST_FRAMES)
    bare, runs = [], []
    for _ in range(repeats):
        bare.append(bare_fps(shape, n_frames))
        runs.append(run_bench(flat_out))
    fps = [run.fps for run in runs]
    paced = run_bench(BenchSettings(engine=identity, shape=shape, fps=paced_fps, seconds=seconds))
    return Report(
        shape=shape,
        frames=n_frames,
        fps=tuple(fps),
        bare_fps=tuple(bare),
        ratio=median(fps) / median(bare),
        ratios=tuple(ours / theirs for ours, theirs in zip(fps, bare, strict=True)),
        lost=sum(_lost(run, n_frames) for run in runs),
        bare_paced_ms=bare_paced_ms(shape, paced_fps, round(seconds * paced_fps)),
        paced=paced,
    )


def bare_paced_ms(shape: tuple[int, int], fps: float, n_frames: int) -> tuple[float, float, float]:
    """Latency percentiles of plain pyzmq, two messages per frame from buffers that exist, at a fixed rate."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = [context.socket(zmq.XPUB) for _ in range(2)]
    for each in sockets:
        each.bind("tcp://127.0.0.1:*")
    spawn = multiprocessing.get_context("spawn")
    pipe, theirs = spawn.Pipe()
    endpoints = [each.getsockopt_string(zmq.LAST_ENDPOINT) for each in sockets]
    receiver = spawn.Process(target=_receive_bare_paced, args=(endpoints, n_frames, theirs), daemon=True)
    receiver.start()
    bodies = [np.ones((8, *shape), dtype) for dtype in ("uint16", "float32")]
    for each in sockets:
        each.recv()  # the subscription
    began = time.perf_counter()
    for i in range(n_frames):
        time.sleep(max(0.0, began + i / fps - time.perf_counter()))
        sent = b"%d" % time.perf_counter_ns()
        for each, body in zip(sockets, bodies, strict=True):
            each.send(sent, zmq.SNDMORE)
            each.send(body[i % 8].data, copy=False)
    p50, p95, p99 = pipe.recv()
    receiver.join()
    context.destroy(linger=0)
    return float(p50), float(p95), float(p99)


def _receive_bare_paced(endpoints: list[str], n_frames: int, pipe: Connection) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = [context.socket(zmq.SUB) for _ in endpoints]
    for each, endpoint in zip(sockets, endpoints, strict=True):
        each.setsockopt(zmq.SUBSCRIBE, b"")
        each.connect(endpoint)
    latencies_ms = []
    for _ in range(n_frames):
        for each in sockets:
            sent, _ = each.recv_multipart(copy=False)
        latencies_ms.append((time.perf_counter_ns() - int(sent.bytes)) / 1e6)
    pipe.send(np.percentile(latencies_ms, [50, 95, 99]).tolist())
    context.destroy(linger=0)


def _lost(run: BenchReport, n_frames: int) -> int:
    return sum(run.dropped.values()) + sum(n_frames - received for received in run.received.values())


def _spread(values: tuple[float, ...], digits: int = 0) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def show(console: Console, report: Report) -> bool:
    """Print it; True when every target was met."""
    verdicts = report.verdicts()
    table = Table("target", "measured", "", title=f"{report.shape[0]} x {report.shape[1]} uint16, raw and denoised")
    for target, (measured, met) in verdicts.items():
        table.add_row(target, measured, "met" if met else "[red]missed[/red]")
    console.print(table)
    report.paced.show(console)
    return all(met for _, met in verdicts.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=2, default=(512, 512), metavar=("Y", "X"))
    parser.add_argument("--frames", type=int, default=4000, help="per repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fps", type=float, default=100.0, help="of the paced run")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the paced run")
    parser.add_argument("--json", type=Path, default=REPORT)
    args = parser.parse_args()
    report = measure((args.shape[0], args.shape[1]), args.frames, args.repeats, args.fps, args.seconds)
    met = show(Console(width=140), report)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if not met and (busy := machine.load()) is not None and busy > 0.5:
        print(f"other programs keep this machine busy (load {busy}); run it again when it is quiet")
    sys.exit(not met)


if __name__ == "__main__":
    main()
