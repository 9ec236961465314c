"""Who may watch from another machine: those on the list, and not a byte of a picture for anybody else."""

from __future__ import annotations

import itertools
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from rtdenoise import keyring
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.keyring import ClientKeys
from rtdenoise.publish import Publisher, StatusPublisher
from rtdenoise.session import Session
from rtdenoise.settings import Remote
from rtdenoise.status import StartMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from rtdenoise.wire import Drops, StreamFacts
from tests.keyrings import Rig, make_rig
from tests.relay import Relay
from tests.runs import settings

ANY_PORT = "tcp://127.0.0.1:*"
FACTS = StreamFacts("raw", "test")
SHAPE = (64, 64)
HANDSHAKE_BYTES = 512
"""A greeting of 64 bytes, the server's cookie of 170, an error of 10: nothing of it depends on frames (ZeroMQ RFC 23, 26)."""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return make_rig(tmp_path)


@pytest.fixture
def served(rig: Rig) -> Iterator[Publisher]:
    with Publisher(ANY_PORT, FACTS, frame_bytes=8192, remote=rig.remote) as publisher:
        yield publisher


def numbered(k: int) -> Frame:
    return Frame(np.full(SHAPE, k % 2**16, np.uint16), FrameStamp("a", k, k, k))


def publish_until(
    done: Callable[[int], bool], publisher: Publisher, subscriber: Subscriber, other: Subscriber | None = None
) -> None:
    """Publish to a subscriber that is let in and to another one, until `done(frames the first has got)`."""
    deadline = time.monotonic() + 20
    for k in itertools.count():
        publisher.publish(numbered(k), Drops())
        subscriber.read(timeout_s=0.05)
        assert other is None or other.read(timeout_s=0.01) is None
        if done(subscriber.received):
            return
        assert time.monotonic() < deadline, "it never happened"


def read_out(subscriber: Subscriber) -> bool:
    while subscriber.read(timeout_s=0.05) is not None:
        pass
    return True


def test_who_is_on_the_list_sees_every_frame_and_the_status(rig: Rig, served: Publisher) -> None:
    with Subscriber(served.endpoint, keys=rig.office) as subscriber:
        assert served.wait_for_subscribers(1, timeout_s=10)
        for k in range(20):
            served.publish(numbered(k), Drops())
            message = subscriber.read(timeout_s=10)
            assert message is not None
            np.testing.assert_array_equal(message.frame.pixels, k)
        assert (subscriber.missed, subscriber.refused()) == (0, "")
    with (
        StatusPublisher(ANY_PORT, remote=rig.remote) as news,
        StatusSubscriber(news.endpoint, keys=rig.office) as listener,
    ):
        news.start({"series": "a"})
        heard = (listener.read(timeout_s=0.1) for _ in range(100) if news.status({"mode": "denoising"}) is None)
        assert any(message is not None for message in heard)


def without_keys(rig: Rig) -> None:
    return None


def with_another_client_key(rig: Rig) -> ClientKeys:
    return rig.office.model_copy(
        update={"public": rig.stranger().public, "secret": keyring.client(rig.files / "stranger.json").secret}
    )


def with_the_key_of_another_server(rig: Rig) -> ClientKeys:
    return rig.stranger()


def with_a_key_taken_off_the_list(rig: Rig) -> ClientKeys:
    keys = rig.client("former")
    keyring.remove(rig.folder, "former")
    return keys


@pytest.mark.parametrize(
    "keys_of", [without_keys, with_another_client_key, with_the_key_of_another_server, with_a_key_taken_off_the_list]
)
def test_nobody_else_gets_a_byte_of_a_picture(
    rig: Rig, served: Publisher, keys_of: Callable[[Rig], ClientKeys | None]
) -> None:
    with (
        Relay(served.endpoint) as relay,
        Subscriber(relay.endpoint, keys=keys_of(rig)) as stranger,
        Subscriber(served.endpoint, keys=rig.office) as office,
    ):
        assert served.wait_for_subscribers(1, timeout_s=10)
        publish_until(lambda n: n >= 40 and relay.n_closed >= 2, served, office, stranger)
        assert stranger.read(timeout_s=0.05) is None
        assert ("--keys" in stranger.refused()) == (keys_of is without_keys)
        assert stranger.refused()
        assert (stranger.received, stranger.bad, served.subscribers) == (0, 0, 1)
    assert len(relay.from_server) >= 2
    assert max(relay.from_server) <= HANDSHAKE_BYTES


def test_a_connected_client_is_cut_off_when_it_is_taken_off_the_list(rig: Rig, served: Publisher) -> None:
    former = rig.client("former")
    with (
        Relay(served.endpoint) as relay,
        Subscriber(relay.endpoint, keys=former) as cut,
        Subscriber(served.endpoint, keys=rig.office) as office,
    ):
        assert served.wait_for_subscribers(2, timeout_s=10)
        served.publish(numbered(0), Drops())
        assert cut.read(timeout_s=10) is not None
        keyring.remove(rig.folder, "former")
        publish_until(lambda _: read_out(cut) and served.turned_out == 1 and relay.n_closed >= 1, served, office)
        read_out(cut)
        n_seen, n_bytes = cut.received, sum(relay.from_server[:1])
        publish_until(lambda _: relay.n_closed >= 2, served, office, cut)
        assert (cut.read(timeout_s=0.05), cut.received) == (None, n_seen)
        assert relay.from_server[0] == n_bytes
        assert max(relay.from_server[1:]) <= HANDSHAKE_BYTES
        assert office.missed == 0


