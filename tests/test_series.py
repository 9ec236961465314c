"""Trial after trial on one field of view: the calibration is made once, so the level never jumps between series."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from rtdenoise.frame import Frame
from rtdenoise.settings import RunSettings
from rtdenoise.sources.base import SeriesClock, Source, SourceStats, StreamInfo
from rtdenoise.sources.micromanager import MicromanagerSource
from rtdenoise.wire import Message
from tests.mm_rig import demo_settings, in_its_own_process, need_camera
from tests.runs import free_endpoints, run_lossless

SIDE_PX = 96
N_SERIES = 20
N_FRAMES = 300  # ten seconds at 30 frames/s, taken faster
STIMULUS_FRAMES = 24
STRAY_LIGHT = 200
FLUX, EXPOSURE_MS, READ_NOISE = 50.0, 2.0, 2.5
ALLOWED_STEP = 0.02


class StimulatedCamera:
    """The demo camera with stray light of a stimulus on the first frames of every second series."""

    def __init__(self, camera: Source) -> None:
        self._camera = camera
        self._i_series = -1

    @property
    def clock(self) -> SeriesClock:
        return self._camera.clock

    def open(self) -> StreamInfo:
        return self._camera.open()

    def start(self) -> None:
        self._i_series += 1
        self._camera.start()

    def read(self, timeout_s: float = 1.0) -> Frame | None:
        frame = self._camera.read(timeout_s)
        if frame is None or self._i_series % 2 == 0 or frame.stamp.src_frame >= STIMULUS_FRAMES:
            return frame
        return replace(frame, pixels=frame.pixels + np.uint16(STRAY_LIGHT))

    def backlog(self) -> int:
        return self._camera.backlog()

    def stats(self) -> SourceStats:
        return self._camera.stats()

    def stop(self) -> None:
        self._camera.stop()

    def close(self) -> None:
        self._camera.close()


def level(message: Message) -> tuple[str, int, float]:
    return message.frame.stamp.series, message.frame.stamp.src_frame, float(message.frame.pixels.mean())


def levels_of_series(n_series: int, n_sessions: int) -> list[float]:
    """Mean denoised minus raw frame mean of each series after the stimulus; `n_sessions` sessions of `n_series` series each."""
    properties = {"Camera.Photon Flux": str(FLUX), "Camera.ReadNoise (electrons)": str(READ_NOISE)}
    camera = MicromanagerSource(
        demo_settings(SIDE_PX, SIDE_PX, "Noise", EXPOSURE_MS, n_frames=N_FRAMES, properties=properties)
    )
    rig = StimulatedCamera(camera)
    levels: list[float] = []
    for _ in range(n_sessions):
        values = {
            "source": {"n_series": n_series},
            "endpoints": free_endpoints(),
            "engine": {"backend": "openvino-fp32"},
        }
        summary, raw, denoised = run_lossless(RunSettings.model_validate(values), level, source=rig)
        assert (summary.error, summary.balanced) == ("", True)
        assert len(raw) == len(denoised) == n_series * N_FRAMES
        levels += bias_by_series(raw, denoised)
    return levels


def bias_by_series(raw: list[tuple[str, int, float]], denoised: list[tuple[str, int, float]]) -> list[float]:
    biases = defaultdict(list)
    for (series, number, before), (_, _, after) in zip(raw, denoised, strict=True):
        if number >= 2 * STIMULUS_FRAMES:
            biases[series].append(after - before)
    return [float(np.mean(values)) for values in biases.values()]


def largest_step(levels: list[float]) -> float:
    """Largest difference of neighbours, in standard deviations of the raw pixel noise (shot and read noise of the camera model)."""
    noise_sd = float(np.sqrt(READ_NOISE**2 + FLUX * EXPOSURE_MS))
    return float(np.abs(np.diff(levels)).max()) / noise_sd


def test_twenty_series_show_no_step_of_the_frame_mean(request: pytest.FixtureRequest) -> None:
    need_camera()
    if in_its_own_process(request):
        levels = levels_of_series(N_SERIES, 1)
        assert len(levels) == N_SERIES
        assert largest_step(levels) < ALLOWED_STEP


def test_the_step_would_be_seen_if_every_series_were_calibrated_anew(request: pytest.FixtureRequest) -> None:
    need_camera()
    if in_its_own_process(request):
        assert largest_step(levels_of_series(1, 4)) > ALLOWED_STEP
