"""Where the frames of a stream are kept, normalised, until windows of them are denoised: in host memory, or on a card."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtdenoise.engine.base import Counts, Engine, KeepsFrames, Window, WindowStore
from rtdenoise.frame import Pixels, WindowSpec
from rtdenoise.normalize import Normalization
from rtdenoise.ring import FrameRing


def n_kept(spec: WindowSpec) -> int:
    """Frames that a stream may still ask for: a window, and those that arrive until the next one is due."""
    return 1 if spec.size == 1 and spec.hop == 1 else spec.size + spec.hop


def store_for(engine: Engine, normalization: Normalization, shape: tuple[int, int]) -> WindowStore:
    """The engine's own store where it has one, else host memory."""
    return engine.keep(normalization) if isinstance(engine, KeepsFrames) else HostStore(engine, normalization, shape)


class HostStore:
    """Frames in a ring in host memory, for engines that take windows from there."""

    most_ahead = 0

    def __init__(self, engine: Engine, normalization: Normalization, shape: tuple[int, int]) -> None:
        self._engine, self._normalization = engine, normalization
        self._ring = FrameRing(shape, n_kept(engine.window))
        self._edge = np.empty((engine.window.size, *shape), np.float32)
        self._counts = np.empty(shape, np.float32)
        self._denoised: Window = self._edge[:0]

    @property
    def n_frames(self) -> int:
        """Frames put since the last reset."""
        return self._ring.n_frames

    def put(self, pixels: Pixels) -> None:
        """Normalise into the ring."""
        self._normalization.apply(pixels, self._ring.next_slot())
        self._ring.commit()

    def denoise(self, frames: Sequence[int], first: int, target: int, n_out: int) -> int:
        """Run the engine; it is done when this returns."""
        self._denoised = self._engine.run(self._window(frames), first, target, n_out)
        return 0

    def counts(self, ticket: int, i: int, out: Counts | None) -> Counts:
        """Counts of the last run's i-th frame; without `out` in an array that the next call reuses."""
        out = self._counts if out is None else out
        self._normalization.invert(self._denoised[i], out)
        return out

    def prepare(self, first: int) -> None:
        """Let the engine work on what is here of the next window."""
        if first < self.n_frames:
            self._engine.prepare(self._ring.window(first, self.n_frames), first)

    def reset(self) -> None:
        """Forget all frames, and what the engine remembers of them."""
        self._ring.reset()
        self._engine.reset()

    def _window(self, frames: Sequence[int]) -> Window:
        """A view where the frames follow each other, a copy where they are mirrored."""
        if isinstance(frames, range):
            return self._ring.window(frames.start, frames.stop)
        window: Window = self._edge[: len(frames)]
        for row, frame in enumerate(frames):
            np.copyto(window[row], self._ring.window(frame, frame + 1)[0])
        return window
