"""The receiving end of the wire. Every gap and every message we skipped ourselves is counted, and separately."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

import zmq
from zmq.utils.monitor import recv_monitor_message

from rtdenoise import status, wire
from rtdenoise.bound import set_heartbeat
from rtdenoise.errors import WireError
from rtdenoise.frame import FrameStamp
from rtdenoise.keyring import ClientKeys
from rtdenoise.status import AnyStatus
from rtdenoise.wire import ForeignMessage, Message

RECEIVE_MARK = 64
"""Messages that may wait for us. Measured: 64 and draining shows frames 5 ms old, 1000 lets a busy viewer grow by hundreds of MB."""
DRAIN_LIMIT = 1000
"""`newest` stops draining here, so that a publisher faster than we can read does not hold us for ever. Engineering choice."""
STATUS_MARK = 64
"""Status messages that may wait for us: a minute of them. Engineering choice."""
_REMEMBERED_SERIES = 16
_CURVE_BYTES = 64
"""Room for what encryption adds to a message: 33 bytes (ZeroMQ RFC 26)."""


ASK_AGAIN_S = 1.0
"""How long after it was refused a key is shown again. Engineering choice."""
_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_NOT_LISTED = "our key is not on its list; there, run: rtdenoise keys add NAME, and use the file it writes"
_NO_KEY = "it asks for a key; use the file that rtdenoise keys add NAME writes there (view: --keys FILE)"
_OTHER_KEY = "it is not the one that our key file is for, or it asks for no key"


class Subscriber:
    """Receives one stream, or everything on an endpoint. Connecting never fails: a publisher may come later, or come back.

    received: good messages taken from the wire.  skipped: those that `newest` passed over.  missed: frames that never arrived.
    bad: messages that were not frames.  foreign: messages of another htype.  stray: frames of a series that was already over.
    Frames sent before we joined are not missed. `frame` counts all channels and planes of a stream together.
    `keys` are needed for a publisher on another machine, or one that asks for them; it sends nothing to whom it does not know.
    Use it from one thread. Raises WireError when the endpoint is malformed.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        stream: str | None = None,
        rcvhwm: int = RECEIVE_MARK,
        keys: ClientKeys | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.received = self.skipped = self.missed = self.bad = self.foreign = self.stray = 0
        self._connected = _ConnectedSocket(
            endpoint, wire.prefix(stream) if stream else b"", rcvhwm, wire.MAX_BODY_BYTES, keys, context
        )
        self._series: str | None = None
        self._next_frame = 0
        self._over: deque[str] = deque(maxlen=_REMEMBERED_SERIES)

    def read(self, timeout_s: float) -> Message | None:
        """The next message in order; None when none came in time."""
        deadline = time.monotonic() + timeout_s
        while (parts := self._connected.receive(deadline)) is not None:
            message = self._understood(parts)
            if message is not None and self._is_current(message.frame.stamp):
                self.received += 1
                return message
        return None

    def newest(self, timeout_s: float) -> Message | None:
        """The newest message that has arrived; waits for one if there is none. What was older is counted in `skipped`."""
        newest = self.read(timeout_s)
        if newest is None:
            return None
        for _ in range(DRAIN_LIMIT):
            newer = self.read(0)
            if newer is None:
                break
            self.skipped += 1
            newest = newer
        return newest

    def refused(self) -> str:
        """Why the publisher does not let us in, and what to do; empty while it does, or does not answer. It is asked again and again."""
        return self._connected.refused()

    def __iter__(self) -> Iterator[Message]:
        """Every message in order, for ever."""
        while True:
            message = self.read(timeout_s=0.1)
            if message is not None:
                yield message

    def close(self) -> None:
        """Disconnect. Messages that were returned stay valid."""
        self._connected.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _understood(self, parts: list[zmq.Frame]) -> Message | None:
        try:
            return wire.decode(parts)
        except ForeignMessage:
            self.foreign += 1
        except WireError:
            self.bad += 1
        return None

    def _is_current(self, stamp: FrameStamp) -> bool:
        """Count the gap before this frame; False for a frame of a series that was already replaced."""
        if stamp.series != self._series:
            if stamp.series in self._over:
                self.stray += 1
                return False
            self._begin(stamp)
        if stamp.frame > self._next_frame:
            self.missed += stamp.frame - self._next_frame
        self._next_frame = max(self._next_frame, stamp.frame + 1)
        return True

    def _begin(self, stamp: FrameStamp) -> None:
        """The first series may be joined late; of any later one we expect every frame."""
        if self._series is None:
            self._next_frame = stamp.frame
        else:
            self._over.append(self._series)
            self._next_frame = 0
        self._series = stamp.series


