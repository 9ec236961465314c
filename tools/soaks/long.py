"""10: hours of load A, then an eighth of that of B and of C."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack
from typing import Any

from rtdenoise.shared import Slot
from soaks.asked import MAX_DISK_BYTES, Asked
from soaks.bins import percentile_ms, sparse
from soaks.gauges import slope_per_hour
from soaks.judged import accounts, heard_part, nothing_lost
from soaks.live import Live, ear
from soaks.loads import LOADS
from soaks.report import Row, at_most, told
from soaks.segments import Checker, recorded_part, recorded_rows, rolling_settings
from soaks.state import Part, State
from soaks.suites import Suite

number, title, when, minutes = 10, "soak", "release", 8 * 60.0

SHARES = {"A": 1.0, "B": 1 / 8, "C": 1 / 8}
"""Of the time asked for: 8 h of A come with 1 h of B and 1 h of C."""
WARM_S = 600.0
"""Memory is judged from minute 10 on; in shorter soaks from a third of a load's time on."""
CLOCK = Suite(10, title, when, minutes, ("tests/test_clock.py",))
"""The wall clock is stepped by an hour, to and fro, under a run: no latency may notice."""
GROWTH_MB, SLOPE_MB_PER_H, SLOPE_FROM_S, P99_RATIO = 2.0, 1.0, 7200.0, 1.1
MINUTE_S = 60.0


def run(asked: Asked, state: State) -> None:
    """Load after load, kept minute by minute."""
    for name in asked.loads or tuple(SHARES):
        wanted_s = asked.seconds * SHARES[name]
        done_s = sum(part["seconds"] for part in state.parts if part.get("load") == name)
        if done_s < wanted_s - 1.0:
            _soak(name, asked, state, wanted_s - done_s)
    if asked.speed == 1.0:
        began = time.monotonic()
        state.add(CLOCK.once(), time.monotonic() - began)


def _soak(name: str, asked: Asked, state: State, seconds: float) -> None:
    settings = rolling_settings(LOADS[name], asked)
    ears = {"raw": ear(settings, "raw", exact=True), "denoised": ear(settings, "denoised")}
    last: Part = {"load": name, "seconds": 0.0}
    with ExitStack() as stack:
        checker = stack.enter_context(Checker(settings.record.folder, MAX_DISK_BYTES)) if settings.record else None
        with Live(settings, ears) as live:
            _watch(live, name, state, seconds, MINUTE_S / asked.speed, checker)
            lost = int(live.ring.ints[Slot.RECORDER_LOST])
            summary, heard = live.finish()
        last["heard"] = {n: heard_part(h) for n, h in heard.items()}
        if checker is not None:
            last["recorded"] = recorded_part(checker.finish(), summary, lost)
    state.add(last, 0.0)


def _watch(live: Live, load: str, state: State, left_s: float, minute_s: float, checker: Checker | None) -> None:
    """Minute after minute, each kept."""
    before = _totals(live)
    live.gauges.take()
    while left_s > 0.5:
        began = time.monotonic()
        live.watch(min(minute_s, left_s))
        live.gauges.read(live.pids())
        took = time.monotonic() - began
        now = _totals(live)
        state.add(_minute(load, took, before, now) | {"memory": live.gauges.take()}, took)
        before, left_s = now, left_s - took
        if checker is not None:
            checker.hear()


def _totals(live: Live) -> dict[str, Any]:
    heard = {name: listener.hear() for name, listener in live.listeners.items()}
    summary = live.session.summary()
    return {
        "ages": {name: dict(each.ages) for name, each in heard.items()},
        "send": live.published(),
        "copy": sparse(live.ring.latency["copy"].counts),
        "acquired": summary.acquired,
        "delivered": summary.delivered,
        "dropped": summary.dropped,
        "unaccounted": live.unaccounted(),
        "unbalanced": heard["raw"].unbalanced,
    }


