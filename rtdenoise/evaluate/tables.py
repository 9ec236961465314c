"""Boards as a person reads them in a terminal, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from rtdenoise import machine
from rtdenoise.evaluate.compete import Result
from rtdenoise.evaluate.standings import GROUPS, MEASURES, Board, Group, Standing, best, pooled

COLUMNS = (("PSNR", "psnr", ".1f"), ("DynSNR", "dynamic_snr", ".1f"), ("SSIM", "ssim", ".3f"), ("F1", "f1", ".3f"))
WIDE = (
    ("SNR", "snr", ".1f"),
    ("trace r", "roi_r", ".3f"),
    ("pixel r", "pixel_r", ".3f"),
    ("peak", "peak_ratio", ".2f"),
    ("prec", "precision", ".3f"),
    ("recall", "recall", ".3f"),
    ("DynErr", "fluctuation_error", ".1f"),
)
WIDE_LEGEND = (
    "SNR: dB, without the offset. trace r: correlation with the true trace, median cell. pixel r: over time, the 10 % most dynamic pixels. "
    "peak: height of the largest event, of the true one. prec, recall: events. DynErr: error of changes, counts."
)
LEGEND = (
    "wait: look-ahead in frames (ms). PSNR, DynSNR (of changes alone): dB. F1: events at the best threshold. ms: per frame, one thread. "
    "*: best untrained filter that waits no longer than its group. beats: better in PSNR or DynSNR than those, and "
    "F1 not below raw's; group: than the filters of its own group only."
)


def table(board: Board) -> Table:
    """One row per contestant, grouped by look-ahead."""
    out = _grouped(board, ("wait", *(heading for heading, _, _ in COLUMNS), "ms", "beats"), _cells)
    out.title, out.caption = title(board), f"{LEGEND} {spread(board)}"
    return out


def wide(board: Board) -> Table:
    """The other measures, in the same order."""
    out = _grouped(board, tuple(heading for heading, _, _ in WIDE), _wide_cells)
    out.title, out.caption = title(board), WIDE_LEGEND
    return out


def _grouped(board: Board, headings: Sequence[str], cells: Callable[[Board, Standing], list[str]]) -> Table:
    out = Table(caption_justify="left", box=None, pad_edge=False)
    out.add_column("", no_wrap=True)
    for heading in headings:
        out.add_column(heading, justify="right", no_wrap=True)
    for group in GROUPS:
        standings = board.of(group)
        if standings:
            out.add_row(f"[dim]{group.title}[/dim]")
        for standing in standings:
            out.add_row(standing.contestant.label, *cells(board, standing))
    return out


def sentences(board: Board) -> list[str]:
    """Why each model beats the filters or does not."""
    return [_sentence(board, standing) for standing in board.standings if standing.verdict]


def _sentence(board: Board, standing: Standing) -> str:
    verdict = standing.verdict
    gains = [] if verdict is None else [("PSNR", verdict.psnr, "psnr"), ("DynSNR", verdict.dynamic_snr, "dynamic_snr")]
    against = [
        f"{heading} {gain.mean:+.1f} dB over {board.best_rival(standing.group, measure).contestant.label}"
        for heading, gain, measure in gains
        if math.isfinite(gain.mean)
    ]
    if verdict is not None and math.isfinite(verdict.f1.mean):
        against.append(f"F1 {verdict.f1.mean:+.2f} over raw")
    answer = verdict.answer if verdict is not None else "no"
    return f"{standing.contestant.label}: {answer}, {', '.join(against)}"


def title(board: Board) -> str:
    """What was compared."""
    results = board.standings[0].results
    start, stop = results[0].span
    height, width = results[0].shape
    n = len(results)
    seeds = ", ".join(str(result.choice.seed) for result in results)
    return f"{board.title}: {n} movie{'s' * (n > 1)} of {stop - start} frames of {height} x {width} (seed{'s' * (n > 1)} {seeds})"


def spread(board: Board) -> str:
    """The F1 that the truth itself gets, and how far seeds lie apart: what a difference must exceed to mean something."""
    ceiling = f"The clean movie's own F1 is {board.clean_f1:.3f}. " if math.isfinite(board.clean_f1) else ""
    if len(board.standings[0].results) < 2:
        return f"{ceiling}One seed: no spread known."
    names = ("psnr", "dynamic_snr", "f1")
    own = [max(s.means[name].spread for s in board.standings) for name in names]
    text = f"{ceiling}Seeds differ by up to ±{own[0]:.1f} dB, ±{own[1]:.1f} dB, F1 ±{own[2]:.2f}"
    if verdicts := [s.verdict for s in board.standings if s.verdict]:
        paired = [max(getattr(verdict, name).spread for verdict in verdicts) for name in names]
        text += f"; gains on the same movie by ±{paired[0]:.1f} dB, ±{paired[1]:.1f} dB, ±{paired[2]:.2f}"
    return f"{text}."


def figure(value: float, form: str) -> str:
    """A number, or a dash where there is none."""
    return format(value, form) if math.isfinite(value) else "-"


def is_to_beat(board: Board, standing: Standing, measure: str) -> bool:
    """Whether this filter is the one that models of its own or a more patient group are measured against."""
    asked = measure in ("psnr", "dynamic_snr") and math.isfinite(standing[measure])
    return asked and any(standing is board.best_rival(group, measure) for group in groups_with_models(board))


def groups_with_models(board: Board) -> list[Group]:
    """Groups in which somebody is judged; all when only filters are compared."""
    judged = [group for group in GROUPS if any(s.contestant.trained for s in board.of(group))]
    return judged or [group for group in GROUPS if board.of(group)]


def _cells(board: Board, standing: Standing) -> list[str]:
    who = standing.contestant
    wait = f"{who.lookahead} ({standing.ms_late:.0f})" if who.lookahead else "0"
    figures = [_marked(board, standing, name, form) for _, name, form in COLUMNS]
    answer = standing.verdict.answer if standing.verdict else ""
    beats = "[green]yes[/green]" if answer == "yes" else answer
    return [wait, *figures, f"{standing.ms_per_frame:.1f}", beats]


def _wide_cells(board: Board, standing: Standing) -> list[str]:
    return [figure(standing[name], form) for _, name, form in WIDE]


def _marked(board: Board, standing: Standing, measure: str, form: str) -> str:
    text = figure(standing[measure], form)
    if is_to_beat(board, standing, measure):
        text = f"{text}*"
    top = best(board.of(standing.group), measure)
    return f"[bold]{text}[/bold]" if top is standing else text


def report(boards: Sequence[Board], command: str) -> dict[str, Any]:
    """Everything, for JSON: each result, and each model's verdict."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": here(),
        "results": [flat(r) for board in boards for standing in board.standings for r in standing.results],
        "verdicts": [_verdict(board, s) for board in boards for s in board.standings if s.verdict],
        "over_all_inputs": [_verdict(board, s) for board in pooled(boards) for s in board.standings if s.verdict],
    }


