"""5: a subscriber that needs 25 ms for each frame of 100 per second."""

from __future__ import annotations

import time
from typing import Any

from soaks.asked import Asked
from soaks.bins import percentile_ms
from soaks.ear import Ear
from soaks.judged import accounts, heard_part, nothing_lost, sent_rows
from soaks.live import Live, ear
from soaks.loads import LOADS, run_settings
from soaks.report import Row, at_most, told
from soaks.state import Part, State

number, title, when, minutes = 5, "a slow subscriber", "nightly", 10.0

BUSY_MS = 25.0
AGE_P95_MS, AGE_MAX_MS, GROWTH_MB = 25.0, 100.0, 64.0
"""Limits of the specification; measured beside a naive client: 7.2 s old and 312 MB more after 12 s."""
PHASE_S = 15.0
"""With and without the slow one in turn, so that both meet the same moods of the machine. Engineering choice."""


def run(asked: Asked, state: State) -> None:
    """One run; phases with and without the slow subscriber, in turn."""
    settings = run_settings(LOADS["slow-subscriber"], asked)
    ears = {"raw": ear(settings, "raw", exact=True), "healthy": ear(settings, "denoised")}
    slow = ear(settings, "denoised", busy_ms=BUSY_MS, newest=True)
    with Live(settings, ears) as live:
        while state.elapsed_s < asked.seconds:
            began = time.monotonic()
            phase_s = max(1.0, min(PHASE_S, (asked.seconds - state.elapsed_s) / 2))
            live.published()
            live.watch(phase_s)
            without = live.published()
            live.gauges.take()
            slow_part = _with_slow(live, slow, phase_s)
            counted = {"unaccounted": live.unaccounted(), "acquired": live.session.summary().acquired}
            state.add({"send_without": without} | slow_part | counted, time.monotonic() - began)
        _, heard = live.finish()
    state.add({"heard": {name: heard_part(each) for name, each in heard.items()}, "last": True}, 0.0)


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """Ages and memory of the slow one; sends and losses of the others."""
    phases = [part for part in parts if "send_with" in part]
    p95 = percentile_ms((part["ages"] for part in phases), 95)
    return [
        at_most("slow one: age of what it shows, p95", AGE_P95_MS, [] if p95 is None else [p95], "ms"),
        at_most("slow one: oldest frame that it showed", AGE_MAX_MS, [part["oldest_ms"] for part in phases], "ms"),
        at_most("slow one: its memory grew by", GROWTH_MB, [part["grew_mb"] for part in phases], "MB"),
        *sent_rows(phases),
        told("slow one: shown / passed over / never arrived", _shown(phases)),
        *nothing_lost("raw", parts),
        *nothing_lost("healthy", parts),
        accounts(phases),
    ]


def _shown(phases: list[dict[str, Any]]) -> str:
    total = {name: sum(part["slow"][name] for part in phases) for name in ("received", "skipped", "missed")}
    return f"{total['received'] - total['skipped']} / {total['skipped']} / {total['missed']}"


def _with_slow(live: Live, slow: Ear, phase_s: float) -> dict[str, Any]:
    listener = live.add("slow", slow)
    live.watch(min(1.0, phase_s / 4))  # its process is warm, its first messages are read
    live.published()
    live.gauges.read(live.pids())
    first = live.gauges.take()["slow"]["rss_mb"]
    live.watch(phase_s)
    sent = live.published()
    live.gauges.read(live.pids())
    most = live.gauges.take()["slow"]["rss_mb"]
    heard = live.remove("slow")
    return {
        "send_with": sent,
        "ages": heard.ages,
        "oldest_ms": max((ms for _, ms in listener.moments), default=float("inf")),
        "grew_mb": most - first,
        "slow": heard_part(heard),
    }
