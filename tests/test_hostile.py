"""What the wire does with enemies and with the unlucky: nothing crashes, nothing grows, nobody else is delayed."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import fuzz_wire
import numpy as np
import psutil
import pytest
import slow_subscribers
import zmq

from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.guests import MAX_GUESTS
from rtdenoise.publish import Publisher, StatusPublisher, high_water_mark
from rtdenoise.status import StatusMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from rtdenoise.wire import Drops, StreamFacts, encode_header
from tests.enemy import Enemy

ANY_PORT = "tcp://127.0.0.1:*"
FACTS = StreamFacts("raw", "test")
MIB = 2**20


def numbered(k: int, shape: tuple[int, int] = (64, 64)) -> Frame:
    return Frame(np.full(shape, k, np.uint16), FrameStamp("a", k, k, k))


def rss() -> int:
    return int(psutil.Process().memory_info().rss)


class Served:
    """A publisher and a healthy subscriber in step with it: it gets each frame before the next is sent."""

    def __init__(self, publisher: Publisher, subscriber: Subscriber) -> None:
        self.publisher, self.subscriber, self.n = publisher, subscriber, 0

    def frame(self, shape: tuple[int, int] = (64, 64)) -> None:
        self.publisher.publish(numbered(self.n, shape), Drops())
        message = self.subscriber.read(timeout_s=10)
        assert message is not None
        assert message.frame.stamp.frame == self.n
        assert message.frame.pixels.min() == message.frame.pixels.max() == self.n
        self.n += 1

    def frames_until(self, done: Callable[[], bool]) -> None:
        for _ in range(20_000):
            self.frame()
            if done():
                return
        raise AssertionError("it never happened")


@pytest.fixture
def served() -> Iterator[Served]:
    with Publisher(ANY_PORT, FACTS, frame_bytes=8192) as publisher, Subscriber(publisher.endpoint) as subscriber:
        assert publisher.wait_for_subscribers(1, timeout_s=10)
        yield Served(publisher, subscriber)


@pytest.fixture
def enemy(served: Served) -> Iterator[Enemy]:
    with Enemy(served.publisher.endpoint) as enemy:
        yield enemy


def test_ten_thousand_hostile_messages_crash_nothing_and_take_less_than_two_frames() -> None:
    report = fuzz_wire.fuzz(10_000, seed=6)
    assert report.trouble == []
    assert report.ok
    assert report.through_sockets == 1000
    assert report.read > 500
    assert report.refused > 5000
    assert set(report.kinds) == {*fuzz_wire._HOSTILE, "status"}


def test_the_fuzzer_reports_what_crashes_or_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(parts: list[bytes]) -> None:
        bytearray(3 * MIB)
        raise ZeroDivisionError

    monkeypatch.setattr(fuzz_wire.wire, "decode", weak)
    monkeypatch.setattr(fuzz_wire, "ALLOWED_BYTES", 2 * MIB)
    report = fuzz_wire.fuzz(9, seed=1)
    assert not report.ok
    assert any("ZeroDivisionError" in line for line in report.trouble)
    assert any("took" in line for line in report.trouble)


def test_an_image_message_of_a_pickle_runs_nothing(tmp_path: Path) -> None:
    """In a process in which unpickling is an error, so that nobody does it on the quiet."""
    listener = subprocess.Popen(
        [sys.executable, "-c", LISTEN_WITHOUT_PICKLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert listener.stdin is not None
    assert listener.stdout is not None
    with zmq.Context() as context, context.socket(zmq.XPUB) as images, context.socket(zmq.XPUB) as states:
        for publisher in (images, states):
            publisher.setsockopt(zmq.LINGER, 0)
            publisher.bind(ANY_PORT)
            listener.stdin.write(publisher.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0") + b"\n")
        listener.stdin.flush()
        images.recv(), states.recv()
        marker = tmp_path / "executed"
        bomb = pickle.dumps(Bomb(marker))
        for parts in ([bomb], [bomb, bomb], [encode_header(numbered(0), FACTS, Drops()), bomb]):
            images.send_multipart(parts)
        states.send(bomb)
        images.send_multipart([encode_header(numbered(1), FACTS, Drops()), numbered(1).pixels.tobytes()])
        said, _ = listener.communicate(timeout=60)
    assert said.split() == [b"1", b"3", b"1"]
    assert not marker.exists()


class Bomb:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self._marker),)


LISTEN_WITHOUT_PICKLE = """
import pickle, _pickle, marshal
def forbidden(*args, **kwargs): raise SystemExit("something was unpickled")
for module in (pickle, _pickle):
    module.load = module.loads = module.Unpickler = forbidden
