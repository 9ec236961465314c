"""A recorded movie plays like a camera: in order, on time, and honest about what it lost."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from rtdenoise import registry
from rtdenoise.errors import ConfigError, EndOfStream, FileFormatError, GeometryChanged, SourceError
from rtdenoise.files.prefetch import BLOCK_BYTES
from rtdenoise.frame import Frame
from rtdenoise.sources.base import Source
from rtdenoise.sources.replay import ReplaySource
from tests.real_movies import MESOSCOPE, MOUSE, SCANIMAGE, SCANIMAGE_3, real_movie

SHAPE = (6, 5)


def counting_movie(folder: Path, n: int, **options: Any) -> Path:
    """Image k holds k - 3 everywhere."""
    stack = np.broadcast_to((np.arange(n, dtype=np.int16) - 3)[:, None, None], (n, *SHAPE))
    tifffile.imwrite(folder / "m.tif", stack, photometric="minisblack", **options)
    return folder / "m.tif"


def source(path: Path, **settings: Any) -> ReplaySource:
    return ReplaySource(ReplaySource.Settings(path=path, **{"rate": "max", **settings}))


def started(path: Path, **settings: Any) -> ReplaySource:
    replay = source(path, **settings)
    replay.open()
    replay.start()
    return replay


def frames(replay: ReplaySource) -> Iterator[Frame]:
    """Until the end of the series; each valid until the next."""
    while True:
        try:
            frame = replay.read(timeout_s=10)
        except EndOfStream:
            return
        assert frame is not None, "nothing came for 10 s"
        yield frame


def test_it_is_the_registered_replay_source() -> None:
    assert registry.load(registry.SOURCES, "replay") is ReplaySource
    assert isinstance(source(Path("m.tif")), Source)


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("name", [MESOSCOPE, MOUSE, SCANIMAGE, SCANIMAGE_3])
def test_every_frame_of_a_real_movie_comes_out_once_in_order(name: str, preload: bool) -> None:
    path = real_movie(name)
    expected = tifffile.imread(path)
    replay = source(path, preload=preload)
    info = replay.open()
    replay.start()
    n = 0
    for n, frame in enumerate(frames(replay), start=1):
        np.testing.assert_array_equal(frame.pixels, expected[n - 1])
        assert frame.stamp.frame == n - 1
        assert frame.stamp.dropped == 0
    replay.close()
    assert n == len(expected) == info.n_frames == replay.stats().received
    assert (info.shape, info.dtype, info.live) == (expected.shape[1:], str(expected.dtype), False)


def test_interleaved_channels_are_told_apart_and_timed_by_the_rate_in_the_file() -> None:
    replay = source(real_movie(SCANIMAGE))
    info = replay.open()
    replay.start()
    assert info.frame_interval_s == pytest.approx(1 / 29.9786)
    assert (info.channels, info.scan["bidirectional"]) == (2, True)
    stamps = [frame.stamp for frame in frames(replay)]
    replay.close()
    assert [(s.channel, s.src_frame) for s in stamps] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    assert [s.t_src for s in stamps[::2]] == [round(k * 1e9 / 29.9786) for k in range(3)]
    assert all(a.t_in <= b.t_in for a, b in itertools.pairwise(stamps))


def test_a_part_of_the_movie_can_be_played_round_and_round(tmp_path: Path) -> None:
    replay = source(counting_movie(tmp_path, 10), start=2, stop=5, loop=True, n_frames=7, channels=2)
    assert replay.open().n_frames == 14
    replay.start()
    seen = [(int(f.pixels[0, 0]) + 3, f.stamp.channel, f.stamp.src_frame) for f in frames(replay)]
    replay.close()
    lap = [4, 5, 6, 7, 8, 9]
    assert [image for image, _, _ in seen] == [*lap, *lap, 4, 5]
    assert [(channel, src) for _, channel, src in seen] == [(k % 2, 2 + k // 2) for k in range(14)]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"rate": "file"}, r"m\.tif does not say its frame rate; give rate = 30"),
        ({"start": 10}, r"m\.tif has 10 frames; start = 10, stop = None is no part of it"),
        ({"stop": 11}, r"m\.tif has 10 frames; start = 0, stop = 11 is no part of it"),
    ],
)
def test_settings_that_do_not_fit_the_movie_are_refused_when_it_is_opened(
    tmp_path: Path, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        source(counting_movie(tmp_path, 10), **settings).open()


def test_settings_that_fit_no_movie_are_refused_at_once() -> None:
    for settings in ({"rate": "max", "live": True}, {"rate": -1}, {"rate": "fast"}, {"colour": "red"}):
        with pytest.raises(ValidationError):
            ReplaySource.Settings(path="m.tif", **settings)


def test_a_missing_file_is_said_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no such file"):
        source(tmp_path / "gone.tif").open()


def test_frames_are_never_early_and_the_schedule_does_not_drift(tmp_path: Path) -> None:
    replay = started(counting_movie(tmp_path, 300), rate=1000.0)
    t_in = np.array([frame.stamp.t_in for frame in frames(replay)])
    replay.close()
    lateness_ms = (t_in - t_in[0]) / 1e6 - np.arange(300)
    assert lateness_ms.min() > -0.1  # the stamp of the first frame is taken a moment after the schedule began
    # a sleep per frame would add its overshoot (0.05 ms and more) 300 times; a busy machine is late, but not for 100 frames on end
    assert lateness_ms[200:].min() < 5


def test_a_frame_that_is_not_due_is_none_after_the_timeout_and_comes_later(tmp_path: Path) -> None:
    replay = started(counting_movie(tmp_path, 3), rate=4.0)
    assert replay.read(10) is not None
    begin = time.perf_counter()
    assert replay.read(0.01) is None  # the next one is due after 250 ms
    assert 0.009 < time.perf_counter() - begin < 0.2
    assert [f.stamp.frame for f in frames(replay)] == [1, 2]
    replay.close()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_live_replay_loses_the_oldest_frames_and_counts_every_one(tmp_path: Path, channels: int) -> None:
    """300,000 frames a second is more than any reader takes."""
    n = 6000
    path = counting_movie(tmp_path, n)
    replay = started(path, rate=300_000.0 / channels, live=True, capacity=16, channels=channels)
    stamps, values = [], []
    for frame in frames(replay):
        stamps.append(frame.stamp)
        values.append(int(frame.pixels[0, 0]) + 3)
        assert replay.backlog() <= 16
    replay.close()
    stats = replay.stats()
    assert stats.dropped > 0
    assert stats.received + stats.dropped == n == len(stamps) + sum(s.dropped for s in stamps)
    assert values == [s.src_frame * channels + s.channel for s in stamps]
    for channel in range(channels):
        of_channel = [s for s in stamps if s.channel == channel]
        steps = np.diff([-1, *(s.src_frame for s in of_channel)])
        assert [s.dropped for s in of_channel] == [step - 1 for step in steps]
    assert values[-1] == n - 1


def test_without_live_a_late_reader_loses_nothing(tmp_path: Path) -> None:
    replay = started(counting_movie(tmp_path, 6000), rate=300_000.0)
    assert [int(f.pixels[0, 0]) + 3 for f in frames(replay)] == list(range(6000))
    assert replay.stats().dropped == 0
    replay.close()


def test_frames_before_the_cut_of_a_truncated_file_come_before_the_error(tmp_path: Path) -> None:
    path = counting_movie(tmp_path, 40)
    with tifffile.TiffFile(path) as tif:
        begin = tif.pages[0].dataoffsets[0]
    path.write_bytes(path.read_bytes()[: begin + 25 * 60 + 7])
    replay = started(path)
    for k in range(25):
        frame = replay.read(10)
        assert frame is not None
        assert frame.pixels[0, 0] == k - 3
    for _ in range(2):
        with pytest.raises(SourceError, match=r"m\.tif: truncated: frame 25 cannot be read"):
            replay.read(10)
    replay.close()


def test_a_file_of_another_shape_is_a_geometry_change_after_the_frames_before_it(tmp_path: Path) -> None:
    for k in range(6):
        tifffile.imwrite(tmp_path / f"{k}.tif", np.full((8, 8) if k == 4 else SHAPE, k, np.uint8))
    replay = started(tmp_path)
    for k in range(4):
        frame = replay.read(10)
        assert frame is not None
        assert frame.pixels[0, 0] == k
    with pytest.raises(GeometryChanged, match=r"4\.tif: frame 4 is 8 x 8"):
        replay.read(10)
    replay.close()


def test_a_new_start_is_a_new_series_from_the_first_frame(tmp_path: Path) -> None:
    replay = started(counting_movie(tmp_path, 5))
    first = [f.stamp for f in frames(replay)]
    with pytest.raises(EndOfStream):
        replay.read()
    replay.start()
    second = [f.stamp for f in frames(replay)]
    replay.close()
    assert [s.frame for s in first] == [s.frame for s in second] == list(range(5))
    assert len({s.series for s in first} | {s.series for s in second}) == 2


def test_stop_ends_a_waiting_read_at_once(tmp_path: Path) -> None:
    replay = started(counting_movie(tmp_path, 3), rate=0.05)
    assert replay.read(10) is not None
    ended: list[type[BaseException]] = []
    waiting = threading.Event()

    def wait_for_a_frame() -> None:
        waiting.set()
        try:
            replay.read(20)
        except EndOfStream as news:
            ended.append(type(news))

    reader = threading.Thread(target=wait_for_a_frame)
    reader.start()
    waiting.wait()
    begin = time.perf_counter()
    replay.stop()
    reader.join(5)
    assert time.perf_counter() - begin < 0.5
    assert ended == [EndOfStream]
    replay.close()


def test_stop_and_close_may_be_called_from_any_state(tmp_path: Path) -> None:
    replay = source(counting_movie(tmp_path, 5))
    with pytest.raises(SourceError, match="call open"):
        replay.start()
    for _ in range(2):
        replay.stop()
        replay.close()
    replay.open()
    replay.start()
    replay.close()
    with pytest.raises(EndOfStream):
        replay.read()
    replay.close()
    replay.open()
    replay.start()
    assert len([frame.stamp for frame in frames(replay)]) == 5
    replay.close()


@pytest.mark.parametrize("preload", [False, True])
def test_pixels_are_read_only_views_that_hold_until_the_next_read(tmp_path: Path, preload: bool) -> None:
    n = 3 * BLOCK_BYTES // (1024 * 1024)
    stack = np.zeros((n, 1024, 1024), np.uint8)
    stack[:, 0, 0] = np.arange(n)
    tifffile.imwrite(tmp_path / "m.tif", stack)
    replay = started(tmp_path / "m.tif", preload=preload)
    for k, frame in enumerate(frames(replay)):
        assert not frame.pixels.flags.owndata
        assert not frame.pixels.flags.writeable
        assert frame.pixels.flags.c_contiguous
        assert frame.pixels[0, 0] == k
    replay.close()


def test_replay_takes_no_more_memory_for_a_long_movie(tmp_path: Path) -> None:
    path = tmp_path / "long.tif"
    tifffile.imwrite(path, shape=(500, 512, 512), dtype="uint16", photometric="minisblack")
    tracemalloc.start()
    try:
        replay = started(path)
        n = sum(1 for _ in frames(replay))
        replay.close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n == 500
    assert path.stat().st_size > 250e6
    assert peak < 5 * BLOCK_BYTES
