"""A bundle's own clips: movies like those it was trained on, to calibrate int8 on and to judge graphs with."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdenoise.bundle import Bundle
from rtdenoise.calibration import starting_normalization
from rtdenoise.errors import ConfigError
from rtdenoise.files import open_movie
from rtdenoise.frame import Pixels
from rtdenoise.normalize import CALIBRATION_FRAMES, Normalization
from rtdenoise.settings import EngineSettings

FILE = "clips.npz"
SHAPE = (96, 128)
"""Y and X of a clip, px: some cells, not square, and a second of work. Engineering choice."""
TRACE = 40
"""Frames beyond one window: as long as traces are compared over. Engineering choice."""
N_CALIBRATED, N_JUDGED = 4, 2
OTHER_SEEDS = 10_000
"""Added to a recipe's seeds for the clips that are judged: nothing has seen them. Engineering choice."""
STORED_PIXELS = 300_000
"""Of all stored clips together: 0.5 MB of 16-bit counts, which noise keeps from compressing. Engineering choice."""


@dataclass(slots=True, frozen=True)
class Clip:
    """counts: (T, Y, X) in camera counts.  clean: the expected counts where they are known."""

    name: str
    counts: Pixels
    normalization: Normalization
    clean: NDArray[np.float32] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return self.counts.shape[1], self.counts.shape[2]

    def cropped(self) -> Clip:
        """Two thirds of it, of odd sides: a second size, which shows what is frozen in a graph."""
        y, x = ((side * 2 // 3) | 1 for side in self.shape)
        clean = None if self.clean is None else np.ascontiguousarray(self.clean[:, :y, :x])
        return replace(self, counts=np.ascontiguousarray(self.counts[:, :y, :x]), clean=clean)


@dataclass(slots=True, frozen=True)
class Clips:
    """calibration: what int8 is calibrated on.  judged: others, that every form of the graphs is judged with."""

    calibration: tuple[Clip, ...]
    judged: tuple[Clip, ...]


def clips_of(bundle: Bundle, movies: Sequence[Path] = ()) -> Clips:
    """From `movies` where there are any, else those stored in the bundle, else simulated as its recipe says.

    Raises ConfigError for a bundle that has none of them and for a movie that is too short, FileFormatError for an
    unreadable one.
    """
    if movies:
        return _recorded(bundle, movies)
    if FILE in bundle.manifest.checksums:
        return _stored(bundle)
    groups = bundle.manifest.provenance.get("recipe", {}).get("data", {}).get("simulated", [])
    if not groups:
        raise ConfigError(
            f"{bundle.name}: it has no clips and was trained on no simulated movies; give one of yours with --movie"
        )
    return _simulated(bundle, groups)


def can_make(bundle: Bundle) -> bool:
    """Whether the bundle brings clips of its own."""
    data = bundle.manifest.provenance.get("recipe", {}).get("data", {})
    return FILE in bundle.manifest.checksums or bool(data.get("simulated"))


def frames_needed(bundle: Bundle) -> int:
    """Frames of a clip: what one output depends on, and `TRACE` more."""
    step = bundle.manifest.step
    return max(bundle.manifest.window.size, step.size if step else 0) + TRACE


def stored(movies: Sequence[Pixels], window: int) -> dict[str, bytes]:
    """`clips.npz` for a network of this window: the brightest places of up to two movies (T, Y, X) of counts, their first
    and last frames. No file when all movies are too short.
    """
    n_frames = window + TRACE
    chosen = [movie for movie in movies if len(movie) >= 2 * n_frames][:2]
    if not chosen:
        return {}
    side = STORED_PIXELS / (n_frames * 2 * len(chosen))
    shape = (int((side * 3 / 4) ** 0.5), int((side * 4 / 3) ** 0.5))
    halves = {"calibration": slice(0, n_frames), "judged": slice(-n_frames, None)}
    arrays = {
        f"{use}_{i}": movie[(half, *_brightest(movie, shape))]
        for use, half in halves.items()
        for i, movie in enumerate(chosen)
    }
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return {FILE: content.getvalue()}


def _stored(bundle: Bundle) -> Clips:
    with np.load(bundle.path / FILE, allow_pickle=False) as arrays:
        clips = {name: _clip(bundle, f"{FILE} {name}", arrays[name]) for name in sorted(arrays.files)}
    uses = [[clip for name, clip in clips.items() if name.startswith(use)] for use in ("calibration", "judged")]
    return Clips(tuple(uses[0]), tuple(uses[1]))


def _recorded(bundle: Bundle, paths: Sequence[Path]) -> Clips:
    """The first frames of every movie to calibrate on, the last ones to judge."""
    n_frames = frames_needed(bundle)
    halves: tuple[list[Clip], list[Clip]] = ([], [])
    for path in paths:
        with open_movie(path) as movie:
            step, n_there = movie.info.channels * movie.info.planes, movie.info.n_frames
            if n_there < 2 * n_frames:
                raise ConfigError(f"{path}: {n_there} frames; {bundle.name} needs {2 * n_frames} to be judged")
            starts = 0, (n_there - n_frames) * step
            parts = [movie.read(start, start + (n_frames - 1) * step + 1)[::step] for start in starts]
        place = _brightest(parts[0], SHAPE)
        for clips, part, when in zip(halves, parts, ("first", "last"), strict=True):
            clips.append(
                _clip(bundle, f"{path.name}, {when} frames", np.ascontiguousarray(part[(slice(None), *place)]))
            )
    return Clips(tuple(halves[0]), tuple(halves[1]))


def _simulated(bundle: Bundle, groups: Sequence[Mapping[str, Any]]) -> Clips:
    plans = list(_plans(groups))
    return Clips(
        tuple(_simulate(bundle, plan, 0) for plan in _evenly(plans, N_CALIBRATED)),
        tuple(_simulate(bundle, plan, OTHER_SEEDS) for plan in _evenly(plans, N_JUDGED)),
    )


def _plans(groups: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Preset and changes of every movie of the recipe."""
    for group in groups:
        for i, seed in enumerate(group["seeds"]):
            snr_db = group["snr_db"][i % len(group["snr_db"])]
            yield group["preset"], {**group.get("change", {}), "seed": seed, "snr_db": snr_db}


def _evenly(plans: Sequence[tuple[str, dict[str, Any]]], n: int) -> list[tuple[str, dict[str, Any]]]:
    return [plans[i] for i in np.unique(np.linspace(0, len(plans) - 1, n).round().astype(int))]


def _simulate(bundle: Bundle, plan: tuple[str, dict[str, Any]], other: int) -> Clip:
    from rtdenoise.simulate import preset, simulate

    name, facts = plan
    facts = {**facts, "seed": facts["seed"] + other, "shape": SHAPE, "n_frames": frames_needed(bundle)}
    made = simulate(preset(name, **facts))
    return _clip(bundle, f"{name} seed {facts['seed']} {facts['snr_db']:g} dB", made.noisy, made.clean)


def _clip(bundle: Bundle, name: str, counts: Pixels, clean: NDArray[np.float32] | None = None) -> Clip:
    """Normalised as a live stream of it would be."""
    first = list(counts[:CALIBRATION_FRAMES])
    return Clip(name, counts, starting_normalization(EngineSettings(model=str(bundle.path)), first), clean)


def _brightest(movie: Pixels, shape: tuple[int, int]) -> tuple[slice, slice]:
    """The tile of `shape` that reaches the brightest values, as cells do."""
    y, x = (min(side, there) for side, there in zip(shape, movie.shape[1:], strict=True))
    peaks = np.quantile(movie[:: max(1, len(movie) // 32)].astype(np.float32), 0.95, axis=0)
    corners = [(i, j) for i in range(0, movie.shape[1] - y + 1, y) for j in range(0, movie.shape[2] - x + 1, x)]
    top, left = max(corners, key=lambda at: float(np.quantile(peaks[at[0] : at[0] + y, at[1] : at[1] + x], 0.99)))
    return slice(top, top + y), slice(left, left + x)
