"""When a person must hear something at once: queues, losses, drift and the recorder, on a real ring and a real endpoint."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from rtdenoise import alarms, errors, reporter
from rtdenoise.errors import MissingExtraError, RtDenoiseError, WireError
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher
from rtdenoise.recording.tape import TapeState
from rtdenoise.scrape import HOST, MetricsServer
from rtdenoise.settings import RecordSettings
from rtdenoise.shared import Slot
from rtdenoise.status import EndMessage
from rtdenoise.wire import Drops, StreamFacts
from tests.reporter_bench import SERIES, Clock, Rig, rig_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reporter, "time", clock)
    monkeypatch.setattr(alarms, "time", clock)
    return clock


@pytest.fixture
def rig(clock: Clock, tmp_path: Path) -> Iterator[Rig]:
    yield from rig_of(clock, tmp_path)


@pytest.fixture
def patient(clock: Clock, tmp_path: Path) -> Iterator[Rig]:
    """A run of a file: its source waits."""
    yield from rig_of(clock, tmp_path, live=False)


@pytest.fixture
def lossless(clock: Clock, tmp_path: Path) -> Iterator[Rig]:
    yield from rig_of(clock, tmp_path, policy="lossless")


@pytest.fixture
def recorded(clock: Clock, tmp_path: Path) -> Iterator[Rig]:
    yield from rig_of(clock, tmp_path, record=RecordSettings(folder=tmp_path / "recording"))


@pytest.mark.parametrize(
    ("n_waiting", "lines"),
    [(37, []), (38, ["the queue 'denoise' is over 75% full"]), (50, ["the queue 'denoise' is full"])],
)
def test_a_queue_is_reported_from_three_quarters_on(rig: Rig, n_waiting: int, lines: list[str]) -> None:
    rig.take(60)
    rig.fall_behind(n_waiting)
    message = rig.says()
    assert message.alarms == lines
    assert message.queues["denoise"] == pytest.approx(n_waiting / 50)
    assert message.message == "; ".join(lines)


def test_an_alarm_comes_out_of_turn_and_is_not_repeated_before_its_turn(rig: Rig) -> None:
    rig.take(60)
    assert rig.is_quiet()
    rig.fall_behind(45)
    assert "75%" in rig.says().alarms[0]
    assert rig.is_quiet()
    rig.fall_behind(50)
    assert rig.says().alarms == ["the queue 'denoise' is full"]


def test_the_worst_of_a_second_is_reported_and_then_forgotten(rig: Rig) -> None:
    rig.take(60)
    rig.fall_behind(30)
    assert rig.is_quiet()
    rig.fall_behind(0)
    assert rig.says().queues["denoise"] == pytest.approx(0.6)
    assert rig.says().queues["denoise"] == 0


def test_a_source_that_can_wait_fills_queues_without_alarm(patient: Rig) -> None:
    patient.take(90)
    patient.fall_behind(90)
    patient.ring.ints[Slot.TAIL] = 0
    message = patient.says()
    assert message.alarms == []
    assert message.queues["ring"] > 0.9


def test_what_latest_skips_on_purpose_is_counted_and_no_alarm(rig: Rig) -> None:
    rig.ring.count_drop("denoise: behind", 5)
    rig.ring.ints[Slot.ACQUIRED] += 5
    message = rig.says()
    assert message.dropped == {"denoise: behind": 5}
    assert message.alarms == []


def test_what_the_camera_lost_is_an_alarm_whatever_the_policy(rig: Rig) -> None:
    rig.ring.count_drop("source: lost in the camera buffer", 3)
    assert rig.says().alarms == ["frames lost: 3, source: lost in the camera buffer"]


def test_the_same_loss_again_is_news_again(lossless: Rig) -> None:
    line = "frames lost: 1, denoise: behind"
    for _ in range(2):
        lossless.ring.count_drop("denoise: behind")
        assert lossless.says().alarms == [line]
        while lossless.says().alarms:
            continue  # until its second is over
    assert lossless.log.path is not None
    assert lossless.log.path.read_text(encoding="utf-8").count("alarm: frames lost") == 1  # not again within a minute


def test_contrast_that_leaves_the_calibration_is_measured_and_reported(rig: Rig) -> None:
    rig.take(10, contrast=10.0)
    rig.calibrations[0, 0] = (1000.0, 10.0)
    assert rig.says().norm_drift == {"0/0": 1.0}
    rig.take(10, contrast=20.0)
    message = rig.says()
    assert message.norm_drift["0/0"] == pytest.approx(2.0, rel=0.1)
    assert "recalibrate" in message.alarms[0]
    rig.calibrations[0, 0] = (1000.0, 20.0)
    message = rig.says()
    assert message.norm_drift == {"0/0": 1.0}
    assert message.alarms == []


def test_the_recorder_s_state_is_on_the_wire_and_its_trouble_an_alarm(recorded: Rig) -> None:
    ints = recorded.ring.ints
    ints[Slot.RECORDER_STATE] = TapeState.RECORDING
    ints[Slot.RECORDED], ints[Slot.RECORDER_CURSOR], ints[Slot.RECORDER_SECONDS_LEFT] = 12, recorded.ring.head, 9000
    recorder = recorded.says().recorder
    assert recorder is not None
    assert (recorder.state, recorder.written, recorder.dropped, recorder.seconds_left) == ("recording", 12, 0, 9000)
    ints[Slot.RECORDER_SECONDS_LEFT] = 30
    assert "is full within 5 minutes" in recorded.says().alarms[0]
    ints[Slot.RECORDER_STATE], ints[Slot.RECORDER_LOST] = TapeState.INTERRUPTED, 7
    said = recorded.says().alarms
    assert any("the recording is interrupted" in line for line in said)
    assert "frames lost: 7, recorder: not written" in said


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "ok"),
        (errors.SourceOverflow("the camera buffer overflowed"), "overflow: the camera buffer overflowed"),
        (errors.SourceDisconnected("unplugged"), "disconnected: unplugged"),
        (errors.SourceStalled("nothing came"), "stalled: nothing came"),
        (errors.SourceError("odd"), "source: odd"),
        (errors.GeometryChanged("another shape"), "geometry: another shape"),
        (errors.EngineError("no memory"), "engine: no memory"),
        (errors.RtDenoiseError("unknown"), "error: unknown"),
    ],
)
def test_the_end_says_where_it_broke(rig: Rig, error: RtDenoiseError | None, reason: str) -> None:
    rig.reporter.end(error)
    message = rig.listener.read(2.0)
    assert isinstance(message, EndMessage)
    assert message.reason == reason


def test_a_metrics_port_that_is_taken_is_refused_with_a_way_out(rig: Rig) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WireError, match="--metrics-port"):
            MetricsServer(port, rig.ring, rig.reporter)


def test_metrics_answer_on_this_machine_only_and_the_port_is_free_afterwards(rig: Rig) -> None:
    server = MetricsServer(0, rig.ring, rig.reporter)
    assert server.url.startswith("http://127.0.0.1:")
    port = int(server.url.split(":")[2].split("/")[0])
    server.close()
    with socket.socket() as door:
        assert door.connect_ex((HOST, port)) != 0


def test_without_prometheus_client_the_install_line_is_said(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"rtdenoise\[metrics\]"):
        MetricsServer(0, rig.ring, rig.reporter)


def test_frames_that_only_wait_for_later_ones_fill_no_ring_of_a_camera(rig: Rig) -> None:
    rig.take(90)
    rig.ring.ints[Slot.TAIL] = 0  # a long window: read, not yet settled
    message = rig.says()
    assert message.queues["ring"] == 0
    assert message.alarms == []


def test_once_a_minute_the_log_says_where_the_frames_went(rig: Rig) -> None:
    rig.take(30)
    rig.ring.count_drop("denoise: behind", 4)
    rig.ring.ints[Slot.ACQUIRED] += 4
    for _ in range(2):
        rig.clock.now_s += 61
        rig.reporter.tick()
    assert rig.log.path is not None
    lines = rig.log.path.read_text(encoding="utf-8").splitlines()
    assert sum("35 acquired, 31 delivered, 0 in flight, dropped: 4 denoise: behind" in line for line in lines) == 2


def test_the_queue_of_a_subscriber_that_does_not_read_fills_up_and_empties_when_it_leaves() -> None:
    pixels = np.zeros((512, 1024), np.uint16)
    frame = Frame(pixels, FrameStamp(SERIES, 0, 0, 0, 0))
    facts = StreamFacts("raw", "test")
    with (
        Publisher("tcp://127.0.0.1:*", facts, frame_bytes=pixels.nbytes, fps_hint=16.0) as publisher,
        zmq.Context() as context,
    ):
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.subscribe(b"")
        socket.connect(publisher.endpoint)
        assert publisher.wait_for_subscribers(1, 5.0)
        assert publisher.fill == 0
        filled = counted(lambda: publisher.publish(frame, Drops()) and publisher.fill >= 1)
        assert filled < 200, "the queue never filled"
        socket.close(linger=0)
        assert counted(lambda: publisher.publish(frame, Drops()) and publisher.fill == 0) < 200, (
            "the queue never emptied"
        )


def counted(done: Callable[[], bool]) -> int:
    """Tries until it is done, 20 ms apart, at most 200."""
    for n in range(200):
        if done():
            return n
        threading.Event().wait(0.02)
    return 200
