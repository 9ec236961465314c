"""What can be said without a clean movie: the detector's noise, and what a denoiser took away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rtdenoise.metrics._scipy import ndimage

Movie = NDArray[np.integer | np.floating]
F32 = NDArray[np.float32]


@dataclass(slots=True, frozen=True)
class PhotonTransfer:
    """Noise variance = gain * mean + intercept. gain: counts per effective photon; zero: counts at which the variance vanishes."""

    gain: float
    intercept: float

    @property
    def zero(self) -> float:
        """Counts without light, as far as the noise tells."""
        return -self.intercept / self.gain if self.gain else float("nan")


@dataclass(slots=True, frozen=True)
class NoiseCorrelation:
    """Correlation of noise one and two pixels apart along the fast axis, and one along the slow axis."""

    x1: float
    x2: float
    y1: float


@dataclass(slots=True, frozen=True)
class ResidualChecks:
    """What raw - denoised should look like.

    t1, t2: correlation between successive frames, ideally 0.  x1, y1: between neighbours, ideally the detector's own (x 0.05-0.13, y 0).
    leak_dynamic: correlation with the denoised movie's changes, leak_static: of the mean residual with fine structure; ideally 0,
    positive where signal was removed.  variance_ratio: residual power over the detector's noise, ideally 1; below 1 noise was left in.
    """

    t1: float
    t2: float
    x1: float
    y1: float
    leak_dynamic: float
    leak_static: float
    variance_ratio: float | None = None


def noise_sd(movie: Movie) -> float:
    """RMS of frame differences / sqrt 2, in counts."""
    total = 0.0
    for before, after in pairwise(movie):
        change = np.subtract(after, before, dtype=np.float32)
        total += float(np.square(change, out=change).mean(dtype=np.float64))
    return float(np.sqrt(total / (len(movie) - 1) / 2))


def photon_transfer(movie: Movie, n_bins: int = 24) -> PhotonTransfer:
    """Line through noise variance (from frame differences) against mean, over bins of pixels; robust against slow signal.

    The dimmest bin and the brightest tenth are left out: clipping, and cells that change between frames.
    """
    mean = movie.mean(axis=0, dtype=np.float64).ravel()
    variance = np.zeros(movie.shape[1:])
    for before, after in pairwise(movie):
        variance += np.square(np.subtract(after, before, dtype=np.float64))
    variance /= 2 * (len(movie) - 1)
    bins = np.array_split(np.argsort(mean), n_bins)[1 : int(0.9 * n_bins)]
    flat = variance.ravel()
    x, y = [float(mean[b].mean()) for b in bins], [float(np.median(flat[b])) for b in bins]
    gain, intercept = np.polyfit(x, y, 1)
    return PhotonTransfer(float(gain), float(intercept))


def noise_correlation(movie: Movie) -> NoiseCorrelation:
    """Spatial correlation of frame differences."""
    d = np.diff(movie.astype(np.float32), axis=0)
    d -= d.mean(axis=(1, 2), keepdims=True)
    power = _mean_product(d, d)
    return NoiseCorrelation(
        x1=_mean_product(d[:, :, 1:], d[:, :, :-1]) / power,
        x2=_mean_product(d[:, :, 2:], d[:, :, :-2]) / power,
        y1=_mean_product(d[:, 1:], d[:, :-1]) / power,
    )


def residual_checks(raw: Movie, denoised: Movie, noise: PhotonTransfer | None = None) -> ResidualChecks:
    """Look at raw - denoised, both (T, Y, X) in counts. `noise` is the detector's, for the variance ratio."""
    residual = np.subtract(raw, denoised, dtype=np.float32)
    changes = residual - residual.mean(axis=0)
    denoised_changes = denoised - denoised.mean(axis=0, dtype=np.float32)
    variance = np.square(changes).mean(axis=0) + np.float32(1e-12)
    in_frame = residual - residual.mean(axis=(1, 2), keepdims=True)
    power = _mean_product(in_frame, in_frame) + 1e-12
    scale = math.sqrt(_mean_product(changes, changes) * _mean_product(denoised_changes, denoised_changes) + 1e-12)
    return ResidualChecks(
        t1=float(((changes[1:] * changes[:-1]).mean(axis=0) / variance).mean()),
        t2=float(((changes[2:] * changes[:-2]).mean(axis=0) / variance).mean()),
        x1=_mean_product(in_frame[:, :, 1:], in_frame[:, :, :-1]) / power,
        y1=_mean_product(in_frame[:, 1:], in_frame[:, :-1]) / power,
        leak_dynamic=_mean_product(changes, denoised_changes) / scale,
        leak_static=_static_leak(residual.mean(axis=0), denoised.mean(axis=0, dtype=np.float32)),
        variance_ratio=_variance_ratio(residual, denoised, noise) if noise else None,
    )


def _mean_product(a: Movie, b: Movie) -> float:
    return float(np.mean(a * b, dtype=np.float64))


def _static_leak(mean_residual: F32, mean_denoised: F32) -> float:
    fine = mean_denoised - ndimage.gaussian_filter(mean_denoised, 4)
    if mean_residual.std() == 0 or fine.std() == 0:
        return 0.0
    return float(np.corrcoef(mean_residual.ravel(), fine.ravel())[0, 1])


def _variance_ratio(residual: F32, denoised: Movie, noise: PhotonTransfer) -> float:
    expected = noise.gain * float(denoised.mean(dtype=np.float64)) + noise.intercept
    return _mean_product(residual, residual) / max(expected, 1e-9)
