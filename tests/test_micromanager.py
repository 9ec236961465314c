"""A real camera under real MMCore, in this process and behind the server of a Micro-Manager in another one."""

from __future__ import annotations

import atexit
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdenoise import config
from rtdenoise.errors import (
    ConfigError,
    EndOfStream,
    GeometryChanged,
    MissingExtraError,
    SourceBusy,
    SourceDisconnected,
    SourceError,
    SourceOverflow,
    SourceStalled,
)
from rtdenoise.frame import Frame
from rtdenoise.sources.base import Source
from rtdenoise.sources.micromanager import MicromanagerSettings, MicromanagerSource
from tests.mm_rig import (
    TWO_CAMERAS,
    StandIn,
    core,
    demo_settings,
    in_its_own_process,
    need_camera,
    read,
    read_to_end,
    spot,
    wait_for,
)

SIZE: dict[str, Any] = {"width": 64, "height": 48}
FAST: dict[str, Any] = {**SIZE, "exposure_ms": 2.0}


class Opened:
    """Opens sources; closes them all at the end of a test, whatever happened."""

    def __init__(self) -> None:
        self._sources: list[MicromanagerSource] = []

    def __call__(self, settings: MicromanagerSettings, *, start: bool = True) -> MicromanagerSource:
        source = MicromanagerSource(settings)
        self._sources.append(source)
        source.open()
        if start:
            source.start()
        return source

    def close(self) -> None:
        for source in reversed(self._sources):
            source.close()


class Bench:
    """The same experiment on both backends. `do` is what somebody else does to the same camera, in MMCore's own words."""

    def __init__(self, standin: StandIn | None, opened: Opened) -> None:
        self._standin, self._opened = standin, opened
        self.remote = standin is not None

    def __call__(self, *, start: bool = True, **settings: Any) -> MicromanagerSource:
        return self._opened(
            self._standin.settings(**settings) if self._standin else demo_settings(**settings), start=start
        )

    def join(self, **settings: Any) -> MicromanagerSource:
        """A source that says nothing about the camera."""
        return self._opened(self._standin.settings(**settings) if self._standin else MicromanagerSettings(**settings))

    def do(self, name: str, *arguments: Any) -> Any:
        return self._standin.do(name, *arguments) if self._standin else getattr(core(), name)(*arguments)

    def run(self) -> None:
        self.do("setExposure", 5.0)
        self.do("startContinuousSequenceAcquisition", 0.0)


@pytest.fixture
def opened() -> Iterator[Opened]:
    need_camera()
    sources = Opened()
    yield sources
    sources.close()


@pytest.fixture(scope="module")
def micromanager() -> Iterator[StandIn]:
    """A Micro-Manager with its server on, 64 x 48 pixels."""
    need_camera()
    with StandIn() as standin:
        yield standin


@pytest.fixture
def rig(micromanager: StandIn) -> StandIn:
    micromanager.tidy()
    return micromanager


@pytest.fixture(params=["python", "java"])
def camera(request: pytest.FixtureRequest, micromanager: StandIn, opened: Opened) -> Bench:
    if request.param == "java":
        micromanager.tidy()
    return Bench(micromanager if request.param == "java" else None, opened)


@pytest.fixture
def shared(camera: Bench) -> Bench:
    """A camera that is running because somebody else looks at it."""
    camera(start=False, **SIZE)
    camera.run()
    wait_for(lambda: camera.do("getRemainingImageCount") > 3)
    return camera


def numbers(frames: list[Frame]) -> list[int]:
    return [frame.stamp.src_frame for frame in frames]


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
    assert min(stamp.t_in - stamp.t_src for stamp in stamps) < 100e6
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


def test_a_running_camera_is_left_alone(shared: Bench) -> None:
    with pytest.raises(SourceBusy, match=r"already running.*on_busy"):
        shared.join()
    assert shared.do("isSequenceRunning")
    shared.do("stopSequenceAcquisition")
    assert shared.do("getRemainingImageCount") > 3


