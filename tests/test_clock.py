"""Somebody sets the clock of the rig's computer while a run goes on: no latency, no drop and no end comes of it."""

from __future__ import annotations

import ast
import os
import runpy
import time
from pathlib import Path

import pytest

import rtdenoise
from rtdenoise.status import EndMessage, StatusMessage
from rtdenoise.subscribe import StatusSubscriber
from tests.runs import run_lossless, settings

PACKAGE = Path(rtdenoise.__file__).parent
WALL = {("time", name) for name in ("time", "time_ns", "localtime", "gmtime", "ctime", "strftime")}
WALL |= {(kind, name) for kind in ("datetime", "date") for name in ("now", "utcnow", "today", "fromtimestamp")}
OFFLINE = {"train", "export", "evaluate", "bench", "doctor"}
DATES = {
    "announce.py": "start says in UTC when the series began",
    "bundle.py": "when a bundle was made",
    "engine/plans.py": "how old a file is that somebody left",
    "keyring.py": "when a key was made",
    "logbook.py": "lines and names of logs",
    "recording/events.py": "when something was marked, for people",
    "recording/run.py": "when a recording began and ended, for people",
    "recording/series.py": "when a series began, for people",
    "sources/follow.py": "whether a file was written lately, before the first frame",
    "sources/micromanager/sequence.py": "MMCore stamps its frames with the wall clock",
    "sources/tap.py": "MMCore stamps its frames with the wall clock",
    "status.py": "start says in UTC when the series began",
}
"""The only modules beside the live path's time that may look at the wall clock, and what for: a date, never a duration."""
SITE = """
import os, time
from pathlib import Path
_true, _hours = time.time, [0]
def _jumping():
    _hours[0] += 1
    return _true() + 3600.0 * (-1) ** _hours[0]
time.time = _jumping
time.time_ns = lambda: int(_jumping() * 1e9)
Path({folder!r}, f"{{os.getpid()}}.jumps").touch()
"""


def wall_clock_calls(path: Path) -> list[int]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    return [node.lineno for node in calls if (node.value.id, node.attr) in WALL]  # type: ignore[attr-defined]


def test_only_dates_come_from_the_wall_clock_durations_never() -> None:
    looked = {}
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] not in OFFLINE and (lines := wall_clock_calls(path)):
            looked[inside.as_posix()] = lines
    assert set(looked) <= set(DATES), f"time.perf_counter_ns() or time.monotonic() measures durations: {looked}"
    imported = [path for path in PACKAGE.rglob("*.py") if "from time import" in path.read_text(encoding="utf-8")]
    assert not imported, f"write time.perf_counter_ns(), so that this test sees it: {imported}"


def test_a_wall_clock_that_jumps_by_an_hour_changes_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE.format(folder=str(tmp_path)), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(time, "time", time.time)
    monkeypatch.setattr(time, "time_ns", time.time_ns)
    runpy.run_path(str(tmp_path / "sitecustomize.py"))
    options = {"mode": "counter", "shape": [32, 48], "fps": 100.0, "n_frames": 160}
    asked = settings("synthetic", options, engine={"model": "identity"}, log_dir=tmp_path / "logs")
    with StatusSubscriber(asked.endpoints.status) as listener:
        summary, _, denoised = run_lossless(asked)
        messages = []
        while (message := listener.read(0.3)) is not None:
            messages.append(message)
    assert len(list(tmp_path.glob("*.jumps"))) >= 3, "not every process had the jumping clock"
    assert (summary.delivered, len(denoised), summary.dropped) == (160, 160, {})
    assert summary.seconds < 600
    worst = [ms for percentiles in summary.latency_ms.values() for ms in percentiles]
    worst += [m.age.max_ms for m in messages if isinstance(m, StatusMessage | EndMessage)]
    assert all(0 <= ms < 60_000 for ms in worst)
    assert all(0 <= m.fps_in < 1000 for m in messages if isinstance(m, StatusMessage))
