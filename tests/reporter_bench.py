"""A run as its reporter sees it: a real ring and a real endpoint, a clock that a test moves, and no processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtdenoise.alarms import QUIET_S
from rtdenoise.denoise import Ready
from rtdenoise.frame import Frame, FrameStamp, StreamInfo
from rtdenoise.logbook import Logbook
from rtdenoise.publish import StatusPublisher
from rtdenoise.reporter import Reporter
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot, State
from rtdenoise.status import AnyStatus, StatusMessage
from rtdenoise.subscribe import StatusSubscriber

READY = Ready("denoising", 1, 1.0, 0, "hop 1", "filter", "identity", ())
SERIES = "0123456789abcdef" * 2
SLOTS = 100


@dataclass
class Clock:
    """Time that goes on only when a test says so; it takes the place of the module."""

    now_s: float = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def perf_counter_ns(self) -> int:
        return time.perf_counter_ns()


@dataclass
class Rig:
    """A run as its reporter sees it, without the processes."""

    clock: Clock
    ring: SharedRing
    reporter: Reporter
    listener: StatusSubscriber
    log: Logbook
    calibrations: dict[tuple[int, int], tuple[float, float]]

    def take(self, n_frames: int, contrast: float = 10.0) -> None:
        """Frames arrive, and each is looked at, delivered and settled."""
        ring, ints = self.ring, self.ring.ints
        rng = np.random.default_rng(ring.head)
        for _ in range(n_frames):
            pixels = rng.normal(1000, contrast, ring.info.shape).astype(np.uint16)
            number = ring.head
            ring.write(Frame(pixels, FrameStamp(SERIES, number, number, 0, 0)), epoch_ns=0)
            ring.settle(number)
            ints[Slot.ACQUIRED] += 1
            ints[Slot.DELIVERED] += 1
            ints[Slot.TAIL] = ints[Slot.RAW_UPTO] = ring.head

    def fall_behind(self, n_frames: int) -> None:
        """As many frames wait for the denoiser."""
        self.ring.ints[Slot.RAW_UPTO] = self.ring.head - n_frames

    def says(self) -> StatusMessage:
        """The next status message, out of turn or when its second is over."""
        for _ in range(1000):
            if isinstance(message := self._said(), StatusMessage):
                return message
        raise AssertionError("it said nothing")

    def is_quiet(self) -> bool:
        """Whether nothing is said before its turn."""
        return self._said() is None

    def _said(self) -> AnyStatus | None:
        self.clock.now_s += 2 * QUIET_S
        self.reporter.tick()
        return self.listener.read(0.004)


def rig_of(clock: Clock, folder: Path, live: bool = True, **asked: Any) -> Iterator[Rig]:
    info = StreamInfo("test", (32, 32), "uint16", frame_interval_s=0.01, live=live)
    settings, calibrations, log = RunSettings(**asked), {}, Logbook(folder / "logs")
    ring = SharedRing.create(folder / "test.ring", info, SLOTS)
    ring.ints[Slot.STATE] = State.RUNNING
    with StatusPublisher("tcp://127.0.0.1:*") as publisher, StatusSubscriber(publisher.endpoint) as listener:
        speaker = Reporter(ring, publisher, READY, settings, calibrations, log)
        rig = Rig(clock, ring, speaker, listener, log, calibrations)
        rig.take(1)
        rig.says()  # until the subscriber is connected
        yield rig
    ring.close()
