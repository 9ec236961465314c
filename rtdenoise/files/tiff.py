"""TIFF and BigTIFF, one file or many: plain pages are read straight into the caller's block, compressed ones through tifffile."""

from __future__ import annotations

from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import FileFormatError, GeometryChanged, MissingExtraError
from rtdenoise.files import image_table
from rtdenoise.files.ifd import PageTable, walk
from rtdenoise.files.image_table import ImageTable
from rtdenoise.files.movie import Movie, MovieInfo, frame_dtype, need
from rtdenoise.files.tiff_facts import FirstPage, TiffFacts, describe
from rtdenoise.frame import Pixels


def open_tiff(path: Path, *, channels: int | None = None) -> Movie:
    """Open one TIFF; an OME-TIFF set brings its other files. Raises FileFormatError, MissingExtraError.

    `channels`: images are interleaved by this many channels, whatever the file says.
    """
    table = walk(path)
    first, facts = describe(path, table, channels)
    if facts.places is None:
        images = _in_time(_one_file(table, first, facts), facts)
    else:
        tables = [table if file == path else walk(file) for file in facts.files]
        images = image_table.in_sequence([image_table.of_file(t, first.plain_bytes) for t in tables]).at(facts.places)
    return _movie(path, first, facts, images)


def open_tiff_sequence(path: Path, files: Sequence[Path], *, channels: int | None = None) -> Movie:
    """Open many TIFFs as one movie, in the order given; what the first one says about axes and timing holds for all.

    `path` names the whole in messages. Raises FileFormatError, MissingExtraError; a file of another shape raises
    GeometryChanged when its first frame is read.
    """
    tables = [walk(file) for file in files]
    first, facts = describe(files[0], tables[0], channels)
    per_time = facts.sizes[1] * facts.sizes[2]
    if per_time > 1 and facts.strides[0] != per_time:
        raise FileFormatError(
            f"{files[0]}: time is not its slowest axis, so no other file can continue it; open them one by one"
        )
    parts = [_part(table, first, facts, channels) for table in tables]
    return _movie(path, first, facts, _in_time(image_table.in_sequence(parts), facts))


def _part(table: PageTable, first: FirstPage, facts: TiffFacts, channels: int | None) -> ImageTable:
    """One file of a sequence. A stack with a single directory says itself how many images it has."""
    if facts.packed and facts.sizes != (1, 1, 1) and len(table) == 1:
        return _one_file(table, *describe(table.path, table, channels))
    return image_table.of_file(table, first.plain_bytes)


def _one_file(table: PageTable, first: FirstPage, facts: TiffFacts) -> ImageTable:
    """The images in the order of the file: its pages, or what the first page promises when directories are missing."""
    n_times, n_planes, n_channels = facts.sizes
    declared = n_times * n_planes * n_channels
    lost = len(table) < declared and (table.broken or len(table) == 1)
    if lost and facts.packed and first.plain_bytes:
        return image_table.packed(table, first.plain_bytes, declared)
    images = image_table.of_file(table, first.plain_bytes)
    same = (table.kind == table.kind[0]).all()
    return images if same or not 0 < declared < len(images) else images.take(np.arange(declared))


