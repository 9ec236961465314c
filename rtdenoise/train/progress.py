"""The progress line of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rtdenoise.train.loop import Training


class Report:
    """One line that is renewed; see `progress`."""

    def __init__(self, bar: Progress, row: TaskID) -> None:
        self._bar, self._row = bar, row

    def show(self, training: Training, news: str) -> None:
        """The step, the smoothed loss, and the newest validation in words."""
        note = f"loss {training.smooth_loss:.4f}  {news}"
        self._bar.update(self._row, completed=training.step, description=note)


@contextmanager
def progress(console: Console, training: Training) -> Iterator[Report]:
    """A progress bar on `console` while the training runs."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, refresh_per_second=2) as bar:
        steps = training.recipe.train.steps
        yield Report(bar, bar.add_task("starting", total=steps, completed=training.step))
