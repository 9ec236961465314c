"""Writing a movie as it comes: under a `.part` name until it is complete, in memory that does not grow."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import FileFormatError, GeometryChanged
from rtdenoise.frame import FRAME_DTYPES, Pixels

_TIFF_SUFFIXES = (".tif", ".tiff")
_ZARR_SUFFIX = ".zarr"


class MovieFacts(Protocol):
    """What a movie to be written looks like; StreamInfo and MovieInfo both say so. See there for units."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""

    @property
    def dtype(self) -> str:
        """One of FRAME_DTYPES."""

    @property
    def channels(self) -> int:
        """Channels per plane."""

    @property
    def planes(self) -> int:
        """Planes per time point."""

    @property
    def frame_interval_s(self) -> float | None:
        """Per frame of one channel and plane."""

    @property
    def um_per_px(self) -> float | None:
        """Micrometres per pixel, None when unknown."""


class ImageSink(Protocol):
    """One format. `put` stores an image (Y, X) of the file's type as time point `time` of its channel and plane, before it returns."""

    def put(self, image: Pixels, time: int, channel: int, plane: int) -> None:
        """Images of one channel and plane come in order; those of different ones may overtake each other."""

    def finish(self) -> None:
        """Write what is left and the final metadata, and close the file."""


class MovieWriter:
    """Appends frames to a movie that appears under its name when it is closed; `<name>.part` until then.

    As a context manager it keeps the `.part` when an exception passes through: the frames so far can be opened there.
    """

    def __init__(self, path: Path, part: Path, facts: MovieFacts, dtype: str, sink: ImageSink) -> None:
        self.path = path
        self._part = part
        self._shape = facts.shape
        self._n_frames = np.zeros((facts.channels, facts.planes), dtype=np.int64)
        self._sink: ImageSink | None = sink
        self._store = np.empty(facts.shape, dtype=dtype)
        whole = np.issubdtype(self._store.dtype, np.integer)
        self._counts: NDArray[np.float32] | None = np.empty(facts.shape, dtype=np.float32) if whole else None

    def append(self, frame: Pixels, channel: int = 0, plane: int = 0) -> None:
        """Add the next frame (Y, X) of a channel and plane; a float frame is rounded and clipped to an integer type of the file.

        The frame may be reused at once. Raises GeometryChanged for another shape, FileFormatError when the disk is full.
        """
        if self._sink is None:
            raise FileFormatError(f"{self.path}: is closed; open another movie to write more frames")
        n_channels, n_planes = self._n_frames.shape
        if frame.shape != self._shape or not (0 <= channel < n_channels and 0 <= plane < n_planes):
            raise GeometryChanged(
                f"{self.path}: frame is {frame.shape}, channel {channel}, plane {plane}; the movie was begun with "
                f"{self._shape}, {n_channels} channels, {n_planes} planes"
            )
        try:
            self._sink.put(self._as_stored(frame), int(self._n_frames[channel, plane]), channel, plane)
        except OSError as error:
            raise FileFormatError(f"{self._part}: cannot be written ({error}); the frames so far are in it") from error
        self._n_frames[channel, plane] += 1

    def close(self) -> None:
        """Complete the movie and give it its name. Raises FileFormatError when no frame came, or the name cannot be taken."""
        if self._sink is None:
            return
        if not self._finish():
            raise FileFormatError(f"{self.path}: not written: no frame was appended")
        try:
            if self.path.is_dir():
                _remove(self.path)
            self._part.replace(self.path)
        except OSError as error:
            raise FileFormatError(
                f"{self.path}: cannot be replaced ({error}); the movie is complete in {self._part}"
            ) from error

    def abandon(self) -> None:
        """Stop early: the frames so far stay readable in `<name>.part`, nothing appears under the name."""
        if self._sink is not None:
            self._finish()

    def _finish(self) -> bool:
        sink, self._sink = self._sink, None
        if sink is None:
            return False
        try:
            sink.finish()
        except OSError as error:
            raise FileFormatError(f"{self._part}: cannot be completed: {error}") from error
        if not self._n_frames.any():
            _remove(self._part)
        return bool(self._n_frames.any())

    def _as_stored(self, frame: Pixels) -> Pixels:
        if self._counts is None or np.can_cast(frame.dtype, self._store.dtype):
            np.copyto(self._store, frame, casting="unsafe")
            return self._store
        limits = np.iinfo(self._store.dtype)
        np.rint(frame, out=self._counts, casting="unsafe")
        np.clip(self._counts, limits.min, limits.max, out=self._counts)
        np.copyto(self._store, self._counts, casting="unsafe")
        return self._store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def create_movie(
    path: str | Path, facts: MovieFacts, *, dtype: str | None = None, overwrite: bool = False
) -> MovieWriter:
    """Begin an OME-TIFF (`.ome.tif`) or an OME-Zarr (`.ome.zarr`).

    `facts`: a StreamInfo, a MovieInfo, or anything that says as much.  `dtype`: of the file, None for `facts.dtype`.
    Raises FileFormatError when the name is taken (unless `overwrite`) or names no known format, MissingExtraError.
    """
    path = Path(path)
    stored = dtype or facts.dtype
    if stored not in FRAME_DTYPES:
        raise FileFormatError(f"{path}: cannot be written as {stored}; choose one of {', '.join(FRAME_DTYPES)}")
    if not path.name.lower().endswith((*_TIFF_SUFFIXES, _ZARR_SUFFIX)):
        raise FileFormatError(f"{path}: end the name with .ome.tif or .ome.zarr")
    part = path.with_name(path.name + ".part")
    for taken in (path, part):
        if taken.exists() and not overwrite:
            raise FileFormatError(f"{taken}: exists already; choose another name or overwrite it")
    try:
        _remove(part)
        return MovieWriter(path, part, facts, stored, _sink(part, path.name, facts, stored))
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be created: {error.strerror or error}") from error


def _sink(part: Path, name: str, facts: MovieFacts, dtype: str) -> ImageSink:
    if name.lower().endswith(_ZARR_SUFFIX):
        from rtdenoise.files.write_zarr import ZarrSink

        return ZarrSink(part, name, facts, dtype)
    from rtdenoise.files.write_tiff import TiffSink

    return TiffSink(part, name, facts, dtype)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
