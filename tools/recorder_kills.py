"""Kill the process that acquires and records at random instants, and look at what it left: test 9 of the soak tests.

python tools/recorder_kills.py --kills 20
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from rtdenoise import acquire, ringfile
from rtdenoise.recording import layout, table
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot, State

PROMISE_NS = 1_000_000_000
"""Every frame older than this is on disk."""
START_TIMEOUT_S = 60.0


class Acquiring:
    """An acquire process that nobody listens to, taking frames from a source and recording them. `notes`: what it had to say.

    Frames flow from the start of the context. Raises RuntimeError with what the process could not do.
    """

    def __init__(self, source: str, options: dict[str, Any], folder: Path, **more: Any) -> None:
        values = {"source": {"name": source, "options": options}, "record": {"folder": folder}, **more}
        self.settings = RunSettings.model_validate(values)
        self._ring_path = Path(tempfile.mkdtemp(prefix="rtdenoise-kills-")) / "frames.ring"
        spawn = multiprocessing.get_context("spawn")
        self.ears, theirs = spawn.Pipe(duplex=False)
        args = (self.settings, self._ring_path, spawn.Semaphore(0), theirs)
        self.process: BaseProcess = spawn.Process(target=acquire.main, args=args, daemon=True)
        self.process.start()
        theirs.close()
        self.notes: list[str] = []
        self.ring = self._attach()

    def wait_until(self, done: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Listen until `done`. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not done():
            self.hear()
            if time.monotonic() > deadline:
                raise TimeoutError(f"it never happened; notes: {self.notes}")
            time.sleep(0.002)

    def hear(self) -> None:
        """Take in what the process has said."""
        try:
            while self.ears.poll():
                message = self.ears.recv()
                if message[0] == "note":
                    self.notes.append(message[1])
        except (EOFError, OSError):
            return

    def finish(self) -> None:
        """Let it come to its end, and hear it out."""
        self.wait_until(lambda: not self.process.is_alive())
        self.hear()

    def slot(self, slot: Slot) -> int:
        """A shared number."""
        return int(self.ring.ints[slot])

    def _attach(self) -> SharedRing:
        if not self.ears.poll(START_TIMEOUT_S):
            raise RuntimeError("the acquire process said nothing")
        message = self.ears.recv()
        if message[0] != "opened":
            self.process.join()
            raise RuntimeError(message[-1])
        return SharedRing.attach(self._ring_path)

    def __enter__(self) -> Self:
        self.ring.ints[Slot.GO] = 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ring.state not in (State.ENDED, State.FAILED):
            self.ring.ints[Slot.STOP] = 1
        self.process.join(15)
        self.process.kill()
        self.ring.close()
        ringfile.remove(self._ring_path)
        shutil.rmtree(self._ring_path.parent, ignore_errors=True)


@dataclass(slots=True, frozen=True)
class Kill:
    """What one kill left. missing: frames older than a second that are not on disk.  wrong: frames on disk that are not as they were.

    lost_ms: age of the oldest frame that is missing, at the kill.
    """

    after_frames: int
    on_disk: int
    missing: int
    wrong: int
    lost_ms: float


def kill_once(folder: Path, fps: float, shape: tuple[int, int], after_frames: int, draw: random.Random) -> Kill:
    """Record a counting movie, kill the process once it has taken so many frames, compare what is on disk with what is in the ring."""
    options = {"mode": "counter", "shape": list(shape), "fps": fps}
    with Acquiring("synthetic", options, folder, ring_s=10.0) as running:
        running.wait_until(lambda: running.ring.head >= after_frames)
        time.sleep(draw.uniform(0.0, 0.02))  # anywhere between two frames
        now = time.perf_counter_ns()
        running.process.kill()
        running.process.join()
        ring = running.ring
        taken = [frame for n in range(ring.head) if (frame := ring.frame(n)) is not None]
        ages = [now - ring.epoch_ns(frame.stamp.frame) - frame.stamp.t_in for frame in taken]
        on_disk = pixels_on_disk(folder)
        missing = [age for frame, age in zip(taken, ages, strict=True) if frame.stamp.frame >= len(on_disk)]
        same = [np.array_equal(frame.pixels, kept) for frame, kept in zip(taken, on_disk, strict=False)]
        late = sum(age > PROMISE_NS for age in missing)
        return Kill(ring.head, len(on_disk), late, same.count(False), max(missing, default=0) / 1e6)


def pixels_on_disk(folder: Path, series: str = "raw-000") -> np.ndarray[Any, Any]:
    """(n, Y, X) frames of a series of one channel and plane that its tables call good, read with nothing but zarr."""
    import zarr

    if not layout.index_file(folder, series).exists():
        return np.zeros((0, 1, 1))
    movie = zarr.open_group(str(layout.array_folder(folder, series)), mode="r")["0"]
    stamps = table.read_stamps(layout.stamps_file(folder, series))
    n = min(len(stamps["t"]), movie.shape[0])
    pixels: np.ndarray[Any, Any] = np.asarray(movie[:n, 0, 0])
    return pixels


def kill_at_random_instants(
    folder: Path, n: int, *, seed: int = 0, fps: float = 200.0, shape: tuple[int, int] = (64, 64), max_s: float = 2.0
) -> list[Kill]:
    """`n` recordings, each killed at a random instant of its first `max_s` seconds; each is deleted once it was looked at."""
    draw = random.Random(seed)
    kills = []
    for i in range(n):
        run = folder / f"kill-{i:03d}"
        kills.append(kill_once(run, fps, shape, 1 + int(draw.uniform(0, max_s) * fps), draw))
        shutil.rmtree(run)
    return kills


def main() -> None:
    """Print one line per kill, then whether the promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fps", type=float, default=200.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rtdenoise-kills-") as folder:
        kills = kill_at_random_instants(Path(folder), asked.kills, seed=asked.seed, fps=asked.fps)
    for kill in kills:
        print(f"{kill.after_frames:5d} taken, {kill.on_disk:5d} on disk, youngest {kill.lost_ms:6.0f} ms missing")
    broken = sum(bool(kill.missing or kill.wrong) for kill in kills)
    print(f"{len(kills)} kills, {broken} broken promises, worst {max(kill.lost_ms for kill in kills):.0f} ms")
    raise SystemExit(broken > 0)


if __name__ == "__main__":
    main()
