"""Static structure: smooth fields, walks, vessels, somata, thin processes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtdenoise.simulate.params import SimParams

Image = NDArray[np.float32]
Points = NDArray[np.float64]
Pixels = NDArray[np.int64]


def blur(image: NDArray[np.floating], sigma_px: float) -> Image:
    """Gaussian blur over the last two axes, reflected at the borders."""
    sigmas = (0.0,) * (image.ndim - 2) + (sigma_px, sigma_px)
    out: Image = ndimage.gaussian_filter(image.astype(np.float32), sigmas, mode="reflect", truncate=3.0)
    return out


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> Image:
    """A random field (Y, X) of this correlation length with mean 0 and sd 1; a very smooth one is made coarse and interpolated."""
    step = max(1, int(sigma_px / 4))
    coarse = (-(-shape[0] // step) + 3, -(-shape[1] // step) + 3)
    field = blur(rng.standard_normal(coarse if step > 1 else shape, dtype=np.float32), sigma_px / step)
    if step > 1:
        field = ndimage.zoom(field, step, order=2)[: shape[0], : shape[1]]
    field -= field.mean()
    return field / np.float32(field.std() + 1e-9)


def random_walk(
    rng: np.random.Generator, start: tuple[float, float], angle: float, n_steps: int, step_px: float, wobble: float
) -> Points:
    """(n_steps + 1, 2) points (y, x) of a path whose direction wanders by `wobble` rad per step."""
    angles = angle + np.cumsum(rng.normal(0, wobble, n_steps))
    steps = step_px * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return np.concatenate([[start], np.asarray(start) + np.cumsum(steps, axis=0)])


def stamp_tube(image: Image, points: Points, radii_px: NDArray[np.float64], soft_px: float) -> None:
    """Draw discs with soft borders along `points` into `image`, keeping the larger of old and new."""
    height, width = image.shape
    for (y, x), radius in zip(points, radii_px, strict=True):
        reach = int(np.ceil(radius + 3 * soft_px)) + 1
        y0, y1 = max(int(y) - reach, 0), min(int(y) + reach + 1, height)
        x0, x1 = max(int(x) - reach, 0), min(int(x) + reach + 1, width)
        if y0 >= y1 or x0 >= x1:
            continue
        rows, cols = np.ogrid[y0:y1, x0:x1]
        disc = 1.0 / (1.0 + np.exp((np.hypot(rows - y, cols - x) - radius) / (0.5 * soft_px)))
        np.maximum(image[y0:y1, x0:x1], disc, out=image[y0:y1, x0:x1])


def vessel_shadow(rng: np.random.Generator, shape: tuple[int, int], um: float) -> Image:
    """Transmission (0, 1]: wide defocused surface vessels, sharp capillaries and penetrating vessels.

    Radii 5-14, 2-6.5 and 1.5-2.6 um around NAOMi's 15/10/3 um; numbers per area are engineering choices.
    """
    area_mm2 = shape[0] * shape[1] * um * um / 1e6
    surface, sharp = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for _ in range(rng.poisson(max(1.5, 10 * area_mm2))):
        _surface_vessel(rng, surface, um)
    for _ in range(rng.poisson(220 * area_mm2)):
        centre = np.array([[rng.uniform(0, shape[0]), rng.uniform(0, shape[1])]])
        stamp_tube(sharp, centre, np.array([rng.uniform(2.0, 6.5) / um]), 1.0 / um)
    for _ in range(rng.poisson(60 * area_mm2)):
        start = (rng.uniform(0, shape[0]), rng.uniform(0, shape[1]))
        path = random_walk(rng, start, rng.uniform(0, 2 * np.pi), int(rng.integers(8, 28)), 3.0 / um, 0.22)
        stamp_tube(sharp, path, np.full(len(path), rng.uniform(1.5, 2.6) / um), 0.8 / um)
    shadow = (1 - 0.75 * blur(surface, 5 / um)) * (1 - 0.85 * blur(sharp, 0.6 / um))
    return np.clip(shadow, 0.03, 1.0)


def _surface_vessel(rng: np.random.Generator, image: Image, um: float) -> None:
    height, width = image.shape
    n_steps = int(1.4 * max(height, width) / 3)
    starts = [(0.0, rng.uniform(0, width)), (float(height), rng.uniform(0, width))]
    starts += [(rng.uniform(0, height), 0.0), (rng.uniform(0, height), float(width))]
    side = int(rng.integers(4))
    angle = (np.pi / 2, -np.pi / 2, 0.0, np.pi)[side] + rng.normal(0, 0.4)
    trunk = random_walk(rng, starts[side], angle, n_steps, 3.0, 0.06)
    radius = rng.uniform(5, 14) / um
    stamp_tube(image, trunk, np.linspace(radius, 0.6 * radius, len(trunk)), 3.0 / um)
    for _ in range(rng.integers(0, 3)):
        y, x = trunk[rng.integers(len(trunk))]
        turn = rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
        branch = random_walk(rng, (y, x), angle + turn, int(0.5 * max(height, width) / 3), 3.0, 0.08)
        stamp_tube(image, branch, np.linspace(0.6 * radius, 0.3 * radius, len(branch)), 3.0 / um)


def place_cells(
    rng: np.random.Generator, n_wanted: int, box_um: tuple[float, float, float], spacing_um: float
) -> Points:
    """(n, 3) positions (y, x, z) um at least `spacing_um` apart; fewer than wanted when the box is full. z is centred on the focus."""
    candidates = rng.uniform(0, 1, (int(2.2 * n_wanted) + 1, 3)) * box_um - np.array([0, 0, box_um[2] / 2])
    placed = np.empty((n_wanted, 3))
    n = 0
    for point in candidates:
        if n == n_wanted:
            break
        if np.all(np.square(placed[:n] - point).sum(axis=1) >= spacing_um**2):
            placed[n] = point
            n += 1
    return placed[:n]


def soma_image(rng: np.random.Generator, params: SimParams, z_um: float, centre_px: tuple[float, float]) -> Image:
    """(2R+1, 2R+1) weights of a shell-shaped soma with a dark nucleus, seen through a Gaussian axial PSF.

    `centre_px` is its position (y, x) relative to the middle pixel. Radius x0.75-1.4 and eccentricity up to 0.35 as in NAOMi.
    """
    um, mean_radius = params.um_per_px, params.soma_radius_um
    radius = float(np.clip(rng.normal(mean_radius, 0.10 * mean_radius), 0.75 * mean_radius, 1.4 * mean_radius))
    reach = int(np.ceil(1.5 * radius / um)) + 2
    yy, xx = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32) * um
    yy, xx = yy - centre_px[0] * um, xx - centre_px[1] * um
    tilt = rng.uniform(0, np.pi)
    u, v = np.cos(tilt) * xx + np.sin(tilt) * yy, np.cos(tilt) * yy - np.sin(tilt) * xx
    outline, body_outline = _wobbly_outline(rng, np.arctan2(v, u))
    stretch = 0.3 * rng.uniform(0.0, 0.35)
    a, b = radius * (1 + stretch), radius * (1 - stretch)
    nucleus = params.nucleus_fraction * rng.uniform(0.92, 1.06)
    du, dv = rng.normal(0, 0.06 * radius, 2)
    body2 = ((u / a) ** 2 + (v / b) ** 2) / body_outline**2
    nucleus2 = (((u - du) / (a * nucleus)) ** 2 + ((v - dv) / (b * nucleus)) ** 2) / outline**2
    return _through_focus(body2, nucleus2, radius, nucleus, z_um, params)


def _wobbly_outline(rng: np.random.Generator, phi: NDArray[np.floating]) -> tuple[Image, Image]:
    """Radius factor of the nucleus and of the body, which also has a dendritic pole."""
    phases = rng.uniform(0, 2 * np.pi, 2)
    wobble = 1 + 0.05 * np.cos(2 * phi + phases[0]) + 0.05 * np.cos(3 * phi + phases[1])
    from_pole = np.angle(np.exp(1j * (phi - rng.uniform(-np.pi, np.pi))))
    taper = 1 + 0.25 * np.exp(-((from_pole / 0.35) ** 2))
    return wobble.astype(np.float32), (wobble * taper).astype(np.float32)


def _through_focus(
    body2: Image, nucleus2: Image, radius: float, nucleus: float, z_um: float, params: SimParams
) -> Image:
    """Sum of nine optical sections of the shell, weighted by the axial PSF; borders are 0.35 um soft."""
    planes = np.linspace(-2.2, 2.2, 9) * params.psf_z_um
    weights = np.exp(-0.5 * (planes / params.psf_z_um) ** 2)
    depth2 = ((z_um + planes[:, None, None]) / radius) ** 2
    cell = _sigmoid((1 - np.sqrt(body2 + depth2)) * radius / 0.35)
    hole = _sigmoid((1 - np.sqrt(nucleus2 + depth2 / nucleus**2)) * radius * nucleus / 0.35)
    shell = cell - (1 - params.nucleus_level) * np.minimum(hole, cell)
    return np.tensordot(weights / weights.sum(), shell, axes=1).astype(np.float32)


def _sigmoid(x: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))))


def splat(
    y: NDArray[np.floating], x: NDArray[np.floating], weight: NDArray[np.floating], shape: tuple[int, int]
) -> tuple[Pixels, Points]:
    """Flat pixel indices and bilinear weights of points (y, x); points outside `shape` are left out."""
    y0, x0 = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    fy, fx = y - y0, x - x0
    rows = np.concatenate([y0, y0, y0 + 1, y0 + 1])
    cols = np.concatenate([x0, x0 + 1, x0, x0 + 1])
    parts = np.concatenate(
        [weight * (1 - fy) * (1 - fx), weight * (1 - fy) * fx, weight * fy * (1 - fx), weight * fy * fx]
    )
    inside = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
    return rows[inside] * shape[1] + cols[inside], parts[inside]


def filaments(rng: np.random.Generator, shape: tuple[int, int], um: float) -> Image:
    """Texture (Y, X) with sd 1 of thin axons and distal dendrites: 9000 walks of 10-60 um per mm2, log-normal, defocused by depth."""
    n, length = rng.poisson(9000 * shape[0] * shape[1] * um * um / 1e6), 60
    angle = rng.uniform(0, 2 * np.pi, (n, 1)) + np.cumsum(rng.normal(0, 0.13, (n, length)), axis=1)
    y = rng.uniform(0, shape[0], (n, 1)) + np.cumsum(np.sin(angle), axis=1) / um
    x = rng.uniform(0, shape[1], (n, 1)) + np.cumsum(np.cos(angle), axis=1) / um
    z_um = rng.normal(0, 5.0, (n, 1)) + np.cumsum(rng.normal(0, 0.35, (n, length)), axis=1)
    bright = np.exp(rng.normal(0, 0.7, (n, 1))) * np.exp(-0.5 * (z_um / 3.0) ** 2)
    bright *= np.arange(length) < rng.integers(10, length, (n, 1))
    pixels, parts = splat(y.ravel(), x.ravel(), bright.ravel(), shape)
    image = np.bincount(pixels, parts, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)
    return image / np.float32(image.std() + 1e-9)