class StatusSubscriber:
    """Receives the status messages of a run. bad: messages that were none."""

    def __init__(
        self,
        endpoint: str,
        *,
        keys: ClientKeys | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self.bad = 0
        self._connected = _ConnectedSocket(endpoint, b"", STATUS_MARK, status.MAX_STATUS_BYTES, keys, context)

    def read(self, timeout_s: float) -> AnyStatus | None:
        """The next message in order; None when none came in time."""
        deadline = time.monotonic() + timeout_s
        while (parts := self._connected.receive(deadline)) is not None:
            try:
                if len(parts) == 1:
                    return status.from_json(parts[0].bytes)
            except WireError:
                pass  # counted below, like a message of two parts
            self.bad += 1
        return None

    def close(self) -> None:
        """Disconnect."""
        self._connected.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _ConnectedSocket:
    """A SUB socket, with a context of its own unless one is given. A longer message than `max_bytes` ends the connection."""

    def __init__(
        self,
        endpoint: str,
        subscription: bytes,
        receive_mark: int,
        max_bytes: int,
        keys: ClientKeys | None,
        context: zmq.Context[zmq.Socket[bytes]] | None,
    ) -> None:
        self._own_context = None if context else zmq.Context()
        self._socket: zmq.Socket[bytes] = (context or self._own_context or zmq.Context()).socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, receive_mark)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max_bytes + _CURVE_BYTES)
        self._socket.setsockopt(zmq.SUBSCRIBE, subscription)
        self._socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        if keys is not None:
            _show(self._socket, keys)
        self._endpoint = endpoint
        self._refusal, self._trouble = "", _OTHER_KEY if keys else _NO_KEY
        self._ask_again_s = math.inf
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | _HANDSHAKE_FAILED)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise WireError(
                f"{endpoint}: cannot be connected to ({error.strerror}); an endpoint looks like {wire.DENOISED_ENDPOINT}"
            ) from None

    def refused(self) -> str:
        """What the last handshake came to; empty for one that succeeded, and before the first."""
        while not self._monitor.closed and (seen := self._handshakes()) is not None:
            self._refusal = self._says(seen)
            # ZeroMQ itself gives up for good when it is told that a key is not on the list; it may be put there.
            self._ask_again_s = time.monotonic() + ASK_AGAIN_S if seen == zmq.EVENT_HANDSHAKE_FAILED_AUTH else math.inf
        if time.monotonic() >= self._ask_again_s and not self._socket.closed:
            self._ask_again_s = math.inf
            with suppress(zmq.ZMQError):  # it may have forgotten the endpoint already
                self._socket.disconnect(self._endpoint)
            self._socket.connect(self._endpoint)
        return self._refusal

    def _says(self, handshake: int) -> str:
        if handshake == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return ""
        return _NOT_LISTED if handshake == zmq.EVENT_HANDSHAKE_FAILED_AUTH else self._trouble

    def _handshakes(self) -> int | None:
        try:
            return int(recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"])
        except zmq.Again:
            return None

    def receive(self, deadline: float) -> list[zmq.Frame] | None:
        """The parts of the next message, or None at the deadline (`time.monotonic`)."""
        while True:
            try:
                return self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self.refused()  # what nobody asks for would pile up
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._socket.poll(int(left_s * 1000) + 1):
                    return None

    def close(self) -> None:
        if not self._socket.closed:
            self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        if self._own_context is not None:
            self._own_context.term()


def _show(socket: zmq.Socket[bytes], keys: ClientKeys) -> None:
    """Encrypt, trust this one server, and say who we are."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server.encode("ascii"))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode("ascii"))
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode("ascii"))
    set_heartbeat(socket)
