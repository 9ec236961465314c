"""A publisher with a healthy subscriber in step with it, for tests of what others do to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import psutil

from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher
from rtdenoise.subscribe import Subscriber
from rtdenoise.wire import Drops, StreamFacts

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
