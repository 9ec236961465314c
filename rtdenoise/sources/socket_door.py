"""Exposures that come as ZeroMQ messages."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import zmq

from rtdenoise import keyring, wire
from rtdenoise.errors import ConfigError
from rtdenoise.keyring import ClientKeys
from rtdenoise.sources.base import StreamInfo
from rtdenoise.sources.door import BadMessage, Exposure, interval_s
from rtdenoise.sources.feed import MAX_TAKEN

Parts = list[zmq.Frame]
N_LOOKED_AT = 8
LOOK_S = 1.0
"""The frame rate is measured on so many exposures, or on those of so many seconds. Engineering choice."""
_KEEPALIVE_S = 10


class SocketDoor:
    """A SUB socket that connects, or a PULL socket that binds. Pixels are views of the received bytes: nothing is copied.

    understand: makes an exposure of a message; raises BadMessage.  describe: StreamInfo of the first exposures and the interval.
    """

    def __init__(
        self,
        name: str,
        advice: str,
        endpoint: str,
        understand: Callable[[Parts], Exposure],
        describe: Callable[[list[Exposure], float | None], StreamInfo],
        *,
        pattern: Literal["sub", "pull"] = "sub",
        topic: bytes = b"",
        mark: int = 64,
        key: Path | None = None,
    ) -> None:
        """mark: messages that libzmq may hold for us.  topic: prefix of the messages that are for us (SUB).  key: of a client."""
        self.name, self.advice, self._advice = f"{name} at {endpoint}", advice, advice
        self.drains = pattern == "sub"
        self._endpoint, self._topic, self._mark, self._key = endpoint, topic, mark, key
        self._understand, self._describe = understand, describe
        self._socket: zmq.Socket[bytes] | None = None
        self._seen: deque[Parts] = deque()
        self._arrivals: list[tuple[Exposure, int]] = []

    def connect(self) -> None:
        """Connects (or binds, on this machine only) at once; the sender may come later. Raises ConfigError."""
        self._arrivals, self.advice = [], self._advice
        self._socket = zmq.Context.instance().socket(zmq.SUB if self.drains else zmq.PULL)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, self._mark)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_BODY_BYTES + wire.MAX_HEADER_BYTES)
        # A sender whose cable was pulled never says goodbye; without this the socket waits for it for ever.
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_S)
        if self._key is not None:
            _show(self._socket, keyring.client(self._key))
        try:
            self._attach(self._socket)
        except zmq.ZMQError as error:
            raise ConfigError(f"{self.name}: {error.strerror}; write it like tcp://127.0.0.1:65179") from None

    def look(self, timeout_s: float) -> StreamInfo | None:
        """The stream, once its first exposures have told shape, channels and rate."""
        parts = self._parts(timeout_s)
        now = time.perf_counter_ns()
        if parts is not None:
            try:
                self._arrivals.append((self._understand(parts), now))
                self._seen.append(parts)
            except BadMessage as bad:
                self.advice = f"a message came that is no frame ({bad}); {self._advice}"
        seen = self._arrivals
        if not seen or (len(seen) < N_LOOKED_AT and now - seen[0][1] < LOOK_S * 1e9):
            return None
        return self._describe([exposure for exposure, _ in seen], self._interval_s())

    def begin(self) -> None:
        """Nothing: the sender goes on as it likes."""

    def forget(self) -> None:
        """Throw away what a publisher sent so far; a PUSH socket waits for us, so what it sent belongs to the series."""
        if not self.drains:
            return
        self._seen.clear()
        for _ in range(MAX_TAKEN):
            if self._parts(0.0) is None:
                return

    def receive(self, timeout_s: float) -> Exposure | None:
        """The next exposure. Raises BadMessage."""
        parts = self._seen.popleft() if self._seen else self._parts(timeout_s)
        return None if parts is None else self._understand(parts)

    def close(self) -> None:
        """Disconnect; pixels that were handed out stay valid."""
        self._seen.clear()
        self._arrivals = []
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close(linger=0)

    def _attach(self, socket: zmq.Socket[bytes]) -> None:
        if self.drains:
            socket.subscribe(self._topic)
            socket.connect(self._endpoint)
            return
        host = urlsplit(self._endpoint).hostname
        if self._endpoint.startswith("tcp:") and host not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigError(
                f"{self.name}: frames are taken in on this machine only; let the other machine publish (PUB) and connect to it "
                "with pattern = 'sub', or use an SSH tunnel to tcp://127.0.0.1"
            )
        socket.bind(self._endpoint)

    def _parts(self, timeout_s: float) -> Parts | None:
        if self._socket is None or not self._socket.poll(math.ceil(timeout_s * 1000), zmq.POLLIN):
            return None
        return self._socket.recv_multipart(copy=False)

    def _interval_s(self) -> float | None:
        """By the sender's clock, else by arrival where that says something: a sender that waits for us sends as fast as we take."""
        key = self._arrivals[0][0].key
        mine = [(e, now) for e, now in self._arrivals if e.key == key]
        numbers = [e.number for e, _ in mine]
        clocked = [e.time_ns for e, _ in mine if e.time_ns is not None]
        if len(clocked) == len(mine):
            return interval_s(numbers, clocked)
        return interval_s(numbers, [now for _, now in mine]) if self.drains else None


def _show(socket: zmq.Socket[bytes], keys: ClientKeys) -> None:
    """Encrypt, trust the one server that the key names, and say who we are."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server.encode("ascii"))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode("ascii"))
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode("ascii"))
