"""Rolling recordings: each series on disk is checksummed against what was sent, then deleted, while the run goes on."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import RtDenoiseError
from rtdenoise.recording import layout, table
from rtdenoise.settings import RunSettings
from rtdenoise.shared import DROP_REASONS
from rtdenoise.summary import Summary
from soaks.asked import MAX_DISK_BYTES, Asked
from soaks.disk import TooMuch, check_disk
from soaks.loads import Load, run_settings
from soaks.report import Row, at_most, none_of, told

SEGMENT_BYTES = 1 << 30
"""Pixels of a segment: at most three are on disk at once, the one that is written, the one that is looked at, and one that waits."""
LOOK_S = 1.0
CHUNK_FRAMES = 32
RECORDING = "recording"
MANY = 100_000
"""Series: more than anybody waits for."""
BEFORE_THE_RING = tuple(reason for reason in DROP_REASONS if reason.startswith(("source", "acquire")))


@dataclass(slots=True)
class Tally:
    """What became of the segments. n_frames: that were read again.  wrong: segments whose checksum is another one."""

    n_segments: int = 0
    n_frames: int = 0
    wrong: list[str] = field(default_factory=list)
    most_bytes: int = 0


class Checker:
    """A process that looks at every finished series below `folder` and deletes it. `tally` is its last word."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_check, args=(folder, most_bytes, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.tally = Tally()

    def hear(self) -> Tally:
        """Take in what it has said."""
        with suppress(EOFError, OSError):
            while self._pipe.poll():
                self.tally = self._pipe.recv()
        return self.tally

    def finish(self) -> Tally:
        """After the run: every series that is left, then its last word."""
        with suppress(OSError):
            self._pipe.send("finish")
        self.process.join(120)
        tally = self.hear()
        self.process.kill()
        return tally

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.join(5)
        self._pipe.close()


def segment_frames(shape: tuple[int, int], fps: float) -> int:
    """Frames of a series: a minute, within SEGMENT_BYTES of uint16."""
    return max(2, min(round(60 * fps), SEGMENT_BYTES // (2 * shape[0] * shape[1])))


def rolling_settings(load: Load, asked: Asked, **more: Any) -> RunSettings:
    """Of a run without end; of series after series where they are recorded, so that each can be looked at and deleted."""
    if not asked.record:
        return run_settings(load, asked, **more)
    folder = asked.work / f"recording-{load.name}"
    shutil.rmtree(folder, ignore_errors=True)
    n_frames = segment_frames(asked.shape if any(asked.shape) else load.shape, load.fps / asked.speed)
    return run_settings(load, asked, n_frames=n_frames, n_series=MANY, record={"folder": folder}, **more)


def recorded_part(tally: Tally, summary: Summary, lost: int) -> dict[str, Any]:
    """What is kept of a recording. lost: frames that the recorder itself says it lost."""
    taken = summary.delivered + sum(n for why, n in summary.dropped.items() if why not in BEFORE_THE_RING)
    return asdict(tally) | {"lost": lost, "taken": taken}


def recorded_rows(parts: Sequence[dict[str, Any]]) -> list[Row]:
    """Segments whose checksum is that of what was sent, and nothing lost on the way to the disk."""
    total = {name: sum(part[name] for part in parts) for name in ("n_segments", "n_frames", "lost", "taken")}
    wrong = [line for part in parts for line in part["wrong"]]
    return [
        none_of("recorded segments that are not what was sent", len(wrong), total["n_segments"], "segments"),
        none_of("frames that the recorder lost", total["lost"], total["n_frames"], "frames"),
        none_of("frames taken and not on disk", total["taken"] - total["n_frames"], total["taken"], "frames"),
        at_most("disk", MAX_DISK_BYTES / 2**20, [part["most_bytes"] / 2**20 for part in parts], "MiB"),
        *(told("segment", line) for line in wrong[:5]),
    ]


def _check(folder: Path, most_bytes: int, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tally, is_last = Tally(), False
    while True:
        for series in _finished(folder):
            _look_at(folder, series, tally)
        try:
            tally.most_bytes = max(tally.most_bytes, check_disk(folder, most_bytes))
        except TooMuch as error:
            tally.wrong.append(str(error))
        pipe.send(tally)
        if is_last:
            return
        is_last = pipe.poll(LOOK_S)


def _finished(folder: Path) -> Iterator[str]:
    for series in layout.series_names(folder):
        with suppress(RtDenoiseError):
            if layout.read_json(layout.index_file(folder, series))["state"] != RECORDING:
                yield series


def _look_at(folder: Path, series: str, tally: Tally) -> None:
    stamps = table.read_stamps(layout.stamps_file(folder, series))
    numbers, n = stamps["src_frame"], len(stamps["src_frame"])
    on_disk, sent = hashlib.sha256(), hashlib.sha256()
    movie = _movie(folder, series)
    for first in range(0, n, CHUNK_FRAMES):
        some = numbers[first : first + CHUNK_FRAMES]
        on_disk.update(np.ascontiguousarray(movie[first : first + len(some), 0, 0]).data)
        sent.update(counter_frames(some, movie.shape[-2:]).data)
    if on_disk.digest() != sent.digest() or not n:
        tally.wrong.append(f"{series}: {n} frames, checksum {on_disk.hexdigest()[:12]}, sent {sent.hexdigest()[:12]}")
    tally.n_segments, tally.n_frames = tally.n_segments + 1, tally.n_frames + n
    shutil.rmtree(layout.array_folder(folder, series))
    for path in (layout.index_file(folder, series), layout.stamps_file(folder, series)):
        path.unlink()


def _movie(folder: Path, series: str) -> Any:  # Any: an array of zarr, which has no types of its own
    import zarr

    return zarr.open_group(str(layout.array_folder(folder, series)), mode="r")["0"]


def counter_frames(numbers: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.uint16]:
    """(n, Y, X) of what the synthetic source sent under these camera numbers."""
    frames = np.empty((len(numbers), *shape), np.uint16)
    frames[...] = (numbers & 0xFFFF).astype(np.uint16)[:, None, None]
    frames[:, 0, 0] = (numbers >> 16 & 0xFFFF).astype(np.uint16)
    return frames
