"""How far a denoised movie is from the clean one. Movies are (T, Y, X) in camera counts, compared as they are: never rescaled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.metrics._scipy import ndimage

Movie = NDArray[np.integer | np.floating]
Image = NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class PixelMoments:
    """Sums over time per pixel (Y, X) of clean c and error e = denoised - c, enough for every measure but SSIM."""

    n_frames: int
    c: Image
    e: Image
    cc: Image
    ee: Image
    ce: Image

    @property
    def mse(self) -> float:
        """Mean squared error, counts^2."""
        return float(self.ee.mean()) / self.n_frames

    @property
    def fluctuation_mse(self) -> float:
        """Mean squared error of the deviations from each pixel's temporal mean, counts^2."""
        return float(self._covariance(self.ee, self.e, self.e).mean())

    @property
    def clean_variance(self) -> Image:
        """(Y, X) temporal variance of the clean movie, counts^2."""
        return self._covariance(self.cc, self.c, self.c)

    @property
    def denoised_variance(self) -> Image:
        """(Y, X) temporal variance of the denoised movie, counts^2."""
        error_variance = self._covariance(self.ee, self.e, self.e)
        return self.clean_variance + 2 * self._covariance(self.ce, self.c, self.e) + error_variance

    @property
    def clean_denoised_covariance(self) -> Image:
        """(Y, X) temporal covariance, counts^2."""
        return self.clean_variance + self._covariance(self.ce, self.c, self.e)

    def _covariance(self, ab: Image, a: Image, b: Image) -> Image:
        return ab / self.n_frames - (a / self.n_frames) * (b / self.n_frames)


def pixel_moments(clean: Movie, denoised: Movie) -> PixelMoments:
    """One pass over both movies, frame by frame, in float64. Raises ValueError when their shapes differ."""
    if clean.shape != denoised.shape:
        raise ValueError(f"clean is {clean.shape}, denoised {denoised.shape}: compare the same frames")
    sums = np.zeros((5, *clean.shape[1:]))
    for clean_frame, denoised_frame in zip(clean, denoised, strict=True):
        c = clean_frame.astype(np.float64)
        e = denoised_frame.astype(np.float64) - c
        for i, product in enumerate((c, e, c * c, e * e, c * e)):
            sums[i] += product
    return PixelMoments(len(clean), *sums)


def data_range(clean: Movie) -> float:
    """One range per movie, from the clean movie: 99.9th minus 0.1st percentile, robust against single bright pixels."""
    low, high = np.percentile(clean, (0.1, 99.9))
    return float(high - low)


def psnr(clean: Movie, denoised: Movie, peak: float | None = None) -> float:
    """dB, `10 log10(peak^2 / mean squared error)` over the whole movie; `peak` defaults to the data range of the clean movie."""
    return decibel((data_range(clean) if peak is None else peak) ** 2, pixel_moments(clean, denoised).mse)


def psnr_fitted(clean: Movie, denoised: Movie, peak: float | None = None) -> float:
    """dB, PSNR after the scale and offset that fit `denoised` best: for programs that do not return camera counts."""
    moments = pixel_moments(clean, denoised)
    n = moments.n_frames
    c, d = moments.c.mean() / n, (moments.c + moments.e).mean() / n
    cc = moments.cc.mean() / n - c * c
    dd = (moments.cc + 2 * moments.ce + moments.ee).mean() / n - d * d
    cd = (moments.cc + moments.ce).mean() / n - c * d
    left = cc - (cd * cd / dd if dd > 0 else 0.0)
    return decibel((data_range(clean) if peak is None else peak) ** 2, float(left))


def snr(clean: Movie, denoised: Movie, offset: float = 0.0) -> float:
    """dB, power of the clean movie without the detector's offset over mean squared error."""
    moments = pixel_moments(clean, denoised)
    return decibel(signal_power(moments, offset), moments.mse)


def signal_power(moments: PixelMoments, offset: float) -> float:
    """Mean of (clean - offset)^2, counts^2."""
    mean_square = float(moments.cc.mean()) / moments.n_frames
    mean = float(moments.c.mean()) / moments.n_frames
    return mean_square - 2 * offset * mean + offset**2


def dynamic_snr(clean: Movie, denoised: Movie) -> float:
    """dB, of the deviations from each pixel's temporal mean alone: exposes temporal smoothing. nan when the clean movie stands still."""
    return dynamic_snr_of(pixel_moments(clean, denoised))


def dynamic_snr_of(moments: PixelMoments) -> float:
    """The same from moments already taken."""
    dynamics = float(moments.clean_variance.mean())
    still = dynamics <= 1e-12 * float(moments.cc.mean()) / moments.n_frames
    return float("nan") if still else decibel(dynamics, moments.fluctuation_mse)


def dynamic_pixel_r(moments: PixelMoments) -> float:
    """Mean Pearson r over time of the 10 % most dynamic pixels; a pixel that was frozen counts as 0."""
    variance = moments.clean_variance
    active = variance > np.percentile(variance, 90)
    if not active.any():
        return float("nan")
    clean_var, denoised_var = variance[active], np.maximum(moments.denoised_variance[active], 0)
    moves = denoised_var > 1e-8 * clean_var
    r = moments.clean_denoised_covariance[active] / np.sqrt(clean_var * np.where(moves, denoised_var, 1))
    return float(np.where(moves, r, 0).mean())


def ssim(clean: Movie, denoised: Movie, peak: float, every: int = 10) -> float:
    """Mean structural similarity of every tenth frame (Wang 2004: Gaussian window of sigma 1.5 in 11 x 11 pixels, K 0.01 and 0.03)."""
    return float(np.mean([ssim_frame(c, d, peak) for c, d in zip(clean[::every], denoised[::every], strict=True)]))


def ssim_frame(clean: Movie, denoised: Movie, peak: float) -> float:
    """Structural similarity of two images (Y, X), mean over all pixels whose window lies inside."""
    c, d = clean.astype(np.float64), denoised.astype(np.float64)
    mean_c, mean_d = _window_mean(c), _window_mean(d)
    var_c = _window_mean(c * c) - mean_c**2
    var_d = _window_mean(d * d) - mean_d**2
    covariance = _window_mean(c * d) - mean_c * mean_d
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_c * mean_d + c1) / (mean_c**2 + mean_d**2 + c1)
    structure = (2 * covariance + c2) / (var_c + var_d + c2)
    return float((luminance * structure)[5:-5, 5:-5].mean())


def _window_mean(image: Image) -> Image:
    mean: Image = ndimage.gaussian_filter(image, 1.5, radius=5)
    return mean


def decibel(signal_power: float, noise_power: float) -> float:
    """10 log10 of a ratio of powers; inf without noise."""
    if noise_power <= 0:
        return float("inf")
    return float(10 * np.log10(signal_power / noise_power)) if signal_power > 0 else float("-inf")
