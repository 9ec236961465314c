"""Two frozen numbers between camera counts and what a network sees, the same in training and live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import ConfigError
from rtdenoise.frame import Pixels

CALIBRATION_FRAMES = 8
"""Frames a calibration looks at. Engineering choice: half a million pixels fix mean and sd to 0.2 % and the live view waits 0.3 s."""

BRIGHTEST_PERCENT = 99.999
"""Percentile that counts as the brightest pixel, so that one hot pixel does not (sheet C 2.5)."""
HEADROOM = 2.0
"""Range of a network for counts from 0 to 1, in ranges of the calibration frames. Engineering choice: cells that were
silent during calibration may become twice as bright as the brightest then before a network that ends at 1 cuts them.
"""


@dataclass(slots=True, frozen=True)
class Normalization:
    """`normalised = (counts - offset) / scale`; frozen for a field of view and detector setting."""

    offset: float
    scale: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.offset) and np.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(
                f"normalisation needs a finite offset and a positive scale, got {self.offset}, {self.scale}"
            )

    def apply(self, counts: Pixels, out: NDArray[np.float32]) -> None:
        """Write normalised `counts` (Y, X) into `out`; allocates nothing of a frame's size."""
        np.copyto(out, counts, casting="unsafe")  # a quarter faster than casting within the subtraction
        if not self._changes_nothing:
            np.subtract(out, np.float32(self.offset), out=out)
            np.multiply(out, np.float32(1.0 / self.scale), out=out)

    def invert(self, normalised: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write counts of `normalised` (Y, X) into `out`; allocates nothing of a frame's size."""
        if self._changes_nothing:
            np.copyto(out, normalised)
            return
        np.multiply(normalised, np.float32(self.scale), out=out)
        np.add(out, np.float32(self.offset), out=out)

    @property
    def _changes_nothing(self) -> bool:
        """Untrained filters work on counts as they are."""
        return self.offset == 0.0 and self.scale == 1.0


def calibrate(frames: Sequence[Pixels]) -> Normalization:
    """Mean and standard deviation of the first frames of a field of view.

    FAST subtracts the mean of the whole movie (sheet C 1.5); the future is not available live, so it is frozen here.
    The standard deviation takes the place of the detector gain, which upstream leaves in the weights.
    Raises ConfigError when no frame is given or all pixels are equal.
    """
    stack = _stacked(frames).astype(np.float64)
    scale = float(stack.std())
    if scale == 0.0:
        raise _without_contrast(stack)
    return Normalization(float(stack.mean()), scale)


def calibrate_range(frames: Sequence[Pixels]) -> Normalization:
    """Darkest and brightest of the first frames of a field of view, for networks that expect counts from 0 to 1.

    The authors of SN2N scale every frame by its own (sheet C 2.5), which makes movies flicker and loses absolute
    intensity; here one range serves all frames, with `HEADROOM` for what comes later.
    Raises ConfigError when no frame is given or the range is empty.
    """
    stack = _stacked(frames).astype(np.float32)
    low, high = np.percentile(stack, [0.0, BRIGHTEST_PERCENT])
    if not high > low:
        raise _without_contrast(stack)
    return Normalization(float(low), HEADROOM * float(high - low))


def _stacked(frames: Sequence[Pixels]) -> Pixels:
    if not frames:
        raise ConfigError("calibration needs at least one frame")
    return np.stack([np.asarray(frame) for frame in frames])


def _without_contrast(stack: Pixels) -> ConfigError:
    return ConfigError(f"calibration saw only the value {stack.flat[0]:g}: is the shutter closed or the detector off?")
