"""Untrained baselines as engines: what any model must beat. They commute with normalisation, so they run on normalised frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine.base import EngineInfo, Window
from rtdenoise.errors import ConfigError, MissingExtraError, WindowError
from rtdenoise.frame import WindowSpec

Shape = tuple[int, int]


class Kernel(Protocol):
    """The arithmetic of a filter: frames i_target .. i_target+n_out-1 of a window (T, Y, X), in an array that the next call reuses."""

    def __call__(self, window: Window, i_target: int, n_out: int) -> Window:
        """Filter some positions of a window."""

    def reset(self) -> None:
        """Forget every earlier frame."""


@dataclass(slots=True, frozen=True)
class FilterEngine:
    """A baseline behind the Engine protocol."""

    name: str
    shape: Shape
    window: WindowSpec
    kernel: Kernel

    @property
    def stateless(self) -> bool:
        """False for filters whose result depends on frames before the window."""
        return not _remembers(self.kernel)

    def run(self, window: Window, first: int, target: int, n_out: int) -> NDArray[np.float32]:
        """(n_out, Y, X) filtered frames; see Engine.run. Raises WindowError for frames of another shape."""
        if window.shape[1:] != self.shape:
            raise WindowError(f"{self.name} was made for frames {self.shape}, got {window.shape[1:]}; open it anew")
        return self.kernel(window, target - first, n_out)

    def prepare(self, window: Window, first: int) -> None:
        """Nothing is worth doing ahead."""

    def reset(self) -> None:
        """Forget every earlier frame."""
        self.kernel.reset()

    def describe(self) -> EngineInfo:
        """One thread of numpy or scipy."""
        return EngineInfo(backend="filter", device="CPU", model=self.name, precision="fp32", threads=1)

    def close(self) -> None:
        """Nothing to release beyond memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _remembers(kernel: Kernel) -> bool:
    """Whether a result depends on frames of earlier windows."""
    return _remembers(kernel.then) if isinstance(kernel, Blurred) else isinstance(kernel, ExponentialMean | Kalman)


class Identity:
    """The window's own frames, not copied: the price of the stream itself."""

    def __call__(self, window: Window, i_target: int, n_out: int) -> Window:
        """A view."""
        return window[i_target : i_target + n_out]

    def reset(self) -> None:
        """Nothing is remembered."""


class RunningMean:
    """Mean of the newest frames: all there are at the start of a series. ScanImage's rolling average does the same."""

    def __init__(self, shape: Shape) -> None:
        self._out = np.empty((1, *shape), np.float32)

    def __call__(self, window: Window, i_target: int, n_out: int) -> Window:
        """Mean over the whole window; exact, unlike a running sum."""
        np.add.reduce(window, axis=0, out=self._out[0])
        self._out *= np.float32(1 / len(window))
        return self._out

    def reset(self) -> None:
        """Nothing is remembered."""


class ExponentialMean:
    """`s += alpha (y - s)`, beginning with the first frame."""

    def __init__(self, shape: Shape, alpha: float) -> None:
        self._alpha = np.float32(alpha)
        self._mean = np.empty((1, *shape), np.float32)
        self._change = np.empty(shape, np.float32)
        self._empty = True

    def __call__(self, window: Window, i_target: int, n_out: int) -> Window:
        """Take one frame in."""
        if self._empty:
            self._mean[0] = window[i_target]
            self._empty = False
            return self._mean
        np.subtract(window[i_target], self._mean[0], out=self._change)
        self._change *= self._alpha
        self._mean[0] += self._change
        return self._mean

    def reset(self) -> None:
        """Begin again with the next frame."""
        self._empty = True


class Kalman:
    """ImageJ's Kalman Stack Filter (C. P. Mauer): one gain for the whole frame, which shrinks as frames come.

    `K = p / (p + v); s = g s + (1 - g) y + K (y - s); p *= 1 - K`, with the plug-in's fall-backs g = 0.8 and p = v = 0.05.
    """

    def __init__(self, shape: Shape, gain: float, variance: float) -> None:
        self._gain, self._noise = gain, variance
        self._mean = np.empty((1, *shape), np.float32)
        self._change = np.empty(shape, np.float32)
        self._predicted = variance
        self._empty = True

    def __call__(self, window: Window, i_target: int, n_out: int) -> Window:
        """Take one frame in."""
        if self._empty:
            self._mean[0] = window[i_target]
            self._empty = False
            return self._mean
        k = self._predicted / (self._predicted + self._noise)
        np.subtract(window[i_target], self._mean[0], out=self._change)
        self._change *= np.float32(1 - self._gain + k)
        self._mean[0] += self._change
        self._predicted *= 1 - k
        return self._mean

    def reset(self) -> None:
        """Begin again with the next frame."""
        self._empty = True
        self._predicted = self._noise


class Blurred:
    """A spatial Gaussian before another kernel that takes one frame at a time."""

    def __init__(self, shape: Shape, sigma_px: float, then: Kernel) -> None:
        self._ndimage = _ndimage()
        self._sigma_px, self.then = sigma_px, then
        self._blurred = np.empty((1, *shape), np.float32)

    def __call__(self, window: Window, i_target: int, n_out: int) -> Window:
        """Blur one frame and pass it on."""
        self._ndimage.gaussian_filter(window[i_target], self._sigma_px, output=self._blurred[0])
        return self.then(self._blurred, 0, 1)

    def reset(self) -> None:
        """Forget what the other kernel remembers."""
        self.then.reset()


