"""`rtdenoise export`: parse, call, print."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rtdenoise.errors import ConfigError, MissingExtraError

out = Console()
err = Console(stderr=True)


def export(
    bundle: Annotated[str, typer.Argument(help="Bundle name or folder.")],
    target: Annotated[str | None, typer.Option(help="Name in export/targets, or a TOML file.")] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Try every engine of this machine; take the fastest within tolerance.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--out", help="Folder of the new bundle.")] = None,
    size: Annotated[
        str | None, typer.Option(help="With --auto: frame size in px, 512 or 512x256 (Y x X). Default 512.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.001, help="With --auto: frames per second it must keep up with. Default 30.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="With --auto: threads of the engine; 0: all cores.")] = 0,
    movie: Annotated[
        list[Path] | None, typer.Option(help="A recording to calibrate and judge on, instead of the bundle's clips.")
    ] = None,
) -> None:
    """Export a bundle, and prove that it still computes the same.

    --target: for one device and precision. --auto: for this machine, whatever runs fastest here. Neither: portable FP32 and FP16.
    """
    if find_spec("torch") is None:
        raise MissingExtraError("torch", "train")
    if auto and target:
        raise ConfigError("--auto chooses by itself; leave --target out, or --auto")
    if not auto and (size or fps or threads):
        raise ConfigError("--size, --fps and --threads are for --auto")
    if auto:
        _fastest(bundle, output, _shape(size or "512"), fps or 30.0, threads, tuple(movie or ()))
    else:
        _for_targets(bundle, target, output, tuple(movie or ()))


def _fastest(
    name: str, output: Path | None, shape: tuple[int, int], fps: float, threads: int, movies: tuple[Path, ...]
) -> None:
    from rtdenoise.export.auto import Wish, export_fastest

    folder = output or Path(f"{Path(name).name}-auto")
    with err.status("") as status:
        wish = Wish(shape=shape, fps=fps, threads=threads, movies=movies)
        report = export_fastest(name, folder, wish, lambda line: status.update(f"{line} ..."))
    show_candidates(out, report)
    line = f"{report.chosen} is the fastest within tolerance -> {folder}, report beside it; use it: rtdenoise run --model {folder}"
    out.print(line, highlight=False, soft_wrap=True)


def _for_targets(name: str, target: str | None, output: Path | None, movies: tuple[Path, ...]) -> None:
    from rtdenoise.export.pack import run_export
    from rtdenoise.export.target import PORTABLE

    for wanted in [target] if target else list(PORTABLE):
        folder = output or Path(f"{Path(name).name}-{Path(wanted).stem}")
        folder = folder if target or output is None else folder / wanted
        show_report(out, run_export(name, wanted, folder, movies), folder)


def show_report(console: Console, report: Any, folder: Path) -> None:
    """How far exported graphs are from PyTorch, on probe frames and on clips. (Any: the report's type needs torch to be imported.)"""
    if report.gaps:
        table = Table("graphs", "Y x X", "max error", "mean error", "bright p99", "PSNR dB", title=report.target.name)
        for gap in report.gaps:
            size = f"{gap.shape[0]} x {gap.shape[1]}"
            errors = (f"{error:.1e}" for error in (gap.worst, gap.mean, gap.bright))
            table.add_row(gap.form, size, *errors, f"{gap.psnr_db:.1f}")
        console.print(table)
        console.print("on noise with bright cells; errors in sd of PyTorch FP32's output", highlight=False)
    if report.fidelity:
        columns = ("engine", "graphs", "PSNR loss dB", "bright p99 %", "trace r", "max error")
        table = Table(*columns, title=f"{report.target.name}, on clips")
        for found in report.fidelity:
            row = (found.engine, found.graphs, *_lost(found), f"{found.worst:.2g}")
            table.add_row(*row)
        console.print(table)
        console.print(
            "losses against PyTorch FP32, the worst of the clips; max error in sd of its output", highlight=False
        )
    console.print(f"{report.bundle} -> {folder}, report beside it", highlight=False, soft_wrap=True)


def show_candidates(console: Console, report: Any) -> None:
    """Every engine, what it costs and what it loses. (Any: the report's type needs torch to be imported.)"""
    shape, fps = report.wish.shape, report.wish.fps
    title = f"{report.model}, {shape[0]} x {shape[1]}, {fps:g} frames/s, {report.cpu}"
    columns = ("engine", "hop", "ms p50", "p99", "PSNR loss dB", "bright p99 %", "trace r", "MB", "real time", "")
    table = Table(title=title)
    for column in columns:
        words = column in ("engine", "")
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=column == "engine")
    tried = [row for row in report.candidates if row.trial is not None]
    for row in tried:
        chosen = row.engine == report.chosen
        table.add_row(row.engine, *_cells(row), "chosen" if chosen else row.why_not, style="bold" if chosen else None)
    console.print(table)
    for why, engines in _untried(report).items():
        console.print(f"not run: {', '.join(engines)}: {why}", highlight=False, markup=False)
    console.print(
        "ms per frame at that hop; losses against PyTorch FP32, the worst of the clips; MB: most that the process held",
        highlight=False,
    )


def _untried(report: Any) -> dict[str, list[str]]:
    """Engines that did not run, by the reason."""
    found: dict[str, list[str]] = {}
    for row in report.candidates:
        if row.trial is None:
            found.setdefault(row.why_not, []).append(row.engine)
    return found


def _cells(row: Any) -> list[str]:
    speed, found = row.trial, row.fidelity
    measured = ["", "", ""] if speed is None else [str(speed.hop), f"{speed.ms_p50:.1f}", f"{speed.ms_p99:.1f}"]
    lost = ["", "", ""] if found is None else _lost(found)
    held = "" if speed is None or speed.memory_mb is None else f"{speed.memory_mb:.0f}"
    keeps_up = "" if speed is None else "yes" if speed.real_time else "no"
    return [*measured, *lost, held, keeps_up]


def _lost(found: Any) -> list[str]:
    loss = "unknown" if found.loss_db is None else f"{found.loss_db:+.3f}"
    return [loss, f"{found.bright_percent:.2f}", f"{found.trace_r:.4f}"]


def _shape(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdigit() and int(side) for side in sides):
        raise ConfigError(f"--size {text}: give one side in px, or Y x X as 512x256")
    return int(sides[0]), int(sides[-1])
