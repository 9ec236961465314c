"""The process that takes frames from the source and writes them to the shared ring. Nothing downstream can stop it."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rtdenoise import config, registry
from rtdenoise.errors import EndOfStream, GeometryChanged, RtDenoiseError, SourceStalled
from rtdenoise.frame import Frame, FrameStamp, StreamInfo, check_frame
from rtdenoise.settings import RunSettings, SourceChoice
from rtdenoise.shared import SharedRing, Slot, State
from rtdenoise.sources.base import Source, Speaks

if TYPE_CHECKING:
    from rtdenoise.recording.recorder import Recorder

READ_TIMEOUT_S = 0.05
"""A stop request is honoured within 100 ms."""
MIN_SLOTS = 16
MIN_SLOTS_LOSSLESS = 64
NAP_S = 0.0005
LATE_FRAMES = 64
"""A frame at most so far behind came late or twice; one further behind begins a new count. Engineering choice."""
SWITCH_S = 0.0005
"""Longest that a frame waits for Python while the recorder's thread has it; 5 ms by default. Engineering choice."""


def open_source(choice: SourceChoice) -> Source:
    """The chosen source, not yet opened. Raises ConfigError for an unknown source or option."""
    kind = registry.load(registry.SOURCES, choice.name)
    source: Source = kind(config.build(kind.Settings, choice.options, f"source {choice.name}"))
    return source


