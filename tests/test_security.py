"""Who may watch from another machine: keys in files, a list of who is let in, and not a byte of a picture for anybody else."""

from __future__ import annotations

import ast
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from rtdenoise import keyring
from rtdenoise.errors import ConfigError, WireError
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.keyring import ClientKeys
from rtdenoise.keys import keys as keys_verbs
from rtdenoise.publish import Publisher, StatusPublisher
from rtdenoise.session import Session
from rtdenoise.settings import Remote
from rtdenoise.status import StartMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from rtdenoise.wire import Drops, StreamFacts
from tests.relay import Relay
from tests.runs import settings
from tests.test_cli import assert_one_line, cli

ANY_PORT = "tcp://127.0.0.1:*"
FACTS = StreamFacts("raw", "test")
SHAPE = (64, 64)
HANDSHAKE_BYTES = 512
"""A greeting of 64 bytes, the server's cookie of 170, an error of 10: nothing of it depends on frames (ZeroMQ RFC 23, 26)."""


@dataclass(frozen=True)
class Rig:
    """Keys of a server that lets `office` in."""

    folder: Path
    files: Path
    office: ClientKeys

    @property
    def remote(self) -> Remote:
        return Remote(bind="0.0.0.0", keys_folder=self.folder)

    def client(self, name: str) -> ClientKeys:
        return keyring.add(self.folder, name, self.files / f"{name}.json")

    def stranger(self) -> ClientKeys:
        """Of another server's list."""
        keyring.make(self.files / "other")
        return keyring.add(self.files / "other", "stranger", self.files / "stranger.json")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    folder = tmp_path / "keys"
    keyring.make(folder)
    return Rig(folder, tmp_path, keyring.add(folder, "office", tmp_path / "office.json"))


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


@pytest.mark.parametrize("bind", ["192.0.2.1", "no-such-card", "0.0.0.0.0"])
def test_an_address_that_this_computer_does_not_have_is_named(rig: Rig, bind: str) -> None:
    with pytest.raises(WireError, match=bind):
        Publisher(ANY_PORT, FACTS, frame_bytes=1, remote=Remote(bind=bind, keys_folder=rig.folder))


def test_a_run_bound_elsewhere_does_not_start_without_keys_or_without_anybody_on_the_list(tmp_path: Path) -> None:
    run = ("run", "-s", "synthetic", "--bind", "0.0.0.0", "--keys-folder", tmp_path)
    assert_one_line(cli(*run), "--bind 0.0.0.0", "rtdenoise keys make", "rtdenoise keys add")
    keyring.make(tmp_path)
    remote = Remote(bind="0.0.0.0", keys_folder=tmp_path)
    with pytest.raises(ConfigError, match="nobody is on the list"), Session(settings("synthetic", {}, remote=remote)):
        pass


def test_the_verbs_make_list_and_remove_keys_and_print_no_secret(tmp_path: Path) -> None:
    here, file = ["--keys-folder", str(tmp_path / "keys")], tmp_path / "laptop.json"
    said = [
        verb("make", *here),
        verb("add", "laptop", "--out", str(file), *here),
        verb("list", *here),
        verb("remove", "laptop", *here),
        verb("list", *here),
    ]
    assert "laptop" in said[2]
    assert "nobody" in said[4]
    secrets = [json.loads(path.read_text())["secret"] for path in (file, tmp_path / "keys" / "server.json")]
    assert not any(secret in text for secret in secrets for text in said)
    with pytest.raises(ConfigError, match="a client's name"):
        verb("add", "no/such", *here)


def verb(*words: str) -> str:
    """What `rtdenoise keys words...` prints."""
    done = CliRunner().invoke(keys_verbs, words)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_what_would_lock_somebody_out_or_overwrite_a_key_is_refused(rig: Rig) -> None:
    for wrong, says in (
        (lambda: keyring.make(rig.folder), "--replace"),
        (lambda: keyring.add(rig.folder, "office", rig.files / "again.json"), "on the list already"),
        (lambda: keyring.add(rig.folder, "second", rig.files / "office.json"), "exists already"),
        (lambda: keyring.remove(rig.folder, "nobody"), "it has: office"),
        (lambda: keyring.add(rig.files / "empty", "x", rig.files / "x.json"), "rtdenoise keys make"),
        (lambda: keyring.client(rig.files / "missing.json"), "no such key file"),
        (lambda: keyring.client(rig.folder / "server.json"), "is it the right file"),
    ):
        with pytest.raises(ConfigError, match=says):
            wrong()
    assert list(keyring.allowed(rig.folder)) == ["office"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 10_000, b"\xff\xfe", b'{"htype":"rtdenoise-clients-1.0","clients":3}']
)
def test_a_list_that_cannot_be_read_lets_nobody_in(rig: Rig, content: bytes) -> None:
    inside = keyring.Allowed(rig.folder)
    assert rig.office.public in inside
    (rig.folder / "clients.json").write_bytes(content)
    assert rig.office.public not in inside


def test_neither_errors_nor_representations_show_a_secret(rig: Rig) -> None:
    secret = rig.office.secret
    assert secret not in repr(rig.office) + str(rig.office)
    damaged = rig.files / "damaged.json"
    damaged.write_text((rig.files / "office.json").read_text().replace(secret, secret[:-1]))
    with pytest.raises(ConfigError, match="secret") as refused:
        keyring.client(damaged)
    assert secret[:20] not in str(refused.value)


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps other users out by the folder, not by bits of the file")
def test_only_this_user_can_read_the_keys(rig: Rig) -> None:
    for path in (rig.folder / "server.json", rig.folder / "clients.json", rig.files / "office.json"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert rig.folder.stat().st_mode & 0o077 == 0
    (rig.folder / "server.json").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Publisher(ANY_PORT, FACTS, frame_bytes=1, remote=rig.remote)


def test_no_module_that_receives_can_unpickle() -> None:
    package = Path(keyring.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "zmq" not in text and "_pyobj" not in text:
            continue
        tree = ast.parse(text)
        named = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        named |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        called = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        assert not called & {"recv_pyobj", "send_pyobj", "recv_serialized"}, path
        if "zmq" in named:
            assert not named & {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "multiprocessing"}, path
