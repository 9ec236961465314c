"""A live session that is asked for things while it runs: by a control client, with a plain ZeroMQ subscriber listening."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

from rtdenoise.control import ControlClient, Reply
from rtdenoise.session import POLL_S, Session


class PlainSubscriber:
    """Nothing but pyzmq with its defaults, as in anybody's script: the headers of an image endpoint, in a thread.

    pixels: mean of every frame beside its header, under the key 'mean'.
    """

    def __init__(self, endpoint: str) -> None:
        self.headers: list[dict[str, Any]] = []
        self._endpoint, self._over = endpoint, threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.connect(self._endpoint)
        socket.subscribe(b"")
        while socket.poll(300) or not self._over.is_set():
            if socket.poll(0):
                header, _ = socket.recv_multipart()
                self.headers.append(json.loads(header) | {"at_ns": time.perf_counter_ns()})
        socket.close(linger=0)
        context.term()

    def finish(self) -> list[dict[str, Any]]:
        """Every header that came, once no more come."""
        self._over.set()
        self._thread.join(20)
        return self.headers


def lost(headers: list[dict[str, Any]]) -> int:
    """Frames of one stream that did not arrive, from the first that did; fails where one came twice or out of order."""
    numbers = [header["frame"] for header in headers]
    assert numbers == sorted(set(numbers)), "a frame came twice or out of order"
    return numbers[-1] - numbers[0] + 1 - len(numbers)


def during(session: Session, talk: Callable[[ControlClient], object], timeout_s: float = 60.0) -> None:
    """Keep the session going while `talk` asks it for things in another thread; raises what `talk` raises."""
    errors: list[BaseException] = []

    def talking() -> None:
        try:
            with ControlClient(session.settings.endpoints.control, timeout_s) as client:
                talk(client)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=talking, daemon=True)
    thread.start()
    while thread.is_alive():
        assert session.poll() or not thread.is_alive(), "the run ended too early"
        time.sleep(POLL_S)
    if errors:
        raise errors[0]


def done(reply: Reply) -> Reply:
    """The reply, which must say that it was done."""
    assert reply.ok, reply.message
    return reply
