"""A simulated movie on disk: noisy and clean frames, the truth behind them, and the parameters that make it again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdenoise import __version__, config
from rtdenoise.config import Settings
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.files import create_movie, open_movie
from rtdenoise.frame import Pixels, StreamInfo
from rtdenoise.metrics import Mask
from rtdenoise.simulate import KnownFromParams, SimParams, Simulated

TRUTH, PARAMS = "truth.npz", "params.json"
SUFFIXES = {"tiff": ".ome.tif", "zarr": ".ome.zarr"}


class MadeFrom(Settings):
    """What `params.json` says. params: all that the movie depends on.  snr_in_db, photons_per_px: what came out."""

    rtdenoise: str
    params: SimParams
    snr_in_db: float
    photons_per_px: float


@dataclass(slots=True, frozen=True)
class SavedTruth(KnownFromParams):
    """The truth of a folder, as `rtdenoise.metrics.Truth`; clean is (T, Y, X) float32 counts."""

    params: SimParams
    clean: NDArray[np.float32]
    masks: list[Mask]
    spikes: list[NDArray[np.float64]]
    traces: NDArray[np.float32]

    @property
    def offset(self) -> float:
        """Counts without light."""
        return self.params.offset


def check_free(folder: Path, file_format: str, *, overwrite: bool) -> None:
    """Raises ConfigError for an unknown format, FileFormatError for a folder that holds a movie already, unless `overwrite`."""
    if file_format not in SUFFIXES:
        raise ConfigError(f"unknown format {file_format!r}; known: {', '.join(SUFFIXES)}")
    taken = [folder / name for name in (*_names(file_format), TRUTH, PARAMS) if (folder / name).exists()]
    if taken and not overwrite:
        raise FileFormatError(f"{taken[0]}: exists already; choose another folder or give --overwrite")
    if folder.exists() and not folder.is_dir():
        raise FileFormatError(f"{folder}: is a file; choose another name for the folder")


def _names(file_format: str) -> list[str]:
    return [f"{kind}{SUFFIXES[file_format]}" for kind in ("noisy", "clean")]


def write(folder: Path, movie: Simulated, file_format: str = "tiff", *, overwrite: bool = False) -> list[Path]:
    """Write a simulated movie into `folder`; returns the files. The parameters come last, so a torn folder has none.

    Raises ConfigError for an unknown format, FileFormatError for names that are taken.
    """
    check_free(folder, file_format, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PARAMS).unlink(missing_ok=True)
    made = [folder / name for name in _names(file_format)]
    for path, frames in zip(made, (movie.noisy, movie.clean), strict=True):
        _write_frames(path, frames, movie.params, overwrite)
    np.savez_compressed(folder / TRUTH, **_arrays(movie))
    facts = MadeFrom(
        rtdenoise=__version__, params=movie.params, snr_in_db=movie.snr_in_db, photons_per_px=movie.photons_per_px
    )
    (folder / PARAMS).write_text(facts.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")
    return [*made, folder / TRUTH, folder / PARAMS]


def read_params(path: Path) -> SimParams:
    """What made a folder, from it or its `params.json`. Raises ConfigError naming file and key."""
    file = path / PARAMS if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; it is written by `rtdenoise simulate`")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not valid JSON: {error}") from None
    return config.build(MadeFrom, values, str(file)).params


def read_truth(folder: Path) -> SavedTruth:
    """Raises ConfigError or FileFormatError for a folder that `rtdenoise simulate` did not write completely."""
    params = read_params(folder)
    try:
        with np.load(folder / TRUTH, allow_pickle=False) as saved:
            spikes = _split(saved["spike_times_s"], saved["n_spikes"])
            rows, cols = (_split(saved[name], saved["n_mask_pixels"]) for name in ("mask_rows", "mask_columns"))
            traces = saved["traces"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FileFormatError(f"{folder / TRUTH}: cannot be read ({error}); simulate the folder again") from None
    return SavedTruth(params, _read_clean(folder), list(zip(rows, cols, strict=True)), spikes, traces)


def _read_clean(folder: Path) -> NDArray[np.float32]:
    paths = [folder / f"clean{suffix}" for suffix in SUFFIXES.values()]
    for path in paths:
        if path.exists():
            with open_movie(path) as movie:
                return movie.read(0, movie.info.n_images).astype(np.float32, copy=False)
    raise FileFormatError(f"{folder}: no {' or '.join(path.name for path in paths)}; simulate the folder again")


def _write_frames(path: Path, frames: Pixels, params: SimParams, overwrite: bool) -> None:
    facts = StreamInfo(
        name="simulated",
        shape=params.shape,
        dtype=frames.dtype.name,
        frame_interval_s=1 / params.frame_rate_hz,
        um_per_px=params.um_per_px,
    )
    with create_movie(path, facts, overwrite=overwrite) as writer:
        for frame in frames:
            writer.append(frame)


def _arrays(movie: Simulated) -> dict[str, Any]:
    """Lists of unequal length are stored end to end, with the length of each. (Any: numpy takes them as keyword arguments.)"""
    return {
        "spike_times_s": _joined(movie.spikes, np.float64),
        "n_spikes": np.array([len(times) for times in movie.spikes], np.int64),
        "mask_rows": _joined([rows for rows, _ in movie.masks], np.int64),
        "mask_columns": _joined([cols for _, cols in movie.masks], np.int64),
        "n_mask_pixels": np.array([len(rows) for rows, _ in movie.masks], np.int64),
        "traces": movie.traces,
        "depths_um": np.asarray(movie.depths_um, np.float64),
        "shifts_px": movie.shifts_px,
        "offset": np.float64(movie.offset),
    }


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(part, dtype) for part in parts)])


def _split(joined: NDArray[Any], lengths: NDArray[np.int64]) -> list[NDArray[Any]]:
    return np.split(joined, np.cumsum(lengths)[:-1]) if len(lengths) else []
