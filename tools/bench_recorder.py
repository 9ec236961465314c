"""What recording costs the acquire process, how fast it empties a full ring, and up to which frame rate it loses nothing.

python tools/bench_recorder.py --size 512 --folder D:/data/bench
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from recorder_kills import Acquiring

from rtdenoise.frame import Frame, FrameStamp, StreamInfo
from rtdenoise.recording.recorder import Recorder
from rtdenoise.ringfile import default_folder
from rtdenoise.settings import RecordSettings, RunSettings
from rtdenoise.shared import SharedRing, Slot

RATES = (30.0, 100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)


@dataclass(slots=True, frozen=True)
class Figures:
    """Of one rate. cpu_ms: of all threads of the process per frame.  copy_ms: from the source into the ring (p50, p99)."""

    fps: float
    frames: int
    cpu_ms: float
    copy_ms: tuple[float, ...]
    recorded: int
    lost: int


def measure(folder: Path, size: int, fps: float, seconds: float, *, record: bool) -> Figures:
    """A run of a counting camera, recorded or not."""
    options = {"mode": "counter", "shape": [size, size], "fps": fps}
    recording = {"record": {"folder": folder / "run"}} if record else {"record": None}
    shutil.rmtree(folder / "run", ignore_errors=True)
    with Acquiring("synthetic", options, folder / "run", ring_mb=1024, **recording) as running:
        process = psutil.Process(running.process.pid)
        running.wait_until(lambda: running.ring.head > fps / 4)
        before, frames, began = process.cpu_times(), running.ring.head, time.monotonic()
        running.wait_until(lambda: time.monotonic() - began > seconds, timeout_s=seconds + 10)
        after, frames = process.cpu_times(), running.ring.head - frames
        took = time.monotonic() - began
        cpu_s = after.user + after.system - before.user - before.system
        copy = running.ring.latency["copy"].percentiles_ms(50, 99) or (0.0, 0.0)
        running.ring.ints[Slot.STOP] = 1
        running.finish()
        counts = running.slot(Slot.RECORDED), running.slot(Slot.RECORDER_LOST)
    return Figures(frames / took, frames, 1e3 * cpu_s / max(1, frames), copy, *counts)


def drain(folder: Path, size: int, n_frames: int) -> tuple[float, float]:
    """(frames per second, ms of CPU per frame) of a recorder that finds a ring full of frames. Raises RuntimeError if it loses one."""
    info = StreamInfo("full ring", (size, size), "uint16", frame_interval_s=0.001)
    pixels = np.random.default_rng(0).integers(0, 4096, (size, size)).astype(np.uint16)
    asked, series = RecordSettings(folder=folder / "run"), uuid.uuid4().hex
    shutil.rmtree(folder / "run", ignore_errors=True)
    n_bytes = (n_frames + 2) * pixels.nbytes
    with tempfile.TemporaryDirectory(dir=default_folder(n_bytes)) as ring_folder:
        ring = SharedRing.create(Path(ring_folder) / "frames.ring", info, n_frames + 2)
        recorder = Recorder(asked, RunSettings(record=asked), ring, lambda _line: None)
        for k in range(n_frames):
            ring.write(Frame(pixels, FrameStamp(series, k, k, k)), time.perf_counter_ns())
        began, cpu = time.perf_counter(), time.process_time()
        recorder.start()
        recorder.close()
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        recorded = int(ring.ints[Slot.RECORDED])
        ring.close()
    if recorded != n_frames:
        raise RuntimeError(f"{recorded} of {n_frames} frames were recorded")
    return n_frames / took, 1e3 * cpu / n_frames


def main() -> None:
    """Print a line per rate, with and without the recorder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, help="on the disk that is asked about; default: the temporary folder")
    parser.add_argument("--rates", type=float, nargs="*", default=RATES)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rtdenoise-bench-", dir=asked.folder) as folder:
        n_frames = max(100, (256 << 20) // (2 * asked.size**2))
        fps, cpu_ms = drain(Path(folder), asked.size, n_frames)
        print(
            f"{asked.size} x {asked.size}: a full ring is emptied at {fps:.0f} frames/s, {cpu_ms:.3f} ms CPU per frame"
        )
        for fps in asked.rates:
            for record in (False, True):
                got = measure(Path(folder), asked.size, fps, asked.seconds, record=record)
                kept = f"recorded {got.recorded}, lost {got.lost}" if record else "not recorded"
                print(
                    f"{asked.size} x {asked.size} at {got.fps:6.1f} of {fps:6.1f} frames/s: {got.cpu_ms:6.3f} ms CPU per frame, "
                    f"copy p50 {got.copy_ms[0]:.3f} p99 {got.copy_ms[1]:.3f} ms, {kept}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
