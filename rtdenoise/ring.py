"""Fixed memory for the last N frames; every window of them is one contiguous view."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import WindowError

Frames = NDArray[np.float32]


class FrameRing:
    """The last `capacity` normalised frames under linear frame numbers, counted from 0 since `reset`.

    Each frame lies at slot i and at i + capacity, so that no window ever wraps. All memory is taken here, once.
    """

    def __init__(self, shape: tuple[int, int], capacity: int) -> None:
        if capacity < 1:
            raise WindowError(f"a ring of {capacity} frames cannot hold a window")
        self.capacity = capacity
        self.n_frames = 0
        self._slots: Frames = np.zeros((2 * capacity if capacity > 1 else 1, *shape), np.float32)

    def next_slot(self) -> Frames:
        """(Y, X) place of the next frame: fill it, then `commit`. Overwrites the oldest frame."""
        slot: Frames = self._slots[self.n_frames % self.capacity]
        return slot

    def commit(self) -> int:
        """Make the filled slot the newest frame; returns its number."""
        slot = self.n_frames % self.capacity
        if self.capacity > 1:
            np.copyto(self._slots[slot + self.capacity], self._slots[slot])
        self.n_frames += 1
        return self.n_frames - 1

    def window(self, first: int, stop: int) -> Frames:
        """(stop - first, Y, X) contiguous view of frames first .. stop-1. Raises WindowError when one of them is not here."""
        oldest = max(0, self.n_frames - self.capacity)
        if not oldest <= first < stop <= self.n_frames:
            raise WindowError(
                f"frames {first}..{stop - 1} are not in the ring, which holds {oldest}..{self.n_frames - 1}"
            )
        start = first % self.capacity
        view: Frames = self._slots[start : start + stop - first]
        return view

    def reset(self) -> None:
        """Forget all frames; numbers start again at 0. Keeps the memory."""
        self.n_frames = 0


def bounce(index: int, n: int) -> int:
    """Index into 0..n-1 of a series mirrored about its first and last frame: ... 2 1 0 1 2 ... n-1 n-2 ..."""
    if n == 1:
        return 0
    index %= 2 * (n - 1)
    return min(index, 2 * (n - 1) - index)


def mirrored(first: int, size: int, n: int) -> list[int]:
    """Frame numbers of the window `first` .. `first + size - 1` of a series of `n`, mirrored about its first and last frame."""
    return [bounce(index, n) for index in range(first, first + size)]
