"""ScanImage's stream, from a publisher in another process: every form of message, every frame accounted for."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rtdenoise.errors import ConfigError, EndOfStream, GeometryChanged, SourceError, SourceStalled
from rtdenoise.frame import Frame
from rtdenoise.sources.door import BadMessage
from rtdenoise.sources.feed import Feed
from rtdenoise.sources.scanimage import ScanImageSource, understand
from tests.fake_rig import PARTS, Rig, value
from tests.runs import free_port

SHAPE = (6, 8)


OPENED: list[Feed] = []
PUBLISHERS: dict[str, tuple[str, Rig]] = {}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    for _, rig in PUBLISHERS.values():
        rig.__exit__(None, None, None)
    PUBLISHERS.clear()


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


def publisher(**options: Any) -> tuple[str, Rig]:
    """Where a publisher of this kind is, and its controls; the same one for all tests."""
    key = str(options)
    if key not in PUBLISHERS:
        address = f"tcp://127.0.0.1:{free_port()}"
        PUBLISHERS[key] = (address, Rig("ScanImage", endpoint=address, shape=SHAPE, **options))
    address, rig = PUBLISHERS[key]
    rig.do("reshape", SHAPE)
    rig.do("at", 1)
    return address, rig


def until_end(source: Feed) -> Exception:
    """What ends the series, or stops it."""
    for _ in range(1000):
        try:
            source.read(0.05)
        except (EndOfStream, SourceError) as end:
            return end
    raise AssertionError("it does not end")


def opened(endpoint: str, rig: Rig, **settings: Any) -> Feed:
    """A started source; the publisher sends only what it is told from here on."""
    source = ScanImageSource(ScanImageSource.Settings(endpoint=endpoint, **settings))
    assert isinstance(source, Feed)
    OPENED.append(source)
    rig.do("run", 200)
    source.open()
    rig.do("pause")
    source.start()
    return source


def sent(source: Feed, numbers: list[int], rig: Rig) -> list[Frame]:
    """What comes out when these numbers are sent, and after them a frame far enough ahead to be the last."""
    last = numbers[-1] + 1
    rig.do("send", [*numbers, last])
    frames: list[Frame] = []
    while not frames or frames[-1].stamp.src_frame < last:
        frame = source.read(5.0)
        assert frame is not None, f"{numbers}: nothing for 5 s after {frames[-1:]}"
        frames.append(Frame(np.array(frame.pixels), frame.stamp))
    return [frame for frame in frames if frame.stamp.src_frame < last]


@pytest.mark.parametrize("parts", PARTS)
def test_every_form_of_a_message_gives_int16_frames_of_every_channel_with_their_sign(parts: str) -> None:
    endpoint, rig = publisher(channels=2, parts=parts)
    source = opened(endpoint, rig)
    got = [(f.stamp.src_frame, f.stamp.channel, f.pixels) for f in sent(source, [10_010, 10_011, 20_020], rig)]
    source.close()
    assert [(k, c) for k, c, _ in got] == [(k, c) for k in (10_010, 10_011, 20_020) for c in (0, 1)]
    for number, channel, pixels in got:
        assert pixels.dtype == np.int16
        np.testing.assert_array_equal(pixels, np.full(SHAPE, value(number, channel)))
    assert got[-2][2].max() < 0


def test_x_is_fastest_then_y_then_channel() -> None:
    stack = np.arange(2 * 3 * 5, dtype=np.int16).reshape(2, 3, 5) - 7
    exposure = understand([struct.pack("<5d", 5, 3, 2, 0.5, 9) + stack.tobytes()])  # type: ignore[list-item]
    np.testing.assert_array_equal(np.stack(exposure.images), stack)
    assert (exposure.number, exposure.time_ns) == (9, 500_000_000)


@pytest.mark.parametrize(
    ("seconds", "time_ns"),
    [(1.8e9, 1_800_000_000_000_000_000), (float("nan"), None), (float("inf"), None), (1e300, None)],
)
def test_a_clock_that_cannot_be_one_is_none(seconds: float, time_ns: int | None) -> None:
    assert understand([struct.pack("<5d", 5, 3, 1, seconds, 9) + bytes(30)]).time_ns == time_ns  # type: ignore[list-item]


def test_the_stream_says_size_channels_and_rate() -> None:
    endpoint, rig = publisher(channels=3, rate=30.0)
    source = ScanImageSource(ScanImageSource.Settings(endpoint=endpoint))
    rig.do("run", 200)
    info = source.open()
    source.close()
    assert (info.shape, info.dtype, info.channels) == (SHAPE, "int16", 3)
    assert info.frame_interval_s == pytest.approx(1 / 30)  # by ScanImage's clock, not by when messages came


def test_missing_numbers_are_counted_before_the_frame_that_follows_and_device_time_is_kept() -> None:
    endpoint, rig = publisher(channels=2, rate=100.0)
    source = opened(endpoint, rig)
    stamps = [f.stamp for f in sent(source, [1000, 1001, 1005, 1006], rig)]
    stats = source.stats()
    source.close()
    of_first = [s for s in stamps if s.channel == 0]
    assert [(s.src_frame, s.dropped) for s in of_first] == [(1000, 0), (1001, 0), (1005, 3), (1006, 0)]
    assert [s.t_src - of_first[0].t_src for s in of_first] == [0, 10_000_000, 50_000_000, 60_000_000]
    assert (stats.received, stats.dropped, stats.skipped) == (9, 6, 0)  # the last frame's second channel was not read


def test_a_slow_reader_loses_the_oldest_and_every_one_is_counted() -> None:
    endpoint, rig = publisher()
    source = opened(endpoint, rig, queue_frames=4)
    sent(source, [1000], rig)  # the sentinel behind it is 1001
    rig.do("send", list(range(1002, 1052)))
    stamps = []
    while not stamps or stamps[-1].src_frame < 1051:
        assert source.backlog() <= 4
        frame = source.read(5.0)
        assert frame is not None
        stamps.append(frame.stamp)
    stats = source.stats()
    source.close()
    assert stats.received + stats.dropped + stats.skipped == 52
    assert stats.received == 2 + len(stamps)


def test_what_is_no_frame_is_counted_and_the_stream_goes_on() -> None:
    endpoint, rig = publisher()
    source = opened(endpoint, rig)
    rig.do("garbage", "hello")
    rig.do("garbage", "x" * 200)
    assert len(sent(source, [1000, 1001], rig)) == 2
    stats = source.stats()
    source.close()
    assert (stats.bad, stats.received) == (2, 3)
    assert stats.trouble() == "2 messages that are no frames of this series"


@pytest.mark.parametrize(
    "header",
    [
        (8, 6, 0, 0, 1),
        (8, 6, 1e9, 0, 1),
        (float("nan"), 6, 1, 0, 1),
        (float("inf"), 6, 1, 0, 1),
        (8, 6, 1, 0, -1),
        (8, 6, 1, 0, float("nan")),
        (8, 6, 1, 0, 1.5),
        (-8, -6, 1, 0, 1),
        (16_000, 16_000, 16, 0, 1),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(header: tuple[float, ...]) -> None:
    with pytest.raises(BadMessage):
        understand([struct.pack("<5d", *header) + bytes(96)])  # type: ignore[list-item]


def test_another_frame_size_is_a_geometry_change() -> None:
    endpoint, rig = publisher()
    source = opened(endpoint, rig)
    rig.do("reshape", (12, 8))
    rig.do("send", [1000])
    with pytest.raises(GeometryChanged, match=r"ScanImage at tcp.*\(12, 8\) int16, the series began with \(6, 8\)"):
        source.read(5.0)
    source.close()


def test_a_grab_that_begins_anew_ends_the_series_and_the_next_one_begins_with_its_first_frame() -> None:
    endpoint, rig = publisher(channels=2)
    source = opened(endpoint, rig)
    sent(source, [500, 501], rig)
    first = source.clock.series
    rig.do("send", [1, 2, 3, 4])
    assert "began to count anew" in str(until_end(source))
    source.start()
    frames = [source.read(5.0) for _ in range(8)]
    assert [(f.stamp.src_frame, f.stamp.channel) for f in frames if f] == [(k, c) for k in (1, 2, 3, 4) for c in (0, 1)]
    assert source.clock.series != first
    assert source.stats().late == 0
    source.close()


def test_silence_says_what_to_look_at_and_is_not_the_end() -> None:
    endpoint, rig = publisher()
    source = opened(endpoint, rig, stall_timeout_s=0.1)
    stall = until_end(source)
    assert isinstance(stall, SourceStalled)
    assert re.search("ScanImage at tcp.*has sent nothing for .*start Focus or Grab", str(stall))
    assert len(sent(source, [1000], rig)) == 1
    source.close()


def test_nobody_there_is_one_line_at_the_start(endpoint: str) -> None:
    said: list[str] = []
    source = ScanImageSource(ScanImageSource.Settings(endpoint=endpoint, first_frame_s=1.2))
    assert isinstance(source, Feed)
    source.say = said.append
    with pytest.raises(
        SourceStalled, match=r"nothing in 1.2 s: start Focus or Grab, and look at hSI.hScan2D.hAcq.ZMQAddress"
    ):
        source.open()
    assert [line.startswith(f"waiting for ScanImage at {endpoint}") for line in said] == [True]


@pytest.mark.parametrize("wrong", ["127.0.0.1:65179", "tcp://127.0.0.1", "carrier-pigeon://loft"])
def test_an_address_that_cannot_be_one_is_said_at_once(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"write it like tcp://127.0.0.1:65179"):
        ScanImageSource(ScanImageSource.Settings(endpoint=wrong)).open()


def test_a_publisher_that_was_killed_and_comes_back_is_a_new_series(endpoint: str) -> None:
    with Rig("ScanImage", endpoint=endpoint, shape=SHAPE) as rig:
        source = opened(endpoint, rig)
        sent(source, [500], rig)
        rig.kill()
    with Rig("ScanImage", endpoint=endpoint, shape=SHAPE) as rig:
        rig.do("run", 200)
        assert "began to count anew" in str(until_end(source))
        source.start()
        frame = source.read(5.0)
        assert frame is not None
        assert frame.stamp.src_frame < 500
        source.close()


def test_closing_leaves_no_socket_behind(endpoint: str) -> None:
    with Rig("ScanImage", endpoint=endpoint, shape=SHAPE) as rig:
        source = opened(endpoint, rig)
        sent(source, [1000], rig)
        source.close()
    port = int(endpoint.rpartition(":")[2])
    with socket.socket() as door:
        assert door.connect_ex(("127.0.0.1", port)) != 0
