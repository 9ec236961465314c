"""Latencies as counts per bin, small enough to be kept for every minute of a soak."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from rtdenoise.latency import N_BINS, percentiles_ms

Bins = dict[str, int]
"""Bin of a LatencyHistogram (as text: JSON knows no other keys) -> count, those that are not zero."""


def sparse(counts: NDArray[np.int64]) -> Bins:
    """Only the bins that hold something."""
    return {str(i): int(counts[i]) for i in np.flatnonzero(counts)}


def full(bins: Mapping[str, int]) -> NDArray[np.int64]:
    """All N_BINS counts."""
    counts = np.zeros(N_BINS, np.int64)
    for i, n in bins.items():
        counts[int(i)] = n
    return counts


def percentile_ms(parts: Iterable[Mapping[str, int]], percent: float) -> float | None:
    """A percentile over several parts together; None when they are empty."""
    counts = np.zeros(N_BINS, np.int64)
    for part in parts:
        counts += full(part)
    found = percentiles_ms(counts, percent)
    return found[0] if found else None
