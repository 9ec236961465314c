"""Which bytes of which file each image of a TIFF movie is: one row per image, a few numbers each, however long the movie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdenoise.files.ifd import PageTable

NOWHERE = -1


@dataclass(slots=True, frozen=True)
class ImageTable:
    """Columns of equal length.

    file: index into `files`.  page: page number in that file.  offset: first byte of the pixels where they are plain bytes, else -1.
    directory: offset of the page's TIFF directory, -1 where it has none.  readable: the file still has all bytes of the image.
    kind: length, width, bits per sample, sample format of the page.
    """

    files: Sequence[Path]
    file: NDArray[np.int64]
    page: NDArray[np.int64]
    offset: NDArray[np.int64]
    directory: NDArray[np.int64]
    readable: NDArray[np.bool_]
    kind: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.page)

    def take(self, rows: NDArray[np.int64]) -> ImageTable:
        """The table in another order. A row outside of it becomes an image that cannot be read."""
        inside = (rows >= 0) & (rows < len(self))
        at = np.where(inside, rows, len(self) - 1)
        columns = (
            self.file[at],
            self.page[at],
            self.offset[at],
            self.directory[at],
            self.readable[at] & inside,
            self.kind[at],
        )
        return ImageTable(self.files, *columns)

    def at(self, places: NDArray[np.int64]) -> ImageTable:
        """The images at (file, page). What is absent from the end on was never recorded and is cut off."""
        begins = np.searchsorted(self.file, np.arange(len(self.files)))
        counts = np.bincount(self.file, minlength=len(self.files))
        present = (places[:, 0] >= 0) & (places[:, 1] < counts[places[:, 0]])
        rows = np.where(present, begins[places[:, 0]] + places[:, 1], NOWHERE)
        return self.take(rows[: int(np.flatnonzero(present)[-1]) + 1 if present.any() else 1])


def of_file(table: PageTable, image_bytes: int | None) -> ImageTable:
    """All pages of one file in its own order; a broken chain adds the page that cannot be read.

    `image_bytes`: size of an image whose strips follow each other as plain bytes, None when pages must be decoded.
    """
    pages = len(table)
    alike = table.last_strip - table.pixels == table.last_strip[0] - table.pixels[0]
    plain = alike & (table.pixels >= 0) & (image_bytes is not None)
    end = np.where(plain, table.pixels + (image_bytes or 0), table.end)
    found = ImageTable(
        [table.path],
        np.zeros(pages, dtype=np.int64),
        np.arange(pages),
        np.where(plain, table.pixels, NOWHERE),
        table.directory,
        (table.pixels >= 0) & (end <= table.file_bytes),
        table.kind,
    )
    return _append(found, np.full(1, NOWHERE), np.zeros(1, dtype=np.bool_)) if table.broken else found


def packed(table: PageTable, image_bytes: int, n_images: int) -> ImageTable:
    """`n_images` images back to back from the first page on, with or without a directory of their own.

    ImageJ writes stacks of more than 4 GB with one directory; a truncated file has lost the directories after its pixels.
    """
    first = of_file(table, image_bytes).take(np.zeros(1, dtype=np.int64))
    offset = first.offset[0] + image_bytes * np.arange(1, n_images, dtype=np.int64)
    return _append(first, offset, offset + image_bytes <= table.file_bytes)


def in_sequence(tables: Sequence[ImageTable]) -> ImageTable:
    """One table after the other."""
    columns: list[Any] = [
        np.concatenate([np.full(len(t), i, dtype=np.int64) for i, t in enumerate(tables)]),
        *(
            np.concatenate([getattr(t, name) for t in tables])
            for name in ("page", "offset", "directory", "readable", "kind")
        ),
    ]
    return ImageTable([t.files[0] for t in tables], *columns)


def _append(table: ImageTable, offset: NDArray[np.int64], readable: NDArray[np.bool_]) -> ImageTable:
    n = len(offset)
    nowhere = np.full(n, NOWHERE, dtype=np.int64)
    return ImageTable(
        table.files,
        np.append(table.file, np.zeros(n, dtype=np.int64)),
        np.append(table.page, len(table) + np.arange(n)),
        np.append(table.offset, offset),
        np.append(table.directory, nowhere),
        np.append(table.readable, readable),
        np.append(table.kind, np.repeat(table.kind[:1], n, axis=0), axis=0),
    )
