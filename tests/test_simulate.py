"""Simulated movies: repeatable, true to their parameters, and like real two-photon recordings in their noise."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
import pytest

from rtdenoise.errors import ConfigError
from rtdenoise.simulate import PRESETS, Simulated, preset, simulate

SMALL: dict[str, Any] = {"shape": (48, 64), "n_frames": 40}


@functools.cache
def small(name: str) -> Simulated:
    return simulate(preset(name, seed=5, **SMALL))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_gives_a_movie_and_its_expectation(name: str) -> None:
    movie = small(name)
    assert movie.noisy.shape == movie.clean.shape == (40, 48, 64)
    assert movie.clean.dtype == np.float32
    assert movie.noisy.dtype == (np.uint16 if movie.params.detector == "scmos" else np.int16)
    assert np.isfinite(movie.clean).all()
    assert movie.noisy.mean() == pytest.approx(movie.clean.mean(), rel=0.03)
    assert len(movie.masks) == len(movie.spikes) == len(movie.traces) == len(movie.depths_um)
    assert movie.traces.shape[1] == 40


@pytest.mark.parametrize("name", ["calcium", "voltage", "flow"])
def test_the_same_seed_gives_the_same_movie_and_another_seed_another(name: str) -> None:
    again, other = simulate(preset(name, seed=5, **SMALL)), simulate(preset(name, seed=6, **SMALL))
    np.testing.assert_array_equal(small(name).noisy, again.noisy)
    np.testing.assert_array_equal(small(name).clean, again.clean)
    assert not np.array_equal(small(name).clean, other.clean)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0])
def test_the_noise_is_as_strong_as_asked_for(snr_db: float) -> None:
    movie = simulate(preset("calcium", seed=1, snr_db=snr_db, shape=(64, 64), n_frames=100))
    noise = movie.noisy - movie.clean
    measured = 10 * np.log10(np.mean((movie.clean - movie.offset) ** 2) / np.mean(noise**2))
    assert movie.snr_in_db == pytest.approx(measured, abs=0.02)
    assert movie.snr_in_db == pytest.approx(snr_db, abs=0.4)


def test_clean_is_the_mean_of_many_noisy_movies() -> None:
    still = simulate(preset("silent", seed=2, snr_db=0.0, shape=(32, 32), n_frames=600, bidi_px=0.0))
    residual = (still.noisy - still.clean).mean(axis=0)
    expected_sd = (still.noisy - still.clean).std() / np.sqrt(600)
    assert np.abs(residual.mean()) < 5 * expected_sd / 32
    assert residual.std() == pytest.approx(expected_sd, rel=0.15)


def test_a_silent_movie_stands_still() -> None:
    assert np.ptp(small("silent").clean, axis=0).max() < 1e-3
    assert all(len(times) == 0 for times in small("silent").spikes)


def test_photons_can_be_asked_for_instead_of_noise() -> None:
    movie = simulate(preset("calcium", snr_db=None, photons_per_px=5.0, **SMALL))
    assert movie.photons_per_px == pytest.approx(5.0)
    assert (movie.clean.mean() - 100) / 100 == pytest.approx(5.05, rel=0.01)


def test_somata_brighten_when_they_fire() -> None:
    movie = simulate(preset("calcium", seed=0, shape=(96, 96), n_frames=200, bleach_s=None, neuropil_sd=0.0))
    active = max(range(len(movie.masks)), key=lambda i: movie.traces[i].std() * (len(movie.masks[i][0]) > 20))
    rows, cols = movie.masks[active]
    seen = movie.clean[:, rows, cols].mean(axis=1)
    assert np.corrcoef(seen, movie.traces[active])[0, 1] > 0.8


def test_spikes_lie_within_the_movie_and_start_the_rises() -> None:
    movie = simulate(preset("calcium_fast8f", seed=0, n_frames=300, shape=(48, 64)))
    for times, trace in zip(movie.spikes, movie.traces, strict=True):
        assert np.all((times >= 0) & (times < 10.0))
        if len(times):
            first = int(times[0] * 30)
            assert np.all(trace[:first] == 1.0)
            assert trace[first : first + 3].max() > 1.0


def test_a_power_step_makes_the_second_half_brighter() -> None:
    movie = simulate(preset("silent", power_step=PRESETS["power_step"]["power_step"], dark_photons=0.0, **SMALL))
    before, after = np.split(movie.clean - movie.offset, 2)
    np.testing.assert_allclose(after, 1.6 * before, rtol=1e-4)


def test_flow_moves_and_the_tissue_around_it_does_not() -> None:
    movie = simulate(preset("flow", seed=1, n_frames=60, drift_um=0.0, jitter_um=0.0, bouts_hz=0.0, bleach_s=None))
    change = movie.clean.std(axis=0) / movie.clean.mean()
    assert np.median(change) < 0.01
    assert np.percentile(change, 99) > 0.2


def test_voltage_spikes_are_seen_at_their_times() -> None:
    movie = simulate(preset("voltage", seed=0, n_frames=1000))
    spikes, trace = movie.spikes[0], movie.traces[0]
    at = np.floor(spikes * 500).astype(int)
    assert len(at) > 3
    assert np.median([trace[k : k + 2].max() for k in at]) > np.median(trace) + 0.04


def test_shapes_may_be_odd_and_not_square() -> None:
    assert simulate(preset("calcium_motion", shape=(33, 71), n_frames=5)).noisy.shape == (5, 33, 71)


def test_lost_lines_and_line_noise_come_from_the_artifact_preset() -> None:
    plain, spoilt = small("calcium"), small("calcium_artifact")
    line_sd = [(m.noisy - m.clean).mean(axis=2).std() for m in (plain, spoilt)]
    assert line_sd[1] > 1.2 * line_sd[0]


def test_unknown_presets_and_parameters_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown simulation preset 'calcum'; known: calcium,"):
        preset("calcum")
    with pytest.raises(ConfigError, match="unknown snr; known: kind, shape"):
        preset("calcium", snr=3)
    with pytest.raises(ConfigError, match="burst_spikes"):
        preset("calcium", burst_spikes=0.5)


def test_it_is_fast_enough_to_train_on() -> None:
    begun = time.process_time()
    simulate(preset("calcium", shape=(128, 128), n_frames=200))
    assert time.process_time() - begun < 6  # 0.5 s on an idle core
