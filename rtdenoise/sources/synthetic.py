"""A camera made of arithmetic: simulated movies, a moving spot, or frames that say their own number."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rtdenoise import config
from rtdenoise.errors import EndOfStream, SourceError
from rtdenoise.frame import Frame, FrameStamp, Pixels
from rtdenoise.sources.base import SeriesClock, SourceStats, StreamInfo

Movie = NDArray[np.int16] | NDArray[np.uint16]
FrameMaker = Callable[[int], Pixels]
"""Camera number -> pixels (Y, X), valid until the next call."""

SimulatedMode = Literal[
    "calcium",
    "calcium_hz15_meso",
    "calcium_fast8f",
    "calcium_motion",
    "calcium_artifact",
    "power_step",
    "voltage",
    "voltage2p",
    "flow",
    "flow_plasma",
    "silent",
]
Side = Annotated[int, Field(ge=4)]
_ORBIT_FRAMES = 64
_N_BACKGROUNDS = 4


class SyntheticSettings(config.Settings):
    """What to pretend.

    mode: a simulation preset, `blob` (a bright spot in photon noise) or `counter` (see `counted`).  shape: (Y, X).
    fps: frames per second, None for as fast as they are read.  n_frames: frames in a series, None for no end.
    live: True loses the oldest frames when the reader is more than `capacity` behind, False waits for the reader.
    n_unique: simulated frames made at open and then repeated.  seed, snr_db: of the simulation (None: as the preset says).
    negative: counter frames are int16 and begin at -32768 (else uint16 from 0).
    """

    mode: SimulatedMode | Literal["blob", "counter"] = "calcium"
    shape: tuple[Side, Side] = (512, 512)
    fps: float | None = Field(default=30.0, gt=0)
    n_frames: int | None = Field(default=None, ge=1)
    live: bool = True
    capacity: int = Field(default=64, ge=1)
    n_unique: int = Field(default=120, ge=2)
    snr_db: float | None = None
    seed: int = Field(default=0, ge=0)
    negative: bool = False


class SyntheticSource:
    """Frames on an absolute schedule: frame k exists from k / fps on, whether or not anybody reads.

    There is no thread: what a camera would have done since the last read follows from the clock. The pixels of a returned frame
    are read-only and, in counter mode, change with the next read.
    """

    Settings = SyntheticSettings

    def __init__(self, settings: SyntheticSettings) -> None:
        self._settings = settings
        self._stopped = threading.Event()
        self._stopped.set()
        self._make: FrameMaker | None = None
        self._stats = SourceStats()
        self._clock = SeriesClock()
        self._next_src = 0
        self._n_delivered = 0
        self._was_started = False

    @property
    def clock(self) -> SeriesClock:
        """The clock of the current series."""
        return self._clock

    def open(self) -> StreamInfo:
        """Make the frames that will be repeated. Raises MissingExtraError when a simulation needs scipy and it is not there."""
        s = self._settings
        self._make, dtype, um_per_px = frame_maker(s)
        return StreamInfo(
            name=f"synthetic {s.mode}",
            shape=s.shape,
            dtype=str(np.dtype(dtype)),
            frame_interval_s=None if s.fps is None else 1.0 / s.fps,
            live=s.live,
            capacity=s.capacity,
            n_frames=s.n_frames,
            um_per_px=um_per_px,
        )

    def start(self) -> None:
        """Begin a new series at frame 0, now. Raises SourceError before open."""
        if self._make is None:
            raise SourceError("the synthetic source is not open; call open() before start()")
        self._next_src = self._n_delivered = 0
        self._was_started = True
        self._stopped.clear()
        self._clock = SeriesClock()

    def read(self, timeout_s: float = 1.0) -> Frame | None:
        """The next frame, or None when it does not exist within `timeout_s`.

        Raises EndOfStream after the last frame and after stop, SourceError before start.
        """
        make = self._make
        if not self._was_started:
            raise SourceError("the synthetic source is not running; call open() and start() before read()")
        dropped = self._skip_overwritten()
        number = self._next_src
        if self._settings.n_frames is not None and number >= self._settings.n_frames:
            self._stopped.set()
        if not self._wait_for(number, timeout_s):
            return None
        if make is None:
            raise EndOfStream("the synthetic source is closed")
        self._next_src += 1
        stamp = FrameStamp(
            series=self._clock.series,
            frame=self._n_delivered,
            src_frame=number,
            t_in=self._clock.now_ns(),
            t_src=self._due_ns(number),
            dropped=dropped,
        )
        self._n_delivered += 1
        self._stats.received += 1
        return Frame(make(number), stamp)

    def backlog(self) -> int:
        """Frames that exist and have not been read; 0 when the source waits for its reader."""
        fps = self._settings.fps
        if fps is None or not self._settings.live or self._stopped.is_set():
            return 0
        n_exist = int(self._clock.now_ns() * 1e-9 * fps) + 1
        if self._settings.n_frames is not None:
            n_exist = min(n_exist, self._settings.n_frames)
        return max(0, n_exist - self._next_src)

    def stats(self) -> SourceStats:
        """Totals since construction."""
        return self._stats

    def stop(self) -> None:
        """End the series; a waiting read returns at once."""
        self._stopped.set()

    def close(self) -> None:
        """Stop and let the frames go."""
        self.stop()
        self._make = None

    def _due_ns(self, number: int) -> int:
        fps = self._settings.fps
        return self._clock.now_ns() if fps is None else round(number * 1e9 / fps)

    def _skip_overwritten(self) -> int:
        """Lose what no longer fits the camera's buffer; returns how many frames that were."""
        backlog = self.backlog()
        lost = max(0, backlog - self._settings.capacity)
        self._next_src += lost
        self._stats.dropped += lost
        self._stats.max_backlog = max(self._stats.max_backlog, backlog - lost)
        return lost

    def _wait_for(self, number: int, timeout_s: float) -> bool:
        """Sleep until a frame exists. False when that takes longer than the timeout; raises EndOfStream when stopped."""
        deadline = time.perf_counter() + timeout_s
        due = (self._clock.epoch_ns + self._due_ns(number)) * 1e-9
        interrupted = self._stopped.wait(max(0.0, min(due, deadline) - time.perf_counter()))
        if interrupted:
            raise EndOfStream(f"the series of {self._n_delivered} synthetic frames is complete")
        return due <= deadline


