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
from rtdenoise.recording.layout import is_recording, series_names
from rtdenoise.sources.base import SeriesClock, SourceStats, StreamInfo
from rtdenoise.sources.schedule import EvenSchedule, ImageFacts, RecordedSchedule, Schedule


class ReplaySettings(config.Settings):
    """What to play and how.

    path: a movie, a folder, a recorded run or a pattern (see `files.open_movie`); channels, dataset: passed on to it.
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
    A recorded run is played series by series, by rate `file` each frame as long after the first as it arrived then, with the camera
    numbers, device times and holes that it had.
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
        self._schedule: Schedule | None = None
        self._series: list[str] = []
        self._n_started = 0
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
        recorded = self._settings.dataset is None and is_recording(self._settings.path)
        self._series = series_names(self._settings.path) if recorded else []
        self._n_started = 0
        return self._describe(self._load(self._settings.dataset).info)

    def start(self) -> None:
        """Begin a new series at the first frame; of a recorded run the next one, round and round. Raises SourceError before open."""
        if self._movie is None:
            raise SourceError(f"{self._settings.path} is not open; call open() before start()")
        self.stop()
        if self._n_started and len(self._series) > 1:
            self._close_movie()
            self._load(self._series[self._n_started % len(self._series)])
        self._n_started += 1
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
        supply, schedule = self._supply, self._schedule
        if self._stopped.is_set() or supply is None or schedule is None:
            raise EndOfStream(f"{self._settings.path}: the series of {self._n_delivered} frames is complete")
        if not self._wait_until_due(schedule.due_ns(number), deadline_ns):
            return None
        try:
            pixels = supply.image(number, (deadline_ns - time.perf_counter_ns()) * 1e-9)
        except FileFormatError as error:
            raise SourceError(str(error)) from error
        if pixels is None:
            return None
        if self._begin_ns is None:
            self._begin_ns = time.perf_counter_ns()
        stamp = self._stamp(schedule.facts(number))
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
        self._close_movie()

    def _close_movie(self) -> None:
        movie, self._movie, self._preloaded = self._movie, None, None
        if movie is not None:
            movie.close()

    def _load(self, series: str | None) -> Movie:
        """Open the movie, or a series of a recorded run, and plan how it will be played."""
        s = self._settings
        movie = open_movie(s.path, channels=s.channels, dataset=series)
        try:
            self._schedule = self._plan(movie)
            self._preloaded = Preloaded(movie, self._span) if s.preload else None
        except BaseException:
            movie.close()
            raise
        self._movie = movie
        return movie

    def _plan(self, movie: Movie) -> Schedule:
        """What will be played, and how fast."""
        info = movie.info
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
        image_ns = None if s.rate == "max" or interval_s is None else interval_s * 1e9 / self._per_time
        if movie.stamps is not None:
            return RecordedSchedule(movie.stamps, self._span, None if s.rate == "file" else image_ns or 0.0)
        step_ns = (info.frame_interval_s or interval_s or 0.0) * 1e9
        return EvenSchedule(movie, self._span, image_ns, step_ns, s.start)

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
            n_frames=self._span.n_total if len(self._series) < 2 else None,
            um_per_px=info.um_per_px,
            scan=info.scan,
        )

    def _stamp(self, facts: ImageFacts) -> FrameStamp:
        return FrameStamp(
            series=self._clock.series,
            frame=self._n_delivered,
            src_frame=facts.src_frame,
            t_in=self._clock.now_ns(),
            t_src=facts.t_src,
            channel=facts.channel,
            plane=facts.plane,
            dropped=facts.dropped + self._lost.pop((facts.channel, facts.plane), 0),
        )

    def _n_due(self) -> int:
        """Images that a camera would have taken by now."""
        if self._schedule is None or self._begin_ns is None or self._stopped.is_set():
            return 0
        n_due = self._schedule.n_due(time.perf_counter_ns() - self._begin_ns)
        return n_due if self._span.n_total is None else min(n_due, self._span.n_total)

    def _lose_overwritten(self) -> None:
        """Live: what no longer fits the camera's buffer is gone, the oldest first."""
        behind = self._n_due() - self._next
        self._stats.max_backlog = max(
            self._stats.max_backlog, min(behind, self._settings.capacity) if self._settings.live else behind
        )
        n_lost = behind - self._settings.capacity
        if not self._settings.live or n_lost <= 0 or self._schedule is None:
            return
        for number in range(self._next, self._next + n_lost):
            facts = self._schedule.facts(number)
            self._lost[facts.channel, facts.plane] += 1 + facts.dropped
        self._next += n_lost
        self._stats.dropped += n_lost

    def _wait_until_due(self, after_ns: int | None, deadline_ns: int) -> bool:
        """Sleep until a frame is due, so long after the first. False when that is after the deadline; raises EndOfStream when stopped.

        The first frame is due as soon as it is read, and the schedule begins there: a slow disk delays the start only.
        """
        if after_ns is None or self._begin_ns is None:
            return True
        due_ns = self._begin_ns + after_ns
        wait_ns = min(due_ns, deadline_ns) - time.perf_counter_ns()
        if wait_ns > 0 and self._stopped.wait(wait_ns * 1e-9):
            raise EndOfStream(f"{self._settings.path}: stopped after {self._n_delivered} frames")
        return due_ns <= deadline_ns
