"""Frames of other programs, denoised live in the real processes, every one accounted for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rtdenoise.session import Session
from rtdenoise.settings import loopback
from tests.fake_rig import Rig, value
from tests.runs import Listener, copied, free_port, numbered, run_lossless, settings

SHAPE = (16, 24)
IDENTITY = {"model": "identity"}


def test_a_pushed_series_is_denoised_live_and_complete() -> None:
    endpoint = loopback(free_port())
    with Rig("Arrays", endpoint=endpoint, shape=SHAPE, dtype="int16", push=True) as rig:
        rig.do("send", list(range(300)))
        options = {"endpoint": endpoint, "pattern": "pull", "n_frames": 300}
        summary, raw, denoised = run_lossless(settings("zmq", options, engine=IDENTITY), copied)
    assert [number for _, number, _ in raw] == [number for _, number, _ in denoised] == list(range(300))
    assert all((pixels == value(number)).all() for _, number, pixels in denoised)
    assert (summary.acquired, summary.delivered, summary.dropped, summary.in_flight) == (300, 300, {}, 0)


def test_scanimages_channels_are_denoised_live_and_what_it_did_not_send_is_lost_at_the_source() -> None:
    """Every tenth frame is never published; the run says how many are missing and denoises the rest."""
    endpoint = loopback(free_port())
    with Rig("ScanImage", endpoint=endpoint, shape=SHAPE, channels=2, parts="two") as rig:
        rig.do("leave_out", 10)
        rig.do("run", 200)
        options = {"endpoint": endpoint, "n_frames": 150, "queue_frames": 1000}
        patient = {"ring_s": 30.0, "max_backlog_s": 30.0}  # a busy machine is late, and skips nothing
        asked = settings("scanimage", options, engine={"model": "gauss2d-ema"}, **patient)
        denoised = Listener(asked.endpoints.denoised, "denoised", numbered)
        with Session(asked) as session:
            summary = session.run()
        got = denoised.finish()
    assert summary.balanced
    assert summary.error == ""
    assert (summary.delivered, summary.in_flight) == (300, 0)
    lost = summary.dropped["source: lost in the camera buffer"]
    assert summary.acquired == 300 + lost
    assert 30 <= lost <= 34
    assert set(Counter(key for key, _ in got)) == {(0, 0), (1, 0)}
    assert not [number for _, number in got if number % 10 == 0]


def test_the_command_line_takes_the_address_and_says_what_happened(tmp_path: Path) -> None:
    endpoint, report = loopback(free_port()), tmp_path / "run.json"
    command = [sys.executable, "-m", "rtdenoise", "run", "-s", "scanimage", "-o", f"endpoint={endpoint}"]
    command += ["-m", "identity", "--frames", "60", "--fps", "200", "--port", str(free_port()), "--json", str(report)]
    with Rig("ScanImage", endpoint=endpoint, shape=SHAPE) as rig:
        rig.do("run", 200)
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "(balanced)" in run.stdout
    assert json.loads(report.read_text())["delivered"] == 60


def test_a_file_that_is_being_written_is_denoised_to_its_last_frame(tmp_path: Path) -> None:
    path = tmp_path / "series.raw"
    with Rig("RawFile", path=str(path), shape=SHAPE) as rig:
        rig.do("send", list(range(40)))
        asked = settings("follow", {"path": str(path), "height": 16, "width": 24, "idle_s": 0.5}, engine=IDENTITY)
        with Session(asked) as session:
            rig.do("send", list(range(40, 200)))
            summary = session.run()
    assert (summary.acquired, summary.delivered, summary.dropped, summary.error) == (200, 200, {}, "")


def test_a_core_of_this_program_is_denoised_live_and_stays_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymmcore_plus", reason="pymmcore-plus is not installed (pip install 'rtdenoise[plus]')")
    pytest.importorskip("mm_test_adapters", reason="no demo camera: mm-test-adapters has no wheel for this platform")
    from rtdenoise.sources.pymmcore_plus import PymmcorePlusSettings, from_core

    core = demo_core(monkeypatch)
    source = from_core(core, PymmcorePlusSettings(exposure_ms=5.0, n_frames=100))
    asked = settings("pymmcore-plus", {}, engine=IDENTITY)
    with Session(asked, source=source) as session:
        summary = session.run()
    assert (summary.acquired, summary.delivered, summary.dropped) == (100, 100, {})
    assert core.getCameraDevice() == "Camera"


def test_a_scripted_run_keeps_its_frames_and_they_are_denoised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymmcore_plus", reason="pymmcore-plus is not installed (pip install 'rtdenoise[plus]')")
    pytest.importorskip("mm_test_adapters", reason="no demo camera: mm-test-adapters has no wheel for this platform")
    import useq

    from rtdenoise.sources.pymmcore_plus import mda_tap

    core = demo_core(monkeypatch)
    taken: list[np.ndarray] = []
    core.mda.events.frameReady.connect(lambda image, *_: taken.append(image.copy()))
    tap = mda_tap(core)
    tap.start()
    core.mda.run(useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=20)))
    tap.stop()
    tap.check(expected=20)
    frames = [tap.read(1.0) for _ in range(20)]
    assert [f.stamp.src_frame for f in frames if f] == list(range(20))
    assert len(taken) == 20
    assert (frames[-1].pixels == taken[-1]).all()  # type: ignore[union-attr]


def demo_core(monkeypatch: pytest.MonkeyPatch) -> object:
    """A CMMCorePlus with the demo camera, 64 x 48."""
    monkeypatch.setenv("PYMM_SIGNALS_BACKEND", "psygnal")  # another test of this process may have made a Qt application
    from tempfile import TemporaryDirectory

    from mm_test_adapters import device_adapter_path
    from pymmcore_plus import CMMCorePlus

    from rtdenoise.sources.micromanager.inprocess import DEMO_CONFIG

    core = CMMCorePlus(str(device_adapter_path()))
    core.setCircularBufferMemoryFootprint(16)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "demo.cfg"
        file.write_text(DEMO_CONFIG.replace("XSize,512", "XSize,64").replace("YSize,512", "YSize,48"))
        core.loadSystemConfiguration(str(file))
    return core