def test_attaching_follows_a_running_camera_and_leaves_it_running(shared: Bench) -> None:
    source = shared.join(on_busy="attach")
    frames = read(source, 10)
    assert numbers(frames) == list(range(numbers(frames)[0], numbers(frames)[0] + 10))
    assert frames[0].stamp.dropped == 0
    source.stop()
    read_to_end(source)
    source.close()
    assert shared.do("isSequenceRunning")
    shared.do("stopSequenceAcquisition")


def test_the_owner_ends_a_stream_that_we_attached_to(shared: Bench) -> None:
    source = shared.join(on_busy="attach")
    read(source, 2)
    shared.do("stopSequenceAcquisition")
    read_to_end(source)


def test_attaching_refuses_to_change_the_camera(shared: Bench) -> None:
    with pytest.raises(SourceBusy, match="leave them out to attach"):
        shared.join(on_busy="attach", exposure_ms=7.0)
    shared.do("stopSequenceAcquisition")


def test_somebody_else_is_stopped_only_when_we_are_told_to(shared: Bench) -> None:
    assert numbers(read(shared.join(on_busy="stop"), 3)) == [0, 1, 2]


def test_a_camera_that_somebody_stops_is_an_error_that_says_so(camera: Bench) -> None:
    source = camera(**FAST)
    read(source, 5)
    camera.do("stopSequenceAcquisition")
    with pytest.raises(SourceError, match="stopped by somebody else after"):
        read(source, 10_000)
    source.start()
    assert numbers(read(source, 2)) == [0, 1]


def test_a_camera_that_somebody_restarts_is_an_error(camera: Bench) -> None:
    source = camera(**FAST)
    read(source, 20)
    camera.do("stopSequenceAcquisition")
    camera.do("startContinuousSequenceAcquisition", 0.0)
    with pytest.raises(SourceError, match="somebody restarted"):
        read(source, 10_000)


def test_a_silent_camera_is_reported_and_the_stream_goes_on(camera: Bench) -> None:
    source = camera(**SIZE, exposure_ms=5.0, stall_timeout_s=0.15)
    read(source, 3)
    camera.do("setExposure", 1000.0)
    with pytest.raises(SourceStalled, match="sent nothing"):
        read(source, 1000, timeout_s=5.0)
    camera.do("setExposure", 5.0)
    seen: list[Frame] = []

    def more() -> bool:
        with contextlib.suppress(SourceStalled):
            seen.extend(frame for frame in [source.read(0.1)] if frame is not None)
        return len(seen) > 3

    wait_for(more)
    assert all(b - a == 1 for a, b in pairwise(numbers(seen)))


def test_a_region_of_interest_set_while_running_is_a_change_of_geometry(
    request: pytest.FixtureRequest, opened: Opened
) -> None:
    if not in_its_own_process(request):
        return
    source = opened(demo_settings(**FAST))
    read(source, 3)
    core().set_roi(0, 0, 32, 32)
    with pytest.raises(GeometryChanged, match="open"):
        read(source, 10_000)
    source.stop()
    with pytest.raises(GeometryChanged):
        source.start()
    assert source.open().shape == (32, 32)


def test_a_sensor_size_set_while_running_is_a_change_of_geometry(
    request: pytest.FixtureRequest, opened: Opened
) -> None:
    if not in_its_own_process(request):
        return
    source = opened(demo_settings(**FAST))
    read(source, 3)
    core().set_property("Camera", "OnCameraCCDXSize", "32")
    with pytest.raises(GeometryChanged, match="Camera"):
        read(source, 10_000)
    source.close()


def test_a_killed_micromanager_is_noticed_within_seconds_and_can_be_opened_again(opened: Opened) -> None:
    with StandIn() as rig:
        source = opened(rig.settings())
        read(source, 5)
        rig.kill()
        begin = time.perf_counter()
        with pytest.raises(SourceDisconnected, match="went away"):
            read(source, 10_000)
        assert time.perf_counter() - begin < 4.0
        source.stop()
        source.close()
        assert time.perf_counter() - begin < 8.0
        with pytest.raises(SourceDisconnected, match="no Micro-Manager server"):
            source.open()
    with StandIn(port=rig.port) as again:
        source.open()
        source.start()
        assert numbers(read(source, 3)) == [0, 1, 2]
        source.close()
        assert again.do("objects") == 0


