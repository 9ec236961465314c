"""Measures in the Fourier domain, without a clean movie: how fine the detail is that two halves agree on, and noise over time scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Movie = NDArray[np.integer | np.floating]
Curve = NDArray[np.float64]

THRESHOLD = 1 / 7
"""Fourier ring correlation below this is not resolved (Nieuwenhuizen 2013)."""
SMOOTHED_RINGS = 3
"""Rings averaged before the threshold is looked for, so that one ring's chance does not decide. Engineering choice."""
SEGMENT = 256
"""Frames per spectrum; longer movies give the mean of several. Engineering choice."""
NOISE_BAND = (0.25, 0.5)
"""Cycles per frame in which a calcium movie holds noise only (CaImAn's noise_range)."""


@dataclass(slots=True, frozen=True)
class RingCorrelation:
    """Fourier ring correlation. frequency: cycles per pixel, ring centres up to 0.5.  correlation: -1 .. 1 per ring."""

    frequency: Curve
    correlation: Curve

    @property
    def resolution_px(self) -> float:
        """Finest detail on which both halves agree, px: 1 / frequency at which the curve first falls below 1/7.

        2 (one pixel on, one off) where it never does, inf where it is below from the start.
        """
        width = min(SMOOTHED_RINGS, len(self.correlation))
        padded = np.pad(self.correlation, width // 2, mode="edge")
        smooth = np.convolve(padded, np.full(width, 1 / width), mode="valid")
        below = np.flatnonzero(smooth < THRESHOLD)
        if len(below) == 0:
            return 2.0
        i = int(below[0])
        if i == 0:
            return float("inf")
        share = (smooth[i - 1] - THRESHOLD) / (smooth[i - 1] - smooth[i])
        return float(1 / (self.frequency[i - 1] + share * (self.frequency[i] - self.frequency[i - 1])))


def ring_correlation(first: Movie, second: Movie) -> RingCorrelation:
    """Fourier ring correlation of two images (Y, X), or of corresponding frames of two movies (T, Y, X) taken together.

    The two must share no noise: denoised from different frames. A spatial filter alone does not change it, and structure that
    a denoiser invents the same way twice counts as agreement. Edges are tapered (Hann), each frame's mean is removed.
    Raises ValueError when the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"first is {first.shape}, second {second.shape}: compare the same frames")
    a, b = (first[None], second[None]) if first.ndim == 2 else (first, second)
    height, width = a.shape[1:]
    taper = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    cross, power_a, power_b = (np.zeros((height, width // 2 + 1)) for _ in range(3))
    for one, other in zip(a, b, strict=True):
        fa, fb = (np.fft.rfft2((frame - frame.mean()) * taper) for frame in (one, other))
        cross += (fa * fb.conj()).real
        power_a += np.square(np.abs(fa))
        power_b += np.square(np.abs(fb))
    return _over_rings(cross, power_a, power_b, height, width)


def _over_rings(cross: Curve, power_a: Curve, power_b: Curve, height: int, width: int) -> RingCorrelation:
    n_rings = min(height, width) // 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = np.minimum((radius * 2 * n_rings).astype(np.intp), n_rings).ravel()
    sums = [np.bincount(ring, values.ravel(), n_rings + 1)[:n_rings] for values in (cross, power_a, power_b)]
    norm = np.sqrt(sums[1] * sums[2])
    frequency = (np.arange(n_rings) + 0.5) / (2 * n_rings)
    correlation = np.where(norm > 0, sums[0] / np.maximum(norm, 1e-300), 0.0)
    return RingCorrelation(frequency[1:], correlation[1:])  # the first ring is the mean alone


@dataclass(slots=True, frozen=True)
class NoiseSpectrum:
    """Power over time scales. frequency: cycles per frame, 0 excluded.  power: counts^2; of white noise, its variance everywhere."""

    frequency: Curve
    power: Curve

    @property
    def noise_sd(self) -> float:
        """Counts, from the power between a quarter and half a cycle per frame, where a calcium movie holds noise only."""
        low, high = NOISE_BAND
        return float(np.sqrt(self.power[(self.frequency >= low) & (self.frequency <= high)].mean()))


def noise_spectrum(movie: Movie) -> NoiseSpectrum:
    """Spectrum of single pixels over time, mean over all pixels (Welch: Hann windows of up to 256 frames, half overlapping)."""
    n = min(len(movie), SEGMENT)
    taper = np.hanning(n + 2)[1:-1].astype(np.float32)[:, None]
    total, n_series = np.zeros(n // 2 + 1), 0
    for start in range(0, len(movie) - n + 1, max(1, n // 2)):
        for row in range(movie.shape[1]):
            pixels = movie[start : start + n, row].astype(np.float32)
            pixels -= pixels.mean(axis=0)
            total += np.square(np.abs(np.fft.rfft(pixels * taper, axis=0))).sum(axis=1)
            n_series += movie.shape[2]
    power = total / n_series / float(np.square(taper, dtype=np.float64).sum())
    return NoiseSpectrum(np.asarray(np.fft.rfftfreq(n)[1:], np.float64), power[1:])


def temporal_correlation(movie: Movie, lag: int = 1) -> float:
    """Correlation of single pixels with themselves `lag` frames later, over all pixels: 0 for white noise, near 1 for smooth signal."""
    mean = movie.mean(axis=0, dtype=np.float64).astype(np.float32)
    product = power = 0.0
    for before, after in zip(movie[:-lag], movie[lag:], strict=True):
        a, b = before - mean, after - mean
        product += float(np.mean(a * b, dtype=np.float64))
        power += float(np.mean(a * a, dtype=np.float64) + np.mean(b * b, dtype=np.float64)) / 2
    return product / power if power > 0 else 0.0
