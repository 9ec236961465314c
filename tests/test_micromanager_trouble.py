"""What a Micro-Manager camera can do to a stream, and the one clear line that says so."""

from __future__ import annotations

import atexit
import contextlib
import socket
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from rtdenoise.errors import (
    ConfigError,
    EndOfStream,
    GeometryChanged,
    MissingExtraError,
    SourceBusy,
    SourceDisconnected,
    SourceError,
    SourceStalled,
)
from rtdenoise.frame import Frame
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
    in_its_own_process,
    numbers,
    read,
    read_to_end,
    wait_for,
)

pytest_plugins = ("tests.mm_bench",)


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


def test_a_geometry_that_somebody_changes_while_running_is_an_error(
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
    source = opened(demo_settings(**FAST))
    read(source, 3)
    core().set_roi(0, 0, 32, 32)
    with pytest.raises(GeometryChanged, match="open"):
        read(source, 10_000)
    source.stop()
    with pytest.raises(GeometryChanged):
        source.start()
    assert source.open().shape == (32, 32)
    source.start()
    assert read(source, 1)[0].pixels.shape == (32, 32)


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
