"""What a publisher does with enemies on the line: nobody else is delayed, and nothing grows."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import zmq

from rtdenoise.guests import MAX_GUESTS
from rtdenoise.publish import Publisher, StatusPublisher
from rtdenoise.status import StatusMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from rtdenoise.wire import Drops, encode_header
from tests.enemy import Enemy
from tests.watched import ANY_PORT, FACTS, MIB, Served, numbered, rss


@pytest.fixture
def served() -> Iterator[Served]:
    with Publisher(ANY_PORT, FACTS, frame_bytes=8192) as publisher, Subscriber(publisher.endpoint) as subscriber:
        assert publisher.wait_for_subscribers(1, timeout_s=10)
        yield Served(publisher, subscriber)


@pytest.fixture
def enemy(served: Served) -> Iterator[Enemy]:
    with Enemy(served.publisher.endpoint) as enemy:
        yield enemy


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


@pytest.mark.parametrize("n_bytes", [600, 32 * MIB], ids=["too long", "megabytes"])
def test_a_topic_that_no_stream_has_ends_the_connection(served: Served, enemy: Enemy, n_bytes: int) -> None:
    topic = b"\x01" + b"x" * n_bytes
    before = rss()
    with ThreadPoolExecutor() as aside:  # most of it is never taken from the line
        aside.submit(enemy.say, topic)
        served.frames_until(enemy.is_out)
    served.frames_until(lambda: served.publisher.subscribers == 1)
    # What the enemy makes of it is one copy, in this process, too; what the publisher would take in is the second.
    assert rss() - before < 8 * MIB + 1.25 * n_bytes


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
        random.Random(7).randbytes(4000),
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
