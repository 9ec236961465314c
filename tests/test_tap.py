"""A scripted acquisition keeps every image it takes while somebody denoises them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdenoise.config import build
from rtdenoise.errors import ConfigError, EndOfStream, GeometryChanged, SourceError, SourceOverflow, SourceStalled
from rtdenoise.session import Session
from rtdenoise.settings import RunSettings
from rtdenoise.shared import State
from rtdenoise.sources.base import Source
from rtdenoise.sources.tap import AcquisitionTap
from tests.mm_rig import demo_settings, in_its_own_process, need_camera, read, read_to_end
from tests.runs import Listener, copied, free_endpoints

SHAPE = (6, 8)


def numbered(k: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.full(SHAPE, k, np.uint16)


def started(**settings: Any) -> AcquisitionTap:
    tap = AcquisitionTap(AcquisitionTap.Settings(**settings))
    tap.start()
    return tap


def test_a_tap_is_a_source() -> None:
    assert isinstance(AcquisitionTap(), Source)


def test_image_and_metadata_go_through_untouched() -> None:
    image, metadata = numbered(7), {"Axes": {"time": 0}}
    out = started()(image, metadata)
    assert out[0] is image
    assert out[1] is metadata
    assert metadata == {"Axes": {"time": 0}}
    assert (image == 7).all()


def test_every_image_comes_out_once_in_order_as_its_own_copy() -> None:
    tap, image = started(), numbered(0)
    for k in range(20):
        image[:] = k
        tap(image, {})
    tap.stop()
    frames = read_to_end(tap)
    assert [int(f.pixels[0, 0]) for f in frames] == list(range(20))
    assert [(f.stamp.frame, f.stamp.src_frame, f.stamp.dropped) for f in frames] == [(k, k, 0) for k in range(20)]
    assert {f.stamp.series for f in frames} == {tap.clock.series}


def test_a_slow_reader_loses_the_oldest_and_knows_how_many() -> None:
    tap = started(queue_frames=4)
    for k in range(10):
        tap(numbered(k), {})
    tap.stop()
    frames = read_to_end(tap)
    assert [int(f.pixels[0, 0]) for f in frames] == [6, 7, 8, 9]
    assert [f.stamp.dropped for f in frames] == [6, 0, 0, 0]
    assert (tap.stats().received, tap.stats().skipped, tap.stats().dropped) == (4, 6, 0)
    tap.check(10)


def test_a_frame_in_the_readers_hand_is_not_overwritten() -> None:
    tap = started(queue_frames=2)
    tap(numbered(1), {})
    held = tap.read()
    assert held is not None
    for k in range(2, 9):
        tap(numbered(k), {})
    assert (held.pixels == 1).all()


def test_planes_and_channels_are_told_apart() -> None:
    tap = started()
    for k in range(8):
        tap(numbered(k), {"Axes": {"time": k // 4, "z": k % 2, "channel": "AB"[k // 2 % 2]}, "Camera": "Camera"})
    tap.stop()
    assert [(f.stamp.channel, f.stamp.plane, f.stamp.src_frame) for f in read_to_end(tap)] == [
        (k // 2 % 2, k % 2, k // 4) for k in range(8)
    ]


def test_images_between_open_and_start_belong_to_the_series() -> None:
    tap = AcquisitionTap()
    tap(numbered(1), {})
    assert tap.open().shape == SHAPE
    tap.start()
    tap(numbered(2), {})
    tap.stop()
    assert [int(f.pixels[0, 0]) for f in read_to_end(tap)] == [1, 2]


def test_each_start_is_a_new_series() -> None:
    tap, series = started(), set()
    for _ in range(20):
        tap.start()
        tap(numbered(3), {})
        tap.stop()
        (frame,) = read_to_end(tap)
        assert (frame.stamp.frame, frame.stamp.src_frame) == (0, 0)
        series.add(frame.stamp.series)
    assert len(series) == 20


def test_open_tells_the_geometry_without_waiting_when_it_is_given() -> None:
    tap = AcquisitionTap(AcquisitionTap.Settings(height=6, width=8, dtype="uint8"))
    info = tap.open()
    assert (info.shape, info.dtype) == (SHAPE, "uint8")
    with pytest.raises(ConfigError, match="both height and width"):
        build(AcquisitionTap.Settings, {"height": 6}, "tap")


def test_open_gives_up_when_no_acquisition_calls() -> None:
    with pytest.raises(SourceStalled, match="image_process_fn=tap"):
        AcquisitionTap(AcquisitionTap.Settings(first_image_s=0.01)).open()


def test_a_stall_is_reported_and_the_series_goes_on() -> None:
    tap = started(stall_timeout_s=0.01)
    with pytest.raises(SourceStalled):
        tap.read(0.02)
    tap(numbered(5), {})
    (frame,) = read(tap, 1)
    assert int(frame.pixels[0, 0]) == 5


@pytest.mark.parametrize(
    "odd", [np.zeros((3, 3), np.uint16), np.zeros(SHAPE, np.uint8), np.zeros((*SHAPE, 3), np.uint16)]
)
def test_another_geometry_is_the_readers_problem_and_not_the_acquisitions(odd: np.ndarray[Any, Any]) -> None:
    tap = started()
    tap(numbered(1), {})
    assert tap(odd, {})[0] is odd
    assert len(read(tap, 1)) == 1
    with pytest.raises(GeometryChanged):
        tap.read()
    tap.check(2)


def test_odd_metadata_never_aborts_an_acquisition() -> None:
    tap = started()
    tap(numbered(1), {"Axes": {"z": "top"}})
    with pytest.raises(SourceError, match="could not be copied"):
        tap.read()


def test_the_end_says_what_is_missing() -> None:
    tap = started()
    tap(numbered(1), {})
    tap.stop()
    with pytest.raises(SourceOverflow, match="1 of 300"):
        tap.check(300)
    with pytest.raises(SourceError, match="1 images, 0 were expected"):
        tap.check(0)
    tap.check(1)


def test_stop_and_close_from_any_state() -> None:
    tap = AcquisitionTap()
    for call in (tap.stop, tap.close, tap.close, tap.stop):
        call()
    with pytest.raises(EndOfStream):
        tap.read()


def test_a_scripted_acquisition_stores_every_frame_while_they_are_denoised(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """300 of 300 images are in the NDTiff file, bit-identical to what the denoising session published as raw."""
    need_camera()
    if not in_its_own_process(request):
        return
    from pycromanager import Acquisition, multi_d_acquisition_events

    from rtdenoise.sources.micromanager import MicromanagerSource

    tap = AcquisitionTap(AcquisitionTap.Settings(queue_frames=320, height=64, width=96))
    asked = RunSettings.model_validate({"endpoints": free_endpoints(), "engine": {"hop": 1}, "policy": "lossless"})
    raw = Listener(asked.endpoints.raw, "raw", copied)
    denoised = Listener(asked.endpoints.denoised, "denoised", copied)
    with (
        MicromanagerSource(demo_settings(width=96, height=64, exposure_ms=10.0)),
        Session(asked, source=tap) as session,
    ):
        while session.ring is None or session.ring.state != State.RUNNING:
            assert session.poll()
        with Acquisition(directory=str(tmp_path), name="scripted", image_process_fn=tap) as acquisition:
            acquisition.acquire(multi_d_acquisition_events(num_time_points=300, time_interval_s=0))
        tap.stop()
        summary = session.run()
        tap.check(300)
        dataset = acquisition.get_dataset()
        stored = [dataset.read_image(time=k) for k in range(300)]
        dataset.close()
    seen = {number: pixels for _, number, pixels in raw.finish()}
    smooth = {number: pixels for _, number, pixels in denoised.finish()}
    assert (summary.acquired, summary.delivered, summary.dropped) == (300, 300, {})
    assert len({s.tobytes() for s in stored}) == 300
    assert len(seen) > 250  # a preview may miss its first frames while it connects
    assert all(np.array_equal(stored[number], pixels) for number, pixels in seen.items())
    assert np.std(smooth[200]) < 0.5 * np.std(stored[200])
