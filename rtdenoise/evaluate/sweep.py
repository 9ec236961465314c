"""What a shorter wait costs: every look-ahead that a model can run at without retraining, on the same movies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle
from rtdenoise.errors import ConfigError
from rtdenoise.evaluate import commands, contestants
from rtdenoise.evaluate.commands import Asked, Outputs
from rtdenoise.evaluate.compete import MovieChoice, Result, compete
from rtdenoise.evaluate.contestants import Contestant
from rtdenoise.evaluate.standings import Interval
from rtdenoise.evaluate.tables import figure, finite, flat, here

SQUARE_PX, FRAMES = 128, 300
"""Movies are smaller than the leaderboard's: here a model is compared with itself, on the same pixels. Engineering choice."""
LEGEND = (
    "look-ahead: later frames that an output sees, `--latency`. hop: new frames per run. late: frames (ms) until it is out. "
    "loss: PSNR against full, dB. F1: events at the best threshold. ms: per frame, one thread."
)


@dataclass(slots=True, frozen=True)
class Notch:
    """A model at one look-ahead, mean over the movies. loss_db: PSNR that it lacks against the full output."""

    contestant: Contestant
    psnr: float
    dynamic_snr: float
    f1: float
    loss_db: float
    frame_rate_hz: float
    ms_per_frame: float
    engine: str
    results: tuple[Result, ...]

    @property
    def lookahead(self) -> int:
        """Later frames that the newest frame of a hop sees."""
        return self.contestant.window.lookahead


@dataclass(slots=True, frozen=True)
class Dial:
    """One model at all its look-aheads, ascending; the last is the full output."""

    bundle: Bundle
    preset: str
    notches: tuple[Notch, ...]

    @property
    def cost_db(self) -> dict[int, float]:
        """Look-ahead in frames -> PSNR lost against full, hundredths of a dB."""
        return {notch.lookahead: round(notch.loss_db, 2) for notch in self.notches[:-1]}


def sweep(console: Console, err: Console, asked: Asked, saved: Outputs, *, annotate: bool) -> None:
    """Each model at each of its look-aheads. annotate: store the cost in the bundles, where a live run finds it.

    Raises ConfigError, BundleError, EngineError or FileFormatError.
    """
    saved.check()
    models = _with_dial(console, commands.chosen_models(asked))
    if not models:
        raise ConfigError("none of these models has a look-ahead to choose; rtdenoise info lists the bundles")
    dials = list[Dial]()
    for model in models:
        for preset in asked.presets or commands.presets_of([model]):
            dials.append(measure(model, preset, commands.movies(_shorter(asked), preset, SQUARE_PX), asked, err))
            console.print(f"\n[bold]{title(dials[-1])}[/bold]", highlight=False, soft_wrap=True)
            console.print(table(dials[-1]))
    console.print(LEGEND, soft_wrap=True, highlight=False)
    saved.save_json(console, report(dials, commands.command_line()))
    if annotate:
        for dial in dials:
            bundles.annotate(dial.bundle.path, latency_cost_db=dial.cost_db)
            console.print(f"-> {dial.bundle.path}", highlight=False, soft_wrap=True)


def measure(model: Bundle, preset: str, choices: Sequence[MovieChoice], asked: Asked, err: Console) -> Dial:
    """One model at every look-ahead, all on the same frames."""
    everyone = contestants.dial_of(model)
    with commands.bar(err, f"{model.name}: {len(everyone)} look-aheads, {len(choices)} movies") as progress:
        results = compete(everyone, choices, backend=asked.backend, processes=asked.processes, progress=progress)
    return Dial(model, preset, tuple(_notches(everyone, results)))


def title(dial: Dial) -> str:
    """What was measured on what."""
    choices = dial.notches[0].results
    height, width = choices[0].shape
    start, stop = choices[0].span
    movies = f"{len(choices)} {dial.preset} movie{'s' * (len(choices) > 1)}"
    return f"{dial.bundle.name}: {movies} of {stop - start} frames of {height} x {width}"


def table(dial: Dial) -> Table:
    """One row per look-ahead, the shortest first."""
    out = Table(box=None, pad_edge=False)
    for heading in ("look-ahead", "hop", "late", "PSNR", "loss", "DynSNR", "F1", "ms"):
        out.add_column(heading, justify="right", no_wrap=True)
    for notch in dial.notches:
        out.add_row(*_cells(notch, notch is dial.notches[-1]))
    return out


def report(dials: Sequence[Dial], command: str) -> dict[str, Any]:
    """Everything, for JSON: the means per look-ahead, and each result."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": here(),
        "dials": [_flat(dial) for dial in dials],
        "results": [flat(result) for dial in dials for notch in dial.notches for result in notch.results],
    }


def _with_dial(console: Console, models: Sequence[Bundle]) -> list[Bundle]:
    """Those with more than one look-ahead; of the others it is said."""
    for model in models:
        if len(everyone := contestants.dial_of(model)) == 1:
            frames = everyone[0].window.lookahead
            console.print(f"{model.name}: one look-ahead only, {frames} frames", highlight=False)
    return [model for model in models if len(contestants.dial_of(model)) > 1]


def _shorter(asked: Asked) -> Asked:
    return asked if asked.frames else replace(asked, frames=FRAMES)


def _notches(everyone: Sequence[Contestant], results: Sequence[Result]) -> Iterator[Notch]:
    full = [result for result in results if result.contestant == everyone[-1]]
    for contestant in everyone:
        own = tuple(result for result in results if result.contestant == contestant)
        pairs = zip(full, own, strict=True)
        yield Notch(
            contestant=contestant,
            psnr=_mean(own, "psnr"),
            dynamic_snr=_mean(own, "dynamic_snr"),
            f1=_mean(own, "f1"),
            loss_db=Interval.of(best.scores.psnr - result.scores.psnr for best, result in pairs).mean,
            frame_rate_hz=own[0].frame_rate_hz,
            ms_per_frame=median(result.ms_per_frame for result in own),
            engine=own[0].engine,
            results=own,
        )


def _mean(results: Sequence[Result], measure: str) -> float:
    return Interval.of(getattr(result.scores, measure) for result in results).mean


def _cells(notch: Notch, full: bool) -> list[str]:
    late = notch.contestant.lookahead
    return [
        f"{notch.lookahead} (full)" if full else str(notch.lookahead),
        str(notch.contestant.window.hop),
        f"{late} ({1e3 * late / notch.frame_rate_hz:.0f})",
        f"{notch.psnr:.1f}",
        "" if full else f"{notch.loss_db:.2f}",
        figure(notch.dynamic_snr, ".1f"),
        figure(notch.f1, ".3f"),
        f"{notch.ms_per_frame:.1f}",
    ]


def _flat(dial: Dial) -> dict[str, Any]:
    return {"model": dial.bundle.name, "preset": dial.preset, "notches": [_flat_notch(notch) for notch in dial.notches]}


def _flat_notch(notch: Notch) -> dict[str, Any]:
    late = notch.contestant.lookahead
    row = {
        "latency": notch.contestant.latency,
        "lookahead_frames": notch.lookahead,
        "lookahead_ms": 1e3 * notch.lookahead / notch.frame_rate_hz,
        "hop": notch.contestant.window.hop,
        "late_frames": late,
        "late_ms": 1e3 * late / notch.frame_rate_hz,
        "psnr": notch.psnr,
        "loss_db": notch.loss_db,
        "dynamic_snr": notch.dynamic_snr,
        "f1": notch.f1,
        "ms_per_frame": notch.ms_per_frame,
        "engine": notch.engine,
    }
    return finite(row)