def _in_time(images: ImageTable, facts: TiffFacts) -> ImageTable:
    """Acquisition order: channel fastest, then plane, then time. Pages beyond the declared time points count as well."""
    n_times, n_planes, n_channels = facts.sizes
    per_time = n_planes * n_channels
    if facts.strides == (per_time, n_channels, 1) or per_time == 1:
        return images
    t_step, z_step, c_step = facts.strides
    if t_step == per_time:
        n_times = -(-len(images) // per_time)
    t, z, c = np.ogrid[:n_times, :n_planes, :n_channels]
    rows: NDArray[np.int64] = (t * t_step + z * z_step + c * c_step).ravel()
    return images.take(rows[: len(images)] if t_step == per_time else rows)


def _movie(path: Path, first: FirstPage, facts: TiffFacts, images: ImageTable) -> Movie:
    info = MovieInfo(
        path=path,
        format=facts.format,
        shape=first.shape,
        dtype=frame_dtype(path, first.dtype),
        n_images=len(images),
        channels=facts.sizes[2],
        planes=facts.sizes[1],
        frame_interval_s=facts.frame_interval_s,
        um_per_px=facts.um_per_px,
        scan=facts.scan,
    )
    return Movie(info, TiffReader(info, first, images))


class TiffReader:
    """Reads images by number. One file is open at a time; no state but that file and one image of scratch for float64."""

    def __init__(self, info: MovieInfo, first: FirstPage, images: ImageTable) -> None:
        self._info = info
        self._first = first
        self._images = images
        self._kind = images.kind[0]
        self._scratch = np.empty(info.shape, dtype=first.dtype) if first.dtype.itemsize == 8 else None
        self._open: tuple[int, FileIO | _Pages] | None = None

    def read_into(self, start: int, out: Pixels) -> None:
        """Fill `out`. Raises FileFormatError at an image that is cut off or damaged, GeometryChanged at one of another kind."""
        for k, image in enumerate(out):
            self._read(start + k, image)

    def _read(self, i: int, image: Pixels) -> None:
        images = self._images
        if not images.readable[i]:
            raise self._damaged(i, "truncated: ")
        if (images.kind[i] != self._kind).any():
            length, width, bits, _ = images.kind[i]
            raise GeometryChanged(
                f"{self._path(i)}: frame {i} is {length} x {width}, {bits} bit; the movie began with "
                f"{self._info.shape[0]} x {self._info.shape[1]} {self._info.dtype}; split it here"
            )
        try:
            self._fill(i, image)
        except (OSError, EOFError) as error:
            raise self._damaged(i, "", f" ({error})") from error

    def _fill(self, i: int, image: Pixels) -> None:
        if self._images.offset[i] < 0:
            decoded = self._decoded(i)
            if decoded.shape != image.shape:
                raise self._damaged(i, "damaged: ", f" (it has {decoded.shape} pixels)")
            image[...] = decoded
            return
        target = image if self._scratch is None else self._scratch
        file = self._file(i, FileIO)
        file.seek(int(self._images.offset[i]))
        if file.readinto(target.data) != target.nbytes:
            raise EOFError("the file ended")
        if not self._first.dtype.isnative:
            target.byteswap(inplace=True)
        if target is not image:
            image[...] = target.view(target.dtype.newbyteorder("="))

    def _decoded(self, i: int) -> Pixels:
        pages: _Pages = self._file(i, _Pages)
        try:
            return pages.decode(int(self._images.page[i]), int(self._images.directory[i]))
        except ImportError as error:
            raise MissingExtraError("imagecodecs", "live") from error
        except Exception as error:  # every codec has its own error types, and all of them mean that the bytes are bad
            if "imagecodecs" in str(error):
                raise MissingExtraError("imagecodecs", "live") from error
            raise self._damaged(i, "damaged: ", f" ({type(error).__name__}: {error})") from error

    def _file(self, i: int, kind: Any) -> Any:
        """The file of image `i`, opened as `kind`. (Any: the caller names the type.)"""
        i_file = int(self._images.file[i])
        if self._open is None or self._open[0] != i_file or not isinstance(self._open[1], kind):
            self.close()
            self._open = (i_file, kind(self._images.files[i_file]))
        return self._open[1]

    def _path(self, i: int) -> Path:
        return self._images.files[int(self._images.file[i])]

    def _damaged(self, i: int, what: str, why: str = "") -> FileFormatError:
        return FileFormatError(f"{self._path(i)}: {what}frame {i} cannot be read{why}; the frames before it can")

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


class _Pages:
    """Compressed pages of one file, decoded one at a time by tifffile, which keeps none of them."""

    def __init__(self, path: Path) -> None:
        self._tifffile = need("tifffile")
        self._tif = self._tifffile.TiffFile(path)
        self._first = self._tif.pages.first

    def decode(self, page: int, directory: int) -> Pixels:
        """One image (Y, X). `directory` is its offset in the file, which spares tifffile the walk from page to page."""
        if page == 0:
            image: Pixels = self._first.asarray(maxworkers=1)
        else:
            image = self._tifffile.TiffFrame(self._tif, page, offset=directory, keyframe=self._first).asarray(
                maxworkers=1
            )
        return image

    def close(self) -> None:
        self._tif.close()