def test_the_micromanager_we_visited_is_as_it_was(rig: StandIn, opened: Opened) -> None:
    source = opened(rig.settings())
    assert rig.do("stateCache") is False
    hooks = atexit._ncallbacks()
    read(source, 20)
    assert atexit._ncallbacks() == hooks  # pyjavaz would leave one behind per frame
    source.close()
    assert rig.do("stateCache") is True
    assert rig.do("objects") == 0
    assert not [t.name for t in threading.enumerate() if str(rig.port) in t.name]


def test_no_server_is_one_clear_line(opened: Opened) -> None:
    with StandIn() as rig:
        port = rig.port
    with pytest.raises(SourceDisconnected, match=rf"no Micro-Manager server on 127.0.0.1:{port}.*Tools > Options"):
        opened(MicromanagerSettings(backend="java", port=port))


def test_a_port_of_another_program_is_one_clear_line(opened: Opened) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(SourceDisconnected, match="does not answer as Micro-Manager"),
    ):
        opened(MicromanagerSettings(backend="java", port=other.getsockname()[1]))


def test_both_backends_in_one_process_are_refused(rig: StandIn, opened: Opened) -> None:
    opened(demo_settings(**SIZE))
    with pytest.raises(SourceBusy, match="backend python"):
        opened(rig.settings())


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"Camera.Nope": "1"}, "Camera.Nope=1 was refused"),
        ({"Nope.Gain": "1"}, 'No device with label "Nope"'),
        ({"Camera.Mode": "x"}, "Mode"),
    ],
)
def test_a_property_that_cannot_be_set_is_named(camera: Bench, properties: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        camera(properties=properties)


def test_a_missing_configuration_is_named(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rig\.cfg: no such configuration file"):
        opened(MicromanagerSettings(config=tmp_path / "rig.cfg"))
    with pytest.raises(ConfigError, match="no such folder"):
        opened(MicromanagerSettings(mm_path=tmp_path / "Micro-Manager"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Device,A,Nope,DCam\n", "Nope"),
        ("Device,A,DemoCamera,Nope\n", "failed to instantiate"),
        ("Property,Core,Initialize,1\n", "no camera; load one"),
    ],
)
def test_a_broken_configuration_is_one_line(opened: Opened, tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "rig.cfg"
    file.write_text(text)
    with pytest.raises(SourceError, match=problem) as caught:
        opened(MicromanagerSettings(config=file))
    assert "\n" not in str(caught.value)
    assert opened(demo_settings(**SIZE), start=False).open().shape == (48, 64)


def test_the_wrong_device_interface_names_the_right_pymmcore(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    import pycromanager

    def refuse(*_: object, **__: object) -> None:
        raise OSError(
            "Line 2: Device,DHub\nIncompatible device interface version (MMCore requires 75; device adapter has 74)"
        )

    monkeypatch.setattr(pycromanager, "start_headless", refuse)
    with pytest.raises(SourceError, match=r'pip install "pymmcore==11\.10\.0\.74\.\d"'):
        opened(demo_settings())


def test_without_pycromanager_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycromanager", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rtdenoise\[live\]'"):
        MicromanagerSource(MicromanagerSettings()).open()


def test_another_configuration_in_the_same_process_is_refused(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "two.cfg"
    file.write_text(TWO_CAMERAS)
    opened(demo_settings(**SIZE))
    with pytest.raises(SourceBusy, match="another Micro-Manager configuration"):
        opened(MicromanagerSettings(config=file))


def test_a_core_that_a_script_has_started_is_used_and_stays(opened: Opened) -> None:
    owner = opened(demo_settings(**SIZE), start=False)
    guest = opened(MicromanagerSettings(exposure_ms=3.0))
    assert numbers(read(guest, 2)) == [0, 1]
    guest.close()
    owner.start()
    assert numbers(read(owner, 2)) == [0, 1]


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


def test_closing_while_another_thread_reads_hurts_nobody(camera: Bench) -> None:
    source, ended = camera(**FAST), threading.Event()

    def reader() -> None:
        try:
            while True:
                source.read(0.05)
        except (SourceError, EndOfStream):
            ended.set()

    thread = threading.Thread(target=reader)
    read(source, 5)
    thread.start()
    source.close()
    thread.join(10)
    assert ended.is_set()


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
