"""What a neuroscientist reads from a movie: the fluorescence of each cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Movie = NDArray[np.integer | np.floating]
Traces = NDArray[np.float64]
Mask = tuple[NDArray[np.integer], NDArray[np.integer]]
"""Rows and columns of one cell's pixels."""

MIN_PIXELS = 9
"""Smaller masks are cells cut off by the border; they are left out. Engineering choice."""


def roi_traces(movie: Movie, masks: Sequence[Mask]) -> Traces:
    """(N, T) mean over each mask; a row of nan for an empty mask."""
    width = movie.shape[2]
    flat = movie.reshape(len(movie), -1)
    traces = np.full((len(masks), len(movie)), np.nan)
    for i, (rows, cols) in enumerate(masks):
        if len(rows):
            traces[i] = flat[:, rows.astype(np.intp) * width + cols].mean(axis=1, dtype=np.float64)
    return traces


def delta_f_over_f(traces: Traces, baseline_percent: float = 20.0) -> Traces:
    """(N, T) change relative to each trace's baseline, its 20th percentile."""
    baseline = np.percentile(traces, baseline_percent, axis=1, keepdims=True)
    return (traces - baseline) / np.maximum(baseline, 1e-6)


def pearson_r(a: Traces, b: Traces) -> NDArray[np.float64]:
    """(N,) correlation of corresponding rows; 0 where one of them does not change."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.where(norm > 1e-9, (a * b).sum(axis=1) / np.maximum(norm, 1e-9), 0.0)


def active_rois(clean_traces: Traces, min_sd: float = 0.02) -> NDArray[np.intp]:
    """Indices of traces whose dF/F really varies."""
    if len(clean_traces) == 0:
        return np.empty(0, np.intp)
    return np.flatnonzero(delta_f_over_f(clean_traces).std(axis=1) > min_sd)


def large_rois(masks: Sequence[Mask], truth: Traces) -> list[int]:
    """Indices of ROIs of 20 px or more whose cell `truth` (N, T) does something."""
    return [i for i, (rows, _) in enumerate(masks) if len(rows) >= 20 and truth[i].std() > 1e-6]


def good_rois(clean: Movie, masks: Sequence[Mask], truth: Traces, min_r: float = 0.7) -> list[int]:
    """Indices of large ROIs whose clean trace follows the cell's own activity `truth` (N, T): in focus, little contaminated."""
    large = large_rois(masks, truth)
    r = pearson_r(roi_traces(clean, [masks[i] for i in large]), truth[large].astype(np.float64))
    return [i for i, good in zip(large, r > min_r, strict=True) if good]


def trace_noise(dff: Traces, frame_rate_hz: float) -> NDArray[np.float64]:
    """(N,) CASCADE's noise level: median of |dF/F(t+1) - dF/F(t)| / sqrt(frame rate), in percent per sqrt(Hz)."""
    return np.asarray(100 * np.median(np.abs(np.diff(dff, axis=1)), axis=1) / np.sqrt(frame_rate_hz))
