"""Mean counts of one region over time, raw and denoised, in memory of a fixed size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.frame import Pixels
from rtdenoise.wire import Message

HISTORY_FRAMES = 8192
"""Points kept per trace: 4.5 min at 30 Hz, 8 s at 1000 Hz. Engineering choice."""
GAP_INTERVALS = 3.5
"""A step this many times the usual one breaks the line: no straight line is drawn through frames nobody saw. Engineering choice."""
Points = NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Region:
    """A rectangle or the ellipse inside it, in pixels: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float
    ellipse: bool = False


class RegionMean:
    """Mean of the pixels whose centre lies in a region; the mask is made once per region and frame shape."""

    def __init__(self, region: Region, shape: tuple[int, int]) -> None:
        self.shape = shape
        rows, columns = _inside(region.y, region.height, shape[0]), _inside(region.x, region.width, shape[1])
        self._rows, self._columns = slice(rows[0], rows[1]), slice(columns[0], columns[1])
        mask = np.ones((rows[1] - rows[0], columns[1] - columns[0]), np.float32)
        if region.ellipse:
            dy = (np.arange(*rows) + 0.5 - region.y - region.height / 2) / (region.height / 2)
            dx = (np.arange(*columns) + 0.5 - region.x - region.width / 2) / (region.width / 2)
            mask = (dy[:, None] ** 2 + dx**2 <= 1.0).astype(np.float32)
        self.n_pixels = int(mask.sum())
        self._weights = mask / max(1, self.n_pixels)

    def of(self, pixels: Pixels) -> float:
        """Mean counts; NaN when no pixel is inside."""
        if self.n_pixels == 0:
            return float("nan")
        crop = np.asarray(pixels[self._rows, self._columns], np.float32)
        return float((crop * self._weights).sum(dtype=np.float64))


def _inside(start: float, length: float, size: int) -> tuple[int, int]:
    """First and last + 1 pixel with a centre inside, within the frame."""
    first = min(max(0, round(start)), size)
    return first, min(max(first, round(start + length)), size)


class Trace:
    """The last HISTORY_FRAMES points. Each is written twice, so that what is drawn is one piece of memory in order."""

    def __init__(self, capacity: int = HISTORY_FRAMES) -> None:
        self._capacity = capacity
        self._times, self._values = np.empty(2 * capacity), np.empty(2 * capacity)
        self._n = 0
        self._newest_s = self._interval_s = 0.0

    def __len__(self) -> int:
        return min(self._n, self._capacity)

    def add(self, time_s: float, value: float) -> None:
        """Append a point, after a break in the line where frames are missing; the oldest is forgotten when the memory is full."""
        step_s, self._newest_s = time_s - self._newest_s, time_s
        if self._n > 1 and step_s > GAP_INTERVALS * self._interval_s:
            self._write(time_s, float("nan"))
        elif self._n > 0:
            self._interval_s += (step_s - self._interval_s) * (0.1 if self._n > 1 else 1.0)
        self._write(time_s, value)

    def _write(self, time_s: float, value: float) -> None:
        i = self._n % self._capacity
        for memory, number in ((self._times, time_s), (self._values, value)):
            memory[i] = memory[i + self._capacity] = number
        self._n += 1

    def since(self, time_s: float) -> tuple[Points, Points]:
        """Views of times and values from `time_s` on, oldest first; valid until the next `add`."""
        end = self._n % self._capacity + self._capacity if self._n >= self._capacity else self._n
        times = self._times[end - len(self) : end]
        first = int(np.searchsorted(times, time_s))
        return times[first:], self._values[end - len(self) + first : end]

    def clear(self) -> None:
        """Forget everything: another region, or another series."""
        self._n = 0


class RegionTraces:
    """Raw and denoised traces of one region, from every frame that arrived, shown or not."""

    def __init__(self) -> None:
        self.raw, self.denoised = Trace(), Trace()
        self.newest_s = 0.0
        self._region: Region | None = None
        self._mean: RegionMean | None = None
        self._series = ""

    @property
    def n_pixels(self) -> int:
        """Pixels inside the region; 0 before the first frame."""
        return self._mean.n_pixels if self._mean else 0

    def watch(self, region: Region) -> None:
        """Look at another region; what was seen of the last one is forgotten."""
        if region != self._region:
            self._region, self._mean = region, None
            self._clear()

    def add(self, message: Message, trace: Trace) -> None:
        """Take one frame into `trace`, which is `raw` or `denoised` of this object."""
        frame = message.frame
        if self._region is None:
            return
        if frame.stamp.series != self._series:
            self._series = frame.stamp.series
            self._clear()
        if self._mean is None or self._mean.shape != frame.pixels.shape:
            self._mean = RegionMean(self._region, (frame.pixels.shape[0], frame.pixels.shape[1]))
            self._clear()
        time_s = (frame.stamp.t_src or frame.stamp.t_in) / 1e9
        self.newest_s = max(self.newest_s, time_s)
        trace.add(time_s, self._mean.of(frame.pixels))

    def _clear(self) -> None:
        self.raw.clear()
        self.denoised.clear()
        self.newest_s = 0.0
