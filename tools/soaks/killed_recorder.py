"""9: the process that records is killed at random instants, and the disk fills up."""

from __future__ import annotations

import random
import shutil
import time

from recorder_kills import kill_once

from soaks.asked import Asked
from soaks.disk import check_disk
from soaks.report import Row, at_most, none_of, told
from soaks.state import Part, State
from soaks.suites import Suite

number, title, when, minutes = 9, "recorder crash consistency", "nightly", 15.0

N_KILLS = 200
FPS, SHAPE, FIRST_S = 200.0, (64, 64), 2.0
LOST_MS = 1000.0
"""The promise: every frame older than one second is on disk."""
FULL_DISK = Suite(9, title, when, minutes, ("tests/test_recording_disk_full.py",))


def run(asked: Asked, state: State) -> None:
    """200 kills, however long they take, or fewer when the time is over; then a disk that fills."""
    while state.n_parts < N_KILLS and (state.elapsed_s < asked.seconds or not state.n_parts):
        began = time.monotonic()
        draw = random.Random(f"{asked.seed}-{state.n_parts}")
        folder = asked.work / f"kill-{state.n_parts:03d}"
        shutil.rmtree(folder, ignore_errors=True)
        kill = kill_once(folder, FPS, SHAPE, 1 + int(draw.uniform(0, FIRST_S) * FPS), draw)
        check_disk(asked.work)
        shutil.rmtree(folder)
        part = {name: getattr(kill, name) for name in ("after_frames", "on_disk", "missing", "wrong", "lost_ms")}
        state.add(part, time.monotonic() - began)
    if asked.speed == 1.0:
        began = time.monotonic()
        state.add(FULL_DISK.once(), time.monotonic() - began)


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """Nothing older than a second is missing, nothing on disk is wrong, a full disk is said and survived."""
    kills = [part for part in parts if "on_disk" in part]
    kept = sum(part["on_disk"] for part in kills)
    full = [part for part in parts if "counts" in part]
    rows = [
        none_of(
            "kills after which a frame older than 1 s is missing",
            sum(p["missing"] > 0 for p in kills),
            len(kills),
            "kills",
        ),
        none_of("frames on disk that are not as they were taken", sum(p["wrong"] for p in kills), kept, "frames"),
        at_most("age of the oldest frame that is missing", LOST_MS, [part["lost_ms"] for part in kills], "ms", 0),
        told("kills", f"{len(kills)} of {N_KILLS}"),
    ]
    return rows + (FULL_DISK.judge(asked, full) if full else [])