from rtdenoise.status import StatusMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
with Subscriber(input()) as frames, StatusSubscriber(input()) as news:
    message = frames.read(timeout_s=30)
    while not news.bad:
        assert news.read(timeout_s=0.1) is None
    print(message.frame.stamp.frame, frames.bad, news.bad)
"""


def test_garbage_is_neither_a_subscriber_nor_the_end_of_one(served: Served, enemy: Enemy) -> None:
    for request in (b"", b"\x02", b"\x00never subscribed", b"\xff" * 200, b"\x00"):
        enemy.say(request)
    enemy.say(b"\x01nothing starts like this")
    served.frames_until(lambda: served.publisher.subscribers == 2)
    enemy.say(b"\x01nothing starts like this")
    enemy.say(b"\x00nothing starts like this")
    served.frames_until(lambda: served.publisher.subscribers == 1)
    assert served.publisher.turned_out == 0


def test_a_flood_of_requests_ends_the_connection_and_takes_no_memory(served: Served, enemy: Enemy) -> None:
    before = rss()
    for k in range(2000):
        enemy.say(b"\x01" + b"%d" % k)
    served.frames_until(lambda: served.publisher.turned_out == 1 and enemy.is_out())
    served.frames_until(lambda: served.publisher.subscribers == 1)
    assert rss() - before < 20 * MIB
    assert served.subscriber.missed == 0


@pytest.mark.parametrize("n_bytes", [600, 8 * MIB], ids=["too long", "megabytes"])
def test_a_topic_that_no_stream_has_ends_the_connection(served: Served, enemy: Enemy, n_bytes: int) -> None:
    before = rss()
    with ThreadPoolExecutor() as aside:  # most of it is never taken from the line
        aside.submit(enemy.say, b"\x01" + b"x" * n_bytes)
        served.frames_until(enemy.is_out)
    served.frames_until(lambda: served.publisher.subscribers == 1)
    assert rss() - before < 4 * MIB + 2 * n_bytes


def test_more_subscribers_than_there_is_room_for_are_turned_away(served: Served) -> None:
    with zmq.Context() as context:
        many = [context.socket(zmq.SUB) for _ in range(MAX_GUESTS + 3)]
        for one in many:
            one.setsockopt(zmq.RECONNECT_IVL, -1)
            one.subscribe(b"")
            one.connect(served.publisher.endpoint)
        served.frames_until(lambda: served.publisher.turned_out == 4)
        served.frames_until(lambda: served.publisher.subscribers == MAX_GUESTS)
        for one in many:
            one.close(linger=0)
        served.frames_until(lambda: served.publisher.subscribers == 1)
    with Subscriber(served.publisher.endpoint):
        served.frames_until(lambda: served.publisher.subscribers == 2)


@pytest.mark.parametrize(
    "opening",
    [
        os.urandom(4000),
        b"GET / HTTP/1.1\r\nHost: rig\r\n\r\n",
        b"\xff" + bytes(8) + b"\x7f\x03" + bytes(53) + struct.pack(">BQ", 6, 2**63 - 1),
        b"\x01\x00" + b"\x05\x00\x01abc" * 500,
    ],
    ids=["noise", "a browser", "a command of 2^63 bytes", "an old protocol"],
)
def test_noise_on_the_line_costs_nobody_a_frame(served: Served, opening: bytes) -> None:
    host, port = served.publisher.endpoint.removeprefix("tcp://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(opening[: 1 + len(opening) // 2])
            served.frame()
            with suppress(OSError):  # it may have been shown the door already
                connection.sendall(opening[1 + len(opening) // 2 :])
            served.frame()
    assert served.subscriber.missed == 0


def test_status_goes_on_through_a_flood_and_ends_it() -> None:
    with StatusPublisher(ANY_PORT) as publisher, StatusSubscriber(publisher.endpoint) as subscriber:
        publisher.start({"series": "a"})
        with Enemy(publisher.endpoint) as enemy:
            enemy.say(b"\x01never", times=2000)
            while not enemy.is_out():
                publisher.status({})
            while not isinstance(subscriber.read(timeout_s=10), StatusMessage):
                publisher.status({})
        assert publisher.turned_out == 1


def test_a_message_of_hundreds_of_parts_is_one_bad_message() -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind(ANY_PORT)
        with Subscriber(publisher.getsockopt_string(zmq.LAST_ENDPOINT)) as subscriber:
            publisher.recv()
            publisher.send_multipart([b"x" * 1000] * 500)
            publisher.send_multipart([encode_header(numbered(1), FACTS, Drops()), numbered(1).pixels.tobytes()])
            assert subscriber.read(timeout_s=10) is not None
            assert (subscriber.received, subscriber.bad) == (1, 1)


def test_a_frozen_and_a_killed_subscriber_cost_the_others_nothing_and_the_publisher_a_bounded_queue() -> None:
    shape, fps = (256, 512), 60
    frame_bytes = shape[0] * shape[1] * 2
    mark = high_water_mark(frame_bytes, fps)
    with (
        Publisher(ANY_PORT, FACTS, frame_bytes=frame_bytes, fps_hint=fps) as publisher,
        Subscriber(publisher.endpoint) as subscriber,
    ):
        assert publisher.wait_for_subscribers(1, timeout_s=10)
        served = Served(publisher, subscriber)
        with slow_subscribers.guests(publisher, ["frozen", "killed"]) as (frozen, killed):
            for _ in range(2 * mark):
                served.frame(shape)
            before = rss()
            for guest in (frozen, killed):
                guest.meet_its_fate()
            for _ in range(12 * mark):
                served.frame(shape)
            grown = rss() - before
            assert publisher.subscribers == 2
            frozen.resume()
            seen: dict[str, int] = {}
            for _ in range(200):  # the same frame is the last one for whoever reads it
                last = Frame(np.full(shape, served.n, np.uint16), FrameStamp("a", served.n, served.n, served.n))
                publisher.publish(last, Drops(), flags=(slow_subscribers.LAST,))
                subscriber.read(timeout_s=10)
                served.n += 1
                if frozen.over():
                    break
            seen = frozen.finish()
        assert subscriber.missed == 0
        assert seen["newest"] >= 14 * mark
        assert seen["missed"] > 0
    assert grown <= 1.1 * mark * frame_bytes


def test_a_port_is_free_again_at_once_after_its_publisher_was_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", PUBLISH_FOR_EVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    endpoint = process.stdout.readline().strip()
    with Subscriber(endpoint) as subscriber:
        assert subscriber.read(timeout_s=30) is not None
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.wait(30)
        process.stdout.close()
        with Publisher(endpoint, FACTS, frame_bytes=8192) as successor:
            deadline = time.monotonic() + 20
            while not successor.wait_for_subscribers(
                1, timeout_s=0.05
            ):  # it comes once it has read what was on its way
                while subscriber.read(timeout_s=0) is not None:
                    assert time.monotonic() < deadline
            while subscriber.read(timeout_s=0.05) is not None:
                pass
            successor.publish(Frame(numbered(7).pixels, FrameStamp("b", 0, 0, 0)), Drops())
            message = subscriber.read(timeout_s=10)
    assert message is not None
    assert message.frame.stamp.series == "b"


PUBLISH_FOR_EVER = """
import numpy as np
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher
from rtdenoise.wire import Drops, StreamFacts
publisher = Publisher("tcp://127.0.0.1:*", StreamFacts("raw"), frame_bytes=8192)
print(publisher.endpoint, flush=True)
publisher.wait_for_subscribers(1, 60)
for k in range(10**9):
    publisher.publish(Frame(np.zeros((64, 64), np.uint16), FrameStamp("a", k, k, k)), Drops())
"""
