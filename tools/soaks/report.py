"""A verdict: limit beside measured, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benching import Head
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rtdenoise import machine
from rtdenoise.config import Settings

WORDS = {True: "met", False: "[red]VIOLATED[/red]", None: "told"}


class Row(Settings):
    """One line. met None: a figure that is told and not judged.  spread: lowest, median, highest of what was measured."""

    name: str
    limit: str
    measured: str
    met: bool | None
    spread: tuple[float, float, float] | None = None


class Report(Settings):
    """One soak, with everything needed to judge it. seconds: that were soaked, over all resumptions."""

    test: int
    title: str
    head: Head = Field(default_factory=Head)
    asked: dict[str, Any] = {}
    seconds: float
    resumed: int = 0
    rows: tuple[Row, ...]

    @property
    def met(self) -> bool:
        """Whether no limit was violated, and at least one was judged."""
        judged = [row.met for row in self.rows if row.met is not None]
        return bool(judged) and all(judged)

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table("what", "limit", "measured", "", title=f"{self.test} {self.title}: {self.seconds:.0f} s")
        for row in self.rows:
            table.add_row(row.name, row.limit, row.measured, WORDS[row.met])
        console.print(table)
        console.print(self.head.line(), highlight=False)

    def write(self, path: Path) -> None:
        """As JSON, with a load that was read afterwards."""
        path.parent.mkdir(parents=True, exist_ok=True)
        full = self.model_copy(update={"head": self.head.model_copy(update={"load_after": machine.load()})})
        path.write_text(full.model_dump_json(indent=2) + "\n", encoding="utf-8")


def at_most(name: str, limit: float, values: Sequence[float], unit: str, digits: int = 1) -> Row:
    """The highest of some figures against a limit. No figure at all is a violation: nothing was measured."""
    if not values:
        return Row(name=name, limit=f"<= {limit:g} {unit}", measured="not measured", met=False)
    low, middle, high = min(values), median(values), max(values)
    measured = f"{high:.{digits}f} {unit}" + (f" (median {middle:.{digits}f} of {len(values)})" if values[1:] else "")
    limit_text = f"<= {limit:g} {unit}"
    return Row(name=name, limit=limit_text, measured=measured, met=high <= limit, spread=(low, middle, high))


def none_of(name: str, n: int, of: int, what: str) -> Row:
    """A count that must be 0 of something that must not be."""
    return Row(name=name, limit="0", measured=f"{n} of {of} {what}", met=n == 0 and of > 0)


def told(name: str, measured: str) -> Row:
    """A figure beside the limits."""
    return Row(name=name, limit="", measured=measured, met=None)
