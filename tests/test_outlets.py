"""The publishers of one denoise process after those of another: numbers, ports and subscribers that come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rtdenoise.errors import WireError
from rtdenoise.frame import Frame, FrameStamp, StreamInfo
from rtdenoise.outlets import PORT_TIMEOUT_S, RETURN_TIMEOUT_S, Outlets, bind_after
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing
from rtdenoise.wire import Drops
from tests.runs import Listener, settings

SHAPE = (16, 16)
FIRST, SECOND = "a" * 32, "b" * 32


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[SharedRing]:
    ring = SharedRing.create(
        tmp_path / "frames.ring", StreamInfo("test", SHAPE, "uint16", 16, frame_interval_s=0.01), 16
    )
    yield ring
    ring.close()


@pytest.fixture
def asked() -> RunSettings:
    return settings("synthetic", {})


def send(outlets: Outlets, series: str, n_frames: int) -> None:
    for k in range(n_frames):
        outlets.send_raw(Frame(np.zeros(SHAPE, np.uint16), FrameStamp(series, k, k, 0)), Drops(), 0)


def listener(asked: RunSettings) -> Listener:
    """Reads all the time, as it must: ZeroMQ subscribes again only when its program asks for messages."""
    return Listener(asked.endpoints.raw, "raw", lambda message: message.frame.stamp.frame)


def test_a_series_is_counted_on_by_the_next_process_and_a_new_one_from_zero_whoever_begins_it(
    ring: SharedRing, asked: RunSettings
) -> None:
    listens = listener(asked)
    first = Outlets(asked, ring, "m", "b")
    assert first.raw.wait_for_subscribers(1, timeout_s=5)
    send(first, FIRST, 3)
    first.leave()
    second = bind_after(asked, ring, "m", "b", is_first=False)
    assert second.wait_for_return() == 0
    send(second, FIRST, 2)
    second.leave()
    third = bind_after(asked, ring, "m", "b", is_first=False)
    assert third.wait_for_return() == 0
    send(third, SECOND, 2)
    third.leave()
    assert listens.finish() == [0, 1, 2, 3, 4, 0, 1]
    assert listens.subscriber.missed == 0


def test_subscribers_that_stay_away_are_waited_for_a_second_and_counted(ring: SharedRing, asked: RunSettings) -> None:
    stays, leaves = listener(asked), listener(asked)
    first = Outlets(asked, ring, "m", "b")
    assert first.raw.wait_for_subscribers(2, timeout_s=5)
    send(first, FIRST, 1)
    first.leave()
    leaves.finish()
    second = bind_after(asked, ring, "m", "b", is_first=False)
    began = time.monotonic()
    assert second.wait_for_return() == 1
    assert 0.9 * RETURN_TIMEOUT_S < time.monotonic() - began < RETURN_TIMEOUT_S + 1
    assert second.raw.subscribers == 1
    second.close()
    stays.finish()


def test_only_the_first_process_of_a_run_takes_a_busy_port_for_an_error_at_once(
    ring: SharedRing, asked: RunSettings
) -> None:
    other = Outlets(asked, ring, "m", "b")
    began = time.monotonic()
    with pytest.raises(WireError, match="in use"):
        bind_after(asked, ring, "m", "b", is_first=True)
    assert time.monotonic() - began < PORT_TIMEOUT_S
    closing = threading.Timer(0.2, other.close)
    closing.start()
    bind_after(asked, ring, "m", "b", is_first=False).close()
    closing.join()
