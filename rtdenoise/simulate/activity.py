"""When cells fire, and the fluorescence that follows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from rtdenoise.simulate.params import Indicator

SpikeTimes = NDArray[np.float64]
Traces = NDArray[np.float32]

_SUBSTEPS = 10


def burst_trains(
    rng: np.random.Generator,
    n_cells: int,
    duration_s: float,
    *,
    burst_rate_hz: float,
    burst_spikes: float,
    active_fraction: float,
    shared_events_hz: float,
) -> list[SpikeTimes]:
    """Spike times (s) per cell: bursts at rates spread exponentially over cells (NAOMi), plus events many cells join (up to 35 %)."""
    shared = np.sort(rng.uniform(0, duration_s, rng.poisson(shared_events_hz * duration_s)))
    trains = []
    for _ in range(n_cells):
        active = rng.uniform() <= active_fraction
        rate_hz = burst_rate_hz * rng.exponential()
        own = rng.uniform(0, duration_s, rng.poisson(rate_hz * duration_s))
        joined = shared[rng.uniform(size=len(shared)) < rng.uniform(0.0, 0.35)]
        starts = np.concatenate([own, joined]) if active else np.empty(0)
        trains.append(_bursts(rng, starts, burst_spikes, duration_s))
    return trains


def _bursts(rng: np.random.Generator, starts: SpikeTimes, mean_spikes: float, duration_s: float) -> SpikeTimes:
    sizes = 1 + rng.poisson(mean_spikes - 1, len(starts))
    trains = [start + np.cumsum(rng.exponential(0.03, size)) for start, size in zip(starts, sizes, strict=True)]
    spikes = np.sort(np.concatenate(trains)) if trains else np.empty(0)
    return spikes[spikes < duration_s]


def calcium_traces(spikes: list[SpikeTimes], n_frames: int, frame_rate_hz: float, indicator: Indicator) -> Traces:
    """(N, T) fluorescence F/F0, each frame the mean over its exposure."""
    step_s = 1.0 / (frame_rate_hz * _SUBSTEPS)
    n_steps = n_frames * _SUBSTEPS
    times = np.arange(0, 8 * indicator.decay_s, step_s)
    kernel = (1 - np.exp(-times / indicator.rise_s)) * np.exp(-times / indicator.decay_s)
    kernel *= indicator.dff / kernel.max()
    traces = np.ones((len(spikes), n_frames), np.float32)
    for i, train in enumerate(spikes):
        if len(train):
            counts = np.bincount(np.minimum((train / step_s).astype(int), n_steps - 1), minlength=n_steps).astype(float)
            rise = np.maximum(signal.oaconvolve(counts, kernel)[:n_steps], 0)
            traces[i] += (rise / (1 + rise / indicator.saturation)).reshape(n_frames, _SUBSTEPS).mean(axis=1)
    return traces


def ou_process(rng: np.random.Generator, n_steps: int, steps_per_tau: float) -> NDArray[np.float64]:
    """Ornstein-Uhlenbeck noise of sd 1 that starts at 0 and forgets itself in `steps_per_tau` steps."""
    memory = np.exp(-1.0 / steps_per_tau)
    drive = rng.standard_normal(n_steps) * np.sqrt(1 - memory**2)
    out: NDArray[np.float64] = signal.lfilter([1.0], [1.0, -memory], drive)
    return out


def voltage_traces(
    rng: np.random.Generator,
    n_cells: int,
    n_frames: int,
    frame_rate_hz: float,
    *,
    spike_rate_hz: float,
    spike_dff: float,
    subthreshold_dff: float,
    polarity: int,
) -> tuple[Traces, list[SpikeTimes]]:
    """(N, T) fluorescence F/F0 and spike times (s): spikes of ~2 ms with after-hyperpolarisation on a slow sub-threshold potential."""
    per_frame = 4
    step_s = 1.0 / (frame_rate_hz * per_frame)
    n_steps = n_frames * per_frame
    shape = _action_potential(step_s)
    traces, spikes = np.ones((n_cells, n_frames), np.float32), list[SpikeTimes]()
    for i in range(n_cells):
        slow = ndimage.gaussian_filter1d(ou_process(rng, n_steps, 0.025 / step_s), 0.003 / step_s)
        slow /= slow.std() + 1e-9
        rate = np.exp(0.9 * slow)
        rate *= spike_rate_hz / rate.mean()
        fired = _with_refractory(np.flatnonzero(rng.uniform(size=n_steps) < rate * step_s), 0.004 / step_s)
        train = np.zeros(n_steps)
        train[fired] = 1.0
        potential = subthreshold_dff * slow + spike_dff * np.convolve(train, shape)[:n_steps]
        traces[i] += polarity * potential.reshape(n_frames, per_frame).mean(axis=1)
        spikes.append(fired.astype(np.float64) * step_s)
    return traces, spikes


def _action_potential(step_s: float) -> NDArray[np.float64]:
    """Rise 0.3 ms, decay 0.8 ms, then an undershoot of 12 % that lasts 6 ms (engineering choices)."""
    t = np.arange(0, 0.02, step_s)
    spike = np.exp(-t / 0.0008) * (1 - np.exp(-t / 0.0003))
    undershoot = (1 - np.exp(-t / 0.002)) * np.exp(-t / 0.006)
    return np.asarray(spike / spike.max() - 0.12 * undershoot)


def _with_refractory(candidates: NDArray[np.intp], min_steps: float) -> NDArray[np.intp]:
    kept: list[int] = []
    for step in candidates:
        if not kept or step - kept[-1] > min_steps:
            kept.append(int(step))
    return np.asarray(kept, dtype=np.intp)
