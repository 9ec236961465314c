"""4: inference stands still for 500 ms every 5 s."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from soaks.asked import Asked
from soaks.judged import accounts, heard_part, nothing_lost
from soaks.live import Live, ear
from soaks.loads import LOADS, Load, run_settings
from soaks.report import Row, at_most, none_of, told
from soaks.state import Part, State

number, title, when, minutes = 4, "inference stalls for 500 ms every 5 s", "nightly", 10.0

STALL_S, EVERY_S, BACK_WITHIN_S = 0.5, 5.0, 1.0
N_STALLS = 12
"""Stalls in a part, one minute: then the next load and policy has its turn, in a run of its own."""
RING_S = 8.0
FORMS = (("A", False), ("A", True), ("B", False), ("B", True))


def run(asked: Asked, state: State) -> None:
    """Each load with both policies, in turn, until the time is over."""
    while state.elapsed_s < asked.seconds:
        name, lossless = FORMS[state.n_parts % len(FORMS)]
        began = time.monotonic()
        n_stalls = max(1, min(N_STALLS, round((asked.seconds - state.elapsed_s) / EVERY_S)))
        part = _stalled(LOADS[name], asked, lossless=lossless, n_stalls=n_stalls)
        state.add(part, time.monotonic() - began)


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """Display age, drops and books."""
    latest = [part for part in parts if not part["lossless"]]
    lossless = [part for part in parts if part["lossless"]]
    backs = [seconds for part in latest for seconds in part["back_s"]]
    rows = [at_most("latest: display age is back under its limit", BACK_WITHIN_S, backs, "s after a stall", 2)]
    if lossless:
        n_dropped = sum(sum(part["dropped"].values()) for part in lossless)
        rows.append(none_of("lossless: frames dropped", n_dropped, sum(p["acquired"] for p in lossless), "frames"))
    for part in parts[: len(FORMS)]:
        limit = f"limit {part['limit_ms']:.0f} ms" if not part["lossless"] else "no limit"
        middle = sorted(part["back_s"])[len(part["back_s"]) // 2]
        rows.append(told(f"{part['load']} {_policy(part)}: median time to be back", f"{middle:.2f} s ({limit})"))
    dropped = sum(sum(part["dropped"].values()) for part in latest)
    rows.append(told("latest: frames dropped, each with a reason", str(dropped)))
    return [*rows, accounts(parts), *nothing_lost("raw", parts)]


def _policy(part: dict[str, Any]) -> str:
    return "lossless" if part["lossless"] else "latest"


def _stalled(load: Load, asked: Asked, *, lossless: bool, n_stalls: int) -> dict[str, Any]:
    every_s = EVERY_S / asked.speed
    settings = run_settings(load, asked, policy="lossless" if lossless else "latest", ring_s=RING_S)
    ears = {"raw": ear(settings, "raw", exact=True), "shown": ear(settings, "denoised", newest=True)}
    ends: list[float] = []
    with Live(settings, ears) as live:
        live.watch(every_s / 2)
        for _ in range(n_stalls):
            process = live.denoise()
            process.suspend()
            try:
                live.watch(STALL_S)
            finally:
                process.resume()
            ends.append(time.perf_counter())
            live.watch(every_s - STALL_S)
        unaccounted, ready = live.unaccounted(), live.session.ready
        moments = live.listeners["shown"].moments
        summary, heard = live.finish()
    period_ms = 1e3 / load.fps
    late = ready.latency_frames * period_ms + ready.ms_per_frame * ready.hop if ready else 0.0
    limit_ms = 2 * period_ms + late
    return {
        "load": load.name,
        "lossless": lossless,
        "limit_ms": limit_ms,
        "back_s": [back_after(end, moments, limit_ms) for end in ends],
        "acquired": summary.acquired,
        "dropped": summary.dropped,
        "unaccounted": unaccounted,
        "heard": {name: heard_part(each) for name, each in heard.items()},
    }


def back_after(end_s: float, moments: Iterable[tuple[float, float]], limit_ms: float) -> float:
    """Seconds from the end of a stall to the first tenth of a second in which no frame was older than the limit."""
    later = (at for at, worst_ms in moments if at >= end_s and worst_ms <= limit_ms)
    return next(later, 1e9) - end_s
