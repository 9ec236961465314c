"""Tests of the soak that are test files: run by pytest in a process of their own, over and over while there is time."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from soaks.asked import Asked
from soaks.report import Row, at_most, none_of
from soaks.state import Part, State

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 1800
COUNTS = re.compile(r"(\d+) (passed|failed|error|skipped|deselected)")


@dataclass(slots=True, frozen=True)
class Suite:
    """Test files that keep one of the twelve promises. chosen: `-k` of pytest, '' for all of them."""

    number: int
    title: str
    when: str
    minutes: float
    files: tuple[str, ...]
    chosen: str = ""

    def run(self, asked: Asked, state: State) -> None:
        """Once, and again while there is time for another."""
        while state.n_parts == 0 or state.elapsed_s + _mean_s(state) <= asked.seconds:
            began = time.monotonic()
            part = self.once()
            state.add(part, time.monotonic() - began)

    def judge(self, asked: Asked, parts: list[Part]) -> list[Row]:
        """No test may fail, and one at least must have run."""
        n = {word: sum(part["counts"].get(word, 0) for part in parts) for word in ("passed", "failed", "error")}
        rows = [none_of("tests that failed", n["failed"] + n["error"], n["passed"], "passed")]
        rows += [Row(name="failed", limit="", measured=line, met=False) for part in parts for line in part["lines"]]
        skipped = [part["counts"].get("skipped", 0) for part in parts]
        told_ = Row(name="tests skipped, with a reason", limit="", measured=str(max(skipped)), met=None)
        return [*rows, told_, at_most("a round took", TIMEOUT_S, [part["took_s"] for part in parts], "s")]

    def once(self) -> Part:
        """One round of pytest: how many passed and failed, and which."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *self.files]
        command += ["-k", self.chosen] if self.chosen else []
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        lines = done.stdout.splitlines()
        counts = {word: int(n) for n, word in COUNTS.findall(lines[-1] if lines else "")}
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        if done.returncode and not failed:
            failed = [f"pytest ended with code {done.returncode}: {(done.stderr or done.stdout)[-300:]}"]
        return {"counts": counts, "lines": failed}


def _mean_s(state: State) -> float:
    return state.elapsed_s / max(1, state.n_parts)


LIVE_IS_BATCH = Suite(
    3,
    "live = batch",
    "CI",
    1.0,
    ("tests/test_live_equals_offline.py", "tests/test_fidelity.py", "tests/test_series.py"),
)
HOSTILE_SOURCE = Suite(
    8,
    "a hostile source",
    "CI",
    1.0,
    ("tests/test_hostile_source.py", "tests/test_hostile_run.py", "tests/test_window_integrity.py"),
)
ENGINE_FAULTS = Suite(
    11,
    "engine and provider faults",
    "CI",
    1.0,
    ("tests/test_engine_fallback.py", "tests/test_engine_trouble.py", "tests/test_plans.py", "tests/test_doctor.py"),
)
