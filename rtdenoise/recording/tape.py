"""One stream of a run on its way to disk: whatever the disk does is counted and said, never raised."""

from __future__ import annotations

import errno
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

import numpy as np

from rtdenoise.frame import Frame, StreamInfo
from rtdenoise.recording import layout
from rtdenoise.recording.array import lay_out
from rtdenoise.recording.series import SeriesWriter
from rtdenoise.recording.table import LOSSES, GrowingTable

FLUSH_S = 0.25
"""How often readers are told of new frames. Engineering choice: a quarter of what a killed process may cost."""
RETRY_S = 1.0
"""How often a disk that was full is tried again, and what is left on it is looked up. Engineering choice."""
LOCKED_FLUSHES = 8
"""Flushes in vain before somebody is told. Engineering choice: two seconds, longer than a copy holds a small file."""
RESERVE_BYTES = 128 << 10
"""Put by in a file of its own, for the stamps when the disk is full. Engineering choice: `FLUSH_S` of them at 10,000 frames/s."""
WARN_S = 300.0
"""Room for less than this is said once. Engineering choice."""
DISK_FULL = "recorder: disk full"
DISK_GONE = "recorder: the folder cannot be written"
FAILED = "recorder: failed"
OVERWRITTEN = "recorder: overwritten before it was written"
IN_THE_SOURCE = "source: lost before it reached the ring"
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


class TapeState(IntEnum):
    """What a recording is doing. INTERRUPTED: the disk is full or gone, frames are being lost, it is tried again every second."""

    OFF = 0
    RECORDING = 1
    INTERRUPTED = 2
    COMPLETE = 3
    FAILED = 4


