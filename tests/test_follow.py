"""A file that another process is writing: nothing is read before it is whole, nothing is missed, and the end is told from a pause."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from rtdenoise.errors import EndOfStream, FileFormatError, GeometryChanged, SourceStalled
from rtdenoise.frame import Frame
from rtdenoise.sources.feed import Feed
from rtdenoise.sources.follow import FollowSource
from tests.fake_rig import Here, Rig, value

SHAPE = (6, 8)
RAW: dict[str, Any] = {"height": 6, "width": 8}
EXPERIMENT = """<?xml version="1.0"?>
<ThorImageExperiment>
  <LSM name="ResonanceGalvo" pixelX="8" pixelY="6" frameRate="30.2" averageMode="1" averageNum="2" pixelSizeUM="0.9"/>
  <Wavelengths><Wavelength name="ChanA"/><Wavelength name="ChanB"/></Wavelengths>
  <Streaming enable="1" frames="1000" zFastEnable="0" flybackFrames="1"/>
</ThorImageExperiment>
"""


def following(path: Path, **settings: Any) -> Feed:
    source = FollowSource(FollowSource.Settings(path=path, **{"idle_s": 5.0, **settings}))
    assert isinstance(source, Feed)
    return source


def opened(path: Path, **settings: Any) -> Feed:
    source = following(path, **settings)
    source.open()
    source.start()
    return source


def take(source: Feed, n: int) -> list[Frame]:
    frames = []
    for _ in range(n):
        frame = source.read(5.0)
        assert frame is not None, f"{len(frames)} of {n} came"
        frames.append(Frame(np.array(frame.pixels), frame.stamp))
    return frames


def held(frames: list[Frame], lift: int = 0) -> list[int]:
    """The numbers that the pixels hold; every pixel of a frame holds the same."""
    assert all(frame.pixels.min() == frame.pixels.max() for frame in frames)
    return [int(frame.pixels[0, 0]) + 50 - lift for frame in frames]


def test_every_frame_of_a_growing_raw_file_comes_once_and_no_half_of_one(tmp_path: Path) -> None:
    path = tmp_path / "series.raw"
    with Rig("RawFile", path=str(path), shape=SHAPE, before=100) as rig:
        rig.do("send", [0, 1])
        source = opened(path, **RAW, offset=100)
        assert held(take(source, 2), 50) == [0, 1]
        rig.do("half", 2)
        assert source.read(0.05) is None
        rig.do("send", [3, 4])
        frames = take(source, 3)
        assert held(frames, 50) == [2, 3, 4]
        assert [f.stamp.src_frame for f in frames] == [2, 3, 4]
        source.close()


@pytest.mark.parametrize(("dtype", "lift"), [("uint8", 50), ("int16", 0), ("float32", 0)])
def test_pixels_keep_their_type_and_their_sign(tmp_path: Path, dtype: str, lift: int) -> None:
    path = tmp_path / "series.raw"
    with Here("RawFile", path=str(path), shape=SHAPE, dtype=dtype) as rig:
        rig.do("send", [0, 1])
        source = opened(path, **RAW, dtype=dtype)
        frames = take(source, 2)
        source.close()
    assert str(frames[0].pixels.dtype) == dtype
    assert held(frames, lift) == [0, 1]


def test_thorimage_is_understood_from_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "Experiment.xml").write_text(EXPERIMENT)
    path = tmp_path / "Image_001_001.raw"
    with Here("RawFile", path=str(path), shape=SHAPE, channels=2) as rig:
        rig.do("send", [0, 1])
        source = following(tmp_path)
        info = source.open()
        source.start()
        frames = take(source, 4)
        source.close()
    assert (info.shape, info.channels, info.planes, info.um_per_px) == (SHAPE, 2, 1, 0.9)
    assert info.frame_interval_s == pytest.approx(2 / 30.2)
    assert [(f.stamp.src_frame, f.stamp.channel) for f in frames] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [int(f.pixels[0, 0]) for f in frames] == [value(k, c) + 50 for k in (0, 1) for c in (0, 1)]


@pytest.mark.parametrize(("bigtiff", "byteorder"), [(True, "<"), (False, "<"), (True, ">")])
def test_pages_of_a_growing_tiff_come_as_they_are_completed(tmp_path: Path, bigtiff: bool, byteorder: str) -> None:
    path = tmp_path / "series.tif"
    with Here("TiffFile", path=str(path), shape=SHAPE, bigtiff=bigtiff, byteorder=byteorder) as rig:
        rig.do("send", list(range(12)))
        source = following(path)
        info = source.open()
        assert (info.shape, info.dtype) == (SHAPE, "int16")
        source.start()
        early = take(source, 10)  # the writer sets the pointer to a page when it writes the next one
        rig.do("send", list(range(12, 60)))
        frames = [*early, *take(source, 45)]
        source.close()
    assert held(frames) == [f.stamp.src_frame for f in frames] == list(range(55))


def test_a_whole_tiff_cut_at_any_byte_gives_its_whole_pages_only(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tif"
    with tifffile.TiffWriter(whole, bigtiff=True) as writer:
        for k in range(24):
            writer.write(np.full(SHAPE, k - 50, np.int16), photometric="minisblack", metadata=None, contiguous=False)
    content = whole.read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(content[: len(content) // 2])
    source = opened(path, channels=1, idle_s=0.2, first_frame_s=5.0)
    seen = []
    for end in range(len(content) // 2, len(content) + 1, 37):
        with path.open("ab") as file:
            file.write(content[path.stat().st_size : end])
        while (frame := source.read(0.0)) is not None:
            seen.append(int(frame.pixels[0, 0]) + 50)
            assert frame.pixels.min() == frame.pixels.max()
    with path.open("ab") as file:
        file.write(content[path.stat().st_size :])
    seen += held(take(source, 24 - len(seen)))
    with pytest.raises(EndOfStream, match="has not grown"):
        source.read(5.0)
    source.close()
    assert seen == list(range(24))


def test_compressed_pages_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "series.tif"
    tifffile.imwrite(path, np.zeros((12, *SHAPE), np.uint16), compression="zlib", photometric="minisblack")
    os.utime(path, (0, 0))  # nobody is writing it
    with pytest.raises(FileFormatError, match=r"series.tif: page 0 is compressed or in pieces; only plain pages"):
        following(path).open()


def test_the_file_that_takes_its_place_is_the_next_series(tmp_path: Path) -> None:
    path = tmp_path / "series.raw"
    with Here("RawFile", path=str(path), shape=SHAPE) as rig:
        rig.do("send", list(range(30)))
        source = opened(path, **RAW)
        assert held(take(source, 30), 50) == list(range(30))
        first = source.clock.series
        assert source.read(0.05) is None  # where an open file cannot be replaced (Windows), it is let go of by now
        rig.do("replace")
        rig.do("send", [7, 8, 9])
        with pytest.raises(EndOfStream, match="the next series has begun in its place, after 30 images"):
            source.read(5.0)
        source.start()
        frames = take(source, 3)
        assert held(frames, 50) == [7, 8, 9]
        assert [f.stamp.src_frame for f in frames] == [0, 1, 2]
        assert frames[0].stamp.series != first
        source.close()


def test_the_newest_file_of_a_pattern_is_followed_and_then_the_next_one(tmp_path: Path) -> None:
    with Here("RawFile", path=str(tmp_path / "run_1.raw"), shape=SHAPE) as rig:
        rig.do("send", [1, 2])
    source = opened(tmp_path / "run_*.raw", **RAW)
    assert held(take(source, 2), 50) == [1, 2]
    with Here("RawFile", path=str(tmp_path / "run_2.raw"), shape=SHAPE) as rig:
        rig.do("send", [5, 6])
        with pytest.raises(EndOfStream, match="the next series"):
            source.read(5.0)
        source.start()
        assert held(take(source, 2), 50) == [5, 6]
    source.close()


def test_newest_begins_at_the_end_of_what_is_there_with_whole_sets_of_channels(tmp_path: Path) -> None:
    path = tmp_path / "series.raw"
    with Here("RawFile", path=str(path), shape=SHAPE, channels=2) as rig:
        rig.do("send", list(range(20)))
        source = opened(path, **RAW, channels=2, begin="newest")
        rig.do("send", [20, 21])
        stamps = [f.stamp for f in take(source, 4)]
        source.close()
    assert [(s.src_frame, s.channel, s.dropped) for s in stamps] == [(20, 0, 0), (20, 1, 0), (21, 0, 0), (21, 1, 0)]


def test_a_file_that_does_not_grow_any_more_ends_the_series(tmp_path: Path) -> None:
    path = tmp_path / "series.raw"
    with Here("RawFile", path=str(path), shape=SHAPE) as rig:
        rig.do("send", [0, 1])
    source = opened(path, **RAW, idle_s=0.1)
    take(source, 2)
    with pytest.raises(EndOfStream, match="has not grown for 0 s: over after 2 images"):
        source.read(5.0)
    source.close()


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "series.raw"
    said: list[str] = []
    source = following(path, **RAW, first_frame_s=1.2)
    source.say = said.append
    with pytest.raises(SourceStalled, match=r"series.raw has sent nothing in 1.2 s: it is not there yet"):
        source.open()
    assert [line.startswith(f"waiting for {path}: it is not there yet") for line in said] == [True]


def written_tiff(path: Path, columns: int) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for _ in range(12):
            writer.write(np.zeros((6, columns), np.uint16), photometric="minisblack", metadata=None, contiguous=False)


def test_the_next_series_of_another_size_is_a_geometry_change(tmp_path: Path) -> None:
    written_tiff(tmp_path / "run_0.tif", 8)
    source = opened(tmp_path / "run_*.tif", idle_s=0.05)
    take(source, 12)
    with pytest.raises(EndOfStream):
        source.read(5.0)
    written_tiff(tmp_path / "run_1.tif", 12)
    source.start()
    with pytest.raises(GeometryChanged, match=r"frame is \(6, 12\) uint16, the series began with \(6, 8\) uint16"):
        source.read(5.0)
    source.close()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("series.raw", b"", "no Experiment.xml beside it; give height, width and dtype"),
        ("series.tif", b"this is no TIFF, but long enough for one", "not a TIFF file"),
    ],
)
def test_a_file_that_cannot_be_followed_is_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    os.utime(tmp_path / name, (0, 0))  # nobody is writing it
    with pytest.raises(FileFormatError, match=f"{name}.*{says}"):
        following(tmp_path / name).open()
