"""Contrast that stays where it is, so that a change of brightness means something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.frame import Pixels

LOW_PERCENT = 1.0
HIGH_PERCENT = 99.5
"""Share of pixels below black and white. Engineering choice: a few bright cells and hot pixels may clip."""
SAMPLE_PIXELS = 65_536
"""Pixels looked at per frame; enough for the 99.5th percentile to 2 %, and 1 ms instead of 10."""


@dataclass(slots=True, frozen=True)
class Levels:
    """Counts shown black and white, the same for raw and denoised."""

    black: float
    white: float


def levels_of(frames: Sequence[Pixels]) -> Levels | None:
    """Levels that suit these frames; None when there is nothing to see (no finite pixel)."""
    samples = [_sample(frame) for frame in frames]
    pooled = np.concatenate(samples) if samples else np.empty(0)
    pooled = pooled[np.isfinite(pooled)]
    if pooled.size == 0:
        return None
    black, white = np.percentile(pooled, (LOW_PERCENT, HIGH_PERCENT))
    return Levels(float(black), float(max(white, black + 1.0)))


def _sample(frame: Pixels) -> NDArray[np.float64]:
    step = max(1, int(np.sqrt(frame.size / SAMPLE_PIXELS)))
    return frame[::step, ::step].astype(np.float64).ravel()


class Grey:
    """Counts to 256 greys in memory that is kept from frame to frame."""

    def __init__(self) -> None:
        self._scaled = np.empty((0, 0), np.float32)
        self._shown = np.empty((0, 0), np.uint8)

    def of(self, pixels: Pixels, levels: Levels) -> NDArray[np.uint8]:
        """`(Y, X)` uint8, reused by the next call; what is not a number is shown black."""
        if self._shown.shape != pixels.shape:
            self._scaled = np.empty(pixels.shape, np.float32)
            self._shown = np.empty(pixels.shape, np.uint8)
        span = max(levels.white - levels.black, 1e-9)
        with np.errstate(invalid="ignore", over="ignore"):
            np.subtract(pixels, np.float32(levels.black), out=self._scaled, dtype=np.float32, casting="unsafe")
            np.multiply(self._scaled, np.float32(255.0 / span), out=self._scaled)
            np.fmax(self._scaled, np.float32(0.0), out=self._scaled)
            np.fmin(self._scaled, np.float32(255.0), out=self._scaled)
            np.copyto(self._shown, self._scaled, casting="unsafe")
        return self._shown
