"""A movie from one format into another, frame by frame."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rtdenoise.files.prefetch import BLOCK_BYTES
from rtdenoise.files.reading import open_movie
from rtdenoise.files.writing import create_movie
from rtdenoise.recording import layout


def convert_movie(
    movie_in: Path,
    movie_out: Path,
    *,
    series: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write every image of a movie, or of a series of a recorded run, to `*.ome.tif` or `*.ome.zarr`; returns how many.

    Pixels stay as they are; memory does not grow with the length. Of a recording the stamps go along, as `<output>.stamps.csv`.
    Raises FileFormatError, MissingExtraError.
    """
    with open_movie(movie_in, dataset=series) as movie:
        info = movie.info
        block = np.empty((max(1, min(BLOCK_BYTES // info.image_bytes, info.n_images)), *info.shape), info.dtype)
        with create_movie(movie_out, info, overwrite=overwrite) as writer:
            for start in range(0, info.n_images, len(block)):
                n_here = min(len(block), info.n_images - start)
                movie.read_into(start, block[:n_here])
                for i in range(n_here):
                    channel, plane, _ = movie.frame_stamp(start + i)
                    writer.append(block[i], channel=channel, plane=plane)
                progress(start + n_here, info.n_images)
    if info.format == "recording":
        name = series or layout.series_names(movie_in)[0]
        shutil.copyfile(layout.stamps_file(movie_in, name), movie_out.with_name(movie_out.name + ".stamps.csv"))
    return info.n_images
