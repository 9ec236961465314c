"""One call that scores a denoised movie against a simulation's truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdenoise.metrics.events import EventScore, calcium_f1, voltage_f1
from rtdenoise.metrics.movie import (
    Movie,
    data_range,
    decibel,
    dynamic_pixel_r,
    dynamic_snr_of,
    pixel_moments,
    signal_power,
    ssim,
)
from rtdenoise.metrics.traces import (
    MIN_PIXELS,
    Mask,
    active_rois,
    delta_f_over_f,
    good_rois,
    large_rois,
    pearson_r,
    roi_traces,
)


class Indicator(Protocol):
    """Time constants of a calcium indicator, s."""

    @property
    def rise_s(self) -> float:
        """Rise."""

    @property
    def decay_s(self) -> float:
        """Decay."""


class Truth(Protocol):
    """What a simulation knows; `rtdenoise.simulate.Simulated` is one."""

    @property
    def offset(self) -> float:
        """Counts without light."""

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""

    @property
    def indicator(self) -> Indicator | None:
        """None for voltage and flow."""

    @property
    def polarity(self) -> int:
        """Sign of a voltage spike."""

    @property
    def masks(self) -> Sequence[Mask]:
        """Pixels of each cell."""

    @property
    def spikes(self) -> Sequence[NDArray[np.float64]]:
        """Spike times of each cell, s since the movie began."""

    @property
    def traces(self) -> NDArray[np.floating]:
        """(N, T) true F/F0."""


@dataclass(slots=True, frozen=True)
class Scores:
    """dB unless said otherwise.

    psnr: against the data range of the clean movie.  snr: without offset.  dynamic_snr: changes only, nan for a movie that stands still.
    fluctuation_error: RMS error of the changes, counts (in a silent movie: invented dynamics).  pixel_r: Pearson r of dynamic pixels.
    roi_r: median Pearson r of ROI traces.  peak_ratio: median height of the largest event relative to the clean trace.
    f1, precision, recall: events at the best threshold, over n_rois cells and n_events true events. None where there are no cells.
    """

    psnr: float
    snr: float
    ssim: float
    dynamic_snr: float
    fluctuation_error: float
    pixel_r: float
    roi_r: float | None
    peak_ratio: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    n_rois: int
    n_events: int

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON and tables."""
        return asdict(self)


def evaluate_against_truth(
    clean: Movie, denoised: Movie, simulated: Truth, *, first_frame: int = 0, peak: float | None = None
) -> Scores:
    """Score `denoised` against `clean`, both (T, Y, X) in counts, frames `first_frame ..` of the simulated movie.

    `peak` is the data range of the clean movie where that is already known. ROI traces and events are read from the denoised movie
    with the true masks, calcium events only in cells that are well visible in `clean`.
    """
    moments = pixel_moments(clean, denoised)
    peak = data_range(clean) if peak is None else peak
    roi_r, peak_ratio = _trace_scores(clean, denoised, simulated)
    n_rois, events = _event_score(clean, denoised, simulated, first_frame)
    return Scores(
        psnr=decibel(peak**2, moments.mse),
        snr=decibel(signal_power(moments, simulated.offset), moments.mse),
        ssim=ssim(clean, denoised, peak),
        dynamic_snr=dynamic_snr_of(moments),
        fluctuation_error=float(np.sqrt(max(moments.fluctuation_mse, 0.0))),
        pixel_r=dynamic_pixel_r(moments),
        roi_r=roi_r,
        peak_ratio=peak_ratio,
        f1=events.f1 if events else None,
        precision=events.precision if events else None,
        recall=events.recall if events else None,
        n_rois=n_rois,
        n_events=events.n_true if events else 0,
    )


def _trace_scores(clean: Movie, denoised: Movie, truth: Truth) -> tuple[float | None, float | None]:
    masks = [mask for mask in truth.masks if len(mask[0]) >= MIN_PIXELS]
    expected = roi_traces(clean, masks) - truth.offset
    active = active_rois(expected)
    if len(active) == 0:
        return None, None
    expected = expected[active]
    found = roi_traces(denoised, [masks[i] for i in active]) - truth.offset
    heights = [trace.max(axis=1) - np.median(trace, axis=1) for trace in (found, expected)]
    return float(np.median(pearson_r(expected, found))), float(np.median(heights[0] / heights[1]))


def _event_score(clean: Movie, denoised: Movie, truth: Truth, first_frame: int) -> tuple[int, EventScore | None]:
    fps, n_frames = truth.frame_rate_hz, len(clean)
    activity = truth.traces[:, first_frame : first_frame + n_frames].astype(np.float64)
    # Bleaching hides the spikes of a voltage trace from a correlation, so there every large cell counts.
    cells = good_rois(clean, truth.masks, activity) if truth.indicator else large_rois(truth.masks, activity)
    if not cells:
        return 0, None
    start_s, stop_s = first_frame / fps, (first_frame + n_frames) / fps
    spikes = [truth.spikes[i] for i in cells]
    spikes = [times[(times >= start_s) & (times < stop_s)] - start_s for times in spikes]
    traces = roi_traces(denoised, [truth.masks[i] for i in cells]) - truth.offset
    if truth.indicator is None:
        return len(cells), voltage_f1(traces, spikes, fps, truth.polarity)
    kernel = truth.indicator
    return len(cells), calcium_f1(delta_f_over_f(traces), spikes, fps, kernel.rise_s, kernel.decay_s)
