"""Brain motion, and how a line scanner records it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtdenoise.simulate.activity import ou_process
from rtdenoise.simulate.anatomy import Image
from rtdenoise.simulate.params import SimParams

MARGIN_PX = 16
"""Tissue simulated beyond each border, so that motion moves real structure in."""
_MAX_SHIFT_PX = 12.0


def shifts_px(rng: np.random.Generator, params: SimParams) -> NDArray[np.float64]:
    """(T, 2) displacement (y, x) at the start of each frame: slow drift (8 s), jitter, and damped 1.2 Hz bouts."""
    n_frames, fps = params.n_frames, params.frame_rate_hz
    times = np.arange(n_frames) / fps
    shifts = params.drift_um * np.stack([ou_process(rng, n_frames, 8.0 * fps) for _ in range(2)], axis=1)
    shifts += params.jitter_um * rng.standard_normal((n_frames, 2))
    for _ in range(rng.poisson(params.bouts_hz * n_frames / fps)):
        centre, width = rng.uniform(0, times[-1]), rng.uniform(0.15, 0.6)
        amplitude = rng.exponential(params.bout_um) * rng.choice([-1, 1], 2) * np.array([1.0, 0.5])
        wave = np.exp(-0.5 * ((times - centre) / width) ** 2) * np.cos(2 * np.pi * 1.2 * (times - centre))
        shifts += wave[:, None] * amplitude
    return np.clip(shifts / params.um_per_px, -_MAX_SHIFT_PX, _MAX_SHIFT_PX)


def scan(
    image: Image, shape: tuple[int, int], start: NDArray[np.float64], end: NDArray[np.float64], bidi_px: float
) -> Image:
    """What a scanner records of `image` (with margin).

    The shift goes from `start` to `end` over the rows, and every second row is off by `bidi_px`.
    """
    height, width = shape
    progress = np.arange(height) / max(height - 1, 1)
    y = np.arange(height) + MARGIN_PX + start[0] + (end[0] - start[0]) * progress
    x = MARGIN_PX + start[1] + (end[1] - start[1]) * progress
    x[1::2] += bidi_px
    rows = np.clip(np.floor(y).astype(np.intp), 0, image.shape[0] - 2)
    cols = np.clip(np.floor(x).astype(np.intp), 0, image.shape[1] - width - 1)
    fy = (y - np.floor(y)).astype(np.float32)[:, None]
    fx = (x - np.floor(x)).astype(np.float32)[:, None]
    lines = image[rows] + fy * (image[rows + 1] - image[rows])
    out = np.empty(shape, np.float32)
    for col in np.unique(cols):
        hit = cols == col
        left, right = lines[hit, col : col + width], lines[hit, col + 1 : col + width + 1]
        out[hit] = left + fx[hit] * (right - left)
    return out
