"""Chunked arrays (zarr, HDF5): whole chunks are read once and kept until the next one, whatever blocks the caller asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rtdenoise.errors import FileFormatError
from rtdenoise.files.movie import MovieInfo
from rtdenoise.frame import Pixels

SLAB_FRAMES = 16
"""Time points read at once where chunks are smaller or absent. Engineering choice: the cost of a call (0.7 ms in zarr) no longer counts."""
_AXES = "tzcyx"


def sizes(path: Path, axes: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Size of each of t, z, c, y, x. Raises FileFormatError when the array has other axes, or lacks y and x.

    Without a time axis the z axis is time: a movie saved as a stack.
    """
    found = dict(zip(axes, shape, strict=True))
    extra = [axis for axis, n in found.items() if axis not in _AXES and n > 1]
    if extra or "y" not in found or "x" not in found:
        raise FileFormatError(f"{path}: axes {axes} {shape} are not a movie's; rtdenoise reads t, c, z, y, x")
    return {axis: found.get(axis, 1) for axis in _AXES}


def as_movie_axes(axes: str, shape: tuple[int, ...]) -> str:
    """Axes with z renamed to t when there is no other time."""
    n_times = dict(zip(axes, shape, strict=True)).get("t", 1)
    n_planes = dict(zip(axes, shape, strict=True)).get("z", 1)
    return axes.replace("t", "_").replace("z", "t").replace("_", "z") if n_times == 1 and n_planes > 1 else axes


class ArrayReader:
    """Reads one array with axes named by the letters of `axes`. Keeps one slab: all planes and channels of a few chunks of time."""

    def __init__(self, info: MovieInfo, array: Any, axes: str, close: Callable[[], None]) -> None:
        self._info = info
        self._array = array
        self._axes = axes
        self._order = [axes.index(axis) for axis in _AXES if axis in axes]
        self._chunk = array.chunks[axes.index("t")] if array.chunks and "t" in axes else 1
        self._n_times = self._chunk * max(1, SLAB_FRAMES // self._chunk)
        self._slab: tuple[int, Pixels] | None = None
        self._close = close

    def read_into(self, start: int, out: Pixels) -> None:
        """Fill `out`. Raises FileFormatError when a chunk is damaged."""
        for k in range(len(out)):
            out[k] = self._image(start + k)

    def _image(self, i: int) -> Pixels:
        per_time = self._info.channels * self._info.planes
        time, within = divmod(i, per_time)
        first = time // self._n_times * self._n_times
        try:
            image: Pixels = self._load(first)[(time - first) * per_time + within]
        except FileFormatError:
            if self._n_times == self._chunk:
                raise
            self._n_times = self._chunk  # a bad chunk must not take its neighbours with it
            return self._image(i)
        return image

    def _load(self, first: int) -> Pixels:
        """(n, Y, X): images of the slab that begins at time point `first`, in acquisition order."""
        if self._slab is None or self._slab[0] != first:
            self._slab = None
            self._slab = (first, self._read_slab(first))
        return self._slab[1]

    def _read_slab(self, first: int) -> Pixels:
        stop = min(first + self._n_times, self._info.n_frames)
        wanted = tuple(slice(first, stop) if axis == "t" else slice(None) for axis in self._axes)
        try:
            slab = np.asarray(self._array[wanted])
        except Exception as error:  # zarr, its codecs and HDF5 each raise their own; all mean that the chunk is bad
            i_image = first * self._info.channels * self._info.planes
            why = f"{type(error).__name__}: {error}"
            raise FileFormatError(
                f"{self._info.path}: frame {i_image} cannot be read ({why}); the frames before it can"
            ) from error
        return slab.transpose(self._order_of(slab)).reshape(-1, *self._info.shape)

    def _order_of(self, slab: Pixels) -> list[int]:
        """Transposition to t, z, c, y, x; axes of length 1 that a movie does not have go first."""
        return [i for i in range(slab.ndim) if i not in self._order] + self._order

    def close(self) -> None:
        """Let go of the array and its file."""
        self._slab = None
        self._close()
