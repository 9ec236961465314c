"""Policies `latest` and `lossless` under an engine that stalls, and runs whose other processes are killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from typer.testing import CliRunner

from rtdenoise.cli import app
from rtdenoise.errors import ConfigError
from rtdenoise.live import policy_of
from rtdenoise.session import POLL_S, Session
from rtdenoise.settings import RunSettings
from rtdenoise.shared import Slot
from tests.asking import PlainSubscriber
from tests.runs import settings

FILTER = {"model": "gauss2d-ema"}


@contextmanager
def stalled(session: Session) -> Iterator[None]:
    """The denoise process stands still, as behind a driver that hangs."""
    process = psutil.Process(session.denoise_pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def go_on(session: Session, seconds: float) -> None:
    """Keep the session going for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert session.poll(), "the run ended too early"
        time.sleep(POLL_S)


def test_latest_makes_up_for_a_short_stall_and_shows_new_frames_within_a_second_of_a_long_one() -> None:
    fps = 100.0
    asked = settings("synthetic", {"mode": "blob", "shape": [64, 64], "fps": fps}, engine=FILTER, ring_s=8.0)
    denoised = PlainSubscriber(asked.endpoints.denoised)
    with Session(asked) as session:
        assert session.ring is not None
        go_on(session, 0.5)
        with stalled(session):
            go_on(session, 0.3)
        go_on(session, 0.4)
        assert not session.summary().dropped
        with stalled(session):
            go_on(session, 1.2)
        resumed = time.perf_counter_ns()
        go_on(session, 1.6)
        epoch = session.ring.epoch_ns(session.ring.head - 1)
        session.stop()
        summary = session.run()
    assert (summary.error, summary.balanced, summary.in_flight) == ("", True, 0)
    assert summary.dropped["denoise: behind"] > 0.6 * fps
    after = [h for h in denoised.finish() if resumed + 1e9 < h["at_ns"] < resumed + 1.6e9]
    ages_ms = sorted((h["at_ns"] - epoch - h["t_in"]) / 1e6 for h in after)
    assert (
        ages_ms[len(ages_ms) // 2] < 2e3 / fps + 10
    )  # the engine takes less than 1 ms; the rest is for a busy machine


def test_lossless_drops_nothing_and_holds_a_file_back_however_long_the_stall() -> None:
    options = {"mode": "counter", "shape": [32, 48], "fps": None, "live": False, "n_frames": 4000}
    asked = settings("synthetic", options, engine=FILTER, policy="lossless", wait_for={"denoised": 1})
    denoised = PlainSubscriber(asked.endpoints.denoised)
    with Session(asked) as session:
        assert session.ring is not None
        while session.ring.ints[Slot.DELIVERED] < 50:
            go_on(session, POLL_S)
        with stalled(session):
            go_on(session, 0.5)
            held = session.ring.head
            go_on(session, 0.2)
            assert session.ring.head == held < 4000
        summary = session.run()
    assert (summary.delivered, summary.dropped) == (4000, {})
    assert [h["frame"] for h in denoised.finish()] == list(range(4000))


def test_policies_are_chosen_by_name_and_lossless_has_a_short_form() -> None:
    assert RunSettings().policy == "latest"
    assert not RunSettings().lossless
    assert policy_of("lossless", lossless=False) == policy_of("latest", lossless=True) == "lossless"
    assert policy_of("latest", lossless=False) == "latest"
    with pytest.raises(ConfigError, match="--policy newest: unknown; known: latest, lossless"):
        policy_of("newest", lossless=False)
    assert "--policy" in CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output


def test_a_run_of_many_rings_keeps_its_memory() -> None:
    options = {"mode": "counter", "shape": [64, 64], "fps": None, "live": False, "n_frames": 9_000}
    asked = settings("synthetic", options, engine={"model": "identity"}, policy="lossless", ring_s=0.1)
    sizes: list[int] = []
    with Session(asked) as session:
        assert session.ring is not None
        while session.poll():
            if session.ring.ints[Slot.DELIVERED] > 1000 * (len(sizes) + 1) and session.denoise_pid is not None:
                sizes.append(sum(psutil.Process(child.pid).memory_info().rss for child in session.children))
        assert session.ring.capacity < 200
        assert session.summary().delivered == 9_000
    assert len(sizes) > 5
    assert max(sizes[2:]) - sizes[2] < 4 << 20
