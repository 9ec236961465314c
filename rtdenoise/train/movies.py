"""Movies to learn from: files, and simulations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import ConfigError, FileFormatError, MissingExtraError
from rtdenoise.frame import FRAME_DTYPES, Pixels
from rtdenoise.normalize import Normalization, calibrate
from rtdenoise.train.recipe import DataSettings, SimulatedMovies

CALIBRATION_FRAMES = 64
"""Frames, evenly over a movie, that give its mean and sd. Engineering choice: a whole movie in float64 need not fit
into memory.
"""


@dataclass(slots=True, frozen=True)
class Movie:
    """One movie in memory. counts: (T, Y, X) in camera counts.  clean: the expected counts where they are known."""

    name: str
    counts: Pixels
    normalization: Normalization
    clean: NDArray[np.float32] | None = None


def gather(data: DataSettings, folder: Path) -> list[Movie]:
    """All movies of a recipe in `folder`. Raises ConfigError when a pattern matches nothing, FileFormatError for an
    unreadable file.
    """
    found: list[Movie] = []
    for pattern in data.movies:
        paths = sorted(folder.glob(pattern)) if not Path(pattern).is_absolute() else sorted(_absolute(pattern))
        if not paths:
            raise ConfigError(f"{folder}: no movie matches {pattern!r}; give TIFF files or Zarr folders")
        found += [from_file(path, data.max_frames) for path in paths]
    return found + [replace(movie, clean=None) for movie in simulated(data.simulated)]  # learning never sees the truth


def simulated(groups: tuple[SimulatedMovies, ...]) -> Iterator[Movie]:
    """The movies of simulation settings, made one after the other."""
    from rtdenoise.simulate import preset, simulate

    for group in groups:
        for i, seed in enumerate(group.seeds):
            snr_db = group.snr_db[i % len(group.snr_db)]
            facts = {"seed": seed, "snr_db": snr_db, "shape": group.shape, "n_frames": group.n_frames, **group.change}
            made = simulate(preset(group.preset, **facts))
            yield of_counts(f"{group.preset} seed {seed} {snr_db:g} dB", made.noisy, made.clean)


def from_file(path: Path, max_frames: int) -> Movie:
    """The first frames of a TIFF file or Zarr array."""
    try:
        counts = _zarr(path, max_frames) if path.is_dir() else _tiff(path, max_frames)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise FileFormatError(f"{path}: cannot be read as a movie: {error}") from None
    return of_counts(str(path), counts)


def of_counts(name: str, counts: Pixels, clean: NDArray[np.float32] | None = None) -> Movie:
    """A movie with its own calibration. Raises FileFormatError unless it is (T, Y, X) of a camera's pixel type."""
    if counts.ndim != 3 or counts.dtype.name not in FRAME_DTYPES:
        raise FileFormatError(f"{name}: {counts.shape} {counts.dtype} is not one channel of a movie (T, Y, X)")
    chosen = np.unique(np.linspace(0, len(counts) - 1, CALIBRATION_FRAMES).round().astype(int))
    return Movie(name, counts, calibrate(list(counts[chosen])), clean)


def typical_scale(movies: Sequence[Movie]) -> float:
    """Geometric mean of the movies' counts per normalised unit: one number for what depends on the units of the loss."""
    return math.exp(sum(math.log(movie.normalization.scale) for movie in movies) / len(movies))


def _absolute(pattern: str) -> Iterator[Path]:
    anchor = Path(Path(pattern).anchor)
    return anchor.glob(str(Path(pattern).relative_to(anchor)))


def _tiff(path: Path, max_frames: int) -> Pixels:
    try:
        import tifffile
    except ImportError:
        raise MissingExtraError("tifffile", "train") from None
    with tifffile.TiffFile(path) as file:
        return np.asarray(file.asarray(key=slice(0, max_frames)))


def _zarr(path: Path, max_frames: int) -> Pixels:
    """An array, or level 0 of an OME-Zarr image; axes of length 1 between T and Y are dropped."""
    try:
        import zarr
    except ImportError:
        raise MissingExtraError("zarr", "train") from None
    node = zarr.open(str(path), mode="r")
    array = node if isinstance(node, zarr.Array) else node["0"]
    if not isinstance(array, zarr.Array):
        raise ValueError("level 0 of the image is not an array")
    counts = np.asarray(array[:max_frames])
    return counts.squeeze(tuple(range(1, counts.ndim - 2)))
