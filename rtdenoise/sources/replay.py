"""A recorded movie as a camera: at its own rate, at a chosen one, or as fast as frames are read."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from rtdenoise import config
from rtdenoise.errors import ConfigError, EndOfStream, FileFormatError, SourceError
from rtdenoise.files import Movie, MovieInfo, open_movie
from rtdenoise.files.prefetch import ImageSupply, Prefetcher, Preloaded, Span
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.sources.base import SeriesClock, SourceStats, StreamInfo


class ReplaySettings(config.Settings):
    """What to play and how.

    path: a movie, a folder or a pattern (see `files.open_movie`); channels, dataset: passed on to it.
    rate: `file` (the rate in the file), `max` (as fast as frames are read), or frames per second of one channel and plane.
    start, stop: time points, stop not included.  loop: begin again at the end.  n_frames: time points in a series; None for the
    whole movie, or for no end with `loop`.
    live: lose the oldest frames when the reader is more than `capacity` behind, as a camera does; else wait for the reader.
    preload: hold the movie in memory, so that a benchmark measures neither disk nor decoder.
    """

    path: Path
    rate: Literal["file", "max"] | PositiveFloat = "file"
    channels: int | None = Field(default=None, ge=1)
    dataset: str | None = None
    start: int = Field(default=0, ge=0)
    stop: int | None = Field(default=None, ge=1)
    loop: bool = False
    n_frames: int | None = Field(default=None, ge=1)
    live: bool = False
    capacity: int = Field(default=64, ge=1)
    preload: bool = False

    @model_validator(mode="after")
    def _live_has_a_rate(self) -> Self:
        if self.live and self.rate == "max":
            raise ValueError("live needs a rate: give frames per second, or rate = 'file'")
        return self


class ReplaySource:
    """Plays a movie on an absolute schedule: a frame is never early, and a late reader catches up without drift.

    `src_frame` is the time index in the file, going on past the end when the movie loops; `t_src` follows the rate in the file.
    The pixels of a frame are a read-only view, valid until the next read.
    """

    Settings = ReplaySettings

    def __init__(self, settings: ReplaySettings) -> None:
        self._settings = settings
        self._movie: Movie | None = None
        self._preloaded: Preloaded | None = None
        self._supply: ImageSupply | None = None
        self._span = Span(0, 1, 1)
        self._per_time = 1
        self._image_interval_ns: float | None = None
        self._t_src_step_ns = 0.0
        self._stopped = threading.Event()
        self._stopped.set()
        self._stats = SourceStats()
        self._clock = SeriesClock()
        self._begin_ns: int | None = None
        self._next = 0
        self._n_delivered = 0
        self._lost: Counter[tuple[int, int]] = Counter()

    @property
    def clock(self) -> SeriesClock:
        """The clock of the current series."""
        return self._clock

    def open(self) -> StreamInfo:
        """Open the movie. Raises ConfigError when a rate or range does not fit it, FileFormatError, MissingExtraError."""
        self.close()
        s = self._settings
        movie = open_movie(s.path, channels=s.channels, dataset=s.dataset)
        try:
            self._plan(movie.info)
            self._preloaded = Preloaded(movie, self._span) if s.preload else None
        except BaseException:
            movie.close()
            raise
        self._movie = movie
        return self._describe(movie.info)

    def start(self) -> None:
        """Begin a new series at the first frame. Raises SourceError before open."""
        if self._movie is None:
            raise SourceError(f"{self._settings.path} is not open; call open() before start()")
        self.stop()
        self._next = self._n_delivered = 0
        self._lost.clear()
        self._begin_ns = None
        self._clock = SeriesClock()
        self._stopped.clear()
        self._supply = self._preloaded or Prefetcher(self._movie, self._span)

    def read(self, timeout_s: float = 1.0) -> Frame | None:
        """The next frame, or None when it is not due, or not there, within `timeout_s`.

        Raises EndOfStream after the last frame and after stop, SourceError at a frame that cannot be read, GeometryChanged at
        one of another size; the frames before it have been returned by then.
        """
        deadline_ns = time.perf_counter_ns() + int(timeout_s * 1e9)
        self._lose_overwritten()
        number = self._next
        if self._span.n_total is not None and number >= self._span.n_total:
            self._stopped.set()
        supply, movie = self._supply, self._movie
        if self._stopped.is_set() or supply is None or movie is None:
            raise EndOfStream(f"{self._settings.path}: the series of {self._n_delivered} frames is complete")
        if not self._wait_until_due(number, deadline_ns):
            return None
        try:
            pixels = supply.image(number, (deadline_ns - time.perf_counter_ns()) * 1e-9)
        except FileFormatError as error:
            raise SourceError(str(error)) from error
        if pixels is None:
            return None
        if self._begin_ns is None:
            self._begin_ns = time.perf_counter_ns()
        stamp = self._stamp(movie, number)
        self._next = number + 1
        self._n_delivered += 1
        self._stats.received += 1
        return Frame(pixels, stamp)

    def backlog(self) -> int:
        """Frames that are due and have not been read, `capacity` at most when live; 0 when nothing sets the pace."""
        behind = max(0, self._n_due() - self._next)
        return min(behind, self._settings.capacity) if self._settings.live else behind

    def stats(self) -> SourceStats:
        """Totals since construction."""
        return self._stats

    def stop(self) -> None:
        """End the series; a read that waits ends too. Returns within a second even when the disk hangs."""
        self._stopped.set()
        supply, self._supply = self._supply, None
        if supply is not None and not supply.stop():
            self._movie = None  # a read that hangs keeps the file to itself; open() gets another

    def close(self) -> None:
        """Stop and let go of the file."""
        self.stop()
        movie, self._movie, self._preloaded = self._movie, None, None
        if movie is not None:
            movie.close()

    def _plan(self, info: MovieInfo) -> None:
        """What will be played, and how fast."""
        s = self._settings
        stop = info.n_frames if s.stop is None else s.stop
        if not s.start < stop <= info.n_frames:
            raise ConfigError(
                f"{s.path} has {info.n_frames} frames; start = {s.start}, stop = {s.stop} is no part of it"
            )
        if s.n_frames is not None and not s.loop:
            stop = min(stop, s.start + s.n_frames)
        self._per_time = info.channels * info.planes
        whole = info.n_images // self._per_time * self._per_time
        first, last = s.start * self._per_time, min(stop * self._per_time, whole if s.loop else info.n_images)
        if first >= last:
            raise ConfigError(
                f"{s.path} has no complete frame of {info.channels} channels and {info.planes} planes to loop over"
            )
        n_total = last - first if not s.loop else (s.n_frames * self._per_time if s.n_frames else None)
        self._span = Span(first, last - first, n_total)
        interval_s = self._interval_s(info)
        self._image_interval_ns = None if s.rate == "max" or interval_s is None else interval_s * 1e9 / self._per_time
        self._t_src_step_ns = (info.frame_interval_s or interval_s or 0.0) * 1e9

    def _interval_s(self, info: MovieInfo) -> float | None:
        rate = self._settings.rate
        if isinstance(rate, float):
            return 1.0 / rate
        if rate == "file" and info.frame_interval_s is None:
            raise ConfigError(
                f"{self._settings.path} does not say its frame rate; give rate = 30 (frames per second) or rate = 'max'"
            )
        return info.frame_interval_s

    def _describe(self, info: MovieInfo) -> StreamInfo:
        return StreamInfo(
            name=f"replay {info.path.name}",
            shape=info.shape,
            dtype=info.dtype,
            bit_depth=8 * np.dtype(info.dtype).itemsize,
            channels=info.channels,
            planes=info.planes,
            frame_interval_s=self._interval_s(info),
            live=self._settings.live,
            capacity=self._settings.capacity if self._settings.live else 0,
            n_frames=self._span.n_total,
            um_per_px=info.um_per_px,
            scan=info.scan,
        )

    def _stamp(self, movie: Movie, number: int) -> FrameStamp:
        channel, plane, src_frame = movie.frame_stamp(self._span.first + number)
        return FrameStamp(
            series=self._clock.series,
            frame=self._n_delivered,
            src_frame=src_frame,
            t_in=self._clock.now_ns(),
            t_src=round((src_frame - self._settings.start) * self._t_src_step_ns),
            channel=channel,
            plane=plane,
            dropped=self._lost.pop((channel, plane), 0),
        )

    def _n_due(self) -> int:
        """Images that a camera would have taken by now."""
        if self._image_interval_ns is None or self._begin_ns is None or self._stopped.is_set():
            return 0
        n_due = int((time.perf_counter_ns() - self._begin_ns) / self._image_interval_ns) + 1
        return n_due if self._span.n_total is None else min(n_due, self._span.n_total)

    def _lose_overwritten(self) -> None:
        """Live: what no longer fits the camera's buffer is gone, the oldest first."""
        behind = self._n_due() - self._next
        self._stats.max_backlog = max(
            self._stats.max_backlog, min(behind, self._settings.capacity) if self._settings.live else behind
        )
        n_lost = behind - self._settings.capacity
        if not self._settings.live or n_lost <= 0 or self._movie is None:
            return
        for within in range(self._per_time):
            channel, plane, _ = self._movie.frame_stamp(self._span.first + self._next + within)
            self._lost[channel, plane] += len(range(within, n_lost, self._per_time))
        self._next += n_lost
        self._stats.dropped += n_lost

    def _wait_until_due(self, number: int, deadline_ns: int) -> bool:
        """Sleep until a frame is due. False when that is after the deadline; raises EndOfStream when stopped meanwhile.

        The first frame is due as soon as it is read, and the schedule begins there: a slow disk delays the start only.
        """
        if self._image_interval_ns is None or self._begin_ns is None:
            return True
        due_ns = self._begin_ns + int(number * self._image_interval_ns)
        wait_ns = min(due_ns, deadline_ns) - time.perf_counter_ns()
        if wait_ns > 0 and self._stopped.wait(wait_ns * 1e-9):
            raise EndOfStream(f"{self._settings.path}: stopped after {self._n_delivered} frames")
        return due_ns <= deadline_ns
