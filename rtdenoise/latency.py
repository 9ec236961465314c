"""Latency distributions in fixed memory: whole-run percentiles without keeping every sample."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

N_BINS = 1000
LOWEST_NS = 1_000
_PER_NEPER = N_BINS / math.log(1e8)  # 1 us .. 100 s
BIN_RATIO = math.exp(1 / _PER_NEPER)
"""Width of a bin: a percentile is right to within this factor (1.9 %)."""


class LatencyHistogram:
    """Counts of latencies in bins of equal ratio, in memory that may be shared between processes (one writer)."""

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(N_BINS, np.int64) if counts is None else counts

    def add(self, latency_ns: int) -> None:
        """Count one latency; those outside 1 us .. 100 s go to the first or last bin."""
        i_bin = int(math.log(latency_ns / LOWEST_NS) * _PER_NEPER) if latency_ns > LOWEST_NS else 0
        self.counts[min(i_bin, N_BINS - 1)] += 1

    def percentiles_ms(self, *percents: float) -> tuple[float, ...] | None:
        """Latencies in ms below which these percents lie; None when nothing was counted."""
        return percentiles_ms(self.counts, *percents)


def bin_centres_ms() -> NDArray[np.float64]:
    """(N_BINS,) the latency that each bin stands for."""
    centres: NDArray[np.float64] = LOWEST_NS / 1e6 * np.exp((np.arange(N_BINS) + 0.5) / _PER_NEPER)
    return centres


def percentiles_ms(counts: NDArray[np.int64], *percents: float) -> tuple[float, ...] | None:
    """Percentiles of a histogram, or of the difference of two taken at different times. None when it is empty."""
    total = int(counts.sum())
    if total == 0:
        return None
    cumulated = np.cumsum(counts)
    bins = [int(np.searchsorted(cumulated, max(1.0, total * p / 100))) for p in percents]
    return tuple(LOWEST_NS * math.exp((i + 0.5) / _PER_NEPER) / 1e6 for i in bins)
