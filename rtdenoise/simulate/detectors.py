"""From expected photons to camera counts: a photomultiplier behind a scanner, and an sCMOS camera."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdenoise.simulate.anatomy import Image
from rtdenoise.simulate.params import SimParams


class Detector(Protocol):
    """From expected photons (Y, X) to counts with the offset; `counts` minus `mean` is noise."""

    @property
    def dtype(self) -> type[np.signedinteger | np.unsignedinteger]:
        """What the camera stores."""

    def mean(self, photons: Image) -> Image:
        """Expected counts (Y, X)."""

    def counts(self, rng: np.random.Generator, photons: Image) -> Image:
        """One noisy frame (Y, X), not yet rounded."""


class Pmt:
    """NAOMi's detector (check_noise_params): Poisson photons, Gaussian pulse heights, amplifier bleed into the next pixel of the scan.

    The scan alternates direction, so the bleed goes right on even rows and left on odd ones. Adds line offsets, periodic pick-up
    and lines that lost gain, as real files show them.
    """

    dtype = np.int16

    def __init__(self, params: SimParams) -> None:
        self._p = params
        self._mean_bleed = np.float32(params.bleed_probability * params.bleed_mean)
        self._n_counted = 0

    def mean(self, photons: Image) -> Image:
        """Expected counts (Y, X)."""
        counts = np.float32(self._p.gain) * (photons + np.float32(self._p.dark_photons))
        _move_to_next_pixel(counts, self._mean_bleed * counts)
        return counts + np.float32(self._p.offset)

    def counts(self, rng: np.random.Generator, photons: Image) -> Image:
        """One noisy frame (Y, X), not yet rounded."""
        p = self._p
        n: Image = rng.poisson(photons + np.float32(p.dark_photons)).astype(np.float32)
        counts: Image = np.sqrt(np.float32(p.gain_variance) * n)
        counts *= rng.standard_normal(n.shape, dtype=np.float32)
        counts += np.float32(p.gain) * n
        if p.bleed_probability > 0:
            _move_to_next_pixel(counts, self._bleed_fraction(rng, n) * counts)
        noise = rng.standard_normal(n.shape, dtype=np.float32)
        noise *= np.float32(p.read_sd)
        counts += noise
        self._add_line_artifacts(rng, counts)
        return counts

    def _bleed_fraction(self, rng: np.random.Generator, n_photons: Image) -> Image:
        """Fraction of each pixel's charge that leaks: uniform up to twice the mean when it leaks, averaged over its pulses."""
        p = self._p
        draw = rng.random(n_photons.shape, dtype=np.float32)
        fraction = draw * np.float32(2 * p.bleed_mean / p.bleed_probability)
        fraction *= draw < np.float32(p.bleed_probability)
        fraction -= self._mean_bleed
        fraction /= np.sqrt(np.maximum(n_photons, np.float32(1)))
        fraction += self._mean_bleed
        return fraction

    def _add_line_artifacts(self, rng: np.random.Generator, counts: Image) -> None:
        p, height = self._p, counts.shape[0]
        lines = p.line_sd * rng.standard_normal((height, 1))
        if p.pickup_amplitude:
            lines += p.pickup_amplitude * np.sin(
                2 * np.pi * (0.137 * np.arange(height)[:, None] + 0.31 * self._n_counted)
            )
        counts += lines.astype(np.float32)
        if p.dropped_line_fraction:
            counts *= np.where(rng.random((height, 1)) < p.dropped_line_fraction, 0.55, 1.0).astype(np.float32)
        counts += np.float32(p.offset)
        self._n_counted += 1


def _move_to_next_pixel(counts: Image, leak: Image) -> None:
    counts -= leak
    counts[0::2, 1:] += leak[0::2, :-1]
    counts[1::2, :-1] += leak[1::2, 1:]


class Scmos:
    """Every pixel has its own gain (2 %), offset and log-normal read noise; 0.05 % are hot (engineering choices)."""

    dtype = np.uint16

    def __init__(self, params: SimParams, rng: np.random.Generator) -> None:
        shape, self._p = params.shape, params
        self._offset = (params.offset + rng.normal(0, 1.5, shape)).astype(np.float32)
        self._gain = (params.gain * np.clip(rng.normal(1, 0.02, shape), 0.8, 1.2)).astype(np.float32)
        self._read_sd = (params.read_sd * np.exp(rng.normal(0, 0.25, shape))).astype(np.float32)
        self._read_sd[rng.uniform(size=shape) < 5e-4] *= 8

    def mean(self, photons: Image) -> Image:
        """Expected counts (Y, X)."""
        return self._gain * (photons + np.float32(self._p.dark_photons)) + self._offset

    def counts(self, rng: np.random.Generator, photons: Image) -> Image:
        """One noisy frame (Y, X), not yet rounded."""
        counts = self._gain * rng.poisson(photons + np.float32(self._p.dark_photons)).astype(np.float32)
        counts += self._read_sd * rng.standard_normal(counts.shape, dtype=np.float32)
        counts += (self._p.line_sd * rng.standard_normal((counts.shape[0], 1))).astype(np.float32)
        return counts + self._offset


def make_detector(params: SimParams, rng: np.random.Generator) -> Detector:
    """The detector `params` ask for; an sCMOS camera draws its pixel maps from `rng`."""
    return Pmt(params) if params.detector == "pmt" else Scmos(params, rng)


def photon_scale(brightness: NDArray[np.float32], params: SimParams, snr_db: float) -> float:
    """Photons per unit of brightness that give an input SNR of `snr_db`, for a few clean frames (K, Y, X) of the movie.

    Starts from the closed form for Poisson plus Gaussian noise, then corrects it four times with simulated frames.
    """
    wanted = 10 ** (snr_db / 10)
    gain2 = params.gain**2
    excess = 1 + params.gain_variance / gain2 if params.detector == "pmt" else 1.0
    floor = (
        excess * params.dark_photons * gain2 + params.read_sd**2 + params.line_sd**2 + 0.5 * params.pickup_amplitude**2
    )
    a = gain2 * float(np.square(brightness).mean(dtype=np.float64))
    b = wanted * excess * gain2 * float(brightness.mean(dtype=np.float64))
    scale = (b + np.sqrt(b * b + 4 * a * wanted * floor)) / (2 * a)
    for _ in range(4):
        scale *= float(np.clip(wanted / _simulated_snr(brightness * np.float32(scale), params), 0.25, 4.0)) ** 0.9
    return float(scale)


def _simulated_snr(photons: NDArray[np.float32], params: SimParams) -> float:
    rng = np.random.default_rng([params.seed, 77])
    detector = make_detector(params, rng)
    signal = noise = 0.0
    for frame in photons:
        mean = detector.mean(frame)
        signal += power(mean - np.float32(params.offset))
        noise += power(detector.counts(rng, frame) - mean)
    return signal / noise


def power(image: Image) -> float:
    """Sum of squares."""
    flat = image.ravel()
    return float(np.dot(flat, flat))