def test_a_client_that_was_refused_is_let_in_as_soon_as_it_is_on_the_list(rig: Rig, served: Publisher) -> None:
    keys = rig.client("early")
    on_the_list = (rig.folder / "clients.json").read_bytes()
    keyring.remove(rig.folder, "early")
    with Subscriber(served.endpoint, keys=keys) as subscriber:
        while not subscriber.refused():
            assert subscriber.read(timeout_s=0.05) is None
        assert "not on its list" in subscriber.refused()
        (rig.folder / "clients.json").write_bytes(on_the_list)
        publish_until(lambda n: n > 0, served, subscriber)
        assert subscriber.refused() == ""
    assert subscriber.refused() == ""  # a window asks once more after it was closed


def test_a_client_added_while_the_run_goes_on_is_let_in(rig: Rig, served: Publisher) -> None:
    with Subscriber(served.endpoint, keys=rig.client("late")):
        assert served.wait_for_subscribers(1, timeout_s=10)


def test_old_protocols_and_noise_get_nothing_from_a_socket_with_keys(served: Publisher) -> None:
    host, port = served.endpoint.removeprefix("tcp://").split(":")
    for opening in (b"\x01\x00\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n" * 20, bytes(200), b"\xff" * 200):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            got = b""
            try:
                connection.sendall(opening)
                connection.shutdown(socket.SHUT_WR)
                while content := connection.recv(65536):
                    served.publish(numbered(0), Drops())
                    got += content
            except OSError:
                pass  # closed before it had read all of ours: as good
        assert len(got) <= HANDSHAKE_BYTES
    assert served.subscribers == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no second loopback address to stand for another one")
def test_bound_to_one_address_programs_of_this_computer_need_no_keys(rig: Rig) -> None:
    remote = Remote(bind="127.0.0.2", keys_folder=rig.folder)
    with Publisher(ANY_PORT, FACTS, frame_bytes=8192, remote=remote) as publisher:
        elsewhere = publisher.endpoint.replace("127.0.0.1", "127.0.0.2")
        with (
            Subscriber(publisher.endpoint) as here,
            Subscriber(elsewhere, keys=rig.office) as there,
            Subscriber(elsewhere) as nobody,
        ):
            assert publisher.wait_for_subscribers(2, timeout_s=10)
            publisher.publish(numbered(3), Drops())
            assert here.read(timeout_s=10) is not None
            assert there.read(timeout_s=10) is not None
            assert nobody.read(timeout_s=0.1) is None


def test_all_three_sockets_of_a_run_ask_for_keys_and_age_is_told_here_only(rig: Rig) -> None:
    options = {"mode": "counter", "shape": [32, 48], "fps": 100.0}
    asked = settings("synthetic", options, engine={"model": "identity"}, remote=rig.remote)
    ends = asked.endpoints
    with (
        Session(asked) as session,
        Subscriber(ends.raw, keys=rig.office) as raw,
        Subscriber(ends.denoised, keys=rig.office) as denoised,
        StatusSubscriber(ends.status, keys=rig.office) as news,
        Subscriber(ends.raw) as no_raw,
        Subscriber(ends.denoised) as no_denoised,
        StatusSubscriber(ends.status) as no_news,
    ):
        start = None
        for _ in range(1000):
            assert session.poll()
            message = news.read(timeout_s=0.01)
            start = message if isinstance(message, StartMessage) else start
            if raw.read(0.01) and denoised.read(0.01) and start:
                break
        assert raw.received
        assert denoised.received
        assert start is not None
        assert no_raw.read(0) is no_denoised.read(0) is no_news.read(0) is None
        assert start.age_ms(0) is not None
        assert start.model_copy(update={"host": "the-rig"}).age_ms(0) is None
        assert rig.office.server not in start.to_json().decode()


def test_nothing_is_left_after_twenty_cycles_with_keys(rig: Rig) -> None:
    process = psutil.Process()
    threads_before = process.num_threads()
    counts: list[int] = []
    for _ in range(20):
        with (
            Publisher(ANY_PORT, FACTS, frame_bytes=8192, remote=rig.remote) as publisher,
            Subscriber(publisher.endpoint, keys=rig.office),
        ):
            assert publisher.wait_for_subscribers(1, timeout_s=10)
        counts.append(process.num_handles() if hasattr(process, "num_handles") else process.num_fds())
    assert counts[-1] <= counts[0]
    deadline = time.monotonic() + 10
    while process.num_threads() > threads_before:  # the system takes a moment to forget a thread that has ended
        assert time.monotonic() < deadline