class Gaussian3D:
    """Gaussian in space and time, cut at 3 sigma; beyond the first and last frame and the borders the nearest value counts.

    One weighted sum over the window, then one spatial blur: equal to the three-dimensional filter over the whole movie.
    """

    def __init__(self, shape: Shape, sigma_t: float, sigma_px: float) -> None:
        self._ndimage = _ndimage()
        self.reach = reach_of(sigma_t)
        steps = np.arange(-self.reach, self.reach + 1)
        taps = np.exp(-0.5 * (steps / sigma_t) ** 2)
        self._taps, self._steps = taps / taps.sum(), steps
        self._sigma_px = sigma_px
        self._sum = np.empty(shape, np.float32)
        self._out = np.empty((self.reach + 1, *shape), np.float32)

    def __call__(self, window: Window, i_target: int, n_out: int) -> Window:
        """Filter some frames; the window may be cut short where the movie begins or ends."""
        frames = window.reshape(len(window), -1)
        for k in range(n_out):
            sources = np.clip(i_target + k + self._steps, 0, len(window) - 1)
            weights = np.bincount(sources, self._taps, len(window)).astype(np.float32)
            np.dot(weights, frames, out=self._sum.ravel())
            self._ndimage.gaussian_filter(self._sum, self._sigma_px, output=self._out[k], mode="nearest", truncate=3.0)
        return self._out[:n_out]

    def reset(self) -> None:
        """Nothing is remembered."""


class Median3D:
    """Median of a box of frames, rows and columns (odd numbers); beyond the ends and borders the nearest value counts."""

    def __init__(self, shape: Shape, box: tuple[int, int, int]) -> None:
        n_t, n_y, n_x = self._box = box
        self._padded = np.empty((n_t, shape[0] + n_y - 1, shape[1] + n_x - 1), np.float32)
        self._values = np.empty((*shape, n_t * n_y * n_x), np.float32)
        self._out = np.empty((n_t // 2 + 1, *shape), np.float32)

    def __call__(self, window: Window, i_target: int, n_out: int) -> Window:
        """Filter some frames; the window may be cut short where the movie begins or ends."""
        for k in range(n_out):
            self._gather(window, i_target + k)
            middle = self._values.shape[-1] // 2
            self._values.partition(middle, axis=-1)
            self._out[k] = self._values[..., middle]
        return self._out[:n_out]

    def _gather(self, window: Window, i_target: int) -> None:
        n_t, n_y, n_x = self._box
        for i in range(n_t):
            source = min(max(i_target + i - n_t // 2, 0), len(window) - 1)
            _pad_nearest(window[source], n_y // 2, n_x // 2, self._padded[i])
        neighbours = np.lib.stride_tricks.sliding_window_view(self._padded, self._box)[0]
        np.copyto(self._values.reshape(neighbours.shape), neighbours)

    def reset(self) -> None:
        """Nothing is remembered."""


def _pad_nearest(frame: NDArray[np.float32], rows: int, cols: int, out: NDArray[np.float32]) -> None:
    height, width = frame.shape
    out[rows : rows + height, cols : cols + width] = frame
    out[:rows, cols : cols + width] = frame[0]
    out[rows + height :, cols : cols + width] = frame[-1]
    out[:, :cols] = out[:, cols : cols + 1]
    out[:, cols + width :] = out[:, cols + width - 1 : cols + width]


def reach_of(sigma: float) -> int:
    """Samples on each side of a Gaussian cut at 3 sigma."""
    return int(3.0 * sigma + 0.5)


def newest(size: int = 1) -> WindowSpec:
    """No look-ahead: the newest of `size` frames comes out; fewer at the start of a series."""
    return WindowSpec(size, (size - 1,), edge="trim", min_size=1)


def centred(reach: int) -> WindowSpec:
    """The middle of 2 reach + 1 frames comes out; the window is cut short at both ends of a series."""
    return WindowSpec(2 * reach + 1, (reach,), edge="trim", min_size=1)


def _ndimage() -> ModuleType:
    try:
        from scipy import ndimage
    except ImportError:
        raise MissingExtraError("scipy", "live") from None
    module: ModuleType = ndimage
    return module


# Settings as measured in the evaluation: the best of each kind for two-photon calcium movies, and what ImageJ and ScanImage offer.
_MAKERS: dict[str, tuple[WindowSpec, Callable[[Shape], Kernel]]] = {
    "identity": (newest(), lambda shape: Identity()),
    "running-mean": (newest(10), RunningMean),
    "ema": (newest(), lambda shape: ExponentialMean(shape, 0.2)),
    "kalman": (newest(), lambda shape: Kalman(shape, 0.8, 0.05)),
    "gauss2d": (newest(), lambda shape: Blurred(shape, 1.0, Identity())),
    "gauss2d-ema": (newest(), lambda shape: Blurred(shape, 1.0, ExponentialMean(shape, 0.15))),
    "gauss3d": (centred(reach_of(2.0)), lambda shape: Gaussian3D(shape, 2.0, 1.0)),
    "gauss3d-wide": (centred(reach_of(4.0)), lambda shape: Gaussian3D(shape, 4.0, 1.0)),
    "median": (centred(2), lambda shape: Median3D(shape, (5, 3, 3))),
}


def create(name: str, shape: Shape) -> FilterEngine:
    """The untrained filter of this name for frames (Y, X). Raises ConfigError when there is none."""
    if name not in _MAKERS:
        raise ConfigError(f"unknown filter {name!r}; known: {', '.join(_MAKERS)}")
    spec, make_kernel = _MAKERS[name]
    return FilterEngine(name, shape, spec, make_kernel(shape))


FILTERS: dict[str, Callable[[Shape], FilterEngine]] = {
    name: lambda shape, name=name: create(name, shape)  # type: ignore[misc]
    for name in _MAKERS
}
"""Every baseline by name: `FILTERS["kalman"](shape)`."""