class Tape:
    """Writes the frames of one stream, series after series, into a recording's folder. Used by one thread.

    stream: layout.RAW or layout.DENOISED.  say: gets a line for a person when recording stops, goes on, or space runs low.
    share: of the disk that this stream will take, others the rest.
    written, lost: frames; together they are every frame that was offered.  n_bytes: pixels.  seconds_left: room on the disk.
    """

    def __init__(
        self,
        folder: Path,
        stream: str,
        info: StreamInfo,
        dtype: str,
        columns: Sequence[str],
        say: Callable[[str], None],
        share: float = 1.0,
    ) -> None:
        self.folder, self.state = folder, TapeState.RECORDING
        self.written = self.lost = self.n_bytes = 0
        self._stream, self._columns, self._say = stream, columns, say
        self._documents = lay_out(info, dtype)
        self._reserve = folder / f"{stream}.reserve"
        self._put_by()
        self._losses = GrowingTable(layout.losses_file(folder, stream), LOSSES)
        self._frame_bytes = frame_bytes(info, dtype)
        self._share = share
        self._rate = bytes_per_second(info, dtype)
        self.seconds_left = shutil.disk_usage(folder).free * share / self._rate
        self._warned = False
        self._series: SeriesWriter | None = None
        self._n_series = 0
        self._missing: Counter[str] = Counter()
        self._why = ""
        self._n_locked = 0
        self._since = self.lost
        self._flushed = self._looked = time.monotonic()
        self._bytes_then = 0

    def write(
        self, frame: Frame, epoch_ns: int, intact: Callable[[], bool] = lambda: True, more: Sequence[object] = ()
    ) -> None:
        """Offer the next frame. `intact`: asked after its pixels were written, whether they were still those of the frame."""
        if self.state == TapeState.INTERRUPTED and not self._may_retry():
            self.lose(1, self._why)
            return
        try:
            series = self._series_of(frame, epoch_ns)
            place = series.put(frame)
        except OSError as error:
            self._interrupt(error)
            self.lose(1, self._why)
            return
        if not intact():
            self.lose(1, OVERWRITTEN)
            return
        if self.state == TapeState.INTERRUPTED:
            self._resume()
        self._note_losses(series, frame)
        series.keep(frame, place, more)
        self.written += 1
        self.n_bytes += self._frame_bytes

    def lose(self, n: int, reason: str) -> None:
        """`n` frames of this stream were not written, just before the next one that is."""
        self.lost += n
        self._missing[reason] += n

    def tick(self) -> None:
        """Let readers see what is new, and look at the room that is left, each when it is time."""
        now = time.monotonic()
        if now - self._flushed >= FLUSH_S and self.state == TapeState.RECORDING:
            self._flushed = now
            self._flush()
        if now - self._looked >= RETRY_S:
            self._look_at_room(now - self._looked)
            self._looked = now

    def close(self) -> None:
        """Complete the series."""
        if self._end_series():
            self.state = TapeState.COMPLETE
        self._use_reserve()

    def _series_of(self, frame: Frame, epoch_ns: int) -> SeriesWriter:
        if self._series is not None and self._series.id == frame.stamp.series:
            return self._series
        self._end_series()
        name = layout.series_name(self._stream, self._n_series)
        self._series = SeriesWriter(self.folder, name, self._documents, self._columns, frame, epoch_ns)
        self._n_series += 1
        return self._series

    def _end_series(self) -> bool:
        """False when its end could not be written."""
        if self._series is None:
            return self.state == TapeState.RECORDING
        for reason, n in self._missing.items():
            self._losses.add((self._series.name, self._series.next_frame, n, reason))
        self._missing.clear()
        written = self._flush("complete")
        if unsaid := self._series.forget():  # pixels that no table speaks of are not a recording
            self.written, self.lost = self.written - unsaid, self.lost + unsaid
        self._series.let_go()
        self._series = None
        return written

    def _flush(self, state: str = "recording") -> bool:
        try:
            if self._series is not None:
                self._series.flush(state)
            self._losses.flush()
        except PermissionError as error:  # Windows: another program has one of the files open; pixels go on
            self._note_lock(error)
            return False
        except OSError as error:
            self._interrupt(error)
            return False
        return True

    def _note_lock(self, error: OSError) -> None:
        """Say it once, when it has lasted: a program that copies a file lets go of it soon."""
        self._n_locked += 1
        if self._n_locked == LOCKED_FLUSHES:
            name = error.filename2 or error.filename or self.folder
            self._say(f"{name}: another program has it open, close it there; the frames are kept, their stamps wait")

    def _note_losses(self, series: SeriesWriter, frame: Frame) -> None:
        if frame.stamp.dropped:
            self._losses.add((series.name, series.number(frame), frame.stamp.dropped, IN_THE_SOURCE))
        for reason, n in self._missing.items():
            self._losses.add((series.name, series.number(frame), n, reason))
        self._missing.clear()

    def _interrupt(self, error: OSError) -> None:
        """Stop for now, and say so once."""
        first, self.state = self.state == TapeState.RECORDING, TapeState.INTERRUPTED
        self._why = DISK_FULL if error.errno in _FULL else DISK_GONE
        self._looked = time.monotonic()
        if self._series is not None:
            self._series.let_go()
        if not first:
            return
        self._since = self.lost
        self._flush_quietly()
        self._say(
            f"{self.folder}: recording has stopped, {self._why.removeprefix('recorder: ')} ({error.strerror or error}); "
            f"{self.written} frames are on disk, acquisition and preview go on; make room and it goes on too"
        )

    def _flush_quietly(self) -> None:
        """What was put by makes room for the stamps of the frames that are on the disk already."""
        self._use_reserve()
        try:
            if self._series is not None:
                self._series.flush("interrupted")
        except OSError:
            return  # they wait, and are written when the disk has room again

    def _put_by(self) -> None:
        with suppress(OSError):  # a full disk gives none; then the last quarter of a second has no stamps
            self._reserve.write_bytes(bytes(RESERVE_BYTES))

    def _use_reserve(self) -> None:
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _may_retry(self) -> bool:
        now = time.monotonic()
        if now - self._looked < RETRY_S:
            return False
        self._looked = now
        try:
            if self._series is not None:
                self._series.check()
            return shutil.disk_usage(self.folder).free > 2 * self._frame_bytes
        except OSError:
            return False

    def _resume(self) -> None:
        self.state = TapeState.RECORDING
        self._put_by()
        self._say(f"{self.folder}: recording goes on; {self.lost - self._since} frames are missing")

    def _look_at_room(self, seconds: float) -> None:
        rate = (self.n_bytes - self._bytes_then) / seconds
        self._bytes_then = self.n_bytes
        try:
            self.seconds_left = shutil.disk_usage(self.folder).free * self._share / (rate or self._rate)
        except OSError:
            self.seconds_left = 0.0
        if self.seconds_left < WARN_S and not self._warned and self.state == TapeState.RECORDING:
            self._warned = True
            self._say(f"{self.folder}: room for {in_words(self.seconds_left)} of recording is left")


def frame_bytes(info: StreamInfo, dtype: str) -> int:
    """Bytes of one frame's pixels."""
    return info.shape[0] * info.shape[1] * np.dtype(dtype).itemsize


def bytes_per_second(info: StreamInfo, dtype: str) -> float:
    """What a stream will write; at 100 frames/s where the source does not say its rate."""
    fps = info.fps or 100.0
    return fps * frame_bytes(info, dtype)


def in_words(seconds: float) -> str:
    """'8.3 h', '4.0 min' or '7 s'."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
