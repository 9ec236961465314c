"""Score the streaming output of every untrained filter, and of a model if one is named, on simulated movies with ground truth.

    python tools/compare_baselines.py fast-simulated --json report.json
    python tools/compare_baselines.py --size 128 --frames 300 --seeds 1        # a quick look

Every frame of every method is scored, edges included, so all are compared on the same frames. Do not train on seeds from 101 on:
they are the ones compared here.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rtdenoise.engine.base import Engine
from rtdenoise.engine.filters import FILTERS
from rtdenoise.engine.load import open_engine
from rtdenoise.errors import RtDenoiseError
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.metrics import data_range, evaluate_against_truth
from rtdenoise.normalize import calibrate
from rtdenoise.simulate import Simulated, preset, simulate
from rtdenoise.stream import StreamingDenoiser

FIRST_SEED = 101
N_CALIBRATION = 8
COLUMNS = (
    ("psnr", "PSNR", ".2f"),
    ("ssim", "SSIM", ".3f"),
    ("dynamic_snr", "DynSNR", ".2f"),
    ("fluctuation_error", "DynErr", ".1f"),
    ("roi_r", "ROI r", ".3f"),
    ("f1", "F1", ".3f"),
    ("ms_per_frame", "ms", ".2f"),
)
LESS_IS_BETTER = ("fluctuation_error", "ms_per_frame")


@dataclass(slots=True, frozen=True)
class Result:
    """One method on one movie; scores as in `rtdenoise.metrics.Scores`, None where a movie has no cells."""

    method: str
    engine: str
    preset: str
    snr_db: float
    seed: int
    snr_in_db: float
    latency_frames: int
    ms_per_frame: float
    psnr: float
    ssim: float
    dynamic_snr: float
    fluctuation_error: float
    pixel_r: float
    roi_r: float | None
    peak_ratio: float | None
    f1: float | None
    precision: float | None
    recall: float | None


def stream_movie(engine: Engine, counts: NDArray[np.generic]) -> tuple[NDArray[np.float32], float]:
    """The denoised movie (T, Y, X) as it comes out frame by frame, and the mean ms per frame that took."""
    out = np.empty(counts.shape, np.float32)
    denoiser = StreamingDenoiser(engine, calibrate(list(counts[:N_CALIBRATION])), counts.shape[1:])
    spent_s = 0.0
    for k, pixels in enumerate(counts):
        spent_s += _collect(denoiser.push(Frame(pixels, FrameStamp("compare", k, k, t_in=0))), out)
    spent_s += _collect(denoiser.flush(), out)
    return out, 1e3 * spent_s / len(counts)


def _collect(frames: Iterator[Frame], out: NDArray[np.float32]) -> float:
    """Copy what comes out to its place; returns the seconds spent denoising, not copying."""
    spent_s, start = 0.0, time.perf_counter()
    for frame in frames:
        spent_s += time.perf_counter() - start
        out[frame.stamp.frame] = frame.pixels
        start = time.perf_counter()
    return spent_s + time.perf_counter() - start


def score(model: str, movie: Simulated, peak: float, named: str, snr_db: float, **options: object) -> Result:
    """Stream one movie through one engine and compare it with the truth."""
    with open_engine(model, shape=movie.params.shape, **options) as engine:  # type: ignore[arg-type]
        denoised, ms = stream_movie(engine, movie.noisy)
        info, latency = engine.describe(), engine.window.latency_frames
    scores = evaluate_against_truth(movie.clean, denoised, movie, peak=peak).as_dict()
    kept = {key: value for key, value in scores.items() if key in Result.__slots__}
    return Result(
        method=Path(model).name,
        engine=f"{info.backend} ({info.threads} threads)",
        preset=named,
        snr_db=snr_db,
        seed=movie.params.seed,
        snr_in_db=round(movie.snr_in_db, 2),
        latency_frames=latency,
        ms_per_frame=ms,
        **kept,  # type: ignore[arg-type]
    )


def table(results: Sequence[Result], title: str) -> Table:
    """Means over seeds, one row per method, the best of each column in bold."""
    methods = list(dict.fromkeys(r.method for r in results))
    means = {
        (m, key): _mean(getattr(r, key) for r in results if r.method == m) for m in methods for key, _, _ in COLUMNS
    }
    out = Table(title=title, caption="PSNR, DynSNR dB; DynErr counts; ms per frame; late: frames")
    out.add_column("method", no_wrap=True)
    for _, heading, _ in COLUMNS:
        out.add_column(heading, justify="right")
    out.add_column("late", justify="right")
    for method in methods:
        cells = [_cell(method, key, form, means, methods) for key, _, form in COLUMNS]
        late = next(r.latency_frames for r in results if r.method == method)
        out.add_row(method, *cells, str(late))
    return out


def _cell(method: str, key: str, form: str, means: dict[tuple[str, str], float], methods: Sequence[str]) -> str:
    value = means[method, key]
    if not np.isfinite(value):
        return "-"
    text = format(value, form)
    sign = -1 if key in LESS_IS_BETTER else 1
    best = sign * value >= max(sign * means[m, key] for m in methods if np.isfinite(means[m, key]))
    return f"[bold]{text}[/bold]" if best else text


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _finite(value: object) -> object:
    """JSON knows neither infinity nor nan."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def main(
    model: Annotated[str | None, typer.Argument(help="bundle name or folder, compared with the filters")] = None,
    simulation: Annotated[str, typer.Option("--preset", help="simulation preset")] = "calcium",
    snr_db: Annotated[list[float] | None, typer.Option(help="input SNR, may be given again")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="movies per SNR, beginning with seed 101")] = 3,
    frames: Annotated[int, typer.Option(min=20)] = 1000,
    size: Annotated[int, typer.Option(min=32, help="pixels on each side")] = 256,
    backend: str = "auto",
    latency: str = "full",
    hop: int = 1,
    threads: int = 0,
    only_model: Annotated[bool, typer.Option(help="leave the filters out")] = False,
    report: Annotated[Path | None, typer.Option("--json", help="write every result here")] = None,
) -> None:
    """Compare untrained filters, and a model, on simulated movies."""
    console = Console()
    names = [] if only_model else list(FILTERS)
    models: dict[str, dict[str, object]] = {name: {} for name in names}
    if model:
        models[model] = {"backend": backend, "latency": latency, "hop": hop, "threads": threads}
    results: list[Result] = []
    for level in snr_db or [0.0, 10.0]:
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            with console.status(f"{simulation} {level:+g} dB, seed {seed}: simulating"):
                movie = simulate(preset(simulation, seed=seed, snr_db=level, shape=(size, size), n_frames=frames))
                peak = data_range(movie.clean)
            for name, options in models.items():
                with console.status(f"{simulation} {level:+g} dB, seed {seed}: {name}"):
                    results.append(score(name, movie, peak, simulation, level, **options))
        here = [r for r in results if r.snr_db == level]
        console.print(table(here, f"{simulation}, {level:+g} dB in, {seeds} x {frames} frames of {size} x {size}"))
    if report:
        machine = {"machine": platform.processor() or platform.machine(), "system": platform.system()}
        rows = [{key: _finite(value) for key, value in asdict(r).items()} for r in results]
        report.write_text(json.dumps({**machine, "results": rows}, indent=1) + "\n", encoding="utf-8")
        console.print(f"{len(results)} results in {report}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except RtDenoiseError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
