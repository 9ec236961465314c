"""The program of the twelve tests: it names them, each runs in miniature, a limit that is broken ends it with 1, and it resumes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from soaks import books, schedules
from soaks import state as states
from soaks.asked import Asked
from soaks.disk import TooMuch, check_disk
from soaks.gauges import slope_per_hour
from soaks.report import Report, at_most, none_of
from soaks.state import StateError
from soaks.tests import TESTS

SOAK = Path(__file__).resolve().parents[1] / "tools" / "soak.py"
SMALL = ("--shape", "64", "64")
COUNTS = ("frames lost", "wrong", "unaccounted", "out of order", "left behind", "broke", "trouble", "not what it says")
"""Rows that no busy machine may excuse; ages and times in a miniature on a shared computer say nothing."""


def soak(tmp_path: Path, *words: str) -> tuple[int, dict[str, object]]:
    """Exit code and report."""
    out = tmp_path / "report.json"
    command = [sys.executable, str(SOAK), "--work", str(tmp_path), "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert out.exists(), done.stdout + done.stderr
    return done.returncode, json.loads(out.read_text(encoding="utf-8"))


def test_all_twelve_are_listed() -> None:
    done = subprocess.run([sys.executable, str(SOAK), "--list"], capture_output=True, text=True, timeout=60, check=True)
    rows = [line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│")]
    assert rows == [str(n) for n in range(1, 13)]
    assert sorted(TESTS) == list(range(1, 13))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(1, ("--minutes", "0.01", "--speed", "10"), id="accounting"),
        pytest.param(2, ("--minutes", "0.01", "--speed", "10"), id="windows"),
        pytest.param(4, ("--minutes", "0.02", "--speed", "4", *SMALL), marks=pytest.mark.soak, id="stall"),
        pytest.param(5, ("--minutes", "0.05", *SMALL), marks=pytest.mark.soak, id="slow subscriber"),
        pytest.param(6, ("--minutes", "0.02", "--speed", "30", *SMALL), marks=pytest.mark.soak, id="frozen subscriber"),
        pytest.param(7, ("--minutes", "0.02"), marks=pytest.mark.soak, id="cycles"),
        pytest.param(9, ("--minutes", "0.02", "--speed", "10"), marks=pytest.mark.soak, id="killed recorder"),
        pytest.param(10, ("--minutes", "0.05", "--speed", "60", "--loads", "A", *SMALL), id="soak"),
        pytest.param(12, ("--minutes", "0.001", "--speed", "20"), id="fuzz"),
    ],
)
def test_each_runs_in_miniature_and_counts_nothing_wrong(tmp_path: Path, number: int, words: tuple[str, ...]) -> None:
    _, report = soak(tmp_path, "--test", str(number), *words)
    rows = report["rows"]
    assert isinstance(rows, list)
    counted = [row for row in rows if row["limit"] == "0" or any(word in row["name"] for word in COUNTS)]
    assert counted
    assert [row for row in counted if row["met"] is False] == []
    assert {"date", "cpu", "versions"} <= set(report["head"])  # type: ignore[arg-type]


def test_a_violation_ends_the_program_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise books.Violation("made up")

    monkeypatch.setattr(books, "check_now", broken)
    state = states.begin(tmp_path / "state", {})
    TESTS[1].run(Asked(seconds=0.1, speed=1000.0), state)
    rows = TESTS[1].judge(Asked(seconds=0.1), state.parts)
    report = Report(test=1, title="", seconds=1.0, rows=tuple(rows))
    assert not report.met
    assert "made up" in rows[1].measured
    assert schedules.MODELS


def test_nothing_measured_is_no_verdict_in_favour() -> None:
    assert not at_most("age", 10.0, [], "ms").met
    assert not none_of("lost", 0, 0, "frames").met
    assert not Report(test=1, title="", seconds=0.0, rows=()).met
    assert at_most("age", 10.0, [1.0, 10.0], "ms").met
    assert not at_most("age", 10.0, [1.0, 10.1], "ms").met


def test_a_soak_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    path, key = tmp_path / "state", {"test": 5, "shape": [1, 2]}
    first = states.begin(path, key)
    first.add({"n": 1}, 60.0)
    first.add({"n": 2}, 60.0)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"n": 3, "li')  # killed while it wrote
    again = states.resume(path, key)
    again.add({"n": 4}, 30.0)
    assert (again.elapsed_s, again.life, again.n_parts) == (150.0, 1, 3)
    assert [(part["n"], part["life"]) for part in again.parts] == [(1, 0), (2, 0), (4, 1)]
    with pytest.raises(StateError, match="another shape"):
        states.resume(path, {"test": 5, "shape": [2, 2]})
    with pytest.raises(StateError, match="nothing to resume"):
        states.resume(tmp_path / "none", key)


def test_a_disk_that_holds_too_much_is_named(tmp_path: Path) -> None:
    (tmp_path / "segment").write_bytes(bytes(1000))
    assert check_disk(tmp_path, most=1000) == 1000
    with pytest.raises(TooMuch, match=r"holds 1000 bytes"):
        check_disk(tmp_path, most=999)


def test_a_slope_is_per_hour() -> None:
    assert slope_per_hour([0.0, 1800.0, 3600.0], [10.0, 10.5, 11.0]) == pytest.approx(1.0)
