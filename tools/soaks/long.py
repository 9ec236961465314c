"""10: hours of load A, then an eighth of that of B and of C."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from rtdenoise.settings import RunSettings
from rtdenoise.shared import DROP_REASONS, Slot
from soaks.asked import MAX_DISK_BYTES, Asked
from soaks.bins import percentile_ms, sparse
from soaks.gauges import slope_per_hour
from soaks.judged import accounts, heard_part, nothing_lost
from soaks.live import Live, ear
from soaks.loads import LOADS, run_settings
from soaks.report import Row, at_most, none_of, told
from soaks.segments import Checker, segment_frames
from soaks.state import Part, State

number, title, when, minutes = 10, "soak", "release", 8 * 60.0

SHARES = {"A": 1.0, "B": 1 / 8, "C": 1 / 8}
"""Of the time asked for: 8 h of A come with 1 h of B and 1 h of C."""
WARM_S = 600.0
"""Memory is judged from minute 10 on; in shorter soaks from a third of a load's time on."""
GROWTH_MB, SLOPE_MB_PER_H, SLOPE_FROM_S, P99_RATIO = 2.0, 1.0, 7200.0, 1.1
MINUTE_S = 60.0
MANY = 100_000
"""Series: more than anybody waits for."""
BEFORE_THE_RING = tuple(reason for reason in DROP_REASONS if reason.startswith(("source", "acquire")))


def run(asked: Asked, state: State) -> None:
    """Load after load, kept minute by minute."""
    for name in asked.loads or tuple(SHARES):
        wanted_s = asked.seconds * SHARES[name]
        done_s = sum(part["seconds"] for part in state.parts if part["load"] == name)
        if done_s < wanted_s - 1.0:
            _soak(name, asked, state, wanted_s - done_s)


def _soak(name: str, asked: Asked, state: State, seconds: float) -> None:
    settings = _settings(name, asked)
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
            taken = summary.delivered + sum(n for why, n in summary.dropped.items() if why not in BEFORE_THE_RING)
            last["recorded"] = asdict(checker.finish()) | {"lost": lost, "taken": taken}
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


def _settings(name: str, asked: Asked) -> RunSettings:
    """Of a run without end; of series after series, where they are recorded."""
    load = LOADS[name]
    if not asked.record:
        return run_settings(load, asked)
    folder = asked.work / f"recording-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    n_frames = segment_frames(asked.shape if any(asked.shape) else load.shape, load.fps / asked.speed)
    return run_settings(load, asked, n_frames=n_frames, n_series=MANY, record={"folder": folder})


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
    for load in dict.fromkeys(part["load"] for part in parts):
        mine = [part for part in parts if part["load"] == load]
        minutes_ = [part for part in mine if "ages" in part]
        rows.append(_named(load, accounts(minutes_)))
        rows += [_named(load, row) for name in ("raw", "denoised") for row in nothing_lost(name, mine)]
        rows += [_named(load, row) for row in (*_memory(minutes_), *_handles(minutes_), *_latency(minutes_))]
        rows += [_named(load, row) for part in mine if "recorded" in part for row in _recorded(part["recorded"])]
        rows.append(_named(load, told("dropped, each with a reason", str(minutes_[-1]["dropped"] or 0))))
    return rows


def _recorded(found: dict[str, Any]) -> list[Row]:
    """Segments whose checksum is that of what was sent, and nothing lost on the way to the disk."""
    return [
        none_of("recorded segments that are not what was sent", len(found["wrong"]), found["n_segments"], "segments"),
        none_of("frames that the recorder lost", found["lost"], found["n_frames"], "frames"),
        none_of("frames taken and not on disk", found["taken"] - found["n_frames"], found["taken"], "frames"),
        at_most("disk", MAX_DISK_BYTES / 2**20, [found["most_bytes"] / 2**20], "MiB"),
        *(told("segment", line) for line in found["wrong"][:5]),
    ]


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
