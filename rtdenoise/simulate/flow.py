"""Cells that move through vessels over static tissue: whatever averages in time loses here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.simulate.anatomy import Image, Points, blur, random_walk, smooth_field, stamp_tube
from rtdenoise.simulate.params import SimParams
from rtdenoise.simulate.scene import Scene, canvas

_HEARTBEAT_HZ = 7.5


@dataclass(slots=True, frozen=True)
class _Vessel:
    """Centre line with unit tangents, and n cells: start and speed along it (px), sideways offset, amplitude, half axes (px)."""

    path: Points
    tangents: Points
    start: Points
    speed: Points
    sideways: Points
    amplitude: Points
    half_length: Points
    half_width: Points

    def cells_at(self, advance_s: float) -> tuple[Points, Points]:
        """Positions (n, 2) and unit tangents (n, 2) after moving for `advance_s` at mean speed."""
        along = (self.start + self.speed * advance_s) % (len(self.path) - 2)
        step = along.astype(int)
        tangent = self.tangents[step]
        normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
        return self.path[step] + (along - step)[:, None] * tangent + self.sideways[:, None] * normal, tangent


def flow_scene(rng: np.random.Generator, params: SimParams) -> Scene:
    """Vessels with a parabolic profile and a pulse of 7.5 Hz; bright cells in dark plasma, or dark cells in bright plasma."""
    shape, um = canvas(params), params.um_per_px
    mottle = 0.5 * smooth_field(rng, shape, 1.2 / um) + 0.4 * smooth_field(rng, shape, 10 / um)
    tissue = 0.18 * np.clip(1 + mottle, 0.1, None)
    lumen = np.zeros(shape, np.float32)
    vessels = [_make_vessel(rng, params, lumen) for _ in range(params.flow_vessels)]
    bright_plasma = params.flow_label == "plasma"
    still = (tissue * (1 - 0.8 * lumen) + (0.75 if bright_plasma else 0.12) * lumen).astype(np.float32)
    pulse = 1 + 0.25 * np.sin(2 * np.pi * _HEARTBEAT_HZ * np.arange(params.n_frames) / params.frame_rate_hz + 1.0)
    advance_s = np.concatenate([[0.0], np.cumsum(pulse)[:-1]]) / params.frame_rate_hz

    def frames() -> Iterator[Image]:
        for moved_s in advance_s:
            image = still.copy()
            for vessel in vessels:
                _draw_cells(image, vessel, moved_s, bright_plasma)
            yield blur(image, params.psf_xy_um / um)

    return Scene(frames, np.ones((0, params.n_frames), np.float32))


def _make_vessel(rng: np.random.Generator, params: SimParams, lumen: Image) -> _Vessel:
    """Lay one vessel across the field, draw its lumen, and fill it with cells. Sizes are engineering choices (radius 4-14 um)."""
    (height, width), um = lumen.shape, params.um_per_px
    from_top = rng.uniform() < 0.5
    entry = rng.uniform(0.1, 0.9)
    start = (0.0, entry * width) if from_top else (entry * height, 0.0)
    angle = (np.pi / 2 if from_top else 0.0) + rng.normal(0, 0.25)
    path = random_walk(rng, start, angle, int(1.8 * max(height, width)), 1.0, 0.015)
    radius = rng.uniform(4, 14) / um
    stamp_tube(lumen, path[::2], np.full(len(path[::2]), radius), 1.0 / um)
    tangents = np.gradient(path, axis=0)
    n = max(3, int(rng.poisson(params.flow_cells_per_100um * len(path) * um / 100)))
    sideways = rng.uniform(-0.75, 0.75, n) * radius
    mean_speed = params.flow_um_per_s / um * rng.uniform(0.6, 1.4)
    return _Vessel(
        path=path,
        tangents=tangents / (np.linalg.norm(tangents, axis=1, keepdims=True) + 1e-9),
        start=rng.uniform(0, len(path), n),
        speed=mean_speed * (1 - (sideways / (1.05 * radius)) ** 2) * rng.uniform(0.85, 1.15, n),
        sideways=sideways,
        amplitude=np.exp(rng.normal(0, 0.3, n)),
        half_length=rng.uniform(2.5, 4.5, n) / um,
        half_width=rng.uniform(2.0, 3.2, n) / um,
    )


def _draw_cells(image: Image, vessel: _Vessel, moved_s: float, bright_plasma: bool) -> None:
    positions, tangents = vessel.cells_at(moved_s)
    sizes = zip(vessel.amplitude, vessel.half_length, vessel.half_width, strict=True)
    for (y, x), (ty, tx), (amplitude, length, width) in zip(positions, tangents, sizes, strict=True):
        reach = int(3 * length) + 1
        row, col = int(y) - reach, int(x) - reach
        side = 2 * reach + 1
        if row < 0 or col < 0 or row + side > image.shape[0] or col + side > image.shape[1]:
            continue
        patch = image[row : row + side, col : col + side]
        cell = _ellipse(np.arange(row, row + side) - y, np.arange(col, col + side) - x, (ty, tx), length, width)
        if bright_plasma:
            patch *= 1 - 0.8 * cell
        else:
            patch += amplitude * cell


def _ellipse(
    dy: NDArray[np.floating], dx: NDArray[np.floating], tangent: tuple[float, float], length: float, width: float
) -> Image:
    along = dy[:, None] * tangent[0] + dx * tangent[1]
    across = dx * tangent[0] - dy[:, None] * tangent[1]
    return np.exp(-0.5 * ((along / length) ** 2 + (across / width) ** 2) ** 1.5).astype(np.float32)
