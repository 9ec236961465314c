"""The raw recorder: a thread of the acquire process that follows the shared ring. The ring is its only queue.

What is overwritten before it was written is lost to the recording (policy `drop_oldest`), counted, and said; acquisition never waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from rtdenoise.recording import run
from rtdenoise.recording.layout import RAW
from rtdenoise.recording.table import STAMPS
from rtdenoise.recording.tape import FAILED, OVERWRITTEN, Tape, TapeState, bytes_per_second, in_words
from rtdenoise.settings import RecordSettings, RunSettings
from rtdenoise.shared import SharedRing, Slot

NAP_S = 0.01
"""How often the ring is looked at. Engineering choice: a tenth of what it holds even at 16 slots and 150 frames/s."""
BATCH = 64
"""Frames between two looks at the clock. Engineering choice: at 1 ms each readers still hear of them four times a second."""
DRAIN_S = 10.0
"""Longest that the end of a run may wait for a slow disk; the session gives the process 15 s. Engineering choice."""


class Recorder:
    """Makes the folder when it is constructed, and records between `start` and `close`, or as a context manager.

    say: gets lines for a person, from the recorder's thread.  Raises RecordingError or MissingExtraError when it cannot begin.
    """

    def __init__(
        self, asked: RecordSettings, settings: RunSettings, ring: SharedRing, say: Callable[[str], None]
    ) -> None:
        self._ring, self._say, self._folder = ring, say, asked.folder
        self._room_s = run.begin(asked, settings, ring.info)
        share = bytes_per_second(ring.info, ring.info.dtype) / run.needed_per_second(asked, ring.info)
        self._tape = Tape(asked.folder, RAW, ring.info, ring.info.dtype, STAMPS, say, share)
        self._cursor = ring.head
        self._overrun_said = 0.0
        self._closing = threading.Event()
        self._publish()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def start(self) -> None:
        """From here on every frame of the ring is recorded."""
        self._say(f"recording to {self._folder}: room for {in_words(self._room_s)}")
        self._thread.start()

    def close(self) -> None:
        """Write what the ring still holds, and complete the recording. May be called any number of times."""
        self._closing.set()
        self._thread.join(DRAIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _work(self) -> None:
        try:
            self._follow()
        except Exception as error:  # the acquisition goes on, whatever is wrong here
            self._fail(error)

    def _follow(self) -> None:
        give_up_at = float("inf")
        while True:
            closing = self._closing.is_set()
            if closing and give_up_at == float("inf"):
                give_up_at = time.monotonic() + DRAIN_S / 2
            behind = self._write_batch()
            self._tape.tick()
            self._publish()
            if time.monotonic() > give_up_at or (closing and not behind):
                break
            if not behind:
                self._closing.wait(NAP_S)
        self._finish()

    def _write_batch(self) -> bool:
        """Write the next frames. Whether more are waiting."""
        ring, tape = self._ring, self._tape
        for _ in range(BATCH):
            if self._cursor >= ring.head:
                return False
            number = self._cursor
            frame = ring.frame(number) if number >= ring.oldest else None
            if frame is None:
                self._skip_overwritten()
                continue
            tape.write(frame, ring.epoch_ns(number), lambda number=number: ring.intact(number))  # type: ignore[misc]
            self._cursor = number + 1
        return True

    def _skip_overwritten(self) -> None:
        ring = self._ring
        to = min(max(ring.oldest + ring.capacity // 16, self._cursor + 1), ring.head)
        self._tape.lose(to - self._cursor, OVERWRITTEN)
        self._cursor = to
        if time.monotonic() - self._overrun_said > 1.0:
            self._overrun_said = time.monotonic()
            self._say(
                f"{self._folder}: the disk is too slow; {self._tape.lost} frames are missing in the recording so far"
            )

    def _finish(self) -> None:
        rest = self._ring.head - self._cursor
        if rest:
            self._tape.lose(rest, OVERWRITTEN)
            self._cursor += rest
        self._tape.close()
        self._publish()
        if self._tape.lost:
            self._say(
                f"{self._folder}: {self._tape.written} frames recorded, {self._tape.lost} are missing (raw.dropped.csv)"
            )
        run.end(self._folder, self._totals())

    def _totals(self) -> dict[str, object]:
        ring, tape = self._ring, self._tape
        return {
            "acquired": int(ring.ints[Slot.ACQUIRED]),
            "recorded": tape.written,
            "missing": tape.lost,
            "bytes": tape.n_bytes,
            "dropped_by_reason": ring.dropped(),
        }

    def _fail(self, error: Exception) -> None:
        tape = self._tape
        tape.state = TapeState.FAILED
        self._count_unwritten()
        self._say(
            f"{self._folder}: recording has failed ({type(error).__name__}: {error}); acquisition and preview go on"
        )
        while not self._closing.wait(NAP_S):  # every frame that comes is accounted for
            self._count_unwritten()
        self._count_unwritten()

    def _count_unwritten(self) -> None:
        self._cursor = self._ring.head
        self._tape.lose(self._cursor - self._tape.written - self._tape.lost, FAILED)
        self._publish()

    def _publish(self) -> None:
        """Into the shared integers, where status and metrics read them."""
        ints, tape = self._ring.ints, self._tape
        ints[Slot.RECORDED], ints[Slot.RECORDER_LOST] = tape.written, tape.lost
        ints[Slot.RECORDED_BYTES], ints[Slot.RECORDER_CURSOR] = tape.n_bytes, self._cursor
        ints[Slot.RECORDER_SECONDS_LEFT] = min(int(tape.seconds_left), 1 << 40)
        ints[Slot.RECORDER_STATE] = tape.state
