"""Random crops of movies, and the frames that are kept from learning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rtdenoise.errors import ConfigError
from rtdenoise.train.movies import Movie
from rtdenoise.train.recipe import STEP

WIDE = 2**62
"""Draws are below this and taken modulo what there is to choose from: at most millions, so no choice is favoured."""


def hold_out(movies: Sequence[Movie], share: float, n_frames: int) -> tuple[list[Movie], list[Movie]]:
    """The movies to learn from, and their last frames: `share` of each movie, and at least one clip.

    Raises ConfigError when a movie is too short for a clip in both parts.
    """
    learn, keep = [], []
    for movie in movies:
        length = len(movie.counts)
        n_held = max(math.ceil(share * length), n_frames)
        if length - n_held < n_frames:
            need = f"{movie.name} has {length} frames: too few for clips of {n_frames} to learn from and to validate on"
            raise ConfigError(f"{need}; use longer movies, or set train.held_out = 0")
        learn.append(replace(movie, counts=movie.counts[:-n_held]))
        keep.append(replace(movie, counts=movie.counts[-n_held:]))
    return learn, keep


class Crops:
    """Random clips `(B, n_frames, crop, crop)`, normalised, each of a movie and place of its own.

    Raises ConfigError when a movie is shorter or smaller than a clip.
    """

    def __init__(self, movies: Sequence[Movie], n_frames: int, crop_px: int) -> None:
        for movie in movies:
            length, *size = movie.counts.shape
            if length < n_frames:
                raise ConfigError(f"{movie.name} has {length} frames, a clip needs {n_frames}; use longer movies")
            if min(size) < crop_px:
                need = f"a clip needs {crop_px} x {crop_px} px"
                raise ConfigError(f"{movie.name} is {movie.counts.shape}, {need}; lower train.crop_px")
        self._movies, self._n_frames, self._crop = list(movies), n_frames, crop_px

    def draw(self, batch: int, generator: torch.Generator, share: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Clips and, (B,), counts per normalised unit of the movies they come from.

        share: the rows of the batch that are wanted; the others are drawn and left.
        """
        draws = torch.randint(0, WIDE, (batch, 4), generator=generator).tolist()[share]
        clips = np.empty((len(draws), self._n_frames, self._crop, self._crop), np.float32)
        scales = np.empty(len(draws), np.float32)
        for i, (which, t, y, x) in enumerate(draws):
            movie = self._movies[which % len(self._movies)]
            movie.normalization.apply(self._cut(movie, t, y, x), clips[i])
            scales[i] = movie.normalization.scale
        return torch.from_numpy(clips), torch.from_numpy(scales)

    def _cut(self, movie: Movie, *place: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        sizes, steps = (self._n_frames, self._crop, self._crop), (1, STEP, STEP)
        rooms = [length - size for length, size in zip(movie.counts.shape, sizes, strict=True)]
        starts = [step * (at % (room // step + 1)) for at, room, step in zip(place, rooms, steps, strict=True)]
        t, y, x = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        return movie.counts[t, y, x]
