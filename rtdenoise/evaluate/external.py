"""A file that any program denoised, against the raw movie and, where there is one, the truth."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from rtdenoise.errors import ConfigError
from rtdenoise.evaluate.folder import SavedTruth
from rtdenoise.evaluate.recording import Counts, Recorded
from rtdenoise.evaluate.tables import figure, finite, here
from rtdenoise.metrics import data_range, evaluate_against_truth, psnr_fitted

ROWS = (
    ("psnr", "PSNR, dB", ".2f"),
    ("psnr_fitted", "PSNR after the best scale and offset, dB", ".2f"),
    ("ssim", "SSIM", ".3f"),
    ("snr", "SNR, dB", ".2f"),
    ("dynamic_snr", "DynSNR (changes alone), dB", ".2f"),
    ("fluctuation_error", "error of changes, counts", ".1f"),
    ("roi_r", "trace correlation, median cell", ".3f"),
    ("pixel_r", "temporal correlation, dynamic pixels", ".3f"),
    ("peak_ratio", "height of the largest event, of the true one", ".2f"),
    ("f1", "events: F1", ".3f"),
    ("precision", "events: precision", ".3f"),
    ("recall", "events: recall", ".3f"),
)


def check_alignment(raw: Recorded, denoised: Recorded, first_frame: int | None) -> int:
    """Raw frame that `denoised` begins with. Raises ConfigError when the two cannot be laid over each other."""
    n_raw, n_denoised = len(raw.counts), len(denoised.counts)
    if raw.counts.shape[1:] != denoised.counts.shape[1:]:
        sizes = " and ".join(
            f"{movie.name} has frames of {movie.counts.shape[1]} x {movie.counts.shape[2]}" for movie in (raw, denoised)
        )
        raise ConfigError(f"{sizes}: they must be the same")
    if first_frame is None and n_raw != n_denoised:
        raise ConfigError(
            f"{raw.name} has {n_raw} frames, {denoised.name} {n_denoised}; say with --first-frame which raw frame the denoised begin with"
        )
    start = first_frame or 0
    if start < 0 or start + n_denoised > n_raw:
        raise ConfigError(
            f"{denoised.name}: frames {start} to {start + n_denoised - 1} of {n_raw} raw ones: --first-frame is too large"
        )
    if n_denoised < 3:
        raise ConfigError(f"{denoised.name}: {n_denoised} frames are too few to say anything")
    return start


def score(raw: Recorded, denoised: Recorded, truth: SavedTruth, first_frame: int) -> dict[str, dict[str, Any]]:
    """Every measure that needs the truth, of the raw and of the denoised movie, on the frames that both have.

    Raises ConfigError when the truth is of another movie.
    """
    if truth.clean.shape != raw.counts.shape:
        raise ConfigError(
            f"{raw.name} is {raw.counts.shape}, the truth {truth.clean.shape}; give the folder that the movie came from"
        )
    part = slice(first_frame, first_frame + len(denoised.counts))
    clean = truth.clean[part]
    peak = data_range(clean)
    return {
        "raw": _scores(clean, raw.counts[part], truth, first_frame, peak),
        denoised.name: _scores(clean, denoised.counts, truth, first_frame, peak),
    }


def _scores(clean: Counts, output: Counts, truth: SavedTruth, first_frame: int, peak: float) -> dict[str, Any]:
    found = evaluate_against_truth(clean, output, truth, first_frame=first_frame, peak=peak).as_dict()
    return {**found, "psnr_fitted": psnr_fitted(clean, output, peak)}


def table(scores: dict[str, dict[str, Any]], n_frames: int) -> Table:
    """A column per movie."""
    out = Table(title=f"against the truth, {n_frames} frames")
    out.add_column("")
    for name in scores:
        out.add_column(name, justify="right")
    for key, label, form in ROWS:
        values = [each[key] for each in scores.values()]
        if any(value is not None for value in values):
            out.add_row(label, *(figure(np.nan if value is None else value, form) for value in values))
    return out


def report(scores: dict[str, dict[str, Any]], folder: Path, command: str) -> dict[str, Any]:
    """For JSON."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": here(),
        "truth": folder.name,
        "scores": finite(scores),
    }