def frame_maker(settings: SyntheticSettings) -> tuple[FrameMaker, type[np.generic], float | None]:
    """How to get frame k, its pixel type, and um per pixel where that is known."""
    if settings.mode == "counter":
        return _counter(settings)
    if settings.mode == "blob":
        return _repeat(blob_movie(settings.shape, settings.seed)), np.uint16, None
    from rtdenoise.simulate import preset, simulate

    wishes = {"frame_rate_hz": settings.fps, "snr_db": settings.snr_db}
    given = {key: value for key, value in wishes.items() if value is not None}
    params = preset(settings.mode, shape=settings.shape, n_frames=settings.n_unique, seed=settings.seed, **given)
    movie = simulate(params).noisy
    return _repeat(movie), movie.dtype.type, params.um_per_px


def counted(pixels: Pixels) -> int:
    """The camera number that a counter frame holds: low 16 bits in every pixel but the first, next 16 bits in the first one."""
    words = pixels.ravel()[:2].astype(np.int64)
    high, low = words - np.iinfo(pixels.dtype).min  # type: ignore[type-var]
    return int(high << 16 | low)


def blob_movie(shape: tuple[int, int], seed: int) -> NDArray[np.uint16]:
    """(64, Y, X) of a bright spot on a circle in photon noise; few noise fields, shifted, so that it is there at once."""
    rng = np.random.default_rng(seed)
    fields = [rng.poisson(4.0, shape).astype(np.uint16) for _ in range(_N_BACKGROUNDS)]
    sigma = max(1.0, min(shape) / 24)
    movie = np.empty((_ORBIT_FRAMES, *shape), np.uint16)
    for k, frame in enumerate(movie):
        shift = (int(rng.integers(shape[0])), int(rng.integers(shape[1])))
        np.add(np.roll(fields[k % _N_BACKGROUNDS], shift, axis=(0, 1)) * np.uint16(20), np.uint16(100), out=frame)
        phase = 2 * np.pi * k / _ORBIT_FRAMES
        centre = (shape[0] * (0.5 + 0.3 * np.sin(phase)), shape[1] * (0.5 + 0.3 * np.cos(phase)))
        _add_spot(rng, frame, centre, sigma)
    return movie


def _add_spot(rng: np.random.Generator, frame: NDArray[np.uint16], centre: tuple[float, float], sigma: float) -> None:
    reach = int(3 * sigma) + 1
    rows = np.arange(max(0, int(centre[0]) - reach), min(frame.shape[0], int(centre[0]) + reach + 1))
    cols = np.arange(max(0, int(centre[1]) - reach), min(frame.shape[1], int(centre[1]) + reach + 1))
    profile_y = np.exp(-0.5 * ((rows - centre[0]) / sigma) ** 2)
    profile_x = np.exp(-0.5 * ((cols - centre[1]) / sigma) ** 2)
    photons = rng.poisson(30.0 * np.outer(profile_y, profile_x))
    frame[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] += (20 * photons).astype(np.uint16)


def _repeat(movie: Movie) -> FrameMaker:
    movie.flags.writeable = False
    return lambda number: movie[number % len(movie)]


def _counter(settings: SyntheticSettings) -> tuple[FrameMaker, type[np.generic], float | None]:
    dtype = np.int16 if settings.negative else np.uint16
    frame = np.empty(settings.shape, dtype)
    shown = frame.view()
    shown.flags.writeable = False
    lowest = int(np.iinfo(dtype).min)

    def make(number: int) -> Pixels:
        frame.fill((number & 0xFFFF) + lowest)
        frame[0, 0] = (number >> 16 & 0xFFFF) + lowest
        return shown

    return make, dtype, None
