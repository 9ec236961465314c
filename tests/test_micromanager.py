"""A real camera under real MMCore, in this process and behind the server of a Micro-Manager in another one."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdenoise import config
from rtdenoise.errors import (
    ConfigError,
    EndOfStream,
    SourceError,
    SourceOverflow,
)
from rtdenoise.frame import Frame
from rtdenoise.sources.base import Source
from rtdenoise.sources.micromanager import MicromanagerSettings, MicromanagerSource
from tests.mm_rig import (
    FAST,
    SIZE,
    TWO_CAMERAS,
    Bench,
    Opened,
    StandIn,
    core,
    demo_settings,
    numbers,
    read,
    read_to_end,
    spot,
    wait_for,
)

pytest_plugins = ("tests.mm_bench",)


def variance(frames: list[Frame]) -> float:
    return float(np.stack([frame.pixels for frame in frames]).astype(float).var())


def test_every_frame_comes_out_once_in_order(camera: Bench) -> None:
    source = camera(**FAST)
    assert isinstance(source, Source)
    frames = read(source, 60)
    assert [(f.stamp.frame, f.stamp.src_frame, f.stamp.dropped) for f in frames] == [(k, k, 0) for k in range(60)]
    assert {f.stamp.series for f in frames} == {source.clock.series}
    assert {(f.pixels.shape, str(f.pixels.dtype)) for f in frames} == {((48, 64), "uint16")}
    assert all(a.stamp.t_in < b.stamp.t_in and a.stamp.t_src < b.stamp.t_src for a, b in pairwise(frames))
    assert not np.array_equal(frames[0].pixels, frames[1].pixels)
    stats = source.stats()
    assert (stats.received, stats.dropped, stats.skipped, stats.suspect) == (60, 0, 0, 0)


def test_the_stream_is_described_before_it_starts(camera: Bench) -> None:
    info = camera(start=False, **SIZE, exposure_ms=20.0, n_frames=5).open()
    assert (info.name, info.shape, info.dtype, info.bit_depth, info.channels) == ("Camera", (48, 64), "uint16", 16, 1)
    assert info.frame_interval_s == pytest.approx(0.02)
    assert info.live
    assert info.n_frames == 5
    assert info.capacity > 100


def test_device_time_is_when_the_camera_had_the_frame_and_arrival_comes_after(camera: Bench) -> None:
    stamps = [frame.stamp for frame in read(camera(**SIZE, exposure_ms=10.0), 30)]
    assert all(0 < stamp.t_src < stamp.t_in for stamp in stamps)
    assert min(b.t_src - a.t_src for a, b in pairwise(stamps)) > 9e6


def test_eight_bit_images_stay_eight_bit(camera: Bench) -> None:
    source = camera(**FAST, properties={"Camera.PixelType": "8bit", "Camera.BitDepth": "8"})
    (frame,) = read(source, 1)
    assert frame.pixels.dtype == np.uint8


def test_colour_is_refused_with_the_property_to_change(opened: Opened) -> None:
    with pytest.raises(SourceError, match=r"Camera delivers 4 bytes.*PixelType"):
        opened(demo_settings(properties={"Camera.PixelType": "32bitRGB"}))


@pytest.mark.parametrize(("flux", "exposure_ms"), [(50.0, 10.0), (200.0, 10.0), (2.0, 33.0)])
def test_photon_noise_is_what_the_camera_model_predicts(opened: Opened, flux: float, exposure_ms: float) -> None:
    """DemoCamera: mean = 100 + flux*exposure - 1 (two truncations), variance = read noise^2 + flux*exposure (sheet acquisition 4.2)."""
    properties = {"Camera.Photon Flux": str(flux), "Camera.ReadNoise (electrons)": "2.5"}
    frames = read(opened(demo_settings(128, 128, exposure_ms=exposure_ms, properties=properties)), 6)
    mean = np.mean([frame.pixels.mean() for frame in frames])
    expected = flux * exposure_ms + 2.5**2
    # Four standard errors of mean and variance over 98,304 pixels, and the variance of rounding (1/12 each).
    assert mean == pytest.approx(99 + flux * exposure_ms, abs=4 * np.sqrt(expected / 98304) + 0.02)
    assert variance(frames) == pytest.approx(expected, rel=4 * np.sqrt(2 / 98304), abs=0.3)


def test_a_spot_switched_on_the_microscope_is_a_transient_in_the_frames(opened: Opened) -> None:
    source = opened(demo_settings(256, 256, exposure_ms=10.0))
    trace = []
    for on in (False, True, False):
        spot(on)
        read(source, 3)
        trace.append(float(np.mean([frame.pixels[137:144, 140:147].mean() for frame in read(source, 3)])))
    dark, bright, dark_again = trace
    assert bright > dark + 300
    assert dark_again == pytest.approx(dark, abs=20)


def test_two_cameras_are_told_apart(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "two.cfg"
    file.write_text(TWO_CAMERAS)
    source = opened(MicromanagerSettings(config=file, exposure_ms=10.0, n_frames=20, buffer_mb=16))
    assert source.open().channels == 2
    source.start()
    frames = read_to_end(source)
    assert [f.stamp.frame for f in frames] == list(range(40))
    for channel, mean in ((0, 99 + 500), (1, 99 + 2000)):
        ours = [f for f in frames if f.stamp.channel == channel]
        assert numbers(ours) == list(range(20))
        assert np.mean([f.pixels.mean() for f in ours]) == pytest.approx(mean, rel=0.01)


def test_cameras_are_told_apart_and_timed_without_the_usual_tags(opened: Opened) -> None:
    with StandIn(config=TWO_CAMERAS, hide=["Camera", "ElapsedTime-ms"]) as rig:
        source = opened(rig.settings(exposure_ms=10.0, n_frames=8))
        frames = read_to_end(source)
        source.close()
    for channel, mean in ((0, 99 + 500), (1, 99 + 2000)):
        ours = [f for f in frames if f.stamp.channel == channel]
        assert numbers(ours) == list(range(8))
        assert np.mean([f.pixels.mean() for f in ours]) == pytest.approx(mean, rel=0.02)
        assert all(a.stamp.t_src < b.stamp.t_src < b.stamp.t_in for a, b in pairwise(ours))


def test_a_finite_series_ends_by_itself(camera: Bench) -> None:
    source = camera(**FAST, n_frames=25)
    assert numbers(read_to_end(source)) == list(range(25))
    with pytest.raises(EndOfStream):
        source.read()


def test_series_after_series(camera: Bench) -> None:
    source, series = camera(**FAST, start=False), set()
    for _ in range(20):
        source.start()
        frames = read(source, 3)
        assert [(f.stamp.frame, f.stamp.src_frame) for f in frames] == [(0, 0), (1, 1), (2, 2)]
        series |= {f.stamp.series for f in frames}
        source.stop()
    assert len(series) == 20


def test_what_was_taken_before_stop_can_still_be_read(camera: Bench) -> None:
    source = camera(**FAST)
    wait_for(lambda: source.backlog() >= 10)
    source.stop()
    assert not camera.do("isSequenceRunning")
    frames = read_to_end(source)
    assert len(frames) >= 10
    assert numbers(frames) == list(range(len(frames)))


def test_nothing_yet_is_none_after_the_time_allowed(camera: Bench) -> None:
    source = camera(**SIZE, exposure_ms=500.0)
    begin = time.perf_counter()
    assert source.read(0.1) is None
    assert 0.09 < time.perf_counter() - begin < 1.0


def test_a_slow_reader_knows_exactly_what_it_lost(opened: Opened) -> None:
    source = opened(demo_settings(512, 512, mode="Fluorescent Beads", exposure_ms=1.0, buffer_mb=4))
    capacity, lost, last = source.open().capacity, 0, -1
    source.start()
    for _ in range(6):
        wait_for(lambda: source.backlog() > capacity // 2)
        wait_for(lambda: source.backlog() < capacity // 2)  # MMCore has emptied its buffer once more
        for frame in read(source, 2):
            assert frame.stamp.src_frame - last - 1 == frame.stamp.dropped
            lost, last = lost + frame.stamp.dropped, frame.stamp.src_frame
    stats = source.stats()
    assert lost >= 6 * (capacity - 2)
    assert stats.received + stats.dropped == last + 1
    assert (stats.dropped, stats.skipped) == (lost, 0)
    assert stats.wipes >= 5


@pytest.mark.parametrize("limit", [{"policy": "latest"}, {"max_backlog": 5}], ids=str)
def test_a_reader_that_wants_the_newest_skips_and_counts(camera: Bench, limit: dict[str, Any]) -> None:
    source, depth = camera(**FAST, **limit), limit.get("max_backlog", 1)
    read(source, 1)
    wait_for(lambda: (source.stats().skipped if camera.remote else source.backlog()) > 30)
    frames = read(source, 5)
    assert frames[0].stamp.dropped == frames[0].stamp.src_frame - 1 >= 30 - depth
    stats = source.stats()
    assert (stats.received, stats.dropped) == (6, 0)
    assert sum(f.stamp.dropped for f in frames) == frames[-1].stamp.src_frame - 5 <= stats.skipped


def test_the_queue_in_front_of_a_server_drops_the_oldest(rig: StandIn, opened: Opened) -> None:
    source = opened(rig.settings(exposure_ms=1.0, max_backlog=8))
    wait_for(lambda: source.stats().skipped > 20)
    source.stop()
    frames = read_to_end(source)
    assert len(frames) >= 8  # what was still in the camera came after
    assert frames[0].stamp.dropped == frames[0].stamp.src_frame > 20
    stats = source.stats()
    assert stats.received + stats.skipped + stats.dropped == frames[-1].stamp.src_frame + 1


def test_overflow_of_a_finite_series_is_an_error_after_the_last_good_frame(opened: Opened) -> None:
    source = opened(demo_settings(512, 512, mode="Fluorescent Beads", exposure_ms=1.0, buffer_mb=4, n_frames=200))
    wait_for(core().is_buffer_overflowed)
    capacity = source.backlog()
    assert numbers(read(source, capacity)) == list(range(capacity))
    with pytest.raises(SourceOverflow, match=rf"after {capacity} frames of 200.*buffer_mb"):
        source.read()


def test_stop_and_close_from_any_state(opened: Opened) -> None:
    source = MicromanagerSource(demo_settings(**FAST))
    for call in (
        source.stop,
        source.close,
        source.open,
        source.stop,
        source.start,
        source.stop,
        source.stop,
        source.close,
        source.close,
    ):
        call()
    assert source.backlog() == 0
    with pytest.raises(SourceError, match="not open"):
        source.read()
    source.open()
    with pytest.raises(SourceError, match="not been started"):
        source.read()
    source.close()


def test_pulling_costs_a_small_part_of_a_core(opened: Opened) -> None:
    """512 x 512 x 16 bit at 30 fps, copy into a ring included: below 10 % of a core by the puller's own CPU clock."""
    source = opened(demo_settings(512, 512, mode="Fluorescent Beads", exposure_ms=33.3))
    ring = np.zeros((16, 512, 512), np.uint16)
    read(source, 2)
    cpu, begin = time.thread_time_ns(), time.perf_counter_ns()
    pulled = source.stats().pull_cpu_ns
    for k in range(30):
        frame = source.read(5.0)
        assert frame is not None
        np.copyto(ring[k % 16], frame.pixels)
    took = time.perf_counter_ns() - begin
    assert time.thread_time_ns() - cpu < 0.10 * took
    assert 0 < source.stats().pull_cpu_ns - pulled < 0.10 * took


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"properties": ["Camera.Mode"]}, "not Device.Property=value"),
        ({"properties": {"Mode": "Noise"}}, "not Device.Property"),
        ({"policy": "latest", "max_backlog": 4}, "max_backlog 1"),
        ({"backend": "java", "config": "rig.cfg"}, "backend 'python'"),
        ({"exposure": 3}, "unknown exposure"),
    ],
)
def test_settings_are_checked_where_they_are_made(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config.build(MicromanagerSettings, values, "camera")


def test_properties_may_be_written_as_on_a_command_line() -> None:
    settings = config.build(
        MicromanagerSettings, {"properties": ["Camera.Mode=Noise", "Camera.Photon Flux=50"]}, "camera"
    )
    assert settings.properties == {"Camera.Mode": "Noise", "Camera.Photon Flux": "50"}
    assert config.build(MicromanagerSettings, {"properties": {"Camera.Gain": 3}}, "camera").properties == {
        "Camera.Gain": "3"
    }