def here() -> dict[str, Any]:
    """The computer that measured."""
    return {
        "cpu": machine.cpu_name(),
        "features": machine.cpu_features(),
        "load": machine.load(),
        "versions": machine.versions(),
    }


def flat(result: Result) -> dict[str, Any]:
    """One result as a row."""
    row = {
        "model": result.contestant.label,
        "latency": result.contestant.latency,
        "trained": result.contestant.trained,
        "lookahead_frames": result.contestant.lookahead,
        "lookahead_ms": 1e3 * result.contestant.lookahead / result.frame_rate_hz,
        "engine": result.engine,
        "ms_per_frame": result.ms_per_frame,
        "preset": result.choice.preset,
        "seed": result.choice.seed,
        "snr_db": result.choice.snr_db,
        "snr_in_db": result.snr_in_db,
        "shape": list(result.shape),
        "first_frame": result.span[0],
        "n_frames": result.span[1] - result.span[0],
    }
    truth = {} if result.clean_f1 is None else {"clean_f1": result.clean_f1}
    return finite(row | result.scores.as_dict() | truth)


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows neither infinity nor nan: those become null."""
    return {key: _known(value) for key, value in values.items()}


def _known(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return finite(value)
    return [_known(each) for each in value] if isinstance(value, list | tuple) else value


def _verdict(board: Board, standing: Standing) -> dict[str, Any]:
    verdict = standing.verdict
    rivals = {name: board.best_rival(standing.group, name).contestant.model for name in ("psnr", "dynamic_snr")}
    gains = {name: finite(asdict(getattr(verdict, name))) for name in ("psnr", "dynamic_snr", "f1")}
    return {
        "model": standing.contestant.label,
        "preset": board.preset,
        "snr_db": board.snr_db,
        "group": standing.group.title,
        "rivals": rivals,
        "beats": verdict.beats if verdict else None,
        "beats_group": verdict.beats_group if verdict else None,
        "gains": gains,
        "means": finite({name: standing[name] for name in MEASURES}),
    }
