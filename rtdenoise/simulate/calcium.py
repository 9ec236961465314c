"""Two-photon population imaging: somata with dark nuclei, dendrites, neuropil, vessels.

`S(x, t) = PSF * T(x) [sum_i w_i(x) F0_i F_i(t) + (N(x) + haze(x)) max(0.3, 1 + sum_k U_k(x) n_k(t))]`. Everything but F and n is static
and the modes U are far smoother than the PSF, so PSF and transmission T act once; a frame is one sparse and one small dense product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rtdenoise.simulate.activity import Traces, burst_trains, calcium_traces
from rtdenoise.simulate.anatomy import (
    Image,
    Pixels,
    Points,
    blur,
    filaments,
    place_cells,
    random_walk,
    smooth_field,
    soma_image,
    splat,
    vessel_shadow,
)
from rtdenoise.simulate.params import INDICATORS, SimParams
from rtdenoise.simulate.scene import Scene, canvas, mask_in_frame

_BLOCK = 32
"""Frames per dense product: large enough for matrix-matrix speed, small enough to keep memory at a few frames."""


@dataclass(slots=True)
class _Footprints:
    """Pixels and weights of every cell, ready for one sparse matrix."""

    shape: tuple[int, int]
    pixels: list[Pixels] = field(default_factory=list)
    weights: list[Points] = field(default_factory=list)

    def add(self, pixels: Pixels, weights: NDArray[np.floating]) -> None:
        self.pixels.append(pixels)
        self.weights.append(weights.astype(np.float64))

    def matrix(self) -> sparse.csr_matrix:
        """(pixels, cells) float32."""
        n_cells = len(self.pixels)
        rows = np.concatenate([np.empty(0, np.int64), *self.pixels])
        cols = np.repeat(np.arange(n_cells), [len(p) for p in self.pixels])
        values = np.concatenate([np.empty(0), *self.weights]).astype(np.float32)
        return sparse.csr_matrix((values, (rows, cols)), shape=(self.shape[0] * self.shape[1], n_cells))


def calcium_scene(rng: np.random.Generator, params: SimParams) -> Scene:
    """Somata, apical dendrites and neuropil under vessels, with burst activity."""
    shape, um = canvas(params), params.um_per_px
    shadow = vessel_shadow(rng, shape, um) if params.vessels else np.ones(shape, np.float32)
    footprints = _Footprints(shape)
    depths, masks_px = _add_cells(rng, params, shadow, footprints)
    n_somata = len(depths)
    _add_apical_dendrites(rng, params, footprints)
    weights = footprints.matrix()
    spikes = _trains(rng, params, weights.shape[1])
    traces = calcium_traces(spikes, params.n_frames, params.frame_rate_hz, INDICATORS[params.indicator])
    background = _background(rng, params, weights, n_somata)
    modes, modulation = _modes(rng, params), _modulation(rng, params)
    light = shadow * _illumination(rng, shape)
    psf_px = params.psf_xy_um / um
    seen_cells = _optics(weights, light, psf_px)
    seen_background = blur(background * light, psf_px).ravel()

    def frames() -> Iterator[Image]:
        for first in range(0, params.n_frames, _BLOCK):
            block = slice(first, first + _BLOCK)
            images = np.maximum(modulation[block] @ modes, np.float32(0.3)) * seen_background
            for image, brightness in zip(images, traces.T[block], strict=True):
                yield (image + seen_cells @ brightness).reshape(shape)

    masks = [mask_in_frame(pixels, params) for pixels in masks_px]
    return Scene(frames, traces[:n_somata], spikes[:n_somata], masks, depths)


def _trains(rng: np.random.Generator, params: SimParams, n_cells: int) -> list[NDArray[np.float64]]:
    return burst_trains(
        rng,
        n_cells,
        params.n_frames / params.frame_rate_hz,
        burst_rate_hz=params.burst_rate_hz,
        burst_spikes=params.burst_spikes,
        active_fraction=params.active_fraction,
        shared_events_hz=params.shared_events_hz,
    )


def _add_cells(
    rng: np.random.Generator, params: SimParams, shadow: Image, footprints: _Footprints
) -> tuple[list[float], list[Pixels]]:
    """Draw every soma that is not under a vessel, with its dendrites; returns depths and mask pixels (weight above 25 % of the peak)."""
    shape, um = footprints.shape, params.um_per_px
    volume_mm3 = shape[0] * shape[1] * um * um / 1e6 * params.slab_um / 1e3
    box = (shape[0] * um, shape[1] * um, params.slab_um)
    cells = place_cells(rng, int(params.density_per_mm3 * volume_mm3), box, params.min_distance_um)
    resting = np.exp(rng.normal(0, 0.55, len(cells)))
    depths, masks = [], []
    for (y_um, x_um, z_um), f0 in zip(cells, resting / resting.mean() if len(resting) else resting, strict=True):
        y, x = y_um / um, x_um / um
        row, col = min(round(y), shape[0] - 1), min(round(x), shape[1] - 1)
        if shadow[row, col] < 0.55:
            continue
        body_px, body = _patch(soma_image(rng, params, z_um, (y - row, x - col)), row, col, shape, 0.01)
        twig_px, twig = _dendrites(rng, params, (y, x, z_um), shape)
        footprints.add(np.concatenate([body_px, twig_px]), f0 * np.concatenate([body, twig]))
        depths.append(float(z_um))
        masks.append(body_px[body > 0.25 * body.max()] if len(body) else body_px)
    return depths, masks


def _patch(image: Image, row: int, col: int, shape: tuple[int, int], floor: float) -> tuple[Pixels, Image]:
    """Flat indices and values above `floor` of a small image centred at (row, col)."""
    reach = image.shape[0] // 2
    rows, cols = np.mgrid[row - reach : row + reach + 1, col - reach : col + reach + 1]
    keep = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1]) & (image > floor)
    return rows[keep] * shape[1] + cols[keep], image[keep]


def _dendrites(
    rng: np.random.Generator, params: SimParams, soma: tuple[float, float, float], shape: tuple[int, int]
) -> tuple[Pixels, Points]:
    """Thin dim walks of 12-50 um that leave the soma; where they cross, the brighter one counts."""
    y, x, z_um = soma
    radius = params.soma_radius_um / params.um_per_px
    paths, levels = [np.empty((0, 2))], [np.empty(0)]
    for _ in range(rng.poisson(params.dendrites_per_cell)):
        angle, length = rng.uniform(0, 2 * np.pi), int(rng.integers(12, 50))
        start = (y + np.sin(angle) * radius, x + np.cos(angle) * radius)
        paths.append(random_walk(rng, start, angle, length, 1.0 / params.um_per_px, 0.12))
        levels.append(0.45 * np.exp(-np.arange(length + 1) / (0.5 * length)) * np.exp(-0.5 * (z_um / 6) ** 2))
    points = np.concatenate(paths)
    pixels, parts = splat(points[:, 0], points[:, 1], np.concatenate(levels), shape)
    unique, which = np.unique(pixels, return_inverse=True)
    brightest = np.zeros(len(unique))
    np.maximum.at(brightest, which, parts)
    return unique, brightest


def _add_apical_dendrites(rng: np.random.Generator, params: SimParams, footprints: _Footprints) -> None:
    """Dendrites that cross the plane: small bright discs of 0.7-1.5 um, each with its own activity."""
    shape, um = footprints.shape, params.um_per_px
    for _ in range(rng.poisson(params.apical_per_mm2 * shape[0] * shape[1] * um * um / 1e6)):
        y, x = rng.uniform(2, shape[0] - 3), rng.uniform(2, shape[1] - 3)
        radius = rng.uniform(0.7, 1.5) / um
        reach = int(np.ceil(radius)) + 2
        dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1] - np.array([y % 1, x % 1])[:, None, None]
        disc = 1 / (1 + np.exp((np.hypot(dy, dx) - radius) / 0.35))
        pixels, values = _patch(disc.astype(np.float32), int(y), int(x), shape, 0.02)
        footprints.add(pixels, values * 0.7 * np.exp(rng.normal(0, 0.6)))


def _background(rng: np.random.Generator, params: SimParams, weights: sparse.csr_matrix, n_somata: int) -> Image:
    """Neuropil (filaments and grain at three scales, dimmer under somata) and the haze of everything out of focus."""
    shape, um = canvas(params), params.um_per_px
    grain = 0.5 * filaments(rng, shape, um)
    for part, sigma_um in ((0.4, 0.8), (0.4, 2.5), (0.4, 18.0)):
        grain += part * smooth_field(rng, shape, sigma_um / um)
    neuropil = np.clip(1 + 0.30 * (grain - grain.mean()), 0.12, None)
    under_soma = np.asarray((weights[:, :n_somata] > 0.05).sum(axis=1)).reshape(shape) > 0
    neuropil *= np.where(under_soma, 0.75, 1.0)
    neuropil *= params.neuropil_mean / neuropil.mean()
    all_cells = np.asarray(weights.sum(axis=1)).reshape(shape)
    background: Image = (neuropil + 0.35 * blur(all_cells, 12 / um) + 0.03).astype(np.float32)
    return background


def _modes(rng: np.random.Generator, params: SimParams) -> Traces:
    """(modes + 2, pixels): a constant, fields of 25 um correlation length (NAOMi's background), and one shared by the whole field."""
    shape = canvas(params)
    fields = [smooth_field(rng, shape, 25 / params.um_per_px) for _ in range(params.bg_modes)]
    return np.stack([np.ones(shape, np.float32), *fields, np.full(shape, 1.5, np.float32)]).reshape(len(fields) + 2, -1)


def _modulation(rng: np.random.Generator, params: SimParams) -> Traces:
    """(T, modes + 2) weight of every mode; slow calcium of many neurites, 1 for the constant."""
    n_modes, n_frames = params.bg_modes + 1, params.n_frames
    trains = burst_trains(
        rng,
        n_modes,
        n_frames / params.frame_rate_hz,
        burst_rate_hz=1.5,
        burst_spikes=3.0,
        active_fraction=1.0,
        shared_events_hz=params.shared_events_hz,
    )
    slow = calcium_traces(trains, n_frames, params.frame_rate_hz, INDICATORS["gcamp6s"])
    slow -= slow.mean(axis=1, keepdims=True)
    slow *= params.neuropil_sd / np.sqrt(params.bg_modes) / (slow.std(axis=1, keepdims=True) + 1e-9)
    return np.ascontiguousarray(np.concatenate([np.ones((1, n_frames), np.float32), slow]).T, dtype=np.float32)


def _illumination(rng: np.random.Generator, shape: tuple[int, int]) -> Image:
    """Uneven excitation: smooth mottling and a darker rim, both up to 25 %."""
    mottle = np.clip(smooth_field(rng, shape, 0.22 * min(shape)), -1.5, 1.5) / 1.5
    yy, xx = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])
    return ((1 - 0.25 * mottle) * (1 - 0.125 * (yy**2 + xx**2))).astype(np.float32)


def _optics(weights: sparse.csr_matrix, light: Image, psf_px: float) -> sparse.csr_matrix:
    """Footprints as the detector sees them: shaded, then blurred by the PSF as one sparse product."""
    return (_blur_matrix(light.shape, psf_px) @ sparse.diags_array(light.ravel()) @ weights).tocsr().astype(np.float32)


def _blur_matrix(shape: tuple[int, ...], sigma_px: float) -> sparse.csr_matrix:
    """The Gaussian blur of `blur` as a matrix over flat pixels (borders are cut off, well inside the margin)."""
    reach = int(3.0 * sigma_px + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    taps /= taps.sum()
    axes = [sparse.diags_array(list(taps), offsets=list(range(-reach, reach + 1)), shape=(n, n)) for n in shape]
    return sparse.kron(axes[0], axes[1], format="csr")
