"""The sending end of the wire: one endpoint per stream, and one for status."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

import numpy as np
import zmq
from pydantic import BaseModel

from rtdenoise import config
from rtdenoise.bound import BoundSocket
from rtdenoise.errors import ConfigError, WireError
from rtdenoise.frame import Frame, Pixels
from rtdenoise.guests import MAX_GUESTS
from rtdenoise.settings import Remote
from rtdenoise.slots import SlotPool
from rtdenoise.status import EndMessage, StartMessage, StatusMessage
from rtdenoise.wire import Drops, StreamFacts, encode_header

MAX_QUEUED_BYTES = 256 * 1024 * 1024
"""Most that waits for one slow subscriber. Engineering choice."""
LOSSLESS_LINGER_MS = 10_000
STATUS_LINGER_MS = 1_000
START_REPEAT_S = 1.0
GREET_S = 0.1
"""Least time between two `start` for those who come: a crowd is no flood for those who are there. Engineering choice."""
_POLL_MS = 100
"""A blocked send looks this often whether it should give up: a stop request is honoured within 100 ms."""
_SPARE = 4
"""Buffers beyond those that wait for subscribers: being made, and on their way back. Engineering choice."""


def high_water_mark(frame_bytes: int, fps: float) -> int:
    """Frames that wait for one subscriber: half a second, at least 8, within MAX_QUEUED_BYTES.

    Small marks make subscribers see older frames, because PUB drops the newest at the mark; large ones let a frozen subscriber
    grow the publisher (measured: 32 to 537 MB at 1000, no growth at 64).
    """
    affordable = max(8, MAX_QUEUED_BYTES // max(1, frame_bytes))
    return min(max(8, round(fps / 2)), affordable)


class Publisher:
    """Sends the frames of one stream to any number of subscribers on this machine.

    Normally a slow subscriber loses frames and never slows us (PUB). With `lossless` a full queue blocks `publish` instead
    (queue policy `stop`), until there is room or `stopping()` is True. Use it from one thread.
    `endpoint` is where it is bound, with the port filled in where `*` or 0 was asked for; `remote` opens it to other machines, with keys.
    Raises WireError when the endpoint is busy, malformed or reachable from other machines, ConfigError when `remote` has no keys.
    """

    def __init__(
        self,
        endpoint: str,
        facts: StreamFacts,
        *,
        frame_bytes: int,
        fps_hint: float = 30.0,
        lossless: bool = False,
        remote: Remote | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.facts = facts
        self.published = 0
        self._lossless = lossless
        self._stopping = stopping
        self._awaited = self._patience = 0
        self._mark = high_water_mark(frame_bytes, fps_hint)
        self._pool = SlotPool(self._mark + _SPARE)
        self._leased: Pixels | None = None
        self._bound = BoundSocket(endpoint, self._mark, LOSSLESS_LINGER_MS if lossless else 0, context, remote)
        self._socket = self._bound.socket
        self._socket.setsockopt(zmq.XPUB_NODROP, int(lossless))
        self._socket.setsockopt(zmq.SNDTIMEO, _POLL_MS)
        self.endpoint = self._bound.endpoint

    @property
    def subscribers(self) -> int:
        """Subscriptions, as of the last frame."""
        return self._bound.subscriptions

    @property
    def turned_out(self) -> int:
        """Connections that were closed because they asked for too much, or were taken off the list."""
        return self._bound.turned_out

    @property
    def fill(self) -> float:
        """How full the queue of the slowest subscriber is, 0 to 1. Asks every buffer: too much to do for every frame."""
        return min(1.0, self._pool.n_away / self._mark)

    def lease(self, shape: tuple[int, int], dtype: str) -> Pixels:
        """An array to make the next frame in. When it is handed to `publish` it is sent without a copy, and is no longer the caller's."""
        wanted = np.dtype(dtype)
        if self._leased is None or self._leased.shape != shape or self._leased.dtype != wanted:
            slot = self._pool.take(shape, wanted)
            self._leased = np.empty(shape, wanted) if slot is None else slot
        return self._leased

    def publish(self, frame: Frame, drops: Drops, *, t_out: int | None = None, flags: Sequence[str] = ()) -> bool:
        """Send one frame; its pixels may be overwritten as soon as this returns.

        t_out: ns since the series started, now, by the caller's clock.  Returns False only when a lossless send was given up
        because `stopping()`.  Raises WireError when a subscriber that a lossless run waited for has left.
        """
        self._count_subscribers()
        header = encode_header(frame, self.facts, drops, t_out=t_out, flags=flags)
        if not self._send_header(header):
            return False
        slot = self._own(frame.pixels)
        if slot is None:
            self._socket.send(np.ascontiguousarray(frame.pixels, frame.pixels.dtype.newbyteorder("<")).data, copy=True)
        else:
            self._pool.give(slot, self._socket.send(slot.data, copy=False, track=True))
        self.published += 1
        return True

    def wait_for_subscribers(self, n: int, timeout_s: float) -> bool:
        """Block until `n` subscribers are connected, who then have to stay; False on timeout or when `stopping()`."""
        self._awaited = 0
        if not self.wait_for_return(n, timeout_s):
            return False
        self._awaited = n if self._lossless else 0
        return True

    def wait_for_return(self, n: int, timeout_s: float) -> bool:
        """Block until `n` subscribers are connected, who may leave again; False on timeout or when `stopping()`."""
        deadline = time.monotonic() + timeout_s
        self._count_subscribers()
        while self.subscribers < n:
            left_ms = int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0 or self._stopping():
                return False
            if self._socket.poll(min(_POLL_MS, left_ms)):
                self._count_subscribers()
        return True

    def be_patient(self, ms: int) -> None:
        """Wait for subscribers whose queue is full, so long in all, before frames are dropped for them again; 0: from now on."""
        self._patience = ms // _POLL_MS
        if not self._lossless:
            self._socket.setsockopt(zmq.XPUB_NODROP, int(self._patience > 0))

    def close(self, linger_ms: int | None = None) -> None:
        """Unbind. A lossless publisher first waits up to 10 s for what was published to leave; any one for `linger_ms` if given."""
        self._bound.close(linger_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _own(self, pixels: Pixels) -> Pixels | None:
        """The pixels in a buffer that nobody else writes to; None when all buffers are on their way."""
        if pixels is self._leased:
            self._leased = None
            return pixels
        slot = self._pool.take(pixels.shape, pixels.dtype.newbyteorder("<"))
        if slot is not None:
            np.copyto(slot, pixels)
        return slot

    def _send_header(self, header: bytes) -> bool:
        """Part 1. XPUB blocks here or nowhere: the mark counts whole messages, so part 2 always follows."""
        while True:
            try:
                self._socket.send(header, zmq.SNDMORE)
                return True
            except zmq.Again:
                self._count_subscribers()
                if not self._lossless:
                    self.be_patient((self._patience - 1) * _POLL_MS)
                elif self._stopping():
                    return False

    def _count_subscribers(self) -> None:
        """Who came and went, and that nobody left whom a lossless run waits for."""
        self._bound.hear()
        self._pool.limit = self._mark * min(max(1, self.subscribers), MAX_GUESTS) + _SPARE
        if self.subscribers < self._awaited:
            raise WireError(
                f"{self.endpoint}: a subscriber left after frame {self.published - 1} of a lossless run "
                f"({self.subscribers} of {self._awaited} connected); start the run again"
            )


M = TypeVar("M", bound=BaseModel)


def _built(model: type[M], fields: Mapping[str, Any]) -> M:
    try:
        return config.build(model, fields, "status message")
    except ConfigError as error:
        raise WireError(str(error)) from None


class StatusPublisher:
    """Sends `start`, `status` and `end` on their own endpoint: old image clients die of a message that is not an image."""

    def __init__(
        self,
        endpoint: str,
        *,
        remote: Remote | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self._bound = BoundSocket(endpoint, 1000, STATUS_LINGER_MS, context, remote)
        self.endpoint = self._bound.endpoint
        self._start: StartMessage | None = None
        self._started_at = 0.0
        self._greeted = 0
        self._has_come = False

    @property
    def turned_out(self) -> int:
        """Connections that were closed because they asked for too much, or were taken off the list."""
        return self._bound.turned_out

    def start(self, meta: Mapping[str, Any]) -> StartMessage:
        """Announce a series; `meta` are the fields of StartMessage and whatever else should travel along."""
        self._start = _built(StartMessage, meta)
        self._repeat_start(now=time.monotonic())
        return self._start

    def greet(self) -> None:
        """Send `start` again where somebody has come since the last call. Call it often: nobody waits a second for it then."""
        self._bound.hear()
        self._has_come |= self._bound.subscriptions > self._greeted
        self._greeted = self._bound.subscriptions
        now = time.monotonic()
        if self._has_come and now - self._started_at >= GREET_S:
            self._has_come = False
            self._repeat_start(now)

    def status(self, counters: Mapping[str, Any]) -> None:
        """Send the fields of StatusMessage, and `start` again if a second has passed. Call it every second, news or not."""
        now = time.monotonic()
        if now - self._started_at >= 0.9 * START_REPEAT_S:
            self._repeat_start(now)
        self._send(_built(StatusMessage, {"series": self._series, **counters}))

    def end(self, count: int, reason: str, dropped: Mapping[str, int], **others: Any) -> EndMessage:
        """Say that the series is over and where every frame went; `others` are further fields of EndMessage."""
        fields = {"series": self._series, "count": count, "delivered": count, "reason": reason, "dropped": dropped}
        message = _built(EndMessage, {**fields, **others})
        self._send(message)
        return message

    def close(self) -> None:
        """Unbind, after at most a second for the last message to leave."""
        self._bound.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def _series(self) -> str:
        return self._start.series if self._start else ""

    def _repeat_start(self, now: float) -> None:
        if self._start is not None:
            self._send(self._start)
            self._started_at = now

    def _send(self, message: StartMessage | StatusMessage | EndMessage) -> None:
        self._bound.hear()
        self._bound.socket.send(message.to_json())
