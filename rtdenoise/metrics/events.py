"""Are the events still there? Detection with one threshold for the whole movie, against the true spike times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.metrics._scipy import ndimage

Times = NDArray[np.float64]
Trace = NDArray[np.float64]

MERGE_S = 0.15
"""Calcium spikes closer than this are one event, and an event found within it counts. Engineering choice: about one rise time."""
VOLTAGE_TOLERANCE_S = 0.004


@dataclass(slots=True, frozen=True)
class EventScore:
    """Best F1 over thresholds, with the precision and recall there; n_true events."""

    f1: float
    precision: float
    recall: float
    n_true: int


@dataclass(slots=True, frozen=True)
class Candidates:
    """Possible events of one cell: times (s) and heights; a threshold on the heights decides."""

    times: Times
    heights: NDArray[np.float64]


def calcium_candidates(dff: Trace, frame_rate_hz: float, rise_s: float, decay_s: float) -> Candidates:
    """Peaks of a matched filter with the indicator's kernel, on dF/F without its slow baseline (20th percentile of 8 s).

    A flat lead of 0.1 s and zero mean make the filter ask for a rise, not for a plateau.
    """
    baseline = ndimage.percentile_filter(dff, 20, size=max(3, int(8 * frame_rate_hz)), mode="nearest")
    lead = max(1, int(0.1 * frame_rate_hz))
    kernel = _unit(np.concatenate([np.zeros(lead), _indicator_kernel(frame_rate_hz, rise_s, decay_s)]))
    padded = np.pad(dff - baseline, (lead, len(kernel) - 1 - lead), mode="edge")
    match = np.correlate(padded, kernel, mode="valid")
    return _peaks(match, max(1, int(MERGE_S * frame_rate_hz)), frame_rate_hz)


def voltage_candidates(trace: Trace, frame_rate_hz: float, polarity: int = 1) -> Candidates:
    """Peaks over a running median of 40 ms, relative to the cell's brightness."""
    baseline = ndimage.median_filter(trace, size=int(0.04 * frame_rate_hz) | 1, mode="nearest")
    return _peaks(polarity * (trace - baseline) / np.median(trace), 1, frame_rate_hz)


def _indicator_kernel(frame_rate_hz: float, rise_s: float, decay_s: float) -> Trace:
    t = np.arange(0, 2 * decay_s + 1 / frame_rate_hz, 1 / frame_rate_hz)
    return np.asarray((1 - np.exp(-(t + 0.5 / frame_rate_hz) / rise_s)) * np.exp(-t / decay_s))


def _unit(kernel: Trace) -> Trace:
    kernel = kernel - kernel.mean()
    return np.asarray(kernel / np.sqrt(np.square(kernel).sum()))


def _peaks(height: Trace, reach: int, frame_rate_hz: float) -> Candidates:
    highest = ndimage.maximum_filter1d(height, 2 * reach + 1)
    at = np.flatnonzero((height == highest) & (height > 0))
    return Candidates(at / frame_rate_hz, height[at])


def merge_close(times: Times, gap_s: float) -> Times:
    """Sorted times without those that follow another within `gap_s`."""
    times = np.sort(times)
    return times[np.diff(times, prepend=-np.inf) > gap_s]


def count_matches(truth: Times, found: Times, tolerance_s: float) -> int:
    """True events that were found: each found event, in order, takes the nearest true one within tolerance that is still free."""
    truth, n = np.sort(truth), 0
    free = np.ones(len(truth), bool)
    first = np.searchsorted(truth, found - tolerance_s)
    stop = np.searchsorted(truth, found + tolerance_s, side="right")
    for time, a, b in zip(found, first, stop, strict=True):
        open_ones = a + np.flatnonzero(free[a:b])
        if len(open_ones):
            free[open_ones[np.argmin(np.abs(truth[open_ones] - time))]] = False
            n += 1
    return n


def best_f1(candidates: Sequence[Candidates], truth: Sequence[Times], tolerance_s: float) -> EventScore:
    """F1 at the best threshold, the same for all cells: takes the choice of threshold out of the comparison."""
    n_true = sum(len(times) for times in truth)
    heights = np.sort(np.concatenate([np.empty(0), *(c.heights for c in candidates)]))[::-1]
    best = EventScore(0.0, 0.0, 0.0, n_true)
    for n_found in _ranks_to_try(len(heights), n_true):
        score = _score_at(heights[n_found - 1], candidates, truth, tolerance_s)
        best = max(best, score, key=lambda s: s.f1)
    return best


def _ranks_to_try(n_candidates: int, n_true: int, n_steps: int = 60) -> NDArray[np.intp]:
    """How many candidates to accept: from a twentieth of the true number (below it F1 < 0.1) to all, in equal ratios."""
    if n_candidates == 0:
        return np.empty(0, np.intp)
    fewest = min(max(1, n_true // 20), n_candidates)
    return np.unique(np.geomspace(fewest, n_candidates, n_steps).round().astype(np.intp))


def _score_at(
    threshold: float, candidates: Sequence[Candidates], truth: Sequence[Times], tolerance_s: float
) -> EventScore:
    n_true = sum(len(times) for times in truth)
    n_hit = n_found = 0
    for cell, times in zip(candidates, truth, strict=True):
        found = cell.times[cell.heights >= threshold]
        n_hit += count_matches(times, found, tolerance_s)
        n_found += len(found)
    precision, recall = n_hit / max(n_found, 1), n_hit / max(n_true, 1)
    return EventScore(2 * precision * recall / max(precision + recall, 1e-9), precision, recall, n_true)


def calcium_f1(
    dff: NDArray[np.float64], spikes: Sequence[Times], frame_rate_hz: float, rise_s: float, decay_s: float
) -> EventScore:
    """Best F1 of calcium events in traces dF/F (N, T) against spike times (s); tolerance 150 ms."""
    found = _each(dff, lambda trace: calcium_candidates(trace, frame_rate_hz, rise_s, decay_s))
    return best_f1(found, [merge_close(times, MERGE_S) for times in spikes], MERGE_S)


def voltage_f1(
    traces: NDArray[np.float64], spikes: Sequence[Times], frame_rate_hz: float, polarity: int = 1
) -> EventScore:
    """Best F1 of voltage spikes in traces (N, T) against spike times (s); tolerance 4 ms."""
    found = _each(traces, lambda trace: voltage_candidates(trace, frame_rate_hz, polarity))
    return best_f1(found, spikes, VOLTAGE_TOLERANCE_S)


def _each(traces: NDArray[np.float64], find: Callable[[Trace], Candidates]) -> list[Candidates]:
    return [find(trace) for trace in traces]
