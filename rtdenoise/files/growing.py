"""Files that another program is still writing: how many whole images there are by now, and each of them."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from typing import Protocol

import numpy as np

from rtdenoise.errors import FileFormatError
from rtdenoise.files import ifd
from rtdenoise.frame import Pixels


class Growing(Protocol):
    """One file that grows."""

    def n_images(self) -> int:
        """Whole images in it by now; half-written ones do not count. Raises FileFormatError, OSError."""

    def read(self, i: int, out: Pixels) -> bool:
        """Fill `out` (Y, X) with image i; False when it is gone."""

    def replaced(self) -> bool:
        """Whether another file has taken its place, or it was cut."""

    def close(self) -> None:
        """Let go of the file; a later call opens it again."""


class OpenFile:
    """A file by its path, opened when needed, and told from another one that takes its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._first: tuple[int, int] | None = None
        self._most_bytes = 0

    @property
    def file(self) -> FileIO:
        """The open file. Raises OSError."""
        if self._file is None:
            self._file = FileIO(self.path)
            facts = os.fstat(self._file.fileno())
            self._first = self._first or (facts.st_dev, facts.st_ino)
        return self._file

    def size(self) -> int:
        """Bytes written by now; 0 when the file is not there."""
        try:
            n_bytes = os.fstat(self.file.fileno()).st_size
        except OSError:
            return 0
        self._most_bytes = max(self._most_bytes, n_bytes)
        return n_bytes

    def replaced(self) -> bool:
        """Whether the path leads to another file by now, or to the same one cut short."""
        try:
            there = self.path.stat()
        except OSError:
            return False  # deleted, and nothing in its place yet
        known = self._first is not None and (there.st_dev, there.st_ino) != self._first
        return known or there.st_size < self._most_bytes

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class GrowingRaw:
    """Images of one size, one after the other, after `offset` bytes."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: str, offset: int) -> None:
        self._open = OpenFile(path)
        self._offset = offset
        self._n_bytes = shape[0] * shape[1] * np.dtype(dtype).itemsize

    def n_images(self) -> int:
        """As many as the bytes make."""
        return max(0, self._open.size() - self._offset) // self._n_bytes

    def read(self, i: int, out: Pixels) -> bool:
        """Little-endian pixels, as they lie in the file."""
        return _read_at(self._open.file, self._offset + i * self._n_bytes, out)

    def replaced(self) -> bool:
        """As in Growing."""
        return self._open.replaced()

    def close(self) -> None:
        """As in Growing."""
        self._open.close()


class GrowingTiff:
    """Pages of a TIFF or BigTIFF whose pixels lie in one piece, uncompressed. Walks the chain of directories on as it grows."""

    def __init__(self, path: Path) -> None:
        """Raises FileFormatError for what is no TIFF, OSError for what is not there."""
        self._open = OpenFile(path)
        self._layout: ifd.Layout | None = None
        self._pixels: list[int] = []
        self._last_directory = 0
        self._kind: tuple[int, ...] = ()

    def n_images(self) -> int:
        """Pages whose directory and pixels are complete. Raises FileFormatError for pages that cannot be followed."""
        size = self._open.size()
        while size and self._advance(size):
            pass
        return len(self._pixels)

    def read(self, i: int, out: Pixels) -> bool:
        """In the byte order of this machine."""
        swapped = self._layout is not None and self._layout.order == ">"
        if not _read_at(self._open.file, self._pixels[i], out):
            return False
        if swapped:
            out.byteswap(inplace=True)
        return True

    def replaced(self) -> bool:
        """As in Growing."""
        return self._open.replaced()

    def close(self) -> None:
        """As in Growing."""
        self._open.close()

    def _advance(self, size: int) -> bool:
        """Take the next page if it is complete."""
        if size < 16:
            return False
        file = self._open.file
        if self._layout is None or not self._pixels:
            self._layout = ifd.layout_of(self._open.path, file)
        following = self._layout.first
        if self._last_directory:
            # the writer sets the pointer to the next page when that page is there
            last = ifd.read_directory(self._layout, file, self._last_directory, size)
            following = last[1] if last is not None else 0
        page = ifd.read_directory(self._layout, file, following, size) if following else None
        if page is None:
            return False
        first, _, end, *kind = page[0]
        if first < 0 or end > size:
            return False
        self._check(len(self._pixels), end - first, tuple(kind))
        self._pixels.append(first)
        self._last_directory = following
        return True

    def _check(self, i: int, n_bytes: int, kind: tuple[int, ...]) -> None:
        rows, columns, bits, _ = kind
        if n_bytes != rows * columns * bits // 8:
            raise FileFormatError(
                f"{self._open.path}: page {i} is compressed or in pieces; only plain pages can be followed while they are written"
            )
        if self._kind and kind != self._kind:
            raise FileFormatError(
                f"{self._open.path}: page {i} is {rows} x {columns}, the first was {self._kind[0]} x {self._kind[1]}"
            )
        self._kind = kind


def _read_at(file: FileIO, offset: int, out: Pixels) -> bool:
    file.seek(offset)
    view = out.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        n = file.readinto(view[done:])
        if not n:
            return False
        done += n
    return True