def ring_capacity(settings: RunSettings, info: StreamInfo) -> int:
    """Slots of the shared ring: `ring_s` seconds of frames, within `ring_mb`."""
    frame_bytes = info.shape[0] * info.shape[1] * np.dtype(info.dtype).itemsize
    per_second = info.fps or 100.0
    wanted = max(MIN_SLOTS_LOSSLESS, round(settings.ring_s * per_second))
    needed = max(MIN_SLOTS, 2 * settings.engine.calibration_frames * info.channels * info.planes)
    return max(needed, min(wanted, (settings.ring_mb << 20) // frame_bytes))


def main(settings: RunSettings, ring_path: Path, wake: Semaphore, say: Connection) -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    if settings.record is not None:
        sys.setswitchinterval(SWITCH_S)
    serve(lambda: open_source(settings.source), settings, ring_path, wake, say)


def serve(make: Callable[[], Source], settings: RunSettings, ring_path: Path, wake: Semaphore, say: Connection) -> None:
    """Take every series of a source. Says ('opened', name), ('error', type, message) or ('ended', None) to the session."""
    voice = _Voice(say)
    try:
        source = make()
        if isinstance(source, Speaks):
            source.say = voice.note
        try:
            info = source.open()
            ring = SharedRing.create(ring_path, info, ring_capacity(settings, info))
            with contextlib.ExitStack() as recording:
                recorder = _recorder(settings, ring, voice)
                voice.say("opened", info.name)
                if recorder is not None:
                    recording.enter_context(recorder)
                _Acquisition(settings, source, ring, wake, voice.note).run()
        finally:
            source.close()
    except RtDenoiseError as error:
        voice.say("error", type(error).__name__, str(error))
    else:
        voice.say("ended", None)


class _Voice:
    """What the acquisition and the recorder, each in its thread, have to tell the session."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def say(self, *message: object) -> None:
        with self._lock, contextlib.suppress(OSError):  # a session that is gone hears nothing any more
            self._pipe.send(message)

    def note(self, line: str) -> None:
        """A line for a person."""
        self.say("note", line)


def _recorder(settings: RunSettings, ring: SharedRing, voice: _Voice) -> Recorder | None:
    if settings.record is None:
        return None
    from rtdenoise.recording.recorder import Recorder

    return Recorder(settings.record, settings, ring, voice.note)


class _Acquisition:
    """Series after series, from the source into the ring."""

    def __init__(
        self, settings: RunSettings, source: Source, ring: SharedRing, wake: Semaphore, note: Callable[[str], None]
    ) -> None:
        self._settings, self._source, self._ring, self._wake, self._note = settings, source, ring, wake, note
        self._stalled = False
        self._last_src: dict[tuple[int, int], int] = {}
        self._began_again = False
        self._deadline: float | None = None
        # A file can wait; a camera cannot.
        self._holds_back = settings.lossless or not ring.info.live

    def run(self) -> None:
        """Take every series. What went wrong is left in the ring's state and raised; frames already taken stay."""
        final = State.ENDED
        try:
            self._wait_for_go()
            if self._settings.duration_s is not None:
                self._deadline = time.monotonic() + self._settings.duration_s
            for _ in range(self._settings.source.n_series):
                if self._stopping():
                    break
                self._take_series()
        except RtDenoiseError:
            final = State.FAILED
            raise
        finally:
            self._ring.end_series()
            self._ring.ints[Slot.STATE] = final
            self._wake.release()

    def _take_series(self) -> None:
        self._last_src.clear()
        self._source.start()
        lost_before = self._lost_in_source() - _said_lost(self._source)
        self._ring.ints[Slot.STATE] = State.RUNNING
        try:
            with contextlib.suppress(EndOfStream):
                while not self._stopping():
                    self._take_frame()
        finally:
            self._source.stop()
            self._count_unseen(lost_before)
            if trouble := self._source.stats().trouble():
                self._note(f"{self._ring.info.name}: {trouble}")
            self._ring.end_series()
            self._wake.release()

    def _take_frame(self) -> None:
        if self._holds_back and not self._has_room():
            return
        cpu = time.thread_time_ns()
        frame = self._read()
        arrived = time.perf_counter_ns()
        if frame is not None:
            self._write(frame)
            copied = time.perf_counter_ns()
            self._wake.release()  # the reader may take our core at once
            self._ring.latency["copy"].add(copied - arrived)
        self._ring.ints[Slot.PULL_CPU_NS] += time.thread_time_ns() - cpu

    def _read(self) -> Frame | None:
        """The next frame. A silent source is said once, and waited for: a laser that is off or a paused scan is no end."""
        try:
            frame = self._source.read(READ_TIMEOUT_S)
        except SourceStalled as stall:
            if not self._stalled:
                self._note(str(stall))
            self._stalled = True
            return None
        if frame is not None and self._stalled:
            self._stalled = False
            self._note("frames are coming again")
        return frame

    def _write(self, frame: Frame) -> None:
        ints, stamp = self._ring.ints, frame.stamp
        if self._came_late(stamp):
            self._ring.count_drop("acquire: came late or twice")
            ints[Slot.ACQUIRED] += 1
            return
        missing = self._missing_before(frame)
        lost = min(stamp.dropped, missing)
        self._ring.count_drop("source: lost in the camera buffer", lost)
        self._ring.count_drop("source: skipped by policy", missing - lost)
        ints[Slot.ACQUIRED] += 1 + missing
        try:
            check_frame(frame.pixels, self._ring.info.shape, self._ring.info.dtype)
        except GeometryChanged:
            self._ring.count_drop("acquire: bad frame")
            raise
        missing = missing or int(self._began_again)
        if missing != stamp.dropped:
            frame = frame.restamped(dropped=missing)
        self._ring.write(frame, self._source.clock.epoch_ns)

    def _came_late(self, stamp: FrameStamp) -> bool:
        """Whether a later frame of this channel and plane was there before: no window may hold it any more.

        A number that is far behind is a camera that counts from the beginning again, behind a hole of unknown length.
        """
        behind = self._last_src.get(stamp.key, -1) - stamp.src_frame
        self._began_again = behind >= LATE_FRAMES
        return 0 <= behind < LATE_FRAMES

    def _missing_before(self, frame: Frame) -> int:
        """Camera numbers of this channel and plane that never reached us, whatever the reason."""
        key, number = frame.stamp.key, frame.stamp.src_frame
        previous = self._last_src.get(key)
        self._last_src[key] = number
        if previous is None:
            return frame.stamp.dropped
        return max(0, number - previous - 1)

    def _count_unseen(self, lost_before: int) -> None:
        """Frames that the source lost after the last one it gave us."""
        unseen = max(0, _said_lost(self._source) - (self._lost_in_source() - lost_before))
        self._ring.count_drop("source: lost in the camera buffer", unseen)
        self._ring.ints[Slot.ACQUIRED] += unseen
        self._ring.ints[Slot.SUSPECT] = self._source.stats().suspect

    def _lost_in_source(self) -> int:
        return sum(n for reason, n in self._ring.dropped().items() if reason.startswith("source"))

    def _has_room(self) -> bool:
        ints = self._ring.ints
        settled = ints[Slot.TAIL]
        if self._settings.record is not None:
            settled = min(settled, ints[Slot.RECORDER_CURSOR])
        if ints[Slot.HEAD] - settled < self._ring.capacity - 2:
            return True
        time.sleep(NAP_S)
        return False

    def _wait_for_go(self) -> None:
        while not self._ring.ints[Slot.GO] and not self._stopping():
            time.sleep(0.005)

    def _stopping(self) -> bool:
        late = self._deadline is not None and time.monotonic() > self._deadline
        return late or bool(self._ring.ints[Slot.STOP]) or not parent_lives()


def _said_lost(source: Source) -> int:
    stats = source.stats()
    return stats.dropped + stats.skipped


def _parent_check() -> Callable[[], bool]:
    """A cheap test, made twice a second, of whether the process that started us is still there."""
    next_look, alive = 0.0, True

    def lives() -> bool:
        nonlocal next_look, alive
        now = time.monotonic()
        if now >= next_look:
            parent = parent_process()
            next_look, alive = now + 0.5, parent is None or parent.is_alive()
        return alive

    return lives


parent_lives = _parent_check()
