"""The main job on any machine: a (simulated) microscope, the denoiser and, where there is a display, the viewer."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rtdenoise.bundle import DEMO
from rtdenoise.errors import ConfigError, MissingExtraError, RtDenoiseError
from rtdenoise.frame import Pixels
from rtdenoise.live import ctrl_c_stops, show
from rtdenoise.session import Session
from rtdenoise.settings import Endpoints, EngineSettings, RunSettings, SourceChoice
from rtdenoise.subscribe import Subscriber
from rtdenoise.succession import POLL_S
from rtdenoise.viewer import app as viewer

RATES_HZ = (30.0, 15.0, 5.0)
"""The first that this computer can denoise at is shown, so that a slow one still shows what it can."""
SIDE_PX = 256
CAMERAS = ("simulator", "micromanager")
FLICKER_LAG = 8
"""Frames this far apart share no block of the demo model, so that their difference is not flattered by it."""
ENLARGE = 2
GAP_PX = 8


def run(console: Console, *, seconds: float, camera: str, display: bool, port: int, png: Path) -> None:
    """Show raw and denoised frames until the viewer is closed; without a display, write a picture and the figures.

    Raises ConfigError for an unknown camera, and whatever a run can raise.
    """
    if camera not in CAMERAS:
        raise ConfigError(f"unknown camera {camera!r}; known: {', '.join(CAMERAS)}")
    ends = Endpoints.from_port(port)
    show_window = display and has_display()
    for rate_hz in RATES_HZ:
        settings = RunSettings(
            source=microscope(camera, rate_hz),
            engine=EngineSettings(model=DEMO),
            endpoints=ends,
            duration_s=None if show_window else seconds,
        )
        console.print(f"{camera}, {SIDE_PX} x {SIDE_PX} at {rate_hz:.0f} frames/s, model {DEMO}", highlight=False)
        with Session(settings, lambda line: console.print(line, markup=False, highlight=False)) as session:
            if session.ready is not None and session.ready.hop == 0 and rate_hz != RATES_HZ[-1]:
                continue
            with ctrl_c_stops(session):
                if show_window:
                    _with_window(console, session, ends)
                else:
                    _without_window(console, session, ends, png)
            summary = session.summary()
        break
    show(console, summary)
    if summary.error:
        raise RtDenoiseError(summary.error)


def microscope(camera: str, rate_hz: float) -> SourceChoice:
    """A simulated two-photon microscope, or Micro-Manager's demo camera with its photon noise."""
    if camera == "simulator":
        movie = {"mode": "calcium", "shape": [SIDE_PX, SIDE_PX], "fps": rate_hz, "snr_db": 3.0, "n_unique": 150}
        return SourceChoice(name="synthetic", options=movie)
    noise = {"Camera.Mode": "Noise"}
    chip = {"width": SIDE_PX, "height": SIDE_PX, "exposure_ms": 1000 / rate_hz, "properties": noise}
    return SourceChoice(name="micromanager", options=chip)


def has_display() -> bool:
    """Whether a window can be opened here."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def before_after(raw: Pixels, denoised: Pixels) -> NDArray[np.uint8]:
    """Grey picture of raw (left) and denoised (right) at one contrast, enlarged; levels are the raw frame's 1 and 99.7 percentiles."""
    low, high = np.percentile(np.asarray(raw, np.float32), (1.0, 99.7))
    panes = [np.clip((np.asarray(p, np.float32) - low) / max(high - low, 1e-6), 0, 1) * 255 for p in (raw, denoised)]
    large = [np.kron(pane.astype(np.uint8), np.ones((ENLARGE, ENLARGE), np.uint8)) for pane in panes]
    gap = np.full((large[0].shape[0], GAP_PX), 255, np.uint8)
    return np.concatenate([large[0], gap, large[1]], axis=1)


def _with_window(console: Console, session: Session, ends: Endpoints) -> None:
    window = multiprocessing.get_context("spawn").Process(
        target=viewer.main, args=(ends.raw, ends.denoised, ends.status), daemon=True
    )
    window.start()
    console.print("close the window or press Ctrl-C to end", highlight=False)
    while session.poll():
        if not window.is_alive():
            session.stop()
        time.sleep(POLL_S)
    window.terminate()


def _without_window(console: Console, session: Session, ends: Endpoints, png: Path) -> None:
    pairs = _Pairs(ends)
    try:
        while session.poll():
            pairs.look()
            time.sleep(POLL_S)
    finally:
        pairs.close()
    if pairs.newest is None:
        why = session.ready.reason if session.ready else ""
        raise RtDenoiseError(f"no denoised frame came ({why}); run: rtdenoise doctor")
    raw, denoised, first_s = pairs.newest
    png.write_bytes(_codec().png_encode(before_after(raw, denoised)))
    console.print(f"first denoised frame {first_s:.1f} s after the start; before | after -> {png}", highlight=False)
    console.print(f"noise between frames: raw {pairs.noise('raw'):.1f}, denoised {pairs.noise('denoised'):.1f} counts")


class _Pairs:
    """The newest frame that arrived on both streams, and how much each stream flickers."""

    def __init__(self, ends: Endpoints) -> None:
        self.newest: tuple[Pixels, Pixels, float] | None = None
        self._began = time.monotonic()
        self._first_s = 0.0
        self._streams = {"raw": Subscriber(ends.raw, stream="raw"), "denoised": Subscriber(ends.denoised)}
        self._raw: dict[int, Pixels] = {}
        self._before: dict[str, deque[Pixels]] = {name: deque(maxlen=FLICKER_LAG) for name in self._streams}
        self._flicker: dict[str, list[float]] = {"raw": [], "denoised": []}

    def look(self) -> None:
        """Take what has come."""
        while (message := self._streams["raw"].read(0)) is not None:
            self._raw[message.frame.stamp.src_frame] = message.frame.pixels
            self._note("raw", message.frame.pixels)
            while len(self._raw) > 64:
                del self._raw[next(iter(self._raw))]
        while (message := self._streams["denoised"].read(0)) is not None:
            self._note("denoised", message.frame.pixels)
            raw = self._raw.get(message.frame.stamp.src_frame)
            if raw is not None:
                self._first_s = self._first_s or time.monotonic() - self._began
                self.newest = (raw, message.frame.pixels, self._first_s)

    def noise(self, stream: str) -> float:
        """Median of the standard deviation of the difference of frames FLICKER_LAG apart, / sqrt 2, in counts."""
        return float(np.median(self._flicker[stream])) if self._flicker[stream] else 0.0

    def close(self) -> None:
        """Disconnect."""
        for subscriber in self._streams.values():
            subscriber.close()

    def _note(self, stream: str, pixels: Pixels) -> None:
        before = self._before[stream]
        if len(before) == FLICKER_LAG:
            difference = np.asarray(pixels, np.float32) - np.asarray(before[0], np.float32)
            self._flicker[stream].append(float(difference.std()) / np.sqrt(2))
        before.append(pixels)


def _codec() -> Any:
    try:
        import imagecodecs
    except ImportError:
        raise MissingExtraError("imagecodecs", "live") from None
    return imagecodecs
