"""Plain array-1.0 messages from another program: published or pushed, with many keys or few, from a rig or another rtdenoise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from rtdenoise import keyring
from rtdenoise.errors import ConfigError, EndOfStream, SourceError
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher
from rtdenoise.settings import Remote, loopback
from rtdenoise.sources.array_stream import ArrayStreamSource
from rtdenoise.sources.feed import Feed
from rtdenoise.wire import Drops, StreamFacts
from tests.fake_rig import Rig, value
from tests.runs import free_port

SHAPE = (6, 8)
PUSHED = 40


@pytest.fixture
def endpoint() -> str:
    return loopback(free_port())


@pytest.fixture
def make(endpoint: str) -> Iterator[Any]:
    """Makes sources of that endpoint; they are closed whatever happens."""
    made: list[Feed] = []

    def build(**settings: Any) -> Feed:
        source = ArrayStreamSource(ArrayStreamSource.Settings(endpoint=endpoint, **settings))
        assert isinstance(source, Feed)
        made.append(source)
        return source

    yield build
    for source in made:
        source.close()


def take(source: Feed, n: int) -> list[Frame]:
    frames = []
    for _ in range(n):
        frame = source.read(5.0)
        assert frame is not None, f"{len(frames)} of {n} came"
        frames.append(Frame(np.array(frame.pixels), frame.stamp))
    return frames


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_what_is_pushed_arrives_complete_from_the_first_frame_on(make: Any, endpoint: str, dtype: str) -> None:
    with Rig("Arrays", endpoint=endpoint, shape=SHAPE, dtype=dtype, push=True) as rig:
        source = make(pattern="pull", queue_frames=4)
        rig.do("send", list(range(PUSHED)))
        info = source.open()
        source.start()
        frames = take(source, PUSHED)
        stats = source.stats()
    assert (info.shape, info.dtype, info.live, info.frame_interval_s) == (SHAPE, dtype, False, None)
    assert [f.stamp.src_frame for f in frames] == list(range(PUSHED))
    lift = 50 if dtype.startswith("u") else 0
    assert [f.pixels[2, 3] for f in frames] == [value(k) + lift for k in range(PUSHED)]
    assert (stats.received, stats.dropped, stats.skipped) == (PUSHED, 0, 0)


@pytest.mark.parametrize("more", [{}, {"frame": None}, {"frame": None, "frame_num": None}])
def test_channels_that_alternate_are_told_apart_whatever_the_sender_counts(
    make: Any, endpoint: str, more: dict[str, Any]
) -> None:
    with Rig("Arrays", endpoint=endpoint, shape=SHAPE, push=True, more={"channels": 2, **more}) as rig:
        source = make(pattern="pull")
        rig.do("send", list(range(10)))
        assert source.open().channels == 2
        source.start()
        stamps = [f.stamp for f in take(source, 20)]
    assert [(s.src_frame, s.channel, s.dropped) for s in stamps] == [(k, c, 0) for k in range(10) for c in (0, 1)]


def test_missing_numbers_are_lost_and_repeated_ones_are_not_delivered(make: Any, endpoint: str) -> None:
    with Rig("Arrays", endpoint=endpoint, shape=SHAPE, push=True) as rig:
        source = make(pattern="pull")
        rig.do("send", [*range(10), 10, 13, 13, 12, 14])
        source.open()
        source.start()
        stamps = [f.stamp for f in take(source, 13)]
        stats = source.stats()
    assert [(s.src_frame, s.dropped) for s in stamps[-3:]] == [(10, 0), (13, 2), (14, 0)]
    assert (stats.received, stats.dropped, stats.repeated, stats.late) == (13, 2, 1, 1)
    assert stats.trouble() == "1 frames that came twice, 1 frames that came out of order"


def test_a_new_series_name_ends_the_series_and_begins_the_next(make: Any, endpoint: str) -> None:
    with Rig("Arrays", endpoint=endpoint, shape=SHAPE, push=True, more={"series": "aa"}) as rig:
        source = make(pattern="pull")
        rig.do("send", list(range(12)))
        rig.do("change", {"series": "bb"})
        rig.do("send", [12, 13])
        rig.do("change", {"series": "aa"})
        rig.do("send", [14])  # a straggler of the series that is over
        rig.do("change", {"series": "bb"})
        rig.do("send", [15])
        source.open()
        source.start()
        assert [f.stamp.src_frame for f in take(source, 12)] == list(range(12))
        with pytest.raises(EndOfStream, match="count anew"):
            source.read(5.0)
        source.start()
        assert [(f.stamp.frame, f.stamp.src_frame) for f in take(source, 3)] == [(0, 12), (1, 13), (2, 15)]
        assert source.stats().late == 1


def test_big_endian_pixels_become_those_of_this_machine(make: Any, endpoint: str) -> None:
    picture = (np.arange(48).reshape(SHAPE) - 24).astype(">i2")
    with zmq.Context.instance().socket(zmq.PUSH) as sender:
        sender.connect(endpoint)
        for k in range(9):
            header = {"htype": "array-1.0", "shape": SHAPE, "type": "int16", "endianness": "big", "frame": k}
            sender.send_multipart([json.dumps(header).encode(), picture.tobytes()])
        source = make(pattern="pull")
        assert source.open().dtype == "int16"
        source.start()
        (frame,) = take(source, 1)
    assert frame.pixels.dtype == np.dtype("int16")
    np.testing.assert_array_equal(frame.pixels, picture)


@pytest.mark.parametrize("locked", [False, True])
def test_the_raw_stream_of_another_rtdenoise_keeps_its_numbers_and_its_time(
    make: Any, endpoint: str, tmp_path: Path, locked: bool
) -> None:
    """locked: it lets in only who has a key."""
    remote, key = None, None
    if locked:
        keyring.make(tmp_path / "keys")
        key = tmp_path / "office.json"
        keyring.add(tmp_path / "keys", "office", key)
        remote = Remote(bind="0.0.0.0", keys_folder=tmp_path / "keys")  # then loopback asks for a key too
    with Publisher(endpoint, StreamFacts("raw", "camera"), frame_bytes=96, remote=remote) as publisher:
        source = make(stream="raw", key=key)
        feeder = Feeder(publisher)
        feeder.until(source.open)
        source.start()
        stamps: list[FrameStamp] = []
        feeder.until(lambda: stamps.extend(f.stamp for f in take(source, 20)))
    assert {b.src_frame - a.src_frame for a, b in pairwise(stamps)} == {3}
    assert stamps[-1].t_src - stamps[0].t_src == 19 * 7_000_000
    assert all(s.dropped == 2 for s in stamps[1:])  # that camera lost two of three before its own rtdenoise


class Feeder:
    """Publishes every third frame of a camera with 7 ms between two of them."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher, self._n = publisher, 0

    def until(self, done: Callable[[], object]) -> None:
        worker = threading.Thread(target=done, daemon=True)
        worker.start()
        while worker.is_alive():
            stamp = FrameStamp("ab" * 16, self._n, 3 * self._n, 0, 7_000_000 * self._n)
            self._publisher.publish(Frame(np.full(SHAPE, self._n % 100, np.uint16), stamp), Drops())
            self._n += 1
            worker.join(0.002)


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.0.2.7:5555"])
def test_frames_are_never_taken_in_from_the_network_by_listening(address: str) -> None:
    source = ArrayStreamSource(ArrayStreamSource.Settings(endpoint=address, pattern="pull"))
    with pytest.raises(ConfigError, match="on this machine only"):
        source.open()


def test_pixels_that_cannot_be_denoised_are_refused_at_the_start(make: Any, endpoint: str) -> None:
    with Rig("Arrays", endpoint=endpoint, shape=SHAPE, dtype="uint32", push=True) as rig:
        rig.do("send", list(range(9)))
        with pytest.raises(SourceError, match="delivers uint32 pixels; rtdenoise takes uint8"):
            make(pattern="pull").open()


def test_messages_that_are_no_frames_are_named_when_nothing_else_comes(make: Any, endpoint: str) -> None:
    with Rig("Arrays", endpoint=endpoint, shape=SHAPE, push=True) as rig:
        rig.do("garbage", "hello")
        with pytest.raises(
            SourceError, match=r"no frame \(a message has two parts \(header, pixels\), this one has 1\)"
        ):
            make(pattern="pull", first_frame_s=0.5).open()
