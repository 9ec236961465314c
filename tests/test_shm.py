"""Scanbox's memory-mapped file, from a writer in another process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdenoise.errors import EndOfStream, GeometryChanged, SourceStalled
from rtdenoise.frame import Frame
from rtdenoise.sources.feed import Feed
from rtdenoise.sources.shm import ShmSource
from tests.fake_rig import Rig, value

SHAPE = (6, 8)
SCANBOX: dict[str, Any] = {"order": "columns", "inverted": True}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scanbox") / "scanbox.mmap"


@pytest.fixture(scope="module")
def writer(path: Path) -> Iterator[Rig]:
    """Waits until the frame before was taken, so that only what a test leaves out is missing."""
    with Rig("Scanbox", path=str(path), shape=SHAPE, channels=2, patient=True) as one:
        yield one


@pytest.fixture
def rig(writer: Rig) -> Rig:
    """The writer as it was at first."""
    writer.do("reshape", SHAPE)
    writer.do("again")
    writer.do("at", 0)
    return writer


def opened(path: Path, rig: Rig, **settings: Any) -> Feed:
    source = ShmSource(ShmSource.Settings(path=path, **{**SCANBOX, "channels": 2, **settings}))
    assert isinstance(source, Feed)
    rig.do("run", 500)
    source.open()
    rig.do("pause")
    source.start()
    return source


def take(source: Feed, rig: Rig, numbers: list[int]) -> list[Frame]:
    """Frames of channel A, each written when the one before was taken."""
    frames = []
    for number in numbers:
        rig.do("send", [number])
        for _ in range(2):
            frame = source.read(5.0)
            assert frame is not None
            frames.append(Frame(np.array(frame.pixels), frame.stamp))
    return frames


def test_frames_of_both_channels_come_out_upright_and_bright(path: Path, rig: Rig) -> None:
    source = opened(path, rig)
    frames = take(source, rig, [1000, 1001])
    source.close()
    assert [(f.stamp.src_frame, f.stamp.channel) for f in frames] == [(1000, 0), (1000, 1), (1001, 0), (1001, 1)]
    for frame in frames:
        expected = value(frame.stamp.src_frame, frame.stamp.channel) + 50
        np.testing.assert_array_equal(frame.pixels, np.full(SHAPE, expected, np.uint16))


@pytest.mark.parametrize("order", ["rows", "columns"])
def test_lines_and_columns_are_where_the_writer_put_them(tmp_path: Path, order: str) -> None:
    path = tmp_path / "scanbox.mmap"
    picture = np.arange(48, dtype=np.uint16).reshape(SHAPE)
    stored = picture if order == "rows" else picture.T
    header = np.zeros(16, np.int16)
    header[:3] = (5, *SHAPE)
    path.write_bytes(header.tobytes() + stored.tobytes())
    source = ShmSource(ShmSource.Settings(path=path, order=order))
    assert source.open().shape == SHAPE
    source.start()
    with path.open("r+b") as file:
        assert np.frombuffer(file.read(2), np.int16) == -1  # the slot was given back
        file.seek(0)
        file.write(np.int16(6).tobytes())
    frame = source.read(5.0)
    assert frame is not None
    np.testing.assert_array_equal(frame.pixels, picture)
    source.close()


def test_numbers_go_round_at_32767_and_what_is_missing_is_counted(path: Path, rig: Rig) -> None:
    source = opened(path, rig)
    frames = take(source, rig, [32760, 32766, 32767, 32768, 32770])
    stats = source.stats()
    source.close()
    stamps = [f.stamp for f in frames if f.stamp.channel == 0]
    assert [(s.src_frame, s.dropped) for s in stamps] == [(32760, 0), (32766, 5), (32767, 0), (32768, 0), (32770, 1)]
    assert (stats.received, stats.dropped) == (10, 12)


def test_a_writer_that_does_not_wait_loses_frames_and_they_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "scanbox.mmap"
    with Rig("Scanbox", path=str(path), shape=SHAPE) as rig:
        source = opened(path, rig, channels=1)
        rig.do("send", list(range(1000, 1100)))
        first = source.read(5.0)
        rig.do("send", [1100])
        last = source.read(5.0)
        assert first is not None
        assert last is not None
        assert last.stamp.dropped == 1100 - first.stamp.src_frame - 1 == source.stats().dropped
        source.close()


def test_the_writer_stops_and_begins_again(path: Path, rig: Rig) -> None:
    source = opened(path, rig)
    take(source, rig, [1000])
    rig.do("stop")
    with pytest.raises(EndOfStream, match="the writer has stopped"):
        source.read(5.0)
    rig.do("again")
    source.start()
    assert [f.stamp.src_frame for f in take(source, rig, [3, 4])] == [3, 3, 4, 4]
    source.close()


def test_another_size_is_a_geometry_change(path: Path, rig: Rig) -> None:
    source = opened(path, rig)
    rig.do("reshape", (8, 6))
    rig.do("send", [1000])
    with pytest.raises(GeometryChanged, match=r"scanbox.mmap: a frame of 8 x 6 in a series of \(6, 8\)"):
        source.read(5.0)
    source.close()


def test_a_size_that_does_not_fit_the_file_is_no_frame(path: Path, rig: Rig) -> None:
    source = opened(path, rig)
    rig.do("reshape", SHAPE)
    with path.open("r+b") as file:
        file.write(np.array([7, 30_000, 30_000], np.int16).tobytes())
    assert source.read(0.05) is None
    assert source.stats().bad == 1
    source.close()


def test_a_file_that_is_not_there_is_waited_for_and_named(tmp_path: Path) -> None:
    path = tmp_path / "scanbox.mmap"
    said: list[str] = []
    source = ShmSource(ShmSource.Settings(path=path, first_frame_s=1.2))
    assert isinstance(source, Feed)
    source.say = said.append
    with pytest.raises(SourceStalled, match=r"scanbox.mmap has sent nothing in 1.2 s: start the acquisition"):
        source.open()
    assert len(said) == 1
