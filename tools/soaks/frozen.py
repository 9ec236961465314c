"""6: a subscriber is frozen for a minute, wakes, and is killed, at 200 frames per second."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from rtdenoise.publish import high_water_mark
from soaks.asked import Asked
from soaks.gauges import MIB
from soaks.judged import accounts, heard_part, nothing_lost, send_p99, sent_rows
from soaks.live import Live, ear
from soaks.loads import LOADS, run_settings
from soaks.report import Row, at_most, none_of
from soaks.state import Part, State

number, title, when, minutes = 6, "a frozen and a killed subscriber", "nightly", 10.0

FREEZE_S, AWAKE_S, KILLED_S = 60.0, 10.0, 5.0
YOUNG_MS, YOUNG_WITHIN_S = 100.0, 1.0
NEVER_S = 9999.0


def run(asked: Asked, state: State) -> None:
    """One run; without, frozen, awake, killed, and again."""
    settings = run_settings(LOADS["B"], asked)
    ears = {"raw": ear(settings, "raw", exact=True), "healthy": ear(settings, "denoised")}
    with Live(settings, ears) as live:
        while state.elapsed_s < asked.seconds:
            began = time.monotonic()
            part = _cycle(live, asked.speed)
            counted = {"unaccounted": live.unaccounted(), "acquired": live.session.summary().acquired}
            state.add(part | counted, time.monotonic() - began)
        _, heard = live.finish()
    state.add({"heard": {name: heard_part(each) for name, each in heard.items()}}, 0.0)


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """What the publisher and the healthy listener noticed, and how fast the woken one is up to date."""
    cycles = [part for part in parts if "send_with" in part]
    limits = [part["allowed_mb"] for part in cycles]
    grown = at_most("publisher: its memory grew by", max(limits, default=0.0), [c["grew_mb"] for c in cycles], "MB")
    return [
        grown.model_copy(update={"limit": f"{grown.limit} (queue + 10 %)"}),
        *sent_rows(cycles),
        send_p99(cycles),
        at_most("woken one: a frame younger than 100 ms", YOUNG_WITHIN_S, [c["young_s"] for c in cycles], "s later", 2),
        none_of("woken one: frames out of order", sum(c["frozen"]["disorder"] for c in cycles), len(cycles), "cycles"),
        *nothing_lost("raw", parts),
        *nothing_lost("healthy", parts),
        accounts(cycles),
    ]


def _cycle(live: Live, speed: float) -> dict[str, Any]:
    frozen = ear(live.settings, "denoised", newest=True)
    live.published()
    live.watch(FREEZE_S / 3 / speed)
    without = live.published()
    before_mb = _unique_mb(live)
    victim = live.add("frozen", frozen)
    live.watch(2.0 / speed)
    process = psutil.Process(victim.process.pid)
    process.suspend()
    live.published()
    grown = _Most(live, before_mb)
    live.watch(FREEZE_S / speed, grown.look)
    process.resume()
    woken_at = time.perf_counter()
    live.watch(max(2.0, AWAKE_S / speed))
    during = live.published()
    victim.hear()
    process.kill()
    live.watch(KILLED_S / speed)
    heard = live.remove("frozen")
    return {
        "send_without": without,
        "send_with": during,
        "allowed_mb": 1.1 * _queue_bytes(live) / MIB,
        "grew_mb": grown.mb,
        "young_s": young_after(woken_at, victim.moments),
        "frozen": heard_part(heard),
    }


class _Most:
    """How much the denoise process grew, at its most."""

    def __init__(self, live: Live, before_mb: float) -> None:
        self._live, self._before_mb = live, before_mb
        self._looked_at = 0.0
        self.mb = 0.0

    def look(self) -> None:
        """Look again, every two seconds."""
        if time.monotonic() - self._looked_at > 2.0:
            self._looked_at = time.monotonic()
            self.mb = max(self.mb, _unique_mb(self._live) - self._before_mb)


def _unique_mb(live: Live) -> float:
    return float(live.denoise().memory_full_info().uss) / MIB


def _queue_bytes(live: Live) -> int:
    """What may wait for one subscriber of the denoised stream."""
    info = live.ring.info
    frame_bytes = info.shape[0] * info.shape[1] * np.dtype(np.float32).itemsize
    return high_water_mark(frame_bytes, 1.0 / (info.frame_interval_s or 1.0)) * frame_bytes


def young_after(woken_s: float, moments: Iterable[tuple[float, float]]) -> float:
    """Seconds until everything shown within a tenth of a second was younger than 100 ms."""
    young = (at for at, worst_ms in moments if at >= woken_s and worst_ms <= YOUNG_MS)
    return next(young, 1e9) - woken_s
