"""Publishers and subscribers without sockets: real headers, real subscribers, and queues that overflow when they are told to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import zmq

from rtdenoise import wire
from rtdenoise.frame import Frame, Pixels
from rtdenoise.settings import loopback
from rtdenoise.subscribe import Subscriber
from rtdenoise.wire import Drops, StreamFacts

MARK = 4
"""Messages that wait for a subscriber before the newest is dropped, as a PUB socket does."""


class Inbox:
    """The socket of a subscriber: what waits, and whether it reads at all."""

    def __init__(self) -> None:
        self.waiting: deque[list[bytes]] = deque()
        self.reads = True

    def receive(self, deadline: float) -> list[bytes] | None:
        """The oldest message, None when there is none."""
        return self.waiting.popleft() if self.waiting else None

    def close(self) -> None:
        """Nothing to close."""


class Reader:
    """A real Subscriber on such an inbox, and everything it returned."""

    def __init__(self, stream: str) -> None:
        self.inbox = Inbox()
        self.subscriber = Subscriber(loopback(1), stream=stream, context=zmq.Context.instance())
        self.subscriber.close()
        self.subscriber._connected = self.inbox  # type: ignore[assignment]
        self.got: list[Frame] = []

    def read(self) -> None:
        """Everything that waits, unless it is stalled."""
        while self.inbox.reads and (message := self.subscriber.read(0)) is not None:
            self.got.append(message.frame)


class Sender:
    """Stands for `Publisher`. Each frame is encoded as on the wire; a lossless one waits while its reader's queue is full.

    sent: (series, number in the stream, camera number) of everything published.
    """

    def __init__(
        self,
        reader: Reader,
        facts: StreamFacts,
        lossless: bool,
        stopping: Callable[[], bool],
        wait: Callable[[], None],
        sent: list[tuple[str, int, int]],
    ) -> None:
        self.facts, self.subscribers, self.fill = facts, 1, 0.0
        self._reader, self._lossless, self._stopping, self._wait = reader, lossless, stopping, wait
        self._sent = sent

    def lease(self, shape: tuple[int, int], dtype: str) -> Pixels:
        """A buffer of its own for every frame."""
        return np.empty(shape, dtype)

    def publish(self, frame: Frame, drops: Drops, *, t_out: int | None = None, flags: tuple[str, ...] = ()) -> bool:
        """As Publisher.publish; what does not fit is dropped, newest first, and nobody is told."""
        inbox = self._reader.inbox
        self._wait()
        while self._lossless and len(inbox.waiting) >= MARK:
            if self._stopping():
                return False
            self._wait()
        header = wire.encode_header(frame, self.facts, drops, t_out=t_out)
        self._sent.append((frame.stamp.series, frame.stamp.frame, frame.stamp.src_frame))
        if len(inbox.waiting) < MARK:
            inbox.waiting.append([header, frame.pixels.tobytes()])
        self._reader.read()
        return True

    def wait_for_subscribers(self, n: int, timeout_s: float) -> bool:
        """They are here."""
        return True

    def wait_for_return(self, n: int, timeout_s: float) -> bool:
        """They never left."""
        return True

    def be_patient(self, patience_ms: int) -> None:
        """Queues that were told to overflow do."""

    def close(self, linger_ms: int | None = None) -> None:
        """Nothing to unbind."""
