"""4: inference stands still for 500 ms every 5 s."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from rtdenoise.shared import Slot
from rtdenoise.status import StatusMessage
from rtdenoise.subscribe import StatusSubscriber
from soaks.asked import MAX_DISK_BYTES, Asked
from soaks.judged import accounts, heard_part, nothing_lost
from soaks.live import Live, ear
from soaks.loads import LOADS, Load, run_settings
from soaks.report import Row, at_most, none_of, told
from soaks.segments import Checker, recorded_part, recorded_rows, rolling_settings
from soaks.state import Part, State

number, title, when, minutes = 4, "inference stalls for 500 ms every 5 s", "nightly", 10.0

STALL_S, EVERY_S, BACK_WITHIN_S = 0.5, 5.0, 1.0
N_STALLS = 12
"""Stalls in a part, one minute: then the next load and policy has its turn, in a run of its own."""
RING_S = 8.0
NEVER_S = 9999.0
FORMS = (("A", "latest"), ("A", "lossless"), ("B", "latest"), ("B", "lossless"))
LONG_STALL_S, ALARM_MS = 6.0, 100.0
"""More than the 64 frames of the ring and the 64 of the camera hold at load A."""


def run(asked: Asked, state: State) -> None:
    """Each load with both policies, in turn, until the time is over; then a stall that no buffer can hold."""
    while state.elapsed_s < asked.seconds:
        name, policy = FORMS[state.n_parts % len(FORMS)]
        began = time.monotonic()
        n_stalls = max(1, min(N_STALLS, round((asked.seconds - state.elapsed_s) / EVERY_S)))
        part = _stalled(LOADS[name], asked, policy, n_stalls)
        state.add(part, time.monotonic() - began)
    began = time.monotonic()
    state.add(_stalled_too_long(asked), time.monotonic() - began)


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """Display age, drops, alarms and books."""
    stalls, too_long = [p for p in parts if "back_s" in p], [p for p in parts if "alarm_ms" in p]
    latest, lossless = ([p for p in stalls if p["policy"] == policy] for policy in ("latest", "lossless"))
    backs = [seconds for part in latest for seconds in part["back_s"]]
    rows = [at_most("latest: display age is back under its limit", BACK_WITHIN_S, backs, "s after a stall", 2)]
    if lossless:
        n_dropped = sum(sum(part["dropped"].values()) for part in lossless)
        rows.append(none_of("lossless: frames dropped", n_dropped, sum(p["acquired"] for p in lossless), "frames"))
    rows += [
        at_most("lossless, a stall too long: alarm after the first loss", ALARM_MS, [p["alarm_ms"]], "ms", 0)
        for p in too_long
    ]
    for part in stalls[: len(FORMS)]:
        middle = sorted(part["back_s"])[len(part["back_s"]) // 2]
        rows.append(told(f"{part['load']} {part['policy']}: median time to be back", f"{middle:.2f} s"))
    rows.append(
        told("latest: frames dropped, each with a reason", str(sum(sum(p["dropped"].values()) for p in latest)))
    )
    rows += recorded_rows([p["recorded"] for p in stalls]) if stalls and "recorded" in stalls[0] else []
    return [*rows, accounts(parts), *nothing_lost("raw", stalls)]


def _stalled(load: Load, asked: Asked, policy: str, n_stalls: int) -> dict[str, Any]:
    settings = rolling_settings(load, asked, policy=policy, ring_s=RING_S)
    ears = {"raw": ear(settings, "raw", exact=True), "shown": ear(settings, "denoised", newest=True)}
    with ExitStack() as stack:
        checker = stack.enter_context(Checker(settings.record.folder, MAX_DISK_BYTES)) if settings.record else None
        with Live(settings, ears) as live:
            ends = _stall_again_and_again(live, n_stalls, EVERY_S / asked.speed)
            unaccounted, ready = live.unaccounted(), live.session.ready
            moments, lost = live.listeners["shown"].moments, int(live.ring.ints[Slot.RECORDER_LOST])
            summary, heard = live.finish()
        recorded = {} if checker is None else {"recorded": recorded_part(checker.finish(), summary, lost)}
    period_ms = 1e3 / load.fps
    late_ms = ready.latency_frames * period_ms + ready.ms_per_frame * ready.hop if ready else 0.0
    return recorded | {
        "load": load.name,
        "policy": policy,
        "back_s": [back_after(end, moments, 2 * period_ms + late_ms) for end in ends],
        "acquired": summary.acquired,
        "dropped": summary.dropped,
        "unaccounted": unaccounted,
        "heard": {name: heard_part(each) for name, each in heard.items()},
    }


def _stall_again_and_again(live: Live, n_stalls: int, every_s: float) -> list[float]:
    """When each stall ended, on perf_counter."""
    ends = []
    live.watch(every_s / 2)
    for _ in range(n_stalls):
        ends.append(_stall(live, STALL_S))
        live.watch(every_s - STALL_S)
    return ends


def _stall(live: Live, seconds: float, often: Callable[[], None] = lambda: None) -> float:
    process = live.denoise()
    process.suspend()
    try:
        live.watch(seconds, often)
    finally:
        process.resume()
    return time.perf_counter()


def _stalled_too_long(asked: Asked) -> dict[str, Any]:
    """What no buffer can hold is lost, counted, and said at once."""
    settings = run_settings(LOADS["A"], asked, policy="lossless", ring_s=1.0)
    at: dict[str, float] = {}
    with StatusSubscriber(settings.endpoints.status) as status, Live(settings, {"raw": ear(settings, "raw")}) as live:

        def look() -> None:
            """When the first loss was counted, and when the first alarm arrived."""
            if live.ring.dropped():
                at.setdefault("loss", time.perf_counter())
            while (message := status.read(0)) is not None:
                if isinstance(message, StatusMessage) and message.alarms:
                    at.setdefault("alarm", time.perf_counter())

        _stall(live, LONG_STALL_S, look)
        live.watch(3.0, look)
        unaccounted = live.unaccounted()
        summary, _ = live.finish()
    delay_s = at.get("alarm", NEVER_S) - at["loss"] if "loss" in at else NEVER_S
    told_ = {"acquired": summary.acquired, "dropped": summary.dropped, "unaccounted": unaccounted}
    return told_ | {"alarm_ms": max(0.0, min(1e3 * delay_s, 1e3 * NEVER_S))}


def back_after(end_s: float, moments: Iterable[tuple[float, float]], limit_ms: float) -> float:
    """Seconds from the end of a stall to the first tenth of a second in which no frame was older than the limit."""
    later = (at for at, worst_ms in moments if at >= end_s and worst_ms <= limit_ms)
    return next(later, 1e9) - end_s
