"""A recorded series as a movie: its images in the order in which they came, with the stamps they had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import FileFormatError
from rtdenoise.files.movie import Movie, MovieInfo
from rtdenoise.files.zarr_movie import open_zarr
from rtdenoise.frame import Pixels
from rtdenoise.recording import layout
from rtdenoise.recording.table import read_stamps

Stamps = Mapping[str, NDArray[np.int64]]


def open_recording(folder: Path, *, series: str | None = None) -> Movie:
    """Open a series of a recorded run (`raw-000` where none is named), finished or not. Raises FileFormatError, MissingExtraError."""
    known = [*layout.series_names(folder), *layout.series_names(folder, layout.DENOISED)]
    name = series or (known[0] if known else "")
    if name not in known:
        raise FileFormatError(f"{folder}: no series {name or 'in it yet'}; there: {', '.join(known) or 'none'}")
    array = open_zarr(layout.array_folder(folder, name))
    stamps = _good(read_stamps(layout.stamps_file(folder, name)), array.info)
    if not len(stamps["t"]):
        raise FileFormatError(f"{folder}: no frame of {name} was written")
    source: dict[str, Any] = layout.read_json(folder / layout.RUN)["source"]
    info = replace(
        array.info,
        path=folder,
        format="recording",
        n_images=len(stamps["t"]),
        frame_interval_s=source.get("frame_interval_s") or _measured_interval_s(stamps),
        um_per_px=source.get("um_per_px"),
        scan=source.get("scan") or {},
    )
    return Movie(info, _RecordedReader(array, stamps), stamps)


def _good(stamps: Stamps, pixels: MovieInfo) -> Stamps:
    """The stamps whose pixels are there: of a copy, or after a power cut, one of the two may be a little behind."""
    here = stamps["t"] < pixels.n_images // (pixels.channels * pixels.planes)
    return {name: column[here] for name, column in stamps.items()}


def _measured_interval_s(stamps: Stamps) -> float | None:
    n_times = int(stamps["t"].max())
    return float(np.ptp(stamps["t_in"])) / n_times / 1e9 if n_times else None


class _RecordedReader:
    """Image i is where its stamp says."""

    def __init__(self, array: Movie, stamps: Stamps) -> None:
        self._array = array
        info = array.info
        self._places = (stamps["t"] * info.planes + stamps["plane"]) * info.channels + stamps["channel"]

    def read_into(self, start: int, out: Pixels) -> None:
        """Fill `out`."""
        for k in range(len(out)):
            self._array.read_into(int(self._places[start + k]), out[k : k + 1])

    def close(self) -> None:
        """Let go of the array."""
        self._array.close()
