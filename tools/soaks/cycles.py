"""7: runs that start, are joined late, and end, in order or not, over and over on the same ports."""

from __future__ import annotations

import gc
import os
import time
from typing import Any

import psutil  # type: ignore[import-untyped]

from rtdenoise.errors import WireError
from rtdenoise.session import Session
from rtdenoise.settings import RunSettings
from rtdenoise.status import StartMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from soaks.asked import Asked
from soaks.gauges import gauge
from soaks.live import POLL_S
from soaks.loads import Load, run_settings
from soaks.report import Row, at_most, none_of
from soaks.state import Part, State

number, title, when, minutes = 7, "late join, reconnect, restart", "nightly", 15.0

N_CYCLES = 500
LOAD = Load("cycles", (64, 64), 200.0, "ema")
START_WITHIN_S, JOIN_S = 1.0, 20.0
HOWS = ("stop", "abort", "denoise killed")


def run(asked: Asked, state: State) -> None:
    """500 cycles, or fewer when the time is over; one set of ports, one subscriber that stays through all of them."""
    settings = run_settings(LOAD, asked)
    with Subscriber(settings.endpoints.denoised) as stays:
        over: list[str] = []
        while state.n_parts < N_CYCLES and (state.elapsed_s < asked.seconds or not state.n_parts):
            began = time.monotonic()
            part = _cycle(settings, stays, over, HOWS[state.n_parts % len(HOWS)])
            state.add(part, time.monotonic() - began)


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """Start within a second, new series, no stray frame, ports free, nothing left."""
    by_life = [[part for part in parts if part["life"] == life] for life in dict.fromkeys(p["life"] for p in parts)]
    warm = [(life[min(2, len(life) - 1)], life[-1]) for life in by_life]
    left = sum(max(0, last[what] - first[what]) for first, last in warm for what in ("handles", "threads"))
    n = len(parts)
    return [
        at_most("start message, after a late join", START_WITHIN_S, [p["start_s"] for p in parts], "s", 2),
        none_of("runs without a series id of their own", sum(not p["new_series"] for p in parts), n, "cycles"),
        none_of("frames of a series that was over, shown as new", sum(p["old_shown"] for p in parts), n, "cycles"),
        none_of("times that a port was still taken", sum(p["port_taken"] for p in parts), n, "cycles"),
        none_of("processes left behind", sum(p["left_behind"] for p in parts), n, "cycles"),
        none_of("files, sockets and threads left behind", left, n, "cycles"),
    ]


def _cycle(settings: RunSettings, stays: Subscriber, over: list[str], how: str) -> dict[str, Any]:
    part: dict[str, Any] = {"how": how, "port_taken": 0, "old_shown": 0, "start_s": JOIN_S}
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    session = Session(settings)
    try:
        with session:
            series = _shown(session, stays, over, part)
            part["start_s"] = _joined(session, settings)
            if how == "stop":
                session.stop()
                session.run()
            elif how == "denoise killed":
                psutil.Process(session.denoise_pid).kill()
    except WireError:
        part["port_taken"], series = 1, ""
    part["new_series"] = bool(series) and series not in over
    over.append(series)
    while (message := stays.read(0.05)) is not None:
        part["old_shown"] += message.frame.stamp.series != series
    after = psutil.Process().children(recursive=True)
    part["left_behind"] = sum(child.pid not in before and "rtdenoise" in " ".join(child.cmdline()) for child in after)
    gc.collect()  # what only waits for the collector is not left behind
    found = gauge(os.getpid())
    return part | {"handles": found.handles if found else 0, "threads": found.threads if found else 0}


def _shown(session: Session, stays: Subscriber, over: list[str], part: dict[str, Any]) -> str:
    """The series that the one who stays is shown; frames of one that was over are counted."""
    deadline = time.monotonic() + JOIN_S
    while time.monotonic() < deadline:
        session.poll()
        message = stays.read(POLL_S)
        if message is None:
            continue
        if message.frame.stamp.series not in over:
            return message.frame.stamp.series
        part["old_shown"] += 1
    return ""


def _joined(session: Session, settings: RunSettings) -> float:
    """Seconds until somebody who comes late has heard `start`."""
    began = time.monotonic()
    with StatusSubscriber(settings.endpoints.status) as late:
        while time.monotonic() - began < JOIN_S:
            session.poll()
            if isinstance(late.read(POLL_S), StartMessage):
                break
    return time.monotonic() - began
