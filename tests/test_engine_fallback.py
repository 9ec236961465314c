"""Engines that break, die or are killed in a live run: the next of the chain takes over, and every step is said."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rtdenoise.bundle import Bundle
from rtdenoise.engine.load import EngineChoice, EngineFactory
from rtdenoise.fallback import LONGEST_WAIT_S, MAX_RESTARTS, Fallback
from rtdenoise.session import Session
from rtdenoise.status import AnyStatus, StartMessage, StatusMessage
from rtdenoise.subscribe import StatusSubscriber
from rtdenoise.summary import Summary
from rtdenoise.wire import Message
from tests.fragile import ENGINES, bundle, graph, usable
from tests.runs import Listener, numbered, settings


@pytest.fixture
def fragile(tmp_path: Path) -> Bundle:
    """A model that was measured to be fastest with the engine that will fail."""
    usable(*ENGINES)
    return bundle(tmp_path / "fragile", graph(), "onnxruntime-cpu")


def test_an_engine_that_failed_is_left_out_by_name(fragile: Bundle) -> None:
    factory = EngineFactory(EngineChoice(str(fragile.path), threads=1, without=("onnxruntime-cpu",)), (16, 16))
    with factory.make() as engine:
        assert engine.describe().backend.startswith("openvino")
    assert factory.refused[0] == "onnxruntime-cpu: it failed in this run"


def test_an_engine_is_restarted_once_and_then_left_out_while_there_is_another() -> None:
    fallback = Fallback(replaceable=True)
    assert fallback.after("fast").says == "restart with fast"
    assert not fallback.without
    assert fallback.after("fast").says == "going on without fast"
    assert fallback.after("slow").says == "restart with slow"
    assert fallback.after("slow").says == "going on without slow"
    assert fallback.without == ("fast", "slow")
    assert not fallback.given_up


@pytest.mark.parametrize(("replaceable", "engine"), [(False, "fast"), (True, "")], ids=["named", "before any engine"])
def test_what_no_other_engine_can_replace_is_restarted_three_times_and_then_given_up(
    replaceable: bool, engine: str
) -> None:
    fallback = Fallback(replaceable)
    assert [fallback.after(engine).raw_only for _ in range(MAX_RESTARTS)] == [False] * MAX_RESTARTS
    assert fallback.after(engine).raw_only
    assert fallback.after("another").raw_only
    assert fallback.without == ()


def test_raw_frames_alone_are_tried_for_ever_but_less_and_less_often() -> None:
    fallback = Fallback(replaceable=False, given_up=True)
    waits = [fallback.after("fast").wait_s for _ in range(12)]
    assert waits == sorted(waits)
    assert 0 < waits[0] < 1 < waits[-1] == waits[-2] == LONGEST_WAIT_S


def bound(message: Message) -> tuple[int, str]:
    return message.frame.stamp.src_frame, message.facts.backend


BRIGHTER = {"mode": "counter", "shape": [32, 48], "fps": 200.0}
"""Frame k holds k counts and more: soon above LIMIT of what the first frames were calibrated to."""


def run_until(session: Session, status: StatusSubscriber, done: Callable[[list[AnyStatus]], bool]) -> Summary:
    """Run until `done` with what the status has said, then stop and let the run end in order."""
    told: list[AnyStatus] = []
    deadline = time.monotonic() + 60
    while not done(told):
        assert session.poll(), "the run ended too early"
        assert time.monotonic() < deadline, "it never happened"
        if (message := status.read(0.02)) is not None:
            told.append(message)
    session.stop()
    return session.run()


def test_an_engine_that_breaks_in_the_middle_is_replaced_by_the_next_and_the_wire_says_so(fragile: Bundle) -> None:
    news: list[str] = []
    asked = settings("synthetic", BRIGHTER, engine={"model": str(fragile.path), "threads": 1}, ring_s=8.0)
    denoised = Listener(asked.endpoints.denoised, "denoised", bound)

    def replaced(told: list[AnyStatus]) -> bool:
        """Everybody was told, and frames of the next engine have arrived."""
        says = [m for m in told if isinstance(m, StatusMessage)]
        starts = [m.engine for m in told if isinstance(m, StartMessage)]
        return (
            any("going on without onnxruntime-cpu" in m.message for m in says)
            and says[-1].engine.startswith("openvino")
            and starts[-1] == says[-1].engine
            and denoised.got[-1][1] == says[-1].engine
        )

    with StatusSubscriber(asked.endpoints.status) as status, Session(asked, news.append) as session:
        summary = run_until(session, status, replaced)
    assert (summary.error, summary.balanced, summary.in_flight, summary.restarts) == ("", True, 0, 2)
    assert set(summary.dropped) == {"denoise: engine failed"}
    assert summary.delivered > 200
    steps = [line.rpartition("; ")[2] for line in news if "failed three times" in line]
    assert steps == ["restart with onnxruntime-cpu", "going on without onnxruntime-cpu"]
    backends = list(dict.fromkeys(backend for _, backend in denoised.finish()))
    assert backends == ["onnxruntime-cpu", summary.ready.backend]


def test_an_engine_that_was_named_is_restarted_and_never_replaced(fragile: Bundle) -> None:
    news: list[str] = []
    engine = {"model": str(fragile.path), "backend": "onnxruntime-cpu", "threads": 1}
    asked = settings("synthetic", BRIGHTER, engine=engine, ring_s=8.0)
    raw = Listener(asked.endpoints.raw, "raw", numbered)
    raw_only_from: list[int] = []

    with StatusSubscriber(asked.endpoints.status) as status, Session(asked, news.append) as session:

        def raw_goes_on(_: list[AnyStatus]) -> bool:
            if session.ready is not None and session.ready.mode == "raw only" and session.ring is not None:
                raw_only_from.append(session.ring.head)
            return bool(raw_only_from) and raw.got[-1][1] > raw_only_from[0]

        summary = run_until(session, status, raw_goes_on)
    raw.finish()
    assert (summary.error, summary.balanced, summary.in_flight) == ("", True, 0)
    assert (summary.restarts, summary.ready.mode, summary.ready.backend) == (MAX_RESTARTS + 1, "raw only", "")
    assert [line.rpartition("; ")[2] for line in news if "failed three times" in line] == [
        *(f"restart {n + 1}" for n in range(MAX_RESTARTS)),
        "raw frames only from here",
    ]


def test_an_engine_that_fails_in_its_first_run_gives_way_before_the_first_frame(tmp_path: Path) -> None:
    usable(*ENGINES)
    model = bundle(tmp_path / "never", graph(limit=-1e6), "onnxruntime-cpu")
    options = {"mode": "counter", "shape": [32, 48], "fps": None, "live": False, "n_frames": 20}
    with Session(settings("synthetic", options, engine={"model": str(model.path), "threads": 1})) as session:
        summary = session.run()
    assert (summary.error, summary.restarts, summary.delivered, summary.dropped) == ("", 0, 20, {})
    assert summary.ready.backend.startswith("openvino")
    assert summary.ready.refused[0].startswith(f"onnxruntime-cpu: {model.path}: the first run failed: ")


def kill_when_trying(session: Session, engine: str, times: int) -> threading.Thread:
    """Kill the denoise process as soon as it has begun to open `engine`, so many times."""

    def killing() -> None:
        killed: set[int] = set()
        while len(killed) < times and session.ready is None:
            pid = session.denoise_pid
            if session.trying == engine and pid is not None and pid not in killed:
                killed.add(pid)
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            time.sleep(0.001)  # asks again

    thread = threading.Thread(target=killing, daemon=True)
    thread.start()
    return thread


def test_a_process_killed_while_it_builds_is_started_again_and_then_without_that_engine(fragile: Bundle) -> None:
    news: list[str] = []
    options = {"mode": "counter", "shape": [256, 256], "fps": 50.0, "n_frames": 50}
    session = Session(settings("synthetic", options, engine={"model": str(fragile.path), "threads": 1}), news.append)
    killer = kill_when_trying(session, "onnxruntime-cpu", times=2)
    with session:
        summary = session.run()
    killer.join(5)
    assert (summary.error, summary.acquired, summary.balanced, summary.restarts) == ("", 50, True, 2)
    assert all("its process ended with code" in line for line in news[:2])
    said = ["restart with onnxruntime-cpu", "going on without onnxruntime-cpu"]
    assert [line.rpartition("; ")[2] for line in news[:2]] == said
    assert summary.ready.backend.startswith("openvino")
