"""Subscribers that freeze or die, and publishers that are killed: nobody else notices."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import slow_subscribers

from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher, high_water_mark
from rtdenoise.subscribe import Subscriber
from rtdenoise.wire import Drops
from tests.watched import ANY_PORT, FACTS, Served, numbered, rss


def test_a_frozen_and_a_killed_subscriber_cost_the_others_nothing_and_the_publisher_a_bounded_queue() -> None:
    shape, fps = (512, 1024), 60
    frame_bytes = shape[0] * shape[1] * 2
    mark = high_water_mark(frame_bytes, fps)
    with (
        Publisher(ANY_PORT, FACTS, frame_bytes=frame_bytes, fps_hint=fps) as publisher,
        Subscriber(publisher.endpoint) as subscriber,
    ):
        assert publisher.wait_for_subscribers(1, timeout_s=10)
        served = Served(publisher, subscriber)
        with slow_subscribers.guests(publisher, ["frozen", "killed"]) as (frozen, killed):
            for _ in range(2 * mark):
                served.frame(shape)
            before = rss()
            for guest in (frozen, killed):
                guest.meet_its_fate()
            for _ in range(12 * mark):
                served.frame(shape)
            grown = rss() - before
            assert publisher.subscribers == 2
            frozen.resume()
            deadline = time.monotonic() + 30
            while not frozen.over():  # the same frame is the last one for whoever reads it
                last = Frame(np.full(shape, served.n, np.uint16), FrameStamp("a", served.n, served.n, served.n))
                publisher.publish(last, Drops(), flags=(slow_subscribers.LAST,))
                assert subscriber.read(timeout_s=10) is not None
                assert time.monotonic() < deadline
                served.n += 1
            seen = frozen.finish()
        assert subscriber.missed == 0
        assert seen["newest"] >= 14 * mark
        assert seen["missed"] > 0
    # The healthy subscriber's own frames lie in this process, too; tools/slow_subscribers.py measures the publisher alone.
    assert grown <= (1.1 * mark + 4) * frame_bytes


def test_a_port_is_free_again_at_once_after_its_publisher_was_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", PUBLISH_FOR_EVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    endpoint = process.stdout.readline().strip()
    with Subscriber(endpoint) as subscriber:
        assert subscriber.read(timeout_s=30) is not None
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.wait(30)
        process.stdout.close()
        with Publisher(endpoint, FACTS, frame_bytes=8192) as successor:
            deadline = time.monotonic() + 20
            while not successor.wait_for_subscribers(
                1, timeout_s=0.05
            ):  # it comes once it has read what was on its way
                while subscriber.read(timeout_s=0) is not None:
                    assert time.monotonic() < deadline
            while subscriber.read(timeout_s=0.05) is not None:
                pass
            successor.publish(Frame(numbered(7).pixels, FrameStamp("b", 0, 0, 0)), Drops())
            message = subscriber.read(timeout_s=10)
    assert message is not None
    assert message.frame.stamp.series == "b"


PUBLISH_FOR_EVER = """
import numpy as np
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher
from rtdenoise.wire import Drops, StreamFacts
publisher = Publisher("tcp://127.0.0.1:*", StreamFacts("raw"), frame_bytes=8192)
print(publisher.endpoint, flush=True)
publisher.wait_for_subscribers(1, 60)
for k in range(10**9):
    publisher.publish(Frame(np.zeros((64, 64), np.uint16), FrameStamp("a", k, k, k)), Drops())
"""


def test_the_measuring_program_counts_every_frame_of_the_healthy_one() -> None:
    figures = slow_subscribers.measure(("slow", "killed"), seconds=0.2, fps=100, shape=(32, 32))
    assert (figures.n_sent, figures.healthy_received, figures.healthy_lost) == (20, 20, 0)
    assert 0 < figures.send_p50_ms <= figures.send_p99_ms <= figures.send_max_ms
    assert figures.allowed_bytes == round(1.1 * 50 * 32 * 32 * 2)
