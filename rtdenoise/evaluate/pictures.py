"""Pictures of what was measured. Needs matplotlib; nothing is shown on a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rtdenoise.errors import FileFormatError, MissingExtraError
from rtdenoise.evaluate.compete import Glimpse, glimpse_of_truth
from rtdenoise.evaluate.recording import Reading
from rtdenoise.evaluate.standings import Board, Standing, best

try:
    from matplotlib.figure import Figure
except ImportError:
    raise MissingExtraError("matplotlib", "evaluate") from None

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GREY, ACCENT = "#1a1a1a", "#8a8a8a", "#c2410c"
DPI = 110
LABEL_WIDTH, LABEL_HEIGHT = 0.16, 0.07
"""Of one label, as shares of the axes."""
TICKS = (0, 1, 2, 3, 6, 12, 20, 30, 50)
PER_ROW = 6
"""Example pictures side by side."""


def leaderboard(path: Path, boards: Sequence[Board]) -> Path:
    """PSNR and dynamic SNR against look-ahead, a column per input SNR; below, what each model makes of one place and cell."""
    shown = _shown(boards[0])
    n_rows = -(-(len(shown) + 1) // PER_ROW)  # the truth comes first
    width, above, below = 2.6 * PER_ROW, 5.6, 3.1 * n_rows
    figure = Figure(figsize=(width, above + below), layout="constrained", dpi=DPI)
    top, bottom = _split(figure, above, below)
    axes = top.subplots(2, len(boards), sharex=True, squeeze=False)
    for column, board in enumerate(boards):
        for row, (measure, label) in enumerate((("psnr", "PSNR, dB"), ("dynamic_snr", "dynamic SNR, dB"))):
            _against_lookahead(axes[row, column], board, measure)
            axes[row, column].set_ylabel(label)
        axes[0, column].set_title(board.title)
        axes[1, column].set_xlabel("look-ahead, frames")
    _examples(bottom, boards[0], shown)
    return _save(figure, path)


def _against_lookahead(axes: Axes, board: Board, measure: str) -> None:
    """Filters grey, models in colour, the best filter for each wait as a line; raw, far below, is left out."""
    shown = [s for s in board.standings if s is not board.raw and np.isfinite(s[measure])]
    for standing in shown:
        marker = "o" if standing.contestant.trained else "s"
        axes.plot(standing.contestant.lookahead, standing[measure], marker, ms=5, color=_colour(standing))
    axes.spines[["top", "right"]].set_visible(False)
    filters = [s for s in shown if not s.contestant.trained]
    if not filters:  # a movie that stands still has no dynamic SNR
        return
    waits = sorted({s.contestant.lookahead for s in board.standings})
    to_beat = [best([f for f in filters if f.contestant.lookahead <= wait], measure)[measure] for wait in waits]
    axes.step(waits, to_beat, where="post", color=GREY, lw=0.9, ls=":")
    axes.set_xscale("symlog", linthresh=2, linscale=0.5)
    ticks = [tick for tick in TICKS if tick <= max(*waits, 3)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(-0.3, 3 * max(*waits, 3))
    axes.margins(y=0.12)
    axes.grid(axis="y", color="#e5e5e5", lw=0.6)
    _name(axes, [(s.contestant.lookahead, s[measure], s.contestant.label, _colour(s)) for s in shown])


def _name(axes: Axes, points: Sequence[tuple[int, float, str, str]]) -> None:
    """A label beside each point, a little higher or lower where another one is there already."""
    placed: list[tuple[float, float]] = []
    for x, y, label, colour in sorted(points, key=lambda point: point[1]):
        at_x, at_y = (axes.transScale + axes.transLimits).transform((x, y))
        free_y = _nearest_free(float(at_x), float(at_y), placed)
        placed.append((at_x, free_y))
        axes.annotate(
            label,
            (x, y),
            (at_x + 0.015, free_y),
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            color=colour,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": colour, "shrinkA": 0, "shrinkB": 0},
        )


def _nearest_free(x: float, y: float, placed: Sequence[tuple[float, float]]) -> float:
    """The height nearest to `y`, as a share of the axes, at which a label covers no other."""
    steps = (sign * n * LABEL_HEIGHT / 4 for n in range(100) for sign in (1, -1))
    heights = (y + step for step in steps if -0.02 <= y + step <= 1.05)
    beside = [py for px, py in placed if abs(x - px) < LABEL_WIDTH]
    return next((height for height in heights if all(abs(height - py) >= LABEL_HEIGHT for py in beside)), y)


def _shown(board: Board) -> list[Standing]:
    """The raw movie, the filters to beat in dynamic SNR, then every model; each kind by look-ahead."""
    filters = {board.best_rival(s.group, "dynamic_snr").contestant for s in board.standings}
    chosen = [s for s in board.standings if s.contestant.trained or s.contestant in filters]
    chosen.sort(key=lambda s: (s.contestant.trained, s.contestant.lookahead))
    return [board.raw, *(standing for standing in chosen if standing is not board.raw)]


def _examples(area: Any, board: Board, shown: Sequence[Standing]) -> None:
    """The crop and, below it, the trace of one cell, the true one in grey. (Any: a subfigure; matplotlib gives it no common type.)"""
    truth = glimpse_of_truth(board.standings[0].results[0].choice, board.standings[0].results[0].span)
    panes = [("clean (truth)", truth, INK), *((s.contestant.label, _glimpse(s), _colour(s)) for s in shown)]
    n_rows = -(-len(panes) // PER_ROW)
    axes = area.subplots(2 * n_rows, PER_ROW, squeeze=False, height_ratios=[3, 1] * n_rows)
    levels = np.percentile(truth.crop, (0.5, 99.8))
    for ax in axes.flat:
        ax.axis("off")
    for i, (label, seen, colour) in enumerate(panes):
        row, column = divmod(i, PER_ROW)
        image, trace = axes[2 * row, column], axes[2 * row + 1, column]
        image.imshow(seen.crop, cmap="gray", vmin=levels[0], vmax=levels[1], interpolation="nearest")
        image.set_title(label, fontsize=8, color=colour)
        if len(truth.trace):
            trace.plot(seen.trace, color=colour, lw=0.5)
            trace.plot(truth.trace, color=INK, lw=0.7, alpha=0.6)
            low, high = truth.trace.min(), truth.trace.max()
            margin = 0.4 * (high - low) or 1.0
            trace.set_ylim(low - margin, high + margin)


def _glimpse(standing: Standing) -> Glimpse:
    seen = standing.results[0].glimpse
    return seen if seen is not None else Glimpse(np.zeros((1, 1), np.float32), np.empty(0))


def _colour(standing: Standing) -> str:
    return ACCENT if standing.contestant.trained else GREY


def recording(path: Path, readings: Sequence[Reading]) -> Path:
    """Of a recording: each output's mean over time; one frame of it; then how far halves agree, and noise over time scales."""
    n = max(len(readings), 2)
    height, width = readings[0].mean.shape
    side = 3.4
    above = 2 * side * min(height / width, 1.2) + 0.6
    figure = Figure(figsize=(side * n, above + 3.0), layout="constrained", dpi=DPI)
    images, plots = _split(figure, above, 3.0)
    axes = images.subplots(2, n, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    means, frames = [reading.mean for reading in readings], [reading.frame for reading in readings]
    for row, (what, shown) in enumerate((("mean", means), ("one frame", frames))):
        levels = np.percentile(shown[-1], (0.5, 99.8))  # the same for all: the last output's, as raw ones are wider
        for ax, reading, image in zip(axes[row], readings, shown, strict=False):
            ax.imshow(image, cmap="gray", vmin=levels[0], vmax=levels[1], interpolation="nearest")
            ax.set_title(f"{reading.label}: {what}", fontsize=9)
    _curves(plots, readings)
    return _save(figure, path)


def _curves(area: Any, readings: Sequence[Reading]) -> None:
    """(Any: a subfigure.)"""
    with_halves = any(reading.halves for reading in readings)
    axes = area.subplots(1, 3 if with_halves else 2, squeeze=False)[0]
    for i, reading in enumerate(readings):
        look = {"label": reading.label, "color": GREY if reading.label == "raw" else f"C{i}", "lw": 1}
        axes[0].plot(reading.trace, **{**look, "lw": 0.7})
        axes[1].loglog(reading.spectrum.frequency, reading.spectrum.power, **look)
        if reading.halves:
            axes[2].plot(reading.halves.single.frequency, reading.halves.single.correlation, **look)
    axes[0].set(xlabel="frame", ylabel="counts")
    axes[0].set_title("the 8 x 8 px that change most", fontsize=9)
    axes[1].set(xlabel="temporal frequency, cycles per frame", ylabel="power, counts²")
    axes[1].set_title("single pixels over time", fontsize=9)
    if with_halves:
        axes[2].axhline(1 / 7, color=GREY, lw=0.8, ls=":")
        axes[2].set(xlabel="spatial frequency, cycles per pixel", ylabel="Fourier ring correlation", ylim=(-0.1, 1.02))
        axes[2].set_title("odd against even frames, denoised apart", fontsize=9)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].legend(fontsize=8, frameon=False)


def training(path: Path, panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> Path:
    """The course of a training: axis label -> curve -> (steps, values)."""
    figure = Figure(figsize=(4.2 * len(panels), 2.9), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(panels), squeeze=False)
    for ax, (label, lines) in zip(axes[0], panels.items(), strict=True):
        for name, (steps, values) in lines.items():
            ax.plot(steps, values, label=name, lw=1, marker="." if len(steps) < 30 else "")
        ax.set(xlabel="step", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=7, frameon=False)
    return _save(figure, path)


def _split(figure: Figure, above: float, below: float) -> Any:
    """Two parts one above the other. (Any: matplotlib's annotation knows one part only.)"""
    return figure.subfigures(2, 1, height_ratios=[above, below], hspace=0.02)


def _save(figure: Figure, path: Path) -> Path:
    try:
        figure.savefig(path, metadata={"Software": None})
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: the picture cannot be written: {error}") from None
    return path
