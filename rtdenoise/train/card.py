"""The card of a model: what it learned from, and what it gives on simulated movies it never saw, through the live
stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdenoise.bundle import Bundle
from rtdenoise.engine.load import open_engine
from rtdenoise.engine.merged import Latency
from rtdenoise.frame import Frame, FrameStamp, Pixels
from rtdenoise.methods.base import Method
from rtdenoise.metrics import Scores, evaluate_against_truth
from rtdenoise.normalize import CALIBRATION_FRAMES, calibrate
from rtdenoise.simulate import Simulated, preset, simulate
from rtdenoise.stream import StreamingDenoiser
from rtdenoise.train.recipe import Recipe, SimulatedMovies

CARD = "card.md"
SUMS = "bundle.sha256"
LATENCIES: tuple[Latency, ...] = ("full", "causal")


@dataclass(slots=True, frozen=True)
class Row:
    """One output of one movie. output: `raw` or the latency it was streamed at."""

    movie: str
    snr_db: float
    output: str
    scores: Scores


def measure(bundle: Bundle, groups: Sequence[SimulatedMovies]) -> Iterator[Row]:
    """Every movie raw and streamed by the bundle, as the live path would do it on this machine."""
    for group in groups:
        for i, seed in enumerate(group.seeds):
            snr_db = group.snr_db[i % len(group.snr_db)]
            facts = {"seed": seed, "snr_db": snr_db, "shape": group.shape, "n_frames": group.n_frames, **group.change}
            made = simulate(preset(group.preset, **facts))
            yield Row(group.preset, snr_db, "raw", _score(made, made.noisy.astype(np.float32)))
            for latency in LATENCIES:
                yield Row(group.preset, snr_db, latency, _score(made, streamed(bundle.path, made.noisy, latency)))


def streamed(bundle: Path, counts: Pixels, latency: Latency, threads: int = 1) -> NDArray[np.float32]:
    """(T, Y, X) counts, frame by frame through the fastest engine, calibrated on the first frames as a live run is."""
    out = np.empty(counts.shape, np.float32)
    shape = (counts.shape[1], counts.shape[2])
    with open_engine(bundle, shape=shape, latency=latency, threads=threads) as engine:
        denoiser = StreamingDenoiser(engine, calibrate(list(counts[:CALIBRATION_FRAMES])), shape)
        for k, pixels in enumerate(counts):
            _keep(denoiser.push(Frame(pixels, FrameStamp("card", k, k, t_in=0))), out)
        _keep(denoiser.flush(), out)
    return out


def write(folder: Path, recipe: Recipe, method: Method, bundle: Bundle, rows: Sequence[Row]) -> None:
    """`card.md` and `bundle.sha256` in the recipe's folder."""
    (folder / CARD).write_text(text(recipe, method, bundle, rows), encoding="utf-8", newline="\n")
    # Not of the manifest: as text it may have other line ends in a checkout. It holds the same sums.
    lines = [f"{digest}  {name}\n" for name, digest in sorted(bundle.manifest.checksums.items())]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def text(recipe: Recipe, method: Method, bundle: Bundle, rows: Sequence[Row]) -> str:
    """The card, in Markdown."""
    made_of = "\n".join(f"- {line}" for line in _data_lines(recipe))
    limits = "\n".join(f"- {line}" for line in recipe.card.limits)
    steps, settings = bundle.manifest.provenance.get("steps"), recipe.train
    facts = ", ".join(f"{name} = {value}" for name, value in bundle.manifest.method_config.items())
    size_kb = sum((bundle.path / name).stat().st_size for name in bundle.manifest.checksums) / 1000
    return f"""# {recipe.name}

{method.title} (doi:{method.reference}), {facts}. Bundle {bundle.hash}, {size_kb:.0f} kB, {bundle.manifest.precision}.

## What it learned from

Noisy frames only; no clean frame was shown.

{made_of}

{steps} steps of {settings.batch} crops of {settings.crop_px} x {settings.crop_px} px,
learning rate {settings.learning_rate:g} ({settings.schedule}), seed {settings.seed}. Recipe: `recipe.toml` here;
`rtdenoise train` on this folder makes the bundle again.

## What it gives

Simulated movies with seeds that training never saw, frame by frame through the live stream, calibrated on the first
{CALIBRATION_FRAMES} frames; every frame is scored. `full` merges all windows that contain a frame, `causal` takes
the newest one. Means over the movies of a line; PSNR over the range of the clean movie, DynSNR of the changes only,
F1 of events at the best threshold. Measured {datetime.now(UTC).date().isoformat()}.

{_table(rows)}

## Limits

{limits}

## Licence

{recipe.card.licence}
"""


def _table(rows: Sequence[Row]) -> str:
    lines = ["| movie | input SNR | output | PSNR dB | SSIM | DynSNR dB | event F1 |", "|---|---|---|---|---|---|---|"]
    for movie, snr_db, output in dict.fromkeys((row.movie, row.snr_db, row.output) for row in rows):
        same = [row.scores for row in rows if (row.movie, row.snr_db, row.output) == (movie, snr_db, output)]
        f1 = [scores.f1 for scores in same if scores.f1 is not None]
        means = [np.mean([getattr(scores, name) for scores in same]) for name in ("psnr", "ssim", "dynamic_snr")]
        figures = f"{means[0]:.1f} | {means[1]:.3f} | {means[2]:.1f} | {np.mean(f1):.3f}" if f1 else "- | - | - | -"
        seeds = _count(len(same), "seed")
        lines.append(f"| {movie}, {seeds} | {snr_db:g} dB | {output} | {figures} |")
    return "\n".join(lines)


def _data_lines(recipe: Recipe) -> Iterator[str]:
    for pattern in recipe.data.movies:
        yield f"files `{pattern}`"
    for group in recipe.data.simulated:
        size = f"{group.n_frames} frames of {group.shape[0]} x {group.shape[1]} px"
        changed = "".join(f", {name} = {value}" for name, value in group.change.items())
        snrs = ", ".join(f"{snr:g}" for snr in group.snr_db)
        yield f"{_count(len(group.seeds), 'simulated movie')} `{group.preset}`{changed}: {size}, input SNR {snrs} dB"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _score(made: Simulated, output: NDArray[np.float32]) -> Scores:
    return evaluate_against_truth(made.clean, output, made)


def _keep(frames: Iterator[Frame], out: NDArray[np.float32]) -> None:
    for frame in frames:
        out[frame.stamp.frame] = frame.pixels
