"""What every movie file looks like from outside: facts, and blocks of images in acquisition order."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rtdenoise.errors import FileFormatError, MissingExtraError
from rtdenoise.frame import FRAME_DTYPES, Pixels


@dataclass(slots=True, frozen=True)
class MovieInfo:
    """What a file says about itself.

    shape: (Y, X).  dtype: numpy name of what `read` returns.  n_images: images in the file, every channel and plane counted.
    frame_interval_s: per frame of one channel and plane; um_per_px: along X; both None when the file does not say.
    format: 'tiff', 'imagej', 'ome-tiff', 'scanimage', 'ome-zarr', 'zarr', 'hdf5', 'nwb' or
    'recording'.
    scan: what the acquisition software says about the scan; empty when it says nothing.
    """

    path: Path
    format: str
    shape: tuple[int, int]
    dtype: str
    n_images: int
    channels: int = 1
    planes: int = 1
    frame_interval_s: float | None = None
    um_per_px: float | None = None
    scan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_frames(self) -> int:
        """Frames of one channel and plane; the last time point may be incomplete."""
        return -(-self.n_images // (self.channels * self.planes))

    @property
    def image_bytes(self) -> int:
        """Bytes of one image as `read` returns it."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize


class ImageReader(Protocol):
    """Reads one format."""

    def read_into(self, start: int, out: Pixels) -> None:
        """Fill `out` (n, Y, X) with the images `start .. start+n-1`; raise FileFormatError at the first that cannot be read."""

    def close(self) -> None:
        """Let go of the file; may be called any number of times."""


class Movie:
    """An open movie. Images are numbered in acquisition order: channel fastest, then plane, then time.

    Use it as a context manager, from one thread at a time. Memory does not grow with the length of the movie.
    A recording has `stamps` (columns of `recording.table.STAMPS`, one row per image): its images are numbered as they came.
    """

    def __init__(
        self, info: MovieInfo, reader: ImageReader, stamps: Mapping[str, NDArray[np.int64]] | None = None
    ) -> None:
        self.info, self.stamps = info, stamps
        self._reader = reader

    def frame_stamp(self, i_image: int) -> tuple[int, int, int]:
        """(channel, plane, src_frame) of an image; src_frame is its time index, or what the camera said in a recording."""
        if self.stamps is not None:
            channel, plane, src_frame = (int(self.stamps[name][i_image]) for name in ("channel", "plane", "src_frame"))
            return channel, plane, src_frame
        src_frame, within = divmod(i_image, self.info.channels * self.info.planes)
        plane, channel = divmod(within, self.info.channels)
        return channel, plane, src_frame

    def read(self, start: int, stop: int) -> Pixels:
        """Images `start .. stop-1` as a new (n, Y, X) array, cut at the end of the movie.

        Raises FileFormatError naming the first image that cannot be read, GeometryChanged at an image of another size.
        """
        stop = min(stop, self.info.n_images)
        out = np.empty((max(stop - start, 0), *self.info.shape), dtype=self.info.dtype)
        self.read_into(start, out)
        return out

    def read_into(self, start: int, out: Pixels) -> None:
        """Fill `out` (n, Y, X) with the images from `start` on; allocates nothing of a block's size for an uncompressed TIFF."""
        if start < 0 or start + len(out) > self.info.n_images:
            raise IndexError(
                f"{self.info.path} has {self.info.n_images} images, asked for {start} to {start + len(out) - 1}"
            )
        self._reader.read_into(start, out)

    def close(self) -> None:
        """Let go of the file; may be called any number of times."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def frame_dtype(path: Path, stored: DTypeLike) -> str:
    """The type frames of this file are delivered in. Raises FileFormatError for anything but FRAME_DTYPES and float64."""
    name = np.dtype(stored).newbyteorder("=").name
    if name == "float64":
        return "float32"
    if name not in FRAME_DTYPES:
        raise FileFormatError(
            f"{path}: pixels are {name}; rtdenoise reads {', '.join(FRAME_DTYPES)}: convert the movie to uint16 or float32 first"
        )
    return name


def need(package: str, extra: str = "live") -> Any:
    """Import a package of an optional extra. Raises MissingExtraError. (Any: the packages are untyped.)"""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, extra) from error
