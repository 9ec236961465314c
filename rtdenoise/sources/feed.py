"""What every source that is sent frames has in common: order, loss, waiting, the end. What differs is behind a `Door`."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rtdenoise.errors import EndOfStream, GeometryChanged, SourceError, SourceStalled
from rtdenoise.frame import FRAME_DTYPES, Frame, FrameStamp, Pixels, check_frame
from rtdenoise.sources.base import DeviceClock, SeriesClock, SourceStats, StreamInfo
from rtdenoise.sources.door import BadMessage, Door, Exposure, FeedSettings
from rtdenoise.sources.numbering import REORDER, Key, Numbering

SLICE_S = 0.05
"""Longest wait before a stop is looked for: a stop request is honoured within 100 ms."""
PATIENCE_S = 1.0
"""A person is told what we wait for when nothing has come for so long. Engineering choice."""
MAX_TAKEN = 1000
"""Exposures taken from a socket in one go, so that a sender faster than we can read does not hold us for ever. Engineering choice."""
MAX_ASTRAY = 2
"""Exposures kept until it is clear whether the device began to count anew: the first of each of two channels. Engineering choice."""
_CLOSE_S = 1.0
_REMEMBERED_SERIES = 16


@dataclass(slots=True, frozen=True)
class _Waiting:
    exposure: Exposure
    t_in: int
    lost: int


class Feed:
    """A Source in front of a `Door`.

    `stamp.dropped` and `stats().dropped` are frames that the device counted and we never got; `skipped` those that waited too long.
    Frames that were sent before start() belong to no series, unless the sender waits for us. A sender that begins to count anew ends
    the series: start() takes the next one from its first frame on. What is not a frame is counted in stats(), never raised.
    `say` gets a line for a person while open() waits.
    """

    def __init__(self, door: Door, settings: FeedSettings) -> None:
        self._door, self._settings = door, settings
        self.say: Callable[[str], None] = lambda line: None
        self._info: StreamInfo | None = None
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._stopped.set()
        self._ahead: list[Exposure] = []
        self._over: deque[str] = deque(maxlen=_REMEMBERED_SERIES)
        self._native: dict[int, Pixels] = {}
        self._reset()

    @property
    def clock(self) -> SeriesClock:
        """Clock of the current series."""
        return self._clock

    def open(self) -> StreamInfo:
        """Connect and wait for whatever tells the geometry. Raises ConfigError, or SourceStalled after `first_frame_s`, ..."""
        self.close()
        with self._lock:
            self._stopped.clear()
            try:
                self._door.connect()
                self._info = self._await_info()
            except BaseException:
                self._door.close()
                raise
            finally:
                self._stopped.set()
            return self._info

    def start(self) -> None:
        """Begin a new series. Raises SourceError before open()."""
        self.stop()
        with self._lock:
            if self._info is None:
                raise SourceError(f"{self._door.name} is not open; call open() before start()")
            ahead, self._ahead = self._ahead, []
            self._reset()
            self._door.begin()
            if not ahead:
                self._door.forget()
            for exposure in ahead:
                self._take(exposure)
            self._stopped.clear()

    def read(self, timeout_s: float = 1.0) -> Frame | None:
        """The next frame, valid until the next read; None when there is none in time. Raises EndOfStream or a SourceError."""
        deadline = time.perf_counter() + timeout_s
        with self._lock:
            while not self._stopped.is_set() and self._info is not None:
                if not self._images and not self._next_exposure():
                    left = deadline - time.perf_counter()
                    if self._end is not None:
                        raise EndOfStream(self._end)
                    if not self._wait(min(max(left, 0.0), SLICE_S)) and left <= 0:
                        return None
                    continue
                return self._hand_out(self._info)
        raise EndOfStream(f"{self._door.name}: stopped after {self._n_read} frames")

    def backlog(self) -> int:
        """Frames that wait to be read."""
        return len(self._images) + sum(len(waiting.exposure.images) for waiting in list(self._queue))

    def stats(self) -> SourceStats:
        """Totals of this series, or of the last one."""
        return replace(self._stats)

    def stop(self) -> None:
        """End the series; frames that were not read are counted as skipped. A read that waits ends within 100 ms."""
        self._stopped.set()
        if self._lock.acquire(timeout=_CLOSE_S):
            try:
                self._stats.skipped += len(self._images) + sum(len(w.exposure.images) for w in self._queue)
                self._queue.clear()
                self._images.clear()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Stop and let go of the device."""
        self.stop()
        if self._lock.acquire(timeout=_CLOSE_S):
            try:
                self._door.close()
                self._info = None
                self._ahead.clear()
            finally:
                self._lock.release()

    def _reset(self) -> None:
        self._clock, self._stats, self._numbering = SeriesClock(), SourceStats(), Numbering()
        self._queue: deque[_Waiting] = deque()
        self._images: deque[tuple[Pixels, FrameStamp]] = deque()
        self._lost: Counter[Key] = Counter()
        self._n_read = 0
        self._end: str | None = None
        self._series = ""
        self._astray: list[Exposure] = []
        self._device = DeviceClock()
        self._last_news = time.perf_counter()

    def _await_info(self) -> StreamInfo:
        began, said = time.perf_counter(), False
        while not self._stopped.is_set():
            info = self._door.look(SLICE_S)
            if info is not None:
                return self._checked(info)
            if time.perf_counter() - began > self._settings.first_frame_s:
                raise SourceStalled(
                    f"{self._door.name} has sent nothing in {self._settings.first_frame_s:g} s: {self._door.advice}"
                )
            if not said and time.perf_counter() - began > PATIENCE_S:
                self.say(f"waiting for {self._door.name}: {self._door.advice}")
                said = True
        raise SourceError(f"{self._door.name} was closed while it was being opened")

    def _checked(self, info: StreamInfo) -> StreamInfo:
        if info.dtype not in FRAME_DTYPES:
            raise SourceError(
                f"{self._door.name} delivers {info.dtype} pixels; rtdenoise takes {', '.join(FRAME_DTYPES)}"
            )
        rate = self._settings.frame_rate_hz
        return replace(info, frame_interval_s=1.0 / rate) if rate else info

    def _wait(self, timeout_s: float) -> bool:
        """Whether something came. Raises SourceStalled after a long silence, and goes on when asked again."""
        if self._receive(timeout_s):
            return True
        silent_s = time.perf_counter() - self._last_news
        if silent_s > self._settings.stall_timeout_s:
            self._last_news = time.perf_counter()
            raise SourceStalled(f"{self._door.name} has sent nothing for {silent_s:.1f} s: {self._door.advice}")
        return False

    def _next_exposure(self) -> bool:
        """Put the images of the oldest exposure in hand."""
        if self._door.drains:
            for _ in range(MAX_TAKEN):
                if self._end is not None or not self._receive(0.0):
                    break
        if not self._queue:
            return False
        waiting = self._queue.popleft()
        exposure = waiting.exposure
        t_src = self._device.source_ns(exposure.time_ns, waiting.t_in)
        self._stats.time_back = self._device.went_back
        for i, pixels in enumerate(exposure.images):
            key = (exposure.channel + i, exposure.plane)
            dropped = waiting.lost + self._lost.pop(key, 0)
            stamp = FrameStamp(self._clock.series, 0, exposure.number, waiting.t_in, t_src, 0, key[0], key[1], dropped)
            self._images.append((pixels, stamp))
        return True

    def _receive(self, timeout_s: float) -> bool:
        """Take what comes next, if anything does."""
        if self._end is not None:
            return False
        try:
            exposure = self._door.receive(timeout_s)
        except BadMessage:
            self._stats.bad += 1
            return True
        except GeometryChanged:
            self._stats.bad += 1
            raise
        except EndOfStream as end:
            self._end = str(end)
            return True
        if exposure is None:
            return False
        self._last_news = time.perf_counter()
        self._take(exposure)
        return True

    def _take(self, exposure: Exposure) -> None:
        """Queue an exposure, or count why not."""
        if exposure.series in self._over:
            self._stats.late += 1
            return
        if exposure.series != self._series and self._series:
            self._over.append(self._series)
            self._finish([exposure])
            return
        self._series = exposure.series
        verdict, missing = self._numbering.judge(exposure.key, exposure.number)
        if verdict == "next":
            self._astray.clear()
            self._enqueue(exposure, missing)
        elif verdict == "repeated":
            self._stats.repeated += 1
        elif verdict == "restart":
            anew = [e for e in self._astray if abs(e.number - exposure.number) <= REORDER]
            self._stats.late -= len(anew)
            self._finish([*anew, exposure])
        else:
            self._stats.late += 1
            self._astray = [*self._astray, exposure][-MAX_ASTRAY:] if verdict == "astray" else self._astray

    def _finish(self, ahead: list[Exposure]) -> None:
        self._ahead = ahead
        self._end = f"{self._door.name} began to count anew: the series of {self._stats.received} frames is over"

    def _enqueue(self, exposure: Exposure, missing: int) -> None:
        n = len(exposure.images)
        self._stats.dropped += missing * n
        self._queue.append(_Waiting(exposure, self._clock.now_ns(), missing))
        self._stats.max_backlog = max(self._stats.max_backlog, len(self._queue) * n)
        if len(self._queue) > self._settings.queue_frames:
            oldest = self._queue.popleft()
            self._stats.skipped += len(oldest.exposure.images)
            for i in range(len(oldest.exposure.images)):
                self._lost[oldest.exposure.channel + i, oldest.exposure.plane] += oldest.lost

    def _hand_out(self, info: StreamInfo) -> Frame:
        pixels, stamp = self._images.popleft()
        if not pixels.dtype.isnative:
            pixels = self._swapped(pixels)
        try:
            check_frame(pixels, info.shape, info.dtype)
        except GeometryChanged as changed:
            self._stats.bad += 1
            raise GeometryChanged(f"{self._door.name}: {changed}") from None
        if self._settings.n_frames is not None and self._stats.received + 1 >= self._wanted(info):
            self._end = f"{self._door.name}: all {self._stats.received + 1} frames are in"
            self._drop_rest()
        frame = Frame(pixels, replace(stamp, frame=self._n_read))
        self._n_read += 1
        self._stats.received += 1
        return frame

    def _wanted(self, info: StreamInfo) -> int:
        return (self._settings.n_frames or 0) * info.channels * info.planes

    def _drop_rest(self) -> None:
        """What waits beyond the last frame that was asked for belongs to no series."""
        self._stats.dropped -= sum(w.lost * len(w.exposure.images) for w in self._queue)
        self._queue.clear()
        self._images.clear()

    def _swapped(self, pixels: Pixels) -> Pixels:
        """The same values in this machine's byte order, in memory that is reused."""
        native = self._native.get(pixels.size)
        if native is None or native.shape != pixels.shape or native.dtype != pixels.dtype.newbyteorder("="):
            self._native.clear()
            native = self._native[pixels.size] = np.empty(pixels.shape, pixels.dtype.newbyteorder("="))
        np.copyto(native, pixels)
        return native
