"""A microscope for tests: Micro-Manager's demo camera with real MMCore, in this process or behind a stand-in server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pytest

from rtdenoise.errors import EndOfStream
from rtdenoise.frame import Frame
from rtdenoise.sources.base import Source
from rtdenoise.sources.micromanager import MicromanagerSettings, MicromanagerSource
from rtdenoise.sources.micromanager.inprocess import DEMO_CONFIG

HERE = Path(__file__).parent
SIZE: dict[str, Any] = {"width": 64, "height": 48}
FAST: dict[str, Any] = {**SIZE, "exposure_ms": 2.0}
TWO_CAMERAS = """\
Property,Core,Initialize,0
Device,DHub,DemoCamera,DHub
Device,CamA,DemoCamera,DCam
Device,CamB,DemoCamera,DCam
Device,Pair,Utilities,Multi Camera
Parent,CamA,DHub
Parent,CamB,DHub
Property,Core,Initialize,1
Property,CamA,PixelType,16bit
Property,CamB,PixelType,16bit
Property,CamA,OnCameraCCDXSize,64
Property,CamB,OnCameraCCDXSize,64
Property,CamA,OnCameraCCDYSize,48
Property,CamB,OnCameraCCDYSize,48
Property,CamA,Mode,Noise
Property,CamB,Mode,Noise
Property,CamA,Photon Flux,50
Property,CamB,Photon Flux,200
Property,Pair,Physical Camera 1,CamA
Property,Pair,Physical Camera 2,CamB
Property,Core,Camera,Pair
Property,Core,AutoShutter,0
"""
"""Two cameras of different brightness in one stream."""


def need_camera() -> None:
    """Skip where there is no demo camera."""
    pytest.importorskip("pycromanager", reason="pycromanager is not installed (pip install 'rtdenoise[live]')")
    pytest.importorskip(
        "mm_test_adapters", reason="no demo camera: mm-test-adapters has no wheel for this platform (Linux arm64)"
    )


def demo_settings(
    width: int = 256, height: int = 256, mode: str = "Noise", exposure_ms: float = 33.3, **more: Any
) -> MicromanagerSettings:
    """The demo camera; `more` are further settings, `properties` among them."""
    properties = {"Camera.Mode": mode, **more.pop("properties", {})}
    more = {"buffer_mb": 32, "stall_timeout_s": 20.0, **more}
    return MicromanagerSettings(width=width, height=height, exposure_ms=exposure_ms, properties=properties, **more)


def core() -> Any:
    """The core of this process, for playing somebody else who uses the same microscope."""
    import pycromanager

    return pycromanager.Core()


def spot(on: bool, volts: tuple[float, float] = (5.0, 5.0)) -> None:
    """Switch a bright Gaussian blob in the field of view: near (row, column) (140, 143) at 5 V, (44, 48) at 1 V."""
    core().set_galvo_position("Galvo", *volts)
    core().set_galvo_illumination_state("Galvo", on)


def read(source: Source, n_frames: int, timeout_s: float = 20.0) -> list[Frame]:
    """The next `n_frames` frames, with their own copy of the pixels."""
    frames = []
    for _ in range(n_frames):
        frame = source.read(timeout_s)
        assert frame is not None, f"no frame in {timeout_s} s after {len(frames)} of {n_frames}"
        frames.append(Frame(np.array(frame.pixels), frame.stamp))
    return frames


def read_to_end(source: Source, timeout_s: float = 20.0) -> list[Frame]:
    """All frames until the end of the stream."""
    frames = []
    while True:
        try:
            frames += read(source, 1, timeout_s)
        except EndOfStream:
            return frames


def wait_for(what: Any, timeout_s: float = 20.0) -> None:
    """Poll until `what()` is true."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


def numbers(frames: list[Frame]) -> list[int]:
    return [frame.stamp.src_frame for frame in frames]


class StandIn:
    """Micro-Manager with its server on, in another process."""

    def __init__(
        self,
        width: int = 64,
        height: int = 48,
        exposure_ms: float = 10.0,
        *,
        buffer_mb: int = 8,
        port: int = 0,
        config: str | None = None,
        hide: Sequence[str] = (),
    ) -> None:
        """config: instead of the demo camera.  hide: tags that this camera does not write.  port: 0 for a free one."""
        demo = DEMO_CONFIG.replace("XSize,512", f"XSize,{width}").replace("YSize,512", f"YSize,{height}")
        demo = demo.replace("Exposure,33.3", f"Exposure,{exposure_ms}")
        options = {"config": config or demo, "buffer_mb": buffer_mb, "port": port, "hide": list(hide)}
        command = [sys.executable, str(HERE / "standin_server.py"), json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())
        self._geometry = {"OnCameraCCDXSize": width, "OnCameraCCDYSize": height, "PixelType": "16bit", "BitDepth": 16}

    def tidy(self) -> None:
        """The state in which it started, for the next test."""
        self.do("stopSequenceAcquisition")
        self.do("clearROI")
        for name, value in self._geometry.items():
            self.do("setProperty", "Camera", name, str(value))
        self.do("initializeCircularBuffer")

    def do(self, name: str, *arguments: Any) -> Any:
        """Call a method of the core over there, as somebody at its keyboard would."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def kill(self) -> None:
        """End it without a word (SIGKILL; TerminateProcess on Windows)."""
        self._process.kill()
        self._process.wait()

    def settings(self, **more: Any) -> MicromanagerSettings:
        """How to reach it."""
        return MicromanagerSettings(backend="java", port=self.port, **more)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the stand-in server died"
        return line


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


def in_its_own_process(request: pytest.FixtureRequest, timeout_s: float = 120.0) -> bool:
    """True in a child process, where the test should run; False in the parent after the child passed.

    MMCore has been seen to crash when the geometry changes under a running sequence, and an acquisition engine that fails hangs at exit.
    """
    if os.environ.get("RTDENOISE_CHILD_TEST") == request.node.nodeid:
        return True
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        f"{request.node.path}::{request.node.name}",
    ]
    environment = os.environ | {"RTDENOISE_CHILD_TEST": request.node.nodeid}
    root = cast(Path, request.config.rootpath)
    child = subprocess.run(
        command, cwd=root, env=environment, timeout=timeout_s, capture_output=True, text=True, check=False
    )
    assert (child.returncode, "1 passed" in child.stdout) == (0, True), child.stdout + child.stderr
    return False
