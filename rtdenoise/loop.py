"""The loop of the denoise process: frame by frame out of the shared ring, and every frame that it takes is settled once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.synchronize import Semaphore

from rtdenoise.acquire import parent_lives
from rtdenoise.engine.graph import one_line
from rtdenoise.errors import EngineError, RtDenoiseError
from rtdenoise.frame import Frame
from rtdenoise.ledger import Ledger
from rtdenoise.outlets import Outlets
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot, State
from rtdenoise.streams import Key, Streams, context_start, keys_of
from rtdenoise.vitals import backlog_limit

WAIT_S = 0.05
PATIENCE_S = 0.8
"""Longest that a live run tries to make up for a stall before it skips to the newest frame: after a second what is shown is new again."""
GRACE_S = 5.0
"""Longest that it makes up for what a start, a first window or a change of process has cost, which it must not skip. Engineering choice:
skipping begins another segment, whose first window costs the same again."""
MAX_FAILURES = 3
"""Failures in a row after which an engine is given up. Engineering choice."""


class Loop:
    """Reads the ring frame by frame; every frame it takes is settled once: delivered, or dropped with a reason.

    streams: None where nothing is denoised and raw frames alone go out.  number: of this process among those of the run.
    """

    def __init__(
        self, settings: RunSettings, ring: SharedRing, streams: Streams | None, wake: Semaphore, number: int
    ) -> None:
        self._settings, self._ring, self._streams, self._wake, self._number = settings, ring, streams, wake, number
        self._ledger = Ledger(ring)
        self._n_keys = len(keys_of(ring))
        self._failures = 0
        self._flushed_at = -1
        self._cursor = 0
        self._warmed: int | None = None
        self._recalibrations = int(ring.ints[Slot.RECALIBRATE])
        self._grace_until = 0.0
        self._behind_since: float | None = None
        self._may_skip = ring.info.live and not settings.lossless
        self._max_backlog = backlog_limit(settings, ring.info, ring.capacity)
        self._usual_backlog = self._n_keys * (1 + (streams.hop if streams else 1))

    def warm(self) -> None:
        """Fill the windows from frames that the running process has settled. Raises EngineError when the engine cannot."""
        if self._streams is None:
            return
        tail = int(self._ring.ints[Slot.TAIL])
        try:
            for number in range(context_start(self._ring, tail, self._streams.n_context), tail):
                if (frame := self._ring.frame(number)) is not None:
                    for _ in self._streams.feed(frame):
                        pass
        except RtDenoiseError:
            raise
        except Exception as error:  # an engine's own exception types are not known here
            raise EngineError(
                f"{self._settings.engine.model}: failed on frames of the run: {one_line(error)}"
            ) from None
        self._warmed = tail

    def run(self, outlets: Outlets) -> bool:
        """Until the source has ended and every frame is settled, or until another process takes over: True for the end."""
        self._outlets = outlets
        outlets.be_patient(patient=True)
        self._is_patient = True
        self._make_up()
        self._cursor = self._begin_at(self._ledger.resume())
        if self._streams is not None:
            self._streams.lease = outlets.lease
        while parent_lives():
            if self._ring.ints[Slot.LEAVE] >= self._number:
                return False
            if self._cursor < self._ring.head:
                self._step()
            elif self._ring.state in (State.ENDED, State.FAILED):
                break
            elif int(self._ring.ints[Slot.SERIES_END]) == self._cursor != self._flushed_at:
                self._flush()
            else:
                self._grace_until = 0.0
                if self._is_patient:
                    outlets.be_patient(patient=False)
                    self._is_patient = False
                self._wake.acquire(timeout=WAIT_S)
        self._flush()
        self._ledger.give_up_rest()
        return True

    def _begin_at(self, tail: int) -> int:
        """The frame to begin with: where `warm` stopped if that is still here, else as many before `tail` as fill a window."""
        if self._streams is None:
            return tail
        if self._warmed is not None and self._warmed >= self._ring.oldest:
            return self._warmed
        self._streams.reset()
        return context_start(self._ring, tail, self._streams.n_context)

    def _step(self) -> None:
        ring = self._ring
        if self._is_late(ring.head - self._cursor):
            self._skip(ring.head - self._n_keys, "denoise: behind")
        frame = ring.frame(self._cursor) if self._cursor >= ring.oldest else None
        if frame is None:
            self._skip(self._after_overwritten(), "ring: overwritten before it was read")
            return
        if self._recalibrations != ring.ints[Slot.RECALIBRATE]:
            self._recalibrate()
        self._cursor += 1
        self._ledger.take(frame.stamp.frame, self._cursor)
        t_in, now = frame.stamp.t_in, self._now(frame)
        ring.latency["queue"].add(now - t_in)
        self._send_raw(frame, now)
        if self._streams is None:
            ring.latency["age"].add(self._now(frame) - t_in)
            self._ledger.deliver(frame.stamp.frame)
        else:
            self._deliver(self._streams, self._streams.feed(frame), frame.stamp.key)

    def _is_late(self, backlog: int) -> bool:
        """Policy `latest`: too many frames wait, or some have waited for too long.

        Not while what a start, a first window or a change of process has cost is made up for; nor while another process warms up
        beside us, as long as the ring has room.
        """
        now = time.monotonic() if backlog > self._usual_backlog else 0.0
        if self._ring.ints[Slot.HANDOVER] and backlog < self._ring.capacity // 2:
            self._grace_until = now + GRACE_S
        if backlog <= self._usual_backlog or now < self._grace_until or not self._may_skip:
            self._behind_since = None
            return False
        if self._behind_since is None:
            self._behind_since = now
        return backlog > self._max_backlog or now - self._behind_since > PATIENCE_S

    def _make_up(self) -> None:
        self._grace_until = time.monotonic() + GRACE_S

    def _after_overwritten(self) -> int:
        """Where to go on after the ring has overtaken us: live at the newest frame, else not far, since every frame counts."""
        if self._may_skip:
            return self._ring.head - self._n_keys
        return self._ring.oldest + self._ring.capacity // 16

    def _skip(self, to: int, reason: str) -> None:
        """Give up frames before `to`; the next frame of every stream says that there is a hole before it."""
        to = min(max(to, self._cursor + 1), self._ring.head)
        for number in range(self._cursor, to):
            self._ledger.take(number, number + 1)
            self._ledger.drop(number, reason)
        if self._streams is not None:
            self._streams.gap(max(1, (to - self._cursor) // self._n_keys))
        self._cursor = to
        self._behind_since = None

    def _recalibrate(self) -> None:
        self._recalibrations = int(self._ring.ints[Slot.RECALIBRATE])
        if self._streams is not None:
            self._streams.recalibrate()
            self._make_up()  # filling the windows again takes a moment

    def _send_raw(self, frame: Frame, now: int) -> None:
        number = frame.stamp.frame
        if self._ledger.first_look(number) and not self._outlets.send_raw(frame, self._ledger.drops(), now):
            self._ledger.look_again(number)

    def _deliver(self, streams: Streams, ready: Iterator[Frame], key: Key | None) -> None:
        start, publishing = time.perf_counter_ns(), 0
        try:
            for out in ready:
                publishing += self._publish(streams, out)
            self._failures = 0
        except RtDenoiseError:
            raise
        except Exception as error:  # an engine's own exception types are not known here
            self._note_failure(streams, key, error)
        self._ring.latency["denoise"].add(time.perf_counter_ns() - start - publishing)
        if streams.begun:
            # A segment's first window may cost as much as a dozen later ones: what arrived meanwhile is made up for.
            # Skipping it would begin another segment, and so on for ever.
            streams.begun = False
            self._make_up()

    def _publish(self, streams: Streams, out: Frame) -> int:
        number, start = out.stamp.frame, time.perf_counter_ns()
        if not self._ledger.is_open(number):
            return 0
        publisher = self._outlets.denoised
        if publisher.facts.norm != (norm := streams.norm(out.stamp.key)):
            publisher.facts = replace(publisher.facts, norm=norm)
        t_out = start - self._ring.epoch_ns(number)
        if self._outlets.send_denoised(out, self._ledger.drops(), t_out):
            self._ring.latency["age"].add(t_out - out.stamp.t_in)
            self._ledger.deliver(number)
        took = time.perf_counter_ns() - start
        self._ring.latency["publish"].add(took)
        return took

    def _note_failure(self, streams: Streams, key: Key | None, error: Exception) -> None:
        """An engine that fails loses the frames of its window; one that goes on failing ends the process."""
        for failed in keys_of(self._ring) if key is None else [key]:
            streams.failed(failed)
        self._ledger.drop_taken("denoise: engine failed")
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            raise EngineError(
                f"{self._settings.engine.model}: the engine failed three times in a row: {one_line(error)}"
            )

    def _flush(self) -> None:
        if self._streams is not None:
            self._deliver(self._streams, self._streams.flush(), None)
        self._flushed_at = self._cursor

    def _now(self, frame: Frame) -> int:
        return time.perf_counter_ns() - self._ring.epoch_ns(frame.stamp.frame)
