"""12: hostile messages against everything that reads the wire."""

from __future__ import annotations

import time

from fuzz_wire import ALLOWED_BYTES, fuzz

from soaks.asked import Asked
from soaks.report import Row, at_most, none_of, told
from soaks.state import Part, State
from soaks.suites import Suite

number, title, when, minutes = 12, "wire and parser fuzz", "CI", 1.0

BATCH, N_LEAST = 10_000, 10_000
DOORS = Suite(12, title, when, minutes, ("tests/test_security.py",))
"""Loopback by default, no pickle, and 0 bytes for a wrong key."""


def run(asked: Asked, state: State) -> None:
    """Batches of 10,000 messages while there is time (a million takes about ten minutes), then who is let in."""
    while state.n_parts == 0 or state.elapsed_s < asked.seconds:
        began = time.monotonic()
        report = fuzz(max(100, round(BATCH / asked.speed)), asked.seed + state.n_parts)
        names = ("n", "read", "refused", "through_sockets", "most_bytes", "grown_bytes", "trouble")
        state.add({name: getattr(report, name) for name in names} | {"ok": report.ok}, time.monotonic() - began)
    if asked.speed == 1.0:
        began = time.monotonic()
        state.add(DOORS.once(), time.monotonic() - began)


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """No crash, no large allocation, every message accounted for."""
    batches = [part for part in parts if "read" in part]
    n = sum(part["n"] for part in batches)
    most = [part["most_bytes"] / 2**20 for part in batches]
    doors = [part for part in parts if "counts" in part]
    rows = [
        none_of("batches with trouble", sum(not part["ok"] for part in batches), n, "messages"),
        *(told("trouble", line) for part in batches for line in part["trouble"][:3]),
        at_most("most memory for one message", ALLOWED_BYTES / 2**20, most, "MiB"),
        at_most("the process grew by", ALLOWED_BYTES / 2**20, [p["grown_bytes"] / 2**20 for p in batches], "MiB"),
    ]
    return rows + (DOORS.judge(asked, doors) if doors else [])
