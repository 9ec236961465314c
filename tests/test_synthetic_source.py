"""The synthetic camera: order, pacing, loss and interruption, as a real one would show them."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest

from rtdenoise import config, registry
from rtdenoise.errors import ConfigError, EndOfStream, SourceError
from rtdenoise.frame import Frame
from rtdenoise.simulate import PRESETS
from rtdenoise.sources.base import Source
from rtdenoise.sources.synthetic import SimulatedMode, SyntheticSource, counted

SMALL = (16, 20)


def started(**settings: Any) -> SyntheticSource:
    values = {"mode": "counter", "shape": SMALL, "fps": None, **settings}
    source = SyntheticSource(config.build(SyntheticSource.Settings, values, "test"))
    source.open()
    source.start()
    return source


def read_all(source: SyntheticSource) -> list[Frame]:
    frames = []
    while True:
        try:
            frame = source.read()
        except EndOfStream:
            return frames
        assert frame is not None
        frames.append(Frame(frame.pixels.copy(), frame.stamp))


@pytest.mark.parametrize("negative", [False, True])
def test_a_counter_frame_holds_its_own_number(negative: bool) -> None:
    frames = read_all(started(n_frames=20, negative=negative))
    assert [counted(f.pixels) for f in frames] == [f.stamp.src_frame for f in frames] == list(range(20))
    assert frames[0].pixels.dtype == (np.int16 if negative else np.uint16)
    assert (int(frames[0].pixels.min()) < 0) is negative


def test_a_counter_does_not_wrap_at_16_bits() -> None:
    source = started(fps=1e6, capacity=1, n_frames=70_001)
    while (frame := source.read()) is not None and frame.stamp.src_frame < 70_000:
        pass
    assert frame is not None
    assert counted(frame.pixels) == 70_000


def test_starting_again_begins_a_new_series_at_frame_0() -> None:
    source = started(n_frames=5)
    first = read_all(source)
    source.start()
    second = read_all(source)
    assert [f.stamp.frame for f in second] == [f.stamp.frame for f in first] == list(range(5))
    assert first[0].stamp.series != second[0].stamp.series == source.clock.series


def test_a_late_reader_of_a_live_camera_loses_the_oldest_frames_and_all_are_accounted_for() -> None:
    source = started(fps=20_000, capacity=8, n_frames=2000)
    threading.Event().wait(0.02)
    frames = read_all(source)
    numbers = [f.stamp.src_frame for f in frames]
    lost = sum(f.stamp.dropped for f in frames)
    assert numbers == sorted(set(numbers))
    assert [f.stamp.frame for f in frames] == list(range(len(frames)))
    assert frames[0].stamp.dropped == numbers[0] > 300
    assert len(frames) + lost == 2000
    assert source.stats().dropped == lost
    assert source.stats().received == len(frames)
    assert source.stats().max_backlog <= 8


def test_a_camera_that_waits_for_its_reader_loses_nothing() -> None:
    source = started(fps=20_000, capacity=8, n_frames=600, live=False)
    threading.Event().wait(0.02)
    assert [f.stamp.src_frame for f in read_all(source)] == list(range(600))
    assert source.stats().dropped == 0


def test_frames_come_on_an_absolute_schedule() -> None:
    source = started(fps=400, n_frames=40)
    frames = read_all(source)
    early = [f.stamp.t_in - f.stamp.t_src for f in frames]
    assert [f.stamp.t_src for f in frames] == [round(k * 1e9 / 400) for k in range(40)]
    assert min(early) > -1_000_000  # the operating system may wake a sleeper a little early
    assert source.clock.now_ns() >= 39 / 400 * 1e9 - 1_000_000


def test_nothing_comes_before_its_time() -> None:
    source = started(fps=0.5)
    assert source.read(0.01) is not None
    assert source.read(0.01) is None


def test_stop_wakes_a_waiting_reader_at_once() -> None:
    source = started(fps=0.1)
    source.read()
    threading.Timer(0.02, source.stop).start()
    begun = time.perf_counter()
    with pytest.raises(EndOfStream):
        source.read(timeout_s=10.0)
    assert time.perf_counter() - begun < 1.0


def test_stop_and_close_work_from_any_state() -> None:
    source = SyntheticSource(SyntheticSource.Settings(mode="counter"))
    source.stop()
    source.close()
    with pytest.raises(SourceError, match="call open"):
        source.start()
    with pytest.raises(SourceError, match="call open"):
        source.read()
    source.open()
    source.start()
    source.close()
    source.close()
    with pytest.raises(EndOfStream):
        source.read()


def test_a_received_frame_cannot_be_written_to() -> None:
    for mode in ("counter", "blob"):
        frame = started(mode=mode).read()
        assert frame is not None
        with pytest.raises(ValueError, match="read-only"):
            frame.pixels[0, 0] = 1


def test_a_simulated_movie_plays_and_repeats() -> None:
    frames = read_all(started(mode="calcium", shape=(32, 40), n_unique=6, n_frames=14))
    assert frames[0].pixels.shape == (32, 40)
    assert frames[0].pixels.dtype == np.int16
    np.testing.assert_array_equal(frames[0].pixels, frames[6].pixels)
    assert all(not np.array_equal(a.pixels, b.pixels) for a, b in pairwise(frames))


def test_the_blob_moves_and_is_there_at_once() -> None:
    begun = time.perf_counter()
    source = started(mode="blob", shape=(512, 512), n_frames=33)
    opened_s = time.perf_counter() - begun
    frames = read_all(source)
    left, right = frames[32].pixels[:, :256].mean(), frames[32].pixels[:, 256:].mean()
    assert left > right  # half a turn after it began on the right
    assert frames[0].pixels[:, 256:].mean() > frames[0].pixels[:, :256].mean()
    assert opened_s < 1.5  # 0.1 s on an idle core


@pytest.mark.parametrize("mode", ["blob", "counter"])
def test_it_delivers_two_thousand_frames_a_second(mode: str) -> None:
    source = started(mode=mode, shape=(512, 512), n_frames=400)
    begun = time.thread_time()
    for _ in range(400):
        source.read()
    assert time.thread_time() - begun < 400 / 2000


def test_what_will_come_is_announced() -> None:
    source = SyntheticSource(SyntheticSource.Settings(mode="counter", shape=SMALL, fps=50.0, n_frames=7, negative=True))
    info = source.open()
    assert (info.shape, info.dtype, info.frame_interval_s, info.n_frames) == (SMALL, "int16", 0.02, 7)
    assert isinstance(source, Source)


def test_every_simulation_preset_can_be_played() -> None:
    assert set(get_args(SimulatedMode)) == set(PRESETS)


def test_it_is_registered_and_refuses_unknown_settings() -> None:
    kind = registry.load(registry.SOURCES, "synthetic")
    with pytest.raises(ConfigError, match="unknown framerate; known: mode, shape, fps"):
        config.build(kind.Settings, {"framerate": 30}, "source synthetic")