def _minute(load: str, seconds: float, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    ages = {name: _since(bins, before["ages"].get(name, {})) for name, bins in now["ages"].items()}
    kept = {name: now[name] - before[name] for name in ("acquired", "delivered", "unbalanced")}
    same = {name: now[name] for name in ("send", "unaccounted", "dropped")}
    return {"load": load, "seconds": seconds, "ages": ages} | kept | same


def _since(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {i: n - before.get(i, 0) for i, n in now.items() if n > before.get(i, 0)}


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """Books, memory, handles and latency of every load."""
    rows: list[Row] = []
    for load in dict.fromkeys(part["load"] for part in parts if "load" in part):
        mine = [part for part in parts if part.get("load") == load]
        minutes_ = [part for part in mine if "ages" in part]
        rows.append(_named(load, accounts(minutes_)))
        rows += [_named(load, row) for name in ("raw", "denoised") for row in nothing_lost(name, mine)]
        rows += [_named(load, row) for row in (*_memory(minutes_), *_handles(minutes_), *_latency(minutes_))]
        rows += [_named(load, row) for part in mine if "recorded" in part for row in recorded_rows([part["recorded"]])]
        rows.append(_named(load, told("dropped, each with a reason", str(minutes_[-1]["dropped"] or 0))))
    clock = [part for part in parts if "counts" in part]
    return rows + (CLOCK.judge(asked, clock) if clock else [])


def _named(load: str, row: Row) -> Row:
    return row.model_copy(update={"name": f"{load}: {row.name}"})


def _warm(minutes_: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Minutes of the longest life, without its first ten."""
    lives: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for part in minutes_:
        lives[part["life"]].append(part)
    longest = max(lives.values(), key=len)
    skip_s = min(WARM_S, sum(part["seconds"] for part in longest) / 3)
    warm, at_s = [], 0.0
    for part in longest:
        at_s += part["seconds"]
        if at_s > skip_s:
            warm.append(part | {"at_s": at_s})
    return warm


def _memory(minutes_: list[dict[str, Any]]) -> list[Row]:
    warm = _warm(minutes_)
    rows = []
    for role in warm[0]["memory"]:
        seen = [(part["at_s"], part["memory"][role]["uss_mb"]) for part in warm if role in part["memory"]]
        values = [mb for _, mb in seen]
        grown = at_most(f"{role}: unique memory grew by", GROWTH_MB, [values[-1] - values[0]], "MB", 2)
        rows.append(grown.model_copy(update={"spread": (min(values), sorted(values)[len(values) // 2], max(values))}))
        if seen[-1][0] - seen[0][0] >= SLOPE_FROM_S:
            slope = slope_per_hour(*zip(*seen, strict=True))
            rows.append(at_most(f"{role}: slope of its unique memory", SLOPE_MB_PER_H, [slope], "MB/h", 2))
    return rows


def _handles(minutes_: list[dict[str, Any]]) -> list[Row]:
    warm = _warm(minutes_)
    first, last = warm[0]["memory"], warm[-1]["memory"]
    moved = [
        f"{role} {what} {first[role][what]:.0f} -> {last[role][what]:.0f}"
        for role in first
        for what in ("handles", "threads")
        if role in last and last[role][what] > first[role][what]
    ]
    return [
        Row(name="files, sockets and threads", limit="constant", measured=", ".join(moved) or "constant", met=not moved)
    ]


def _latency(minutes_: list[dict[str, Any]]) -> list[Row]:
    """The last hour beside the first, in shorter soaks the last third beside the second."""
    warm = _warm(minutes_)
    n = max(1, min(60, len(warm) // 2))
    first, last = (percentile_ms((p["ages"]["denoised"] for p in part), 99) for part in (warm[:n], warm[-n:]))
    each = [ms for p in warm if (ms := percentile_ms([p["ages"]["denoised"]], 99)) is not None]
    if first is None or last is None or len(warm) < 2:
        return [Row(name="age p99, last part beside first", limit=f"<= {P99_RATIO} x", measured="too short", met=None)]
    row = at_most("age p99, last part beside first", P99_RATIO, [last / first], "x", 2)
    measured = f"{row.measured}: {last:.2f} and {first:.2f} ms over {n} min each"
    return [
        row.model_copy(update={"measured": measured, "spread": (min(each), sorted(each)[len(each) // 2], max(each))})
    ]
