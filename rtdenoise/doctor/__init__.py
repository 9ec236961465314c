"""What works on this machine, found by opening it: engines, camera, files, viewer, ports, memory, clock."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtdenoise import machine
from rtdenoise.doctor import examine
from rtdenoise.doctor import report as reports
from rtdenoise.doctor.check import Check, Verdict, judge
from rtdenoise.doctor.sources import sources
from rtdenoise.errors import ConfigError

__all__ = ["Check", "Verdict", "command", "diagnose", "judge", "place_of", "show"]

_STYLES = {"ok": "green", "missing": "yellow", "problem": "red", "untested": "magenta", "note": "dim"}


def diagnose() -> list[Check]:
    """Open everything, each thing in a process of its own. Takes some seconds; changes nothing."""
    examinations = (
        examine.engines,
        examine.models,
        examine.cameras,
        sources,
        examine.files,
        examine.viewer,
        examine.computer,
    )
    return [check for examination in examinations for check in examination()]


def show(console: Console, checks: Sequence[Check]) -> None:
    """Print findings and verdict for a person."""
    table = Table("", "what", "", "found", title="rtdenoise doctor")
    group = ""
    for check in checks:
        if group and check.group != group:
            table.add_section()
        shown, group = "" if check.group == group else check.group, check.group
        state = Text(check.state, _STYLES[check.state])
        found = Text(check.detail)
        if check.fix:
            found.append(f"\n{check.fix}", "bold")
        table.add_row(shown, check.name, state, found)
    console.print(table)
    verdict = judge(checks)
    console.print(Text(verdict.line, "bold green" if verdict.healthy else "bold red"))


def place_of(path: Path | None, *, wanted: bool) -> Path | None:
    """Where the report goes; None when there is to be none. Raises ConfigError for a place without a wish."""
    if path is not None and not wanted:
        raise ConfigError(f"rtdenoise doctor {path}: to write the report there, add --report")
    return (path or reports.default_name()) if wanted else None


def command(console: Console, *, as_json: bool, report: Path | None = None) -> int:
    """`rtdenoise doctor`: 0 when this machine can take frames from a camera and denoise them, else 1. report: also write it there."""
    checks = diagnose()
    verdict = judge(checks)
    if as_json:
        found = {"versions": machine.versions(), "checks": [asdict(c) for c in checks], "verdict": asdict(verdict)}
        print(json.dumps(found, indent=2))
    else:
        show(console, checks)
    if report is not None:
        n_bytes = reports.write(report, checks, lambda page: show(page, checks))
        print(
            f"report: {report} ({n_bytes / 1024:.0f} KiB); names, home folders and keys were taken out", file=sys.stderr
        )
    return 0 if verdict.healthy else 1
