"""Membrane-labelled cells at 500-1000 Hz: spikes of ~2 ms on a sub-threshold potential, over a static background that bleaches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from rtdenoise.simulate.activity import voltage_traces
from rtdenoise.simulate.anatomy import Image, blur, place_cells, smooth_field, soma_image
from rtdenoise.simulate.params import SimParams
from rtdenoise.simulate.scene import Scene, canvas, mask_in_frame


def voltage_scene(rng: np.random.Generator, params: SimParams) -> Scene:
    """Ring-shaped cells in focus with their own voltage."""
    shape, um = canvas(params), params.um_per_px
    ringlike = params.model_copy(update={"nucleus_fraction": 0.86, "nucleus_level": 0.25})
    box = (shape[0] * um, shape[1] * um, 4.0)
    cells = place_cells(rng, params.voltage_cells, box, 3.0 * params.soma_radius_um)
    footprints = np.zeros((len(cells), *shape), np.float32)
    for footprint, (y_um, x_um, z_um) in zip(footprints, cells, strict=True):
        _draw_cell(rng, ringlike, footprint, (y_um / um, x_um / um), z_um)
    traces, spikes = voltage_traces(
        rng,
        len(cells),
        params.n_frames,
        params.frame_rate_hz,
        spike_rate_hz=params.spike_rate_hz,
        spike_dff=params.spike_dff,
        subthreshold_dff=params.subthreshold_dff,
        polarity=params.polarity,
    )
    psf_px = params.psf_xy_um / um
    seen = blur(np.concatenate([footprints, _background(rng, params)[None]]), psf_px).reshape(len(cells) + 1, -1)
    levels = _levels(rng, params, traces)

    def frames() -> Iterator[Image]:
        for level in levels:
            yield (level @ seen).reshape(shape)

    masks = [mask_in_frame(np.flatnonzero(f > 0.3 * f.max()), params) for f in footprints]
    return Scene(frames, traces, spikes, masks, [float(z) for z in cells[:, 2]])


def _draw_cell(
    rng: np.random.Generator, params: SimParams, image: Image, centre: tuple[float, float], z_um: float
) -> None:
    row, col = round(centre[0]), round(centre[1])
    soma = soma_image(rng, params, z_um, (centre[0] - row, centre[1] - col)) * np.float32(np.exp(rng.normal(0, 0.3)))
    reach = soma.shape[0] // 2
    y0, y1 = max(row - reach, 0), min(row + reach + 1, image.shape[0])
    x0, x1 = max(col - reach, 0), min(col + reach + 1, image.shape[1])
    image[y0:y1, x0:x1] += soma[y0 - row + reach : y1 - row + reach, x0 - col + reach : x1 - col + reach]


def _background(rng: np.random.Generator, params: SimParams) -> Image:
    shape, um = canvas(params), params.um_per_px
    texture = 0.3 * smooth_field(rng, shape, 10 / um) + 0.12 * smooth_field(rng, shape, 1.5 / um)
    return np.clip(params.voltage_background * (1 + texture), 0.05, None)


def _levels(rng: np.random.Generator, params: SimParams, traces: Image) -> Image:
    """(T, cells + 1) brightness of every cell and of the background, which flickers by 1 % within 50 ms; all of it bleaches."""
    fps = params.frame_rate_hz
    flicker = 1 + 0.01 * ndimage.gaussian_filter1d(rng.standard_normal(params.n_frames), 0.05 * fps)
    levels = np.concatenate([traces, flicker[None]]).T
    if params.bleach_s is not None:
        # The surface of a cell bleaches 20 times faster under voltage illumination (engineering choice).
        levels = levels * np.exp(-np.arange(params.n_frames) / fps / max(params.bleach_s / 20, 1.0))[:, None]
    return np.ascontiguousarray(levels, dtype=np.float32)
