"""An examined recording as a person reads it: a table with what each figure should be, JSON, a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from rtdenoise.evaluate.recording import Examination, Reading
from rtdenoise.evaluate.tables import figure, finite, here
from rtdenoise.metrics import noise_correlation

NAN = float("nan")
ROWS: tuple[tuple[str, Callable[[Reading], float], str, str], ...] = (
    ("residual: t1", lambda r: _residual(r, "t1"), ".3f", "0"),
    ("residual: x1", lambda r: _residual(r, "x1"), ".3f", "the detector's own"),
    ("residual: y1", lambda r: _residual(r, "y1"), ".3f", "the detector's own"),
    (
        "residual: power / noise",
        lambda r: _residual(r, "variance_ratio"),
        ".2f",
        "1 (below: noise left)",
    ),
    ("residual: leak, changes", lambda r: _residual(r, "leak_dynamic"), ".3f", "0 (above: lost)"),
    ("residual: leak, structure", lambda r: _residual(r, "leak_static"), ".3f", "0 (above: lost)"),
    (
        "detail in one frame, px",
        lambda r: r.halves.single.resolution_px if r.halves else NAN,
        ".1f",
        "small; 2 at best",
    ),
    (
        "detail in the mean, px",
        lambda r: r.halves.mean.resolution_px if r.halves else NAN,
        ".1f",
        "as raw",
    ),
    ("pixel noise, counts", lambda r: r.spectrum.noise_sd, ".1f", "small, without leaks"),
    ("pixel t1", lambda r: r.t1, ".3f", "near 1, or smoothed"),
    ("dF/F noise nu, %/√Hz", lambda r: r.nu, ".2f", "small, without leaks"),
    ("look-ahead, frames", lambda r: NAN if r.lookahead is None else r.lookahead, ".0f", ""),
    ("ms per frame", lambda r: NAN if r.ms_per_frame is None else r.ms_per_frame, ".2f", "below the interval"),
)


def _residual(reading: Reading, name: str) -> float:
    value = getattr(reading.residual, name) if reading.residual else None
    return NAN if value is None else float(value)


def table(seen: Examination) -> Table:
    """A column per output, and what is right."""
    height, width = seen.recorded.counts.shape[1:]
    title = f"{seen.recorded.name}: {seen.n_frames} frames of {height} x {width}, from frame {seen.first_frame} on"
    out = Table(title=title, caption=_caption(seen), caption_justify="left", box=None, pad_edge=False)
    out.add_column("")
    for reading in seen.readings:
        out.add_column(reading.label, justify="right")
    out.add_column("should be", style="dim")
    for name, value, form, wanted in ROWS:
        figures = [figure(value(reading), form) for reading in seen.readings]
        if any(text != "-" for text in figures):
            out.add_row(name, *figures, wanted)
    return out


def _caption(seen: Examination) -> str:
    own, noise, rate = noise_correlation(seen.recorded.counts), seen.noise, seen.recorded.frame_rate_hz
    text = f"Detector: gain {noise.gain:.1f} counts per photon, zero {noise.zero:.0f}, noise x1 {own.x1:.3f}, y1 {own.y1:.3f}. "
    if any(reading.halves for reading in seen.readings):
        text += "Detail: where the Fourier ring correlation of odd and even frames, denoised apart, falls below 1/7. "
    text += "Leaks: signal in the residual; an output that passes the pixel itself on shows one in changes by construction. "
    if rate is None:
        return f"{text}The file says no frame rate: give --fps for nu."
    return f"{text}nu: brightest quarter of 8 x 8 px tiles, {rate:g} frames/s."


def report(seen: Examination, command: str) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": here(),
        "movie": seen.recorded.name,
        "shape": list(seen.recorded.counts.shape),
        "first_frame": seen.first_frame,
        "n_frames": seen.n_frames,
        "frame_rate_hz": seen.recorded.frame_rate_hz,
        "um_per_px": seen.recorded.um_per_px,
        "detector": finite(
            {"gain": seen.noise.gain, "zero": seen.noise.zero} | asdict(noise_correlation(seen.recorded.counts))
        ),
        "outputs": [_flat(reading) for reading in seen.readings],
    }


def _flat(reading: Reading) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "model": reading.label,
        "engine": reading.engine,
        "lookahead_frames": reading.lookahead,
        "ms_per_frame": reading.ms_per_frame,
        "residual": asdict(reading.residual) if reading.residual else None,
        "pixel_noise": reading.spectrum.noise_sd,
        "pixel_t1": reading.t1,
        "nu": reading.nu,
    }
    if reading.halves:
        for name, rings in (("single", reading.halves.single), ("mean", reading.halves.mean)):
            facts[f"detail_{name}_px"] = rings.resolution_px
            facts[f"ring_correlation_{name}"] = rings.correlation.tolist()
    return finite(facts)


def picture(seen: Examination, path: Path) -> Path:
    """Means, single frames, and the curves. Raises MissingExtraError without matplotlib."""
    from rtdenoise.evaluate import pictures

    return pictures.recording(path, seen.readings)
