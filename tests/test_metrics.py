"""Measures: the published definitions, on movies where the answer is known."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from rtdenoise import metrics
from rtdenoise.metrics.events import count_matches, merge_close
from rtdenoise.simulate import Simulated, preset, simulate
from tests.real_movies import MESOSCOPE, real_movie

Movie = NDArray[np.float32]


@functools.cache
def calcium() -> Simulated:
    return simulate(preset("calcium", seed=3, snr_db=0.0, shape=(96, 96), n_frames=300))


@functools.cache
def smoothed() -> Movie:
    out: Movie = ndimage.gaussian_filter(calcium().noisy.astype(np.float32), (2, 1, 1))
    return out


def test_psnr_snr_and_dynamic_snr_are_the_formulas_of_the_protocol() -> None:
    c, d = calcium().clean.astype(np.float64), smoothed().astype(np.float64)
    low, high = np.percentile(c, (0.1, 99.9))
    mse = np.mean((d - c) ** 2)
    c_moves, d_moves = c - c.mean(0), d - d.mean(0)
    assert metrics.psnr(c, d) == pytest.approx(10 * np.log10((high - low) ** 2 / mse))
    assert metrics.snr(c, d, 100.0) == pytest.approx(10 * np.log10(np.mean((c - 100) ** 2) / mse))
    dynamic = 10 * np.log10(np.mean(c_moves**2) / np.mean((d_moves - c_moves) ** 2))
    assert metrics.dynamic_snr(c, d) == pytest.approx(dynamic)


def test_one_wrong_pixel_changes_psnr_by_what_it_should() -> None:
    clean = np.tile(np.linspace(0, 1000, 64, dtype=np.float32).reshape(8, 8), (4, 1, 1))
    denoised = clean.copy()
    denoised[2, 3, 3] += 160.0
    assert metrics.psnr(clean, denoised, peak=1000.0) == pytest.approx(10 * np.log10(1e6 / (160.0**2 / clean.size)))


def test_a_constant_shift_spoils_snr_but_not_dynamic_snr() -> None:
    c = calcium().clean
    assert metrics.dynamic_snr(c, c + 7.0) > 100
    assert metrics.snr(c, c + 7.0, 100.0) < 40


def test_temporal_smoothing_is_exposed_by_dynamic_snr() -> None:
    c = calcium().clean
    frozen = np.broadcast_to(c.mean(0), c.shape)
    assert metrics.psnr(c, frozen) > 20
    assert metrics.dynamic_snr(c, frozen) == pytest.approx(0.0, abs=1e-6)


def test_movies_of_other_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="compare the same frames"):
        metrics.psnr(np.zeros((4, 8, 8)), np.zeros((5, 8, 8)))


def test_ssim_is_that_of_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    c, d = calcium().clean[10], smoothed()[10]
    peak = metrics.data_range(calcium().clean)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = skimage.structural_similarity(c.astype(float), d.astype(float), data_range=peak, **settings)
    assert metrics.ssim_frame(c, d, peak) == pytest.approx(expected, abs=1e-9)


def test_roi_traces_are_means_over_masks() -> None:
    movie = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    masks = [(np.array([0, 2]), np.array([1, 3])), (np.array([], int), np.array([], int))]
    np.testing.assert_array_equal(metrics.roi_traces(movie, masks), [[6.0, 18.0], [np.nan, np.nan]])


def test_events_are_matched_once_each_within_the_tolerance() -> None:
    assert count_matches(np.array([1.0, 1.1, 5.0]), np.array([1.02, 1.05, 1.06, 5.3]), 0.15) == 2
    np.testing.assert_array_equal(merge_close(np.array([2.0, 1.0, 1.1, 1.2]), 0.15), [1.0, 2.0])


def test_events_of_clean_traces_are_found_and_noise_is_not_taken_for_events() -> None:
    fps, rng = 30.0, np.random.default_rng(0)
    t = np.arange(1200) / fps
    spikes = [np.array([3.0, 11.0, 20.0, 33.0]), np.array([8.0, 25.0])]
    since = [np.maximum(t - cell[:, None], 0) for cell in spikes]
    rises = [((1 - np.exp(-s / 0.03)) * np.exp(-s / 0.25)).sum(axis=0) for s in since]
    noise = rng.standard_normal((2, len(t)))
    assert metrics.calcium_f1(np.array(rises) + 0.02 * noise, spikes, fps, 0.03, 0.25).f1 == 1.0
    assert metrics.calcium_f1(noise, spikes, fps, 0.03, 0.25).f1 < 0.6  # luck with six events


def test_voltage_spikes_of_either_sign_are_found() -> None:
    fps = 500.0
    times = [np.array([0.2, 0.5, 0.52, 0.9])]
    trace = np.full((1, 600), 100.0)
    trace[0, [100, 250, 260, 450]] -= 10
    assert metrics.voltage_f1(trace, times, fps, polarity=-1).f1 == 1.0
    assert metrics.voltage_f1(trace, times, fps, polarity=1).f1 == 0.0


def test_smoothing_a_simulated_movie_raises_every_score_but_that_of_events() -> None:
    raw = metrics.evaluate_against_truth(calcium().clean, calcium().noisy, calcium())
    smooth = metrics.evaluate_against_truth(calcium().clean, smoothed(), calcium())
    clean = metrics.evaluate_against_truth(calcium().clean, calcium().clean, calcium())
    assert smooth.psnr > raw.psnr + 10
    assert smooth.ssim > raw.ssim + 0.3
    assert smooth.dynamic_snr > raw.dynamic_snr + 10
    assert smooth.pixel_r > raw.pixel_r
    assert smooth.roi_r is not None
    assert raw.roi_r is not None
    assert raw.roi_r < smooth.roi_r < 1.0
    assert clean.psnr == clean.dynamic_snr == np.inf
    assert clean.roi_r == pytest.approx(1.0)
    assert clean.f1 is not None
    assert raw.f1 is not None
    assert raw.f1 < clean.f1
    assert raw.n_events == clean.n_events > 20


def test_voltage_events_are_scored_although_the_movie_bleaches() -> None:
    movie = simulate(preset("voltage", seed=106, n_frames=600))
    clean = metrics.evaluate_against_truth(movie.clean, movie.clean, movie)
    slow = metrics.evaluate_against_truth(movie.clean, ndimage.uniform_filter1d(movie.clean, 9, axis=0), movie)
    assert clean.f1 is not None
    assert slow.f1 is not None
    assert clean.n_rois > 5
    assert clean.f1 > slow.f1 + 0.2


def test_a_part_of_a_movie_is_scored_against_the_events_in_that_part() -> None:
    whole, part = calcium(), slice(100, 260)
    scores = metrics.evaluate_against_truth(whole.clean[part], whole.clean[part], whole, first_frame=100)
    misplaced = metrics.evaluate_against_truth(whole.clean[part], whole.clean[part], whole, first_frame=0)
    assert scores.f1 is not None
    assert scores.f1 > (misplaced.f1 or 0.0) + 0.2


def test_a_silent_movie_shows_invented_dynamics_and_has_no_dynamic_snr() -> None:
    silent = simulate(preset("silent", shape=(48, 48), n_frames=60))
    scores = metrics.evaluate_against_truth(silent.clean, silent.noisy, silent)
    assert np.isnan(scores.dynamic_snr)
    assert scores.f1 is None
    assert scores.fluctuation_error == pytest.approx(metrics.noise_sd(silent.noisy), rel=0.05)


def test_photon_transfer_finds_the_gain_and_zero_of_the_simulated_detector() -> None:
    noise = metrics.photon_transfer(calcium().noisy)
    # 100 counts per photon, excess noise factor 1.23, lowered by the 12 % of charge that leaks to the neighbour
    assert noise.gain == pytest.approx(108, rel=0.08)
    assert noise.zero == pytest.approx(100, abs=5)


def test_noise_is_correlated_along_the_fast_axis_only() -> None:
    correlation = metrics.noise_correlation(calcium().noisy)
    assert 0.05 < correlation.x1 < 0.13
    assert abs(correlation.y1) < 0.016


def test_residuals_of_the_truth_are_clean_and_those_of_an_overdone_filter_are_not() -> None:
    noisy, clean = calcium().noisy, calcium().clean
    noise = metrics.photon_transfer(noisy)
    good = metrics.residual_checks(noisy, clean, noise)
    frozen = np.broadcast_to(clean.mean(0), clean.shape) + 0.05 * (clean - clean.mean(0))
    overdone = metrics.residual_checks(noisy, frozen, noise)
    assert abs(good.t1) < 0.01
    assert abs(good.leak_dynamic) < 0.02
    assert good.variance_ratio == pytest.approx(1.0, abs=0.1)
    assert overdone.leak_dynamic > good.leak_dynamic + 0.05
    assert overdone.t1 > good.t1 + 0.003


def test_noise_sd_of_white_noise_is_its_sd() -> None:
    noise = np.random.default_rng(0).normal(50, 4.0, (200, 32, 32)).astype(np.float32)
    assert metrics.noise_sd(noise) == pytest.approx(4.0, rel=0.01)


def test_a_real_two_photon_movie_has_the_noise_that_was_measured_on_it() -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    movie = tifffile.imread(real_movie(MESOSCOPE))
    assert metrics.noise_sd(movie) == pytest.approx(160, rel=0.02)
    assert metrics.photon_transfer(movie).gain == pytest.approx(55.7, rel=0.02)
    correlation = metrics.noise_correlation(movie)
    assert (correlation.x1, correlation.y1) == pytest.approx((0.053, 0.013), abs=0.003)


def test_ring_correlation_is_the_share_of_the_signal_when_two_halves_have_noise_of_their_own() -> None:
    rng = np.random.default_rng(0)
    signal, noise = rng.normal(0, 3.0, (6, 80, 96)), rng.normal(0, 2.0, (2, 6, 80, 96))
    rings = metrics.ring_correlation(signal + noise[0], signal + noise[1])
    assert rings.correlation[5:].mean() == pytest.approx(9 / (9 + 4), abs=0.02)
    assert rings.resolution_px == 2.0
    np.testing.assert_allclose(metrics.ring_correlation(signal, 5 - signal).correlation, -1.0)
    assert rings.frequency[-1] == pytest.approx(0.5, abs=0.01)


def test_ring_correlation_of_unlike_noise_is_zero_and_resolves_nothing() -> None:
    a, b = np.random.default_rng(1).normal(0, 1, (2, 8, 64, 64))
    rings = metrics.ring_correlation(a, b)
    assert abs(rings.correlation.mean()) < 0.02
    assert rings.resolution_px == np.inf


def test_ring_correlation_finds_the_finest_detail_that_two_halves_share() -> None:
    rng = np.random.default_rng(2)
    spectrum = np.fft.rfft2(rng.normal(0, 1, (128, 128)))
    radius = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
    shared = np.fft.irfft2(np.where(radius < 0.2, spectrum, 0))
    halves = shared + rng.normal(0, 0.05, (2, 128, 128))
    assert metrics.ring_correlation(halves[0], halves[1]).resolution_px == pytest.approx(5.0, rel=0.08)


def test_a_blur_does_not_change_the_ring_correlation() -> None:
    rng = np.random.default_rng(3)
    signal, noise = rng.normal(0, 1, (64, 64)), rng.normal(0, 1, (2, 64, 64))
    halves = [signal + each for each in noise]
    before = metrics.ring_correlation(halves[0], halves[1]).correlation
    blurred = [ndimage.gaussian_filter(half, 1.0) for half in halves]
    np.testing.assert_allclose(metrics.ring_correlation(blurred[0], blurred[1]).correlation[:20], before[:20], atol=0.1)


def test_the_spectrum_of_white_noise_is_its_variance_and_a_running_mean_takes_the_fast_part() -> None:
    noise = np.random.default_rng(4).normal(50, 3.0, (600, 24, 24)).astype(np.float32)
    spectrum = metrics.noise_spectrum(noise)
    assert spectrum.power[5:].mean() == pytest.approx(9.0, rel=0.03)
    assert spectrum.noise_sd == pytest.approx(3.0, rel=0.03)
    assert metrics.noise_spectrum(ndimage.uniform_filter1d(noise, 4, axis=0)).noise_sd < 1.0


def test_pixels_of_white_noise_have_no_memory_and_those_of_a_moving_average_have() -> None:
    noise = np.random.default_rng(5).normal(0, 1.0, (800, 16, 16))
    assert abs(metrics.temporal_correlation(noise)) < 0.01
    assert metrics.temporal_correlation(noise[1:] + noise[:-1]) == pytest.approx(0.5, abs=0.02)
    assert metrics.temporal_correlation(np.ones((5, 4, 4))) == 0.0


def test_a_fitted_psnr_forgives_scale_and_offset_and_nothing_else() -> None:
    clean = calcium().clean
    plain = metrics.psnr(clean, smoothed())
    assert metrics.psnr_fitted(clean, 0.01 * smoothed() - 3) == pytest.approx(
        metrics.psnr_fitted(clean, smoothed()), abs=0.01
    )
    assert plain <= metrics.psnr_fitted(clean, smoothed()) < plain + 3
    assert metrics.psnr_fitted(clean, np.zeros_like(clean)) == pytest.approx(
        10 * np.log10(metrics.data_range(clean) ** 2 / clean.var(dtype=np.float64)), abs=0.01
    )
