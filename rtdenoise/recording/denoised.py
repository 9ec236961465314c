"""The process that records what comes out: a subscriber like any other, so that neither disk nor crash of it reaches the live path.

At its receive mark the publisher leaves out the newest frames for it (policy `drop_newest`); each is counted. In a lossless run the
publisher waits for it, as for every subscriber.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import numpy as np

from rtdenoise.bound import EVERYWHERE
from rtdenoise.errors import RecordingError, RtDenoiseError
from rtdenoise.frame import Frame, Pixels
from rtdenoise.recording.layout import DENOISED
from rtdenoise.recording.table import DENOISED_STAMPS
from rtdenoise.recording.tape import Tape
from rtdenoise.settings import RecordSettings, RunSettings
from rtdenoise.shared import SharedRing, Slot, State
from rtdenoise.subscribe import Subscriber

READ_S = 0.1
QUIET_S = 0.5
"""A run is over when its frames are settled and nothing came for so long. Engineering choice."""
LOST_ON_THE_WAY = "recorder: too slow, or the publisher changed hands"


def main(settings: RunSettings, ring_path: Path, _wake: Semaphore, pipe: Connection) -> None:
    """Entry point of the process: says ('opened', None), then ('note', line) as it comes, at last ('ended', None)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asked = _asked(settings)
        ring = SharedRing.attach(ring_path)
        with Subscriber(settings.endpoints.denoised, stream=DENOISED) as subscriber:
            recorder = _DenoisedRecorder(asked, ring, subscriber, lambda line: pipe.send(("note", line)))
            pipe.send(("opened", None))
            recorder.run()
        pipe.send(("ended", None))
    except RtDenoiseError as error:
        pipe.send(("error", type(error).__name__, str(error)))
    except OSError:
        return  # the session is gone, and nobody listens


def _asked(settings: RunSettings) -> RecordSettings:
    if settings.record is None:
        raise RecordingError("nothing is to be recorded; give a folder")
    if settings.remote is not None and settings.remote.bind in EVERYWHERE:
        raise RecordingError(
            f"denoised frames cannot be recorded with --bind {settings.remote.bind}: keys are asked for even on this "
            "computer; bind to one address of it, or leave --record-denoised out and denoise the raw recording later"
        )
    return settings.record


class _DenoisedRecorder:
    def __init__(
        self, asked: RecordSettings, ring: SharedRing, subscriber: Subscriber, say: Callable[[str], None]
    ) -> None:
        dtype = ring.info.dtype if asked.denoised == "raw" else "float32"
        self._ring, self._subscriber = ring, subscriber
        self._tape = Tape(asked.folder, DENOISED, ring.info, dtype, DENOISED_STAMPS, say)
        self._rounded = np.empty(ring.info.shape, dtype) if dtype != "float32" else None
        self._counts = np.empty(ring.info.shape, np.float32)
        self._missed = 0

    def run(self) -> None:
        """Until every frame of the run is settled and nothing comes any more."""
        heard = time.monotonic()
        while time.monotonic() - heard < QUIET_S or not self._is_over():
            message = self._subscriber.read(READ_S)
            if message is not None:
                heard = time.monotonic()
                self._take(message.frame)
            self._tape.tick()
            self._publish()
        self._tape.close()
        self._publish()

    def _take(self, frame: Frame) -> None:
        missed, self._missed = self._subscriber.missed - self._missed, self._subscriber.missed
        if missed:
            self._tape.lose(missed, LOST_ON_THE_WAY)
        s = frame.stamp
        began_ns = time.perf_counter_ns() - s.t_out
        kept = Frame(self._as_stored(frame.pixels), s)
        self._tape.write(kept, began_ns, more=(s.t_out, int(frame.complete)))

    def _as_stored(self, pixels: Pixels) -> Pixels:
        """float32 as it is, or rounded and clipped to the camera's type; the buffer is reused."""
        if self._rounded is None or pixels.dtype == self._rounded.dtype:
            return pixels
        if self._rounded.dtype.kind == "f":
            np.copyto(self._rounded, pixels)
            return self._rounded
        limits = np.iinfo(self._rounded.dtype)
        np.rint(pixels, out=self._counts)
        np.clip(self._counts, limits.min, limits.max, out=self._counts)
        np.copyto(self._rounded, self._counts, casting="unsafe")
        return self._rounded

    def _is_over(self) -> bool:
        parent = parent_process()
        orphaned = parent is not None and not parent.is_alive()
        return orphaned or (self._ring.state in (State.ENDED, State.FAILED) and not self._ring.in_flight())

    def _publish(self) -> None:
        ints = self._ring.ints
        ints[Slot.DENOISED_RECORDED], ints[Slot.DENOISED_LOST] = self._tape.written, self._tape.lost
