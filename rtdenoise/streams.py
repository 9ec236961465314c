"""The streams of a run: one denoiser for every channel of every plane, each calibrated on its own first frames."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rtdenoise.calibration import frames_needed, starting_normalization
from rtdenoise.engine.base import Engine, is_stateless
from rtdenoise.engine.load import EngineFactory
from rtdenoise.frame import Frame
from rtdenoise.normalize import Normalization
from rtdenoise.settings import EngineSettings
from rtdenoise.shared import SharedRing, Slot
from rtdenoise.stream import StreamingDenoiser

Key = tuple[int, int]
"""Channel and plane."""
Calibrations = dict[Key, tuple[float, float]]
Lease = Callable[[tuple[int, int]], NDArray[np.float32]]


def keys_of(ring: SharedRing) -> list[Key]:
    """Every channel of every plane."""
    return [(channel, plane) for channel in range(ring.info.channels) for plane in range(ring.info.planes)]


class Streams:
    """Sorts frames by channel and plane and denoises each stream in its own order, over one set of compiled graphs.

    An engine that remembers nothing of its windows serves all streams; one that does, such as a filter with a running mean or
    a network whose features are cached, is made once per stream, or one stream would see what another left behind.
    Iterators that come from here must be exhausted before the next frame is fed.

    known: calibrations of an earlier process of the run.  told: is given every new one.
    lease: buffers for denoised frames; replaced when the publishers are there.  begun: a segment has given its first frame since
    this was last set to False.
    """

    def __init__(
        self,
        asked: EngineSettings,
        ring: SharedRing,
        factory: EngineFactory,
        known: Calibrations,
        told: Callable[[Key, tuple[float, float]], None],
    ) -> None:
        self._asked, self._ring, self._factory, self._known, self._told = asked, ring, factory, dict(known), told
        self._keys = keys_of(ring)
        self._n_calibrate = frames_needed(asked)
        self._shared: Engine | None = None
        self._denoisers: dict[Key, StreamingDenoiser] = {}
        self._waiting: dict[Key, list[int]] = {}
        self._fresh: dict[Key, list[int]] = {}
        self._gaps: dict[Key, int] = {}
        self._scratch = np.empty(ring.info.shape, np.float32)
        self.lease: Lease = lambda _: self._scratch
        self.begun = False
        with factory.make() as engine:
            self.hop = engine.window.hop
            n_window = engine.window.size + engine.window.hop
        self.n_context = max(n_window, self._n_calibrate) * len(self._keys)

    def feed(self, frame: Frame) -> Iterator[Frame]:
        """Take one frame of the ring; the frames of its stream that are ready now."""
        key = frame.stamp.key
        if key in self._denoisers:
            yield from self._push(key, frame)
            yield from self._recalibrated(key, frame.stamp.frame)
            return
        waiting = self._waiting.setdefault(key, [])
        waiting.append(frame.stamp.frame)
        if key in self._known or len(waiting) >= self._n_calibrate:
            yield from self._begin(key)

    def flush(self) -> Iterator[Frame]:
        """End every segment by the edge rule; a stream that was too short to be calibrated begins now."""
        for key in list(self._waiting):
            yield from self._begin(key)
        for denoiser in self._denoisers.values():
            yield from denoiser.flush()

    def gap(self, n_frames: int) -> None:
        """Before the next frame of every stream, so many were given up."""
        self._gaps = dict.fromkeys(self._keys, n_frames)

    def failed(self, key: Key) -> None:
        """The engine failed on a frame of this stream: its window is given up."""
        if key in self._denoisers:
            self._denoisers[key].reset()
        self._gaps[key] = 1

    def reset(self) -> None:
        """Forget every window and what waits; calibrations stay."""
        self._waiting.clear()
        for denoiser in self._denoisers.values():
            denoiser.reset()

    def recalibrate(self) -> None:
        """Let the next frames of every stream give it a new offset and scale."""
        self._fresh = {key: [] for key in self._denoisers}

    def norm(self, key: Key) -> str:
        """Id of the calibration of a stream, as on the wire."""
        return _norm_id(self._known[key])

    def _begin(self, key: Key) -> Iterator[Frame]:
        """Calibrate a stream on the frames that wait for it, then denoise them."""
        frames = [frame for n in self._waiting.pop(key) if (frame := self._ring.frame(n)) is not None]
        if not frames:
            return
        if key not in self._known:
            self._calibrate(key, frames)
        self._denoisers[key] = self._denoiser(key)
        for frame in frames:
            yield from self._push(key, frame)

    def _calibrate(self, key: Key, frames: list[Frame]) -> None:
        found = starting_normalization(self._asked, [frame.pixels for frame in frames])
        self._known[key] = (found.offset, found.scale)
        self._told(key, self._known[key])

    def _denoiser(self, key: Key) -> StreamingDenoiser:
        normalization = Normalization(*self._known[key])
        return StreamingDenoiser(self._engine(), normalization, self._ring.info.shape, self._buffer)

    def _buffer(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        return self.lease(shape)  # asked for anew, since the publishers may come after the denoisers

    def _engine(self) -> Engine:
        if self._shared is None:
            engine = self._factory.make()
            if not is_stateless(engine):
                return engine
            self._shared = engine
        return self._shared

    def _push(self, key: Key, frame: Frame) -> Iterator[Frame]:
        if gap := self._gaps.pop(key, 0):
            frame = frame.restamped(dropped=frame.stamp.dropped + gap)
        denoiser = self._denoisers[key]
        before = denoiser.begun
        yield from denoiser.push(frame)
        self.begun |= denoiser.begun and not before

    def _recalibrated(self, key: Key, number: int) -> Iterator[Frame]:
        """Once there are enough frames since `recalibrate`: what has not come out yet, made with the new calibration.

        The window is filled again from the ring, with the frames before it, so that none comes out by the edge rule.
        """
        if key not in self._fresh:
            return
        fresh = self._fresh[key]
        fresh.append(number)
        if len(fresh) < self._n_calibrate:
            return
        del self._fresh[key]
        frames = [frame for n in fresh if (frame := self._ring.frame(n)) is not None]
        if not frames:
            return
        self._calibrate(key, frames)
        self._denoisers[key] = self._denoiser(key)
        first = context_start(self._ring, int(self._ring.ints[Slot.TAIL]), self.n_context)
        for n in range(first, number + 1):
            frame = self._ring.frame(n)
            if frame is None:
                self._gaps[key] = 1  # overwritten meanwhile: no window may span it
            elif frame.stamp.key == key:
                yield from self._push(key, frame)


def context_start(ring: SharedRing, tail: int, n_context: int) -> int:
    """First of the `n_context` frames before `tail` that fill a window, as far as they will still be here when they are read."""
    safe = ring.head - ring.capacity * 7 // 8
    return max(ring.oldest, min(tail, max(safe, tail - n_context)))


@lru_cache(maxsize=64)
def _norm_id(calibration: tuple[float, float]) -> str:
    return hashlib.sha256(f"{calibration[0]:.6g} {calibration[1]:.6g}".encode()).hexdigest()[:8]
