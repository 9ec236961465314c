"""Measures of denoising quality, with a clean movie and without. Needs scipy, never torch."""

from rtdenoise.metrics.events import EventScore, calcium_f1, voltage_f1
from rtdenoise.metrics.fourier import (
    NoiseSpectrum,
    RingCorrelation,
    noise_spectrum,
    ring_correlation,
    temporal_correlation,
)
from rtdenoise.metrics.movie import data_range, dynamic_snr, psnr, psnr_fitted, snr, ssim, ssim_frame
from rtdenoise.metrics.noise import (
    NoiseCorrelation,
    PhotonTransfer,
    ResidualChecks,
    noise_correlation,
    noise_sd,
    photon_transfer,
    residual_checks,
)
from rtdenoise.metrics.traces import Mask, delta_f_over_f, good_rois, roi_traces, trace_noise
from rtdenoise.metrics.truth import Scores, Truth, evaluate_against_truth

__all__ = [
    "EventScore",
    "Mask",
    "NoiseCorrelation",
    "NoiseSpectrum",
    "PhotonTransfer",
    "ResidualChecks",
    "RingCorrelation",
    "Scores",
    "Truth",
    "calcium_f1",
    "data_range",
    "delta_f_over_f",
    "dynamic_snr",
    "evaluate_against_truth",
    "good_rois",
    "noise_correlation",
    "noise_sd",
    "noise_spectrum",
    "photon_transfer",
    "psnr",
    "psnr_fitted",
    "residual_checks",
    "ring_correlation",
    "roi_traces",
    "snr",
    "ssim",
    "ssim_frame",
    "temporal_correlation",
    "trace_noise",
    "voltage_f1",
]
