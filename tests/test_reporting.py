"""What a run says about itself: start, status, alarms and end on the wire, the same numbers for Prometheus, and its log."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rtdenoise import status
from rtdenoise.errors import EngineError
from rtdenoise.latency import BIN_RATIO
from rtdenoise.scrape import BUCKETS_MS
from rtdenoise.session import Session
from rtdenoise.settings import RunSettings
from rtdenoise.shared import STAGES
from rtdenoise.status import EndMessage, StartMessage, StatusMessage
from rtdenoise.subscribe import StatusSubscriber
from tests.runs import Listener, numbered, settings

pytest.importorskip("prometheus_client", reason="prometheus-client is part of the metrics extra")
N_FRAMES = 150
LOOK_S = 0.02
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass
class Observed:
    """A lossless run, and everything that it told anybody."""

    asked: RunSettings
    starts: list[StartMessage] = field(default_factory=list)
    statuses: list[StatusMessage] = field(default_factory=list)
    ends: list[EndMessage] = field(default_factory=list)
    joined_late: list[object] = field(default_factory=list)
    n_received: int = 0
    midway: Samples = field(default_factory=dict)
    final: Samples = field(default_factory=dict)
    log: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    folder = tmp_path_factory.mktemp("logs")
    options = {"mode": "blob", "shape": [64, 80], "fps": 60.0, "n_frames": N_FRAMES}
    engine = {"model": "fast-simulated", "threads": 1}
    wait = {"raw": 1, "denoised": 1}
    more = {"policy": "lossless", "wait_for": wait, "metrics_port": 0, "log_dir": str(folder)}
    seen = Observed(settings("synthetic", options, engine=engine, **more))
    raw = Listener(seen.asked.endpoints.raw, "raw", numbered)
    denoised = Listener(seen.asked.endpoints.denoised, "denoised", numbered)
    with StatusSubscriber(seen.asked.endpoints.status) as listener:
        with Session(seen.asked) as session:
            ring, metrics = session.ring, session.metrics
            assert ring is not None
            assert metrics is not None
            while ring.head < N_FRAMES // 2:
                assert session.poll()
                time.sleep(LOOK_S)
            seen.midway = scraped(metrics.url)
            with StatusSubscriber(seen.asked.endpoints.status) as late:
                session.run()
                seen.final = scraped(metrics.url)
                seen.joined_late = list(heard(late))
        for message in heard(listener):
            kept = {StartMessage: seen.starts, StatusMessage: seen.statuses, EndMessage: seen.ends}[type(message)]
            kept.append(message)  # type: ignore[arg-type]
    raw.finish()
    seen.n_received = len(denoised.finish())
    (log,), (facts,) = folder.glob("*.log"), folder.glob("*.json")
    seen.log, seen.facts = log.read_text(encoding="utf-8"), json.loads(facts.read_text(encoding="utf-8"))
    return seen


def heard(listener: StatusSubscriber) -> Iterator[status.AnyStatus]:
    while (message := listener.read(0.3)) is not None:
        yield message


def scraped(url: str) -> Samples:
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(url, timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def frames(samples: Samples) -> dict[tuple[str, str], float]:
    """(stage, outcome) -> frames."""
    found = {}
    for (name, labels), value in samples.items():
        if name == "rtdenoise_frames_total":
            found[dict(labels)["stage"], dict(labels)["outcome"]] = value
    return found


def test_a_lossless_subscriber_saw_as_many_messages_as_the_end_says(run: Observed) -> None:
    (end,) = run.ends
    assert run.n_received == end.count == N_FRAMES
    assert (end.acquired, end.delivered, end.dropped, end.in_flight) == (N_FRAMES, N_FRAMES, {}, 0)
    assert end.reason == "ok"


def test_the_end_says_how_long_every_stage_took(run: Observed) -> None:
    (end,) = run.ends
    assert set(end.latency_ms) == set(STAGES)
    assert all(0 < p50 <= p95 <= p99 for p50, p95, p99 in end.latency_ms.values())
    assert end.age.p50_ms == end.latency_ms["age"][0]
    assert end.age.max_ms >= end.latency_ms["age"][2]
    assert end.seconds >= (N_FRAMES - 1) / 60.0


def test_start_says_everything_that_was_asked_for_and_what_runs_it(run: Observed) -> None:
    start = run.starts[-1]
    assert RunSettings.model_validate(start.settings) == run.asked
    assert {"python", "rtdenoise", "numpy", "pyzmq"} <= set(start.software)
    assert start.policy == "lossless"
    assert start.endpoints["denoised"] == run.asked.endpoints.denoised
    assert start.pid == os.getpid()
    assert start.host == status.host_id()
    assert "perf_counter" in start.clock
    assert "stop" in start.queues["ring"]
    assert "stop" in start.queues["denoise"]


def test_start_is_repeated_and_learns_the_calibration_once_it_is_known(run: Observed) -> None:
    assert len(run.starts) >= 2
    assert len({(start.series, start.epoch_ns, start.utc) for start in run.starts}) == 1
    offset, scale = run.starts[-1].calibration["0/0"]
    assert offset > 0
    assert scale > 0


def test_start_says_in_utc_when_the_series_began(run: Observed) -> None:
    start = run.starts[-1]
    began = datetime.now(UTC) - timedelta(seconds=(time.perf_counter_ns() - start.epoch_ns) / 1e9)
    assert abs((datetime.fromisoformat(start.utc) - began).total_seconds()) < 1.0


def test_whoever_comes_late_hears_the_start_before_any_status_of_the_next_second(run: Observed) -> None:
    kinds = [type(message) for message in run.joined_late]
    assert StartMessage in kinds
    assert kinds.index(StartMessage) <= kinds.index(StatusMessage) + 1


def test_every_status_balances_and_names_queues_stages_and_policy(run: Observed) -> None:
    assert run.statuses
    for message in run.statuses:
        assert message.balanced
        assert set(message.queues) == set(run.starts[-1].queues)
        assert all(0 <= fill <= 1 for fill in message.queues.values())
        assert message.policy == "lossless"
    assert any(set(message.latency_ms) == set(STAGES) for message in run.statuses)
    assert any("0/0" in message.norm_drift for message in run.statuses)


def test_prometheus_is_told_the_same_totals_as_the_wire(run: Observed) -> None:
    (end,) = run.ends
    assert frames(run.final) == {("acquire", "acquired"): end.acquired, ("publish", "delivered"): end.delivered}
    assert run.final["rtdenoise_frames_in_flight", ()] == end.in_flight
    assert run.final["rtdenoise_age_seconds_count", ()] == end.delivered
    assert run.final["rtdenoise_restarts_total", ()] == end.restarts == 0
    fills = {dict(labels)["queue"]: v for (name, labels), v in run.final.items() if name.endswith("queue_fill_ratio")}
    assert fills == run.statuses[-1].queues


def test_prometheus_sees_the_books_balance_while_frames_flow(run: Observed) -> None:
    counted = frames(run.midway)
    acquired = counted.pop(("acquire", "acquired"))
    assert acquired >= N_FRAMES // 2
    assert acquired == sum(counted.values()) + run.midway["rtdenoise_frames_in_flight", ()]


def test_the_buckets_of_the_ages_hold_the_percentiles_of_the_wire(run: Observed) -> None:
    (end,) = run.ends
    buckets = {
        float(dict(labels)["le"]): n
        for (name, labels), n in run.final.items()
        if name == "rtdenoise_age_seconds_bucket"
    }
    assert sorted(buckets) == [*(ms / 1000 for ms in BUCKETS_MS), float("inf")]
    for percent, ms in zip((50, 95, 99), end.latency_ms["age"], strict=True):
        within = min(le for le, n in buckets.items() if n >= percent / 100 * end.delivered)
        below = max((le for le in buckets if le < within), default=0.0)
        assert below / BIN_RATIO <= ms / 1000 <= within * BIN_RATIO


def test_the_metrics_carry_the_names_of_the_design(run: Observed) -> None:
    names = {name for name, _ in run.final}
    histograms = ("rtdenoise_stage_seconds", "rtdenoise_age_seconds")
    wanted = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    wanted |= {"rtdenoise_frames_total", "rtdenoise_queue_fill_ratio", "rtdenoise_norm_drift_ratio"}
    assert wanted | {"rtdenoise_backend_info"} <= names
    (backend,) = (dict(labels) for name, labels in run.final if name == "rtdenoise_backend_info")
    assert (backend["backend"], backend["model"]) == (run.starts[-1].engine, run.starts[-1].model)


def test_the_log_has_a_line_per_event_and_none_per_frame(run: Observed) -> None:
    lines = run.log.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S", line) for line in lines)
    assert len(lines) < 20
    assert any("denoising: hop" in line for line in lines)
    assert any(run.starts[-1].series in line for line in lines)
    assert f"end: ok; {N_FRAMES} acquired, {N_FRAMES} delivered" in lines[-1]


def test_beside_the_log_lie_the_settings_and_the_end_of_the_run(run: Observed) -> None:
    assert RunSettings.model_validate(run.facts["settings"]) == run.asked
    assert run.facts["start"]["series"] == run.starts[-1].series
    assert run.facts["end"]["count"] == N_FRAMES
    assert run.facts["summary"]["balanced"] is True


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process from outside without letting it say a word")
def test_a_crash_leaves_its_traceback_in_the_log_a_line_at_the_rig_and_an_alarm(tmp_path: Path) -> None:
    news: list[str] = []
    options = {"mode": "counter", "shape": [32, 48], "fps": 200.0}
    asked = settings("synthetic", options, engine={"model": "identity"}, ring_s=8.0, log_dir=tmp_path)
    with StatusSubscriber(asked.endpoints.status) as listener:
        with Session(asked, news.append) as session:
            until(session, 50)
            assert session.denoise_pid is not None
            os.kill(session.denoise_pid, signal.SIGABRT)
            assert session.ring is not None
            until(session, session.ring.head + 100)
            session.stop()
            summary = session.run()
        messages = list(heard(listener))
    assert summary.balanced
    assert any("Fatal Python error: Aborted" in line for line in news)
    log = next(tmp_path.glob("*.log")).read_text(encoding="utf-8")
    assert "denoise said: Fatal Python error: Aborted" in log
    assert re.search(r"denoise said: +File .*, line \d+ in run", log)
    assert not list(tmp_path.glob("*.err"))
    assert isinstance(messages[-1], EndMessage)
    assert (messages[-1].reason, messages[-1].restarts) == ("stopped", 1)
    assert any(isinstance(m, StatusMessage) and "restart" in m.message for m in messages)


def until(session: Session, head: int) -> None:
    deadline = time.monotonic() + 30
    while session.ring is not None and session.ring.head < head:
        assert session.poll()
        assert time.monotonic() < deadline
        time.sleep(LOOK_S)


def test_a_loss_is_on_the_wire_within_a_tenth_of_a_second_and_an_error_ends_the_run_by_its_name() -> None:
    options = {"mode": "counter", "shape": [32, 48], "fps": 100.0}
    asked = settings("synthetic", options, engine={"model": "identity"}, policy="lossless")
    took = []
    with StatusSubscriber(asked.endpoints.status) as listener:
        with suppress(EngineError), Session(asked) as session:
            until(session, 20)
            ring = session.ring
            assert ring is not None
            for n_lost in (2, 4, 6, 8):
                lost_at = time.perf_counter_ns()
                ring.count_drop("ring: overwritten before it was read", 2)
                message = None
                while not (isinstance(message, StatusMessage) and message.n_dropped == n_lost):
                    assert session.poll()
                    assert time.perf_counter_ns() - lost_at < 5e9
                    message = listener.read(LOOK_S)
                took.append((time.perf_counter_ns() - lost_at) / 1e6)
                assert any(line.startswith("frames lost: ") for line in message.alarms)
            raise EngineError("the card is gone")
        *_, end = heard(listener)
    assert isinstance(end, EndMessage)
    assert end.reason == "engine: the card is gone"
    assert min(took) < 100, f"{took} ms; the best of four, because the machine may be busy"
