"""Walks the chain of image directories of a TIFF: where each page lies, and where the chain breaks.

tifffile drops the pages of a truncated file without an error and holds an object per page; a recording of an hour needs neither.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import FileFormatError

WIDTH, LENGTH, BITS, SAMPLE_FORMAT = 256, 257, 258, 339
OFFSETS, BYTE_COUNTS = (273, 324), (279, 325)
"""Tag numbers, TIFF 6.0 specification: StripOffsets or TileOffsets say where the pixels are, the byte counts how long each piece is."""
_VALUE_BYTES = {1: 1, 3: 2, 4: 4, 16: 8}
"""Unsigned integer field types of TIFF 6.0 and BigTIFF."""


@dataclass(slots=True, frozen=True)
class PageTable:
    """One row per page of one file.

    directory: offset of the page's directory.  pixels: offset of its first strip, -1 when unknown.  last_strip: offset of the last.
    end: where the last strip ends.  kind: (n, 4) length, width, bits per sample, sample format.
    broken: the chain points beyond the end of the file.
    """

    path: Path
    directory: NDArray[np.int64]
    pixels: NDArray[np.int64]
    last_strip: NDArray[np.int64]
    end: NDArray[np.int64]
    kind: NDArray[np.int32]
    file_bytes: int
    broken: bool

    def __len__(self) -> int:
        return len(self.directory)


def walk(path: Path) -> PageTable:
    """Read the page table of a TIFF or BigTIFF. Raises FileFormatError when not even the first page is there."""
    try:
        with FileIO(path) as file:
            return _walk(path, file)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from error


def _walk(path: Path, file: FileIO) -> PageTable:
    size = file.seek(0, 2)
    layout = layout_of(path, file)
    numbers = array("q")
    broken = False
    n_pages, offset, mark = 0, layout.first, -1
    while offset:
        page = read_directory(layout, file, offset, size)
        if page is None or offset == mark:  # cut off, or a chain that bites its tail
            broken = True
            break
        row, next_offset = page
        numbers.extend((offset, *row))
        n_pages += 1
        mark = offset if n_pages & (n_pages - 1) == 0 else mark
        offset = next_offset
    if not n_pages:
        raise FileFormatError(f"{path}: truncated: frame 0 cannot be read (the file ends after {size} bytes)")
    table = np.frombuffer(numbers, dtype=np.int64).reshape(n_pages, -1)
    directory, pixels, last_strip, end = np.ascontiguousarray(table[:, :4].T)
    return PageTable(path, directory, pixels, last_strip, end, table[:, 4:].astype(np.int32), size, broken)


@dataclass(slots=True, frozen=True)
class Layout:
    """Byte order, whether it is a BigTIFF, and where its first directory is (0 when there is none yet)."""

    order: str
    big: bool
    first: int

    @property
    def count(self) -> str:
        """How the number of entries is written."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        """How an entry is written: tag, type, count, value."""
        return self.order + ("HHQ8s" if self.big else "HHI4s")

    @property
    def pointer(self) -> str:
        """How an offset is written."""
        return self.order + ("Q" if self.big else "I")


def layout_of(path: Path, file: FileIO) -> Layout:
    """Read the first bytes of the file. Raises FileFormatError when they are not a TIFF's."""
    file.seek(0)
    header = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2], "")
    version = struct.unpack(order + "H", header[2:4])[0] if order and len(header) == 16 else 0
    if version == 43:
        return Layout(order, True, struct.unpack(order + "Q", header[8:16])[0])
    if version == 42:
        return Layout(order, False, struct.unpack(order + "I", header[4:8])[0])
    raise FileFormatError(f"{path}: not a TIFF file, or cut off in its first {len(header)} bytes")


def read_directory(layout: Layout, file: FileIO, offset: int, size: int) -> tuple[tuple[int, ...], int] | None:
    """((first strip, last strip, end, length, width, bits, sample format), next), or None when the file ends before it does."""
    n_count, n_entry, n_pointer = (struct.calcsize(f) for f in (layout.count, layout.entry, layout.pointer))
    if offset + n_count > size:
        return None
    file.seek(offset)
    raw = file.read(4096)
    n_bytes = struct.unpack_from(layout.count, raw)[0] * n_entry
    if offset + n_count + n_bytes + n_pointer > size:
        return None
    if len(raw) < n_count + n_bytes + n_pointer:
        raw += file.read(n_count + n_bytes + n_pointer - len(raw))
    facts = {WIDTH: 0, LENGTH: 0, BITS: 1, SAMPLE_FORMAT: 1}
    first, last, n_last = -1, -1, 0
    for tag, kind, count, value in struct.iter_unpack(layout.entry, raw[n_count : n_count + n_bytes]):
        if tag in facts:
            facts[tag] = _ends(layout, file, (kind, count, value), size)[0]
        elif tag in OFFSETS:
            first, last = _ends(layout, file, (kind, count, value), size)
        elif tag in BYTE_COUNTS:
            n_last = _ends(layout, file, (kind, count, value), size)[1]
    next_offset = int(struct.unpack_from(layout.pointer, raw, n_count + n_bytes)[0])
    return (first, last, last + n_last, facts[LENGTH], facts[WIDTH], facts[BITS], facts[SAMPLE_FORMAT]), next_offset


def _ends(layout: Layout, file: FileIO, entry: tuple[int, int, bytes], size: int) -> tuple[int, int]:
    """First and last number of a tag; (-1, -1) when they lie beyond the end of the file."""
    kind, count, value = entry
    if kind not in _VALUE_BYTES or not count:
        return -1, -1
    n_bytes = _VALUE_BYTES[kind] * count
    if n_bytes > len(value):
        where = struct.unpack(layout.pointer, value)[0]
        if where + n_bytes > size:
            return -1, -1
        file.seek(where)
        value = file.read(n_bytes)
    numbers = np.frombuffer(value[:n_bytes], dtype=f"{layout.order}u{_VALUE_BYTES[kind]}")
    return int(numbers[0]), int(numbers[-1])
