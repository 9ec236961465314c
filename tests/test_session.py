"""Live runs in their real processes: every frame accounted for, whatever dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rtdenoise.bundle import DEMO, find
from rtdenoise.errors import BundleError, ConfigError, FileFormatError, RtDenoiseError, SourceError, WireError
from rtdenoise.ringfile import default_folder
from rtdenoise.session import Session
from rtdenoise.shared import State
from rtdenoise.status import EndMessage, StartMessage, StatusMessage
from rtdenoise.subscribe import StatusSubscriber
from tests.asking import PlainSubscriber, lost
from tests.runs import Listener, copied, free_port, numbered, run_lossless, settings

COUNTER = {"mode": "counter", "shape": [32, 48]}
IDENTITY = {"model": "identity"}


def wait_until(session: Session, done: object, timeout_s: float = 20.0) -> None:
    """Keep the session going until `done()`."""
    deadline = time.monotonic() + timeout_s
    while not done():  # type: ignore[operator]
        assert session.poll(), "the run ended too early"
        assert time.monotonic() < deadline, "it never happened"


def kill_denoise(session: Session) -> None:
    pid = session.denoise_pid
    assert pid is not None
    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def test_a_lossless_run_delivers_every_frame_once_in_order_to_another_process() -> None:
    options = {**COUNTER, "fps": None, "live": False, "n_frames": 700}
    summary, raw, denoised = run_lossless(settings("synthetic", options, engine=IDENTITY))
    wanted = [((0, 0), k) for k in range(700)]
    assert raw == wanted
    assert denoised == wanted
    assert (summary.acquired, summary.delivered, summary.dropped, summary.in_flight) == (700, 700, {}, 0)


def test_denoised_frames_are_the_frames_of_the_raw_stream_when_nothing_is_denoised() -> None:
    options = {**COUNTER, "fps": None, "live": False, "n_frames": 40, "negative": True}
    _, raw, denoised = run_lossless(settings("synthetic", options, engine=IDENTITY), copied)
    for (_, number, pixels), (_, same_number, same) in zip(raw, denoised, strict=True):
        assert number == same_number
        np.testing.assert_array_equal(pixels, same)
    assert min(pixels.min() for _, _, pixels in raw) < 0


def test_the_trained_model_runs_live_with_its_lookahead_and_loses_nothing() -> None:
    options = {"mode": "blob", "shape": [64, 80], "fps": None, "live": False, "n_frames": 50}
    summary, _, denoised = run_lossless(settings("synthetic", options))
    assert [number for _, number in denoised] == list(range(50))
    assert summary.balanced
    assert summary.ready.latency_frames > 0


def test_a_slow_engine_never_builds_a_backlog_and_every_dropped_frame_has_a_reason() -> None:
    options = {"mode": "blob", "shape": [256, 256], "fps": 400.0, "n_frames": 600}
    with Session(settings("synthetic", options, engine={"model": "median", "hop": 1}, max_backlog_s=0.1)) as session:
        summary = session.run()
    assert summary.balanced
    assert summary.acquired == 600
    assert summary.in_flight == 0
    assert summary.ready.mode == "raw only" or summary.dropped


def test_a_costly_first_window_is_made_up_for_and_not_skipped_again_and_again() -> None:
    options = {"mode": "blob", "shape": [160, 160], "fps": 30.0, "n_frames": 150}
    asked = settings("synthetic", options, engine={"model": "deepcadrt-calcium", "threads": 1}, max_backlog_s=0.3)
    with Session(asked) as session:
        summary = session.run()
    if summary.ready.mode == "raw only":
        pytest.skip(f"this machine is too slow for it: {summary.ready.reason}")
    assert summary.balanced
    assert not summary.dropped
    assert summary.delivered == 150


def test_when_no_hop_is_fast_enough_raw_frames_are_shown_and_the_run_says_so() -> None:
    news: list[str] = []
    options = {"mode": "blob", "shape": [512, 512], "fps": 2000.0, "n_frames": 400}
    asked = settings("synthetic", options)
    raw = Listener(asked.endpoints.raw, "raw", numbered)
    with Session(asked, news.append) as session:
        summary = session.run()
    assert summary.ready.mode == "raw only"
    assert "raw only" in news[0]
    assert "ms" in news[0]
    assert raw.finish()
    assert summary.balanced


def test_killing_the_denoise_process_loses_no_acquired_frame_and_the_next_one_is_on_the_wire_within_5_s() -> None:
    options = {**COUNTER, "fps": 200.0, "n_frames": 1500}
    asked = settings("synthetic", options, engine=IDENTITY, ring_s=8.0)
    denoised = PlainSubscriber(asked.endpoints.denoised)
    with Session(asked) as session:
        ring = session.ring
        assert ring is not None
        wait_until(session, lambda: ring.head > 200)
        kill_denoise(session)
        summary = session.run()
    headers = denoised.finish()
    assert summary.restarts == 1
    assert summary.acquired == 1500
    assert summary.dropped == {}
    assert summary.delivered == 1500
    # What waited inside the killed process for its way out is lost to this subscriber, and nothing else.
    assert lost(headers) < 20
    assert headers[-1]["src_frame"] == 1499
    assert max(b["at_ns"] - a["at_ns"] for a, b in pairwise(headers)) < 5e9


def test_an_engine_that_cannot_come_back_leaves_raw_frames_and_the_acquisition_running(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(find(DEMO), model)
    news: list[str] = []
    options = {"mode": "blob", "shape": [64, 64], "fps": 100.0, "n_frames": 800}
    asked = settings("synthetic", options, engine={"model": str(model), "backend": "openvino-fp32"}, ring_s=8.0)
    with Session(asked, news.append) as session:
        ring = session.ring
        assert ring is not None
        wait_until(session, lambda: ring.head > 100)
        shutil.rmtree(model)
        kill_denoise(session)
        wait_until(session, lambda: session.ready is not None and session.ready.mode == "raw only")
        kill_denoise(session)  # whoever is left with raw frames may die, too
        summary = session.run()
    session.close()  # any number of times
    assert summary.error == ""
    assert summary.restarts == 3  # one that found no bundle, and two with raw frames alone
    assert (summary.acquired, summary.balanced, summary.in_flight) == (800, True, 0)
    assert summary.ready.mode == "raw only"
    assert any("no bundle" in line and "raw frames only" in line for line in news)


def test_killing_the_acquire_process_ends_the_run_with_a_clear_line_and_keeps_what_was_taken() -> None:
    options = {**COUNTER, "fps": 200.0}
    with Session(settings("synthetic", options, engine=IDENTITY)) as session:
        ring = session.ring
        assert ring is not None
        wait_until(session, lambda: ring.head > 100)
        assert session._acquire is not None
        session._acquire.process.kill()
        summary = session.run()
    assert "acquire process died" in summary.error
    assert summary.delivered == summary.acquired > 100
    assert summary.in_flight == 0


def test_series_follow_each_other_and_each_is_complete() -> None:
    options = {**COUNTER, "fps": None, "live": False, "n_frames": 30}
    asked = settings("synthetic", options, engine=IDENTITY)
    asked = asked.model_copy(update={"source": asked.source.model_copy(update={"n_series": 5})})
    summary, raw, denoised = run_lossless(asked, lambda m: (m.frame.stamp.series, m.frame.stamp.frame))
    assert [number for _, number in raw] == list(range(30)) * 5
    assert raw == denoised
    assert len({series for series, _ in raw}) == 5
    assert summary.acquired == 150


def test_stopping_drains_what_was_taken() -> None:
    with Session(settings("synthetic", {**COUNTER, "fps": 100.0}, engine=IDENTITY)) as session:
        ring = session.ring
        assert ring is not None
        wait_until(session, lambda: ring.head > 50)
        session.stop()
        summary = session.run()
        assert ring.state == State.ENDED
    assert summary.balanced
    assert summary.in_flight == 0
    assert summary.delivered == summary.acquired > 50


def test_status_says_start_status_and_end() -> None:
    asked = settings("synthetic", {**COUNTER, "fps": 100.0, "n_frames": 250}, engine=IDENTITY)
    with StatusSubscriber(asked.endpoints.status) as listener:
        with Session(asked) as session:
            session.run()
        messages = []
        while (message := listener.read(0.5)) is not None:
            messages.append(message)
    assert isinstance(messages[0], StartMessage)
    assert messages[0].shape == (32, 48)
    assert any(isinstance(m, StatusMessage) and m.balanced and m.fps_in > 50 for m in messages)
    end = messages[-1]
    assert isinstance(end, EndMessage)
    assert (end.count, end.reason) == (250, "ok")


def test_a_run_leaves_no_file_and_no_process_behind() -> None:
    with Session(
        settings("synthetic", {**COUNTER, "fps": None, "live": False, "n_frames": 20}, engine=IDENTITY)
    ) as session:
        path = session.ring.path if session.ring else None
        children = [child.process for child in session.children]
        session.run()
    assert path is not None
    assert not path.exists()
    assert not any(process.is_alive() for process in children)


def test_the_ring_of_a_killed_run_is_removed_by_the_next_one_and_that_of_a_living_run_is_not() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = default_folder(512 << 20)
    orphan, owned = folder / f"rtdenoise-{gone.pid}-orphan.ring", folder / f"rtdenoise-{os.getpid()}-owned.ring"
    orphan.write_bytes(b"")
    with (
        owned.open("wb"),
        Session(settings("synthetic", {**COUNTER, "fps": 50.0, "n_frames": 5}, engine=IDENTITY)) as session,
    ):
        session.run()
        assert not orphan.exists()
        assert owned.exists()
    owned.unlink()


@pytest.mark.parametrize(
    ("source", "options", "engine", "error", "says"),
    [
        ("nothing", {}, IDENTITY, ConfigError, "registered"),
        ("synthetic", {"speed": 3}, IDENTITY, ConfigError, "unknown speed; known"),
        ("replay", {"path": "missing.tif"}, IDENTITY, RtDenoiseError, "missing.tif"),
        ("synthetic", COUNTER, {"model": "no-such-model"}, BundleError, "no-such-model"),
        ("synthetic", COUNTER, {"backend": "abacus"}, ConfigError, "abacus"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_frame(
    source: str, options: dict[str, object], engine: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says), Session(settings(source, options, engine=engine)):
        pass


def test_a_busy_port_is_said_before_the_first_frame() -> None:
    asked = settings("synthetic", {**COUNTER, "fps": 20.0}, engine=IDENTITY)
    with Session(asked), pytest.raises(WireError, match="in use"), Session(asked):
        pass


def test_a_truncated_movie_delivers_what_can_be_read_and_says_where_it_broke(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is part of the live extra")
    whole = tmp_path / "whole.tif"
    tifffile.imwrite(whole, np.arange(40 * 64 * 64, dtype=np.uint16).reshape(40, 64, 64), photometric="minisblack")
    broken = tmp_path / "broken.tif"
    content = whole.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    summary, raw, _ = run_lossless(settings("replay", {"path": str(broken), "rate": "max"}, engine=IDENTITY))
    assert "broken.tif" in summary.error
    assert 10 <= len(raw) <= 20
    assert summary.delivered == len(raw)


def test_errors_keep_their_type_across_processes() -> None:
    assert issubclass(FileFormatError, RtDenoiseError)
    with pytest.raises(SourceError), Session(settings("micromanager", {"backend": "java", "port": 1}, engine=IDENTITY)):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process group from a test on Windows")
def test_ctrl_c_ends_a_run_in_order_and_prints_the_figures(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    command = [sys.executable, "-m", "rtdenoise.cli", "run", "-s", "synthetic", "-o", "mode=counter", "--fps", "50"]
    command += ["-o", "shape=[32,32]", "-m", "identity", "--port", str(free_port()), "--json", str(report)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "status" in line:
            break
    process.send_signal(signal.SIGINT)
    text = process.stdout.read()
    assert process.wait(20) == 0
    assert "balanced" in text
    assert report.is_file()
