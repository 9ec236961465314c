"""Hostile messages: nothing crashes, nothing grows, nothing is executed."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fuzz_wire
import pytest
import zmq

from rtdenoise import keyring
from rtdenoise.wire import Drops, encode_header
from tests.watched import ANY_PORT, FACTS, MIB, numbered


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
