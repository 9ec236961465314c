"""Requests to a running session: what they do, who may ask, and that no request, however odd, does it any harm."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from rtdenoise.control import MAX_REQUEST_BYTES, ControlClient, ControlEndpoint, Ticket
from rtdenoise.errors import WireError
from rtdenoise.session import Session
from rtdenoise.shared import Slot
from rtdenoise.status import StatusMessage
from rtdenoise.subscribe import StatusSubscriber
from tests.asking import done, during
from tests.runs import settings

CAMERA = {"mode": "counter", "shape": [32, 48], "fps": 100.0}
IDENTITY = {"model": "identity"}


@pytest.fixture
def desk() -> Iterator[ControlEndpoint]:
    """An endpoint that grants whatever is a request, in a thread."""
    endpoint = ControlEndpoint("tcp://127.0.0.1:*")
    over = threading.Event()

    def grant() -> None:
        while not over.wait(0.001):
            for ticket, asked in endpoint.requests():
                endpoint.answer(ticket, ok=True, message=asked["request"])

    thread = threading.Thread(target=grant)
    thread.start()
    yield endpoint
    over.set()
    thread.join()
    endpoint.close()


def odd_messages(n: int) -> Iterator[list[bytes]]:
    """Messages that are no requests: too many parts, no JSON, JSON of something else, nested without end."""
    draw = random.Random(6)
    yield from (
        [b""],
        [b"", b""],
        [b"\xff\xfe"],
        [b"null"],
        [b"[]"],
        [b"{}"],
        [b'{"request":7}'],
        [b"a", b"b", b"c", b"d", b"e"],
    )
    yield from ([b"[" * 60_000], [b'{"request":' * 3_000], [b"9" * 50_000], [b"{" + b'"a":1,' * 9_000 + b"}"])
    for _ in range(n):
        yield [draw.randbytes(draw.randrange(200)) for _ in range(draw.randrange(1, 6))]


def test_whatever_is_sent_is_answered_with_one_line_or_not_at_all_and_the_next_request_is_served(
    desk: ControlEndpoint,
) -> None:
    n_sent = 0
    with zmq.Context() as context, context.socket(zmq.DEALER) as odd:
        odd.connect(desk.endpoint)
        for parts in odd_messages(300):
            odd.send_multipart(parts)
            n_sent += 1
            assert odd.poll(5000)
            answer = json.loads(odd.recv_multipart()[-1])
            assert not answer["ok"]
            assert "\n" not in answer["message"]
            assert len(answer["message"]) < 200
        odd.setsockopt(zmq.LINGER, 0)
    assert desk.bad == n_sent
    with ControlClient(desk.endpoint, timeout_s=5) as client:
        assert client.ask("anything").values == {"ok": True, "message": "anything"}


def test_a_request_of_any_length_is_cut_off_before_it_is_taken_in(desk: ControlEndpoint) -> None:
    with ControlClient(desk.endpoint, timeout_s=0.5) as client, pytest.raises(WireError, match="no answer"):
        client.ask("mark", text="x" * (MAX_REQUEST_BYTES + 1))
    with ControlClient(desk.endpoint, timeout_s=5) as client:
        assert client.ask("ping").ok


def test_a_late_answer_is_not_taken_for_that_of_the_next_request() -> None:
    endpoint = ControlEndpoint("tcp://127.0.0.1:*")
    with ControlClient(endpoint.endpoint, timeout_s=0.2) as client:
        with pytest.raises(WireError, match=r"no answer within 0\.2 s"):
            client.ask("first")
        client.timeout_s = 5
        late = threading.Thread(target=_answer_two, args=(endpoint,))
        late.start()
        assert client.ask("second").message == "second"
        late.join()
    endpoint.close()


def _answer_two(endpoint: ControlEndpoint) -> None:
    """Answer the next two requests once both are there, the older one first."""
    found: list[tuple[Ticket, dict[str, Any]]] = []
    deadline = time.monotonic() + 5
    while len(found) < 2 and time.monotonic() < deadline:
        found += endpoint.requests()
    for ticket, asked in found:
        endpoint.answer(ticket, ok=True, message=asked["request"])


@pytest.mark.parametrize(
    "endpoint", ["tcp://0.0.0.0:5563", "tcp://*:5563", "tcp://192.168.1.4:5563", "ipc://control", "5563"]
)
def test_requests_are_never_taken_from_another_machine(endpoint: str) -> None:
    with pytest.raises(WireError, match="this machine only"):
        ControlEndpoint(endpoint)


def test_a_port_that_somebody_uses_is_said(desk: ControlEndpoint) -> None:
    with pytest.raises(WireError, match="choose another --port"):
        ControlEndpoint(desk.endpoint)


def test_a_mark_is_in_the_next_status_message_and_beside_the_recording(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    asked = settings("synthetic", CAMERA, engine=IDENTITY, record={"folder": str(folder)})
    events: list[dict[str, object]] = []
    marks = ["stimulus on", "Reiz aus: 30 µA", "x" * 500]

    def mark(client: ControlClient) -> None:
        events.extend(done(client.ask("mark", text=text)).values["event"] for text in marks)
        for text in ("", "two\nlines", "x" * 501, 7):
            assert not client.ask("mark", text=text).ok

    with StatusSubscriber(asked.endpoints.status) as status, Session(asked) as session:
        assert session.ring is not None
        while session.ring.ints[Slot.DELIVERED] < 20:
            assert session.poll()
        during(session, mark)
        told: list[dict[str, object]] = []
        deadline = time.monotonic() + 10
        while len(told) < len(marks) and time.monotonic() < deadline:
            assert session.poll()
            message = status.read(0.01)
            told += [e.model_dump() for e in message.events] if isinstance(message, StatusMessage) else []
        session.stop()
        assert session.run().error == ""
    assert told == events
    assert [event["text"] for event in events] == marks
    assert all(event["frame"] == event["src_frame"] >= 19 for event in events)  # type: ignore[operator]
    recording = pytest.importorskip("rtdenoise.recording.events")
    recorded = [event for event in recording.read(folder) if "text" in event]
    assert [{k: v for k, v in event.items() if k in events[0]} for event in recorded] == events


def test_the_command_line_asks_and_prints_the_answer_and_a_refusal_is_an_error() -> None:
    asked = settings("synthetic", CAMERA, engine=IDENTITY)
    port = asked.endpoints.control.rpartition(":")[2]

    def verb(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rtdenoise", "control", *words, "--port", port]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    answers: dict[str, subprocess.CompletedProcess[str]] = {}

    def ask() -> None:
        answers["status"] = verb("status", "--json")
        answers["recalibrate"] = verb("recalibrate")
        answers["stop"] = verb("stop")

    with Session(asked) as session:
        thread = threading.Thread(target=ask)
        thread.start()
        summary = session.run()
        thread.join(60)
    assert summary.delivered == summary.acquired > 0
    found = json.loads(answers["status"].stdout)
    assert (found["ok"], found["mode"], found["model"], found["policy"]) == (True, "denoising", "identity", "latest")
    assert answers["recalibrate"].returncode == 1
    assert "identity brings its own offset and scale" in answers["recalibrate"].stderr
    assert (answers["stop"].returncode, answers["stop"].stdout) == (
        0,
        "the run ends; frames already taken are still sent\n",
    )


def test_nobody_there_is_said_within_the_time_that_was_given() -> None:
    with (
        ControlClient(settings("synthetic", CAMERA).endpoints.control, timeout_s=0.2) as client,
        pytest.raises(WireError, match=r"no answer within 0.2 s; is rtdenoise running"),
    ):
        client.ask("ping")
