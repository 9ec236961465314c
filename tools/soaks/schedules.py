"""A run that follows a schedule of bursts, stalls, losses, kills and stops, and shows its books at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from rtdenoise import acquire
from rtdenoise.engine.load import factory_for
from rtdenoise.errors import EndOfStream
from rtdenoise.frame import Frame, FrameStamp, Pixels, StreamInfo
from rtdenoise.loop import Loop
from rtdenoise.outlets import Outlets
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot
from rtdenoise.sources.base import SeriesClock, SourceStats
from rtdenoise.streams import Calibrations, Streams
from rtdenoise.wire import StreamFacts
from soaks import books
from soaks.lockstep import (
    Baton,
    Ears,
    Killed,
    Stuck,
    Wake,
    in_thread,
    kill_after_lines,
    removed,
    replaced,
    ring_path,
    trace_no_more,
)
from soaks.wireless import Reader, Sender

What = Literal["burst", "denoise", "lose", "skip", "series", "stall", "wake", "kill", "replace", "stop"]
Op = tuple[What, int]
"""burst: so many frames.  denoise: so many steps.  lose, skip: camera frames before the next one.  series: a new one begins.
stall, wake: readers stop reading, or go on.  kill: so many lines of bookkeeping from now.  replace: another process takes over.  stop."""
SHAPE = (4, 4)
Part = Literal["acquire", "denoise"]
MAX_ROUNDS = 20_000
MODELS = ("identity", "running-mean", "median")
"""No window, a window into the past, and one with look-ahead."""


def run_schedule(
    ops: Sequence[Op], *, model: str = "identity", lossless: bool = False, patient: bool = False
) -> ScheduledRun:
    """Run it to its end. patient: does not skip to the newest frame, so that the ring overtakes it.

    Raises books.Violation where a frame is unaccounted for at any step.
    """
    run = ScheduledRun(ops, model, lossless, patient)
    run.go()
    books.check_end(run.ring, run.camera.produced)
    books.check_delivered(run.sent["denoised"], int(run.ring.ints[Slot.DELIVERED]), run.n_kills)
    for stream, reader in run.readers.items():
        # A lossless run that is stopped while nobody reads gives frames up; a process that takes over then goes back for them.
        in_order = not (lossless and run.ring.ints[Slot.STOP])
        books.check_reader(stream, run.sent[stream], reader, run.n_kills, in_order=in_order)
    return run


class Camera:
    """A source that gives a frame, or ends the series, when `turn` says so.

    seen: camera frames up to the last one given.  produced: all of them.  make: the pixels of a camera number.
    """

    def __init__(self, turn: Callable[[], bool]) -> None:
        self._turn, self._stats, self._next_src = turn, SourceStats(), 0
        self.clock = SeriesClock()
        self.seen = self.produced = 0
        self.lost = self.skipped = 0
        self._runs = False
        self.dtype = "uint16"
        self.make: Callable[[int], Pixels] = lambda number: np.full(SHAPE, number & 0xFFFF, self.dtype)

    def open(self) -> StreamInfo:
        """A live camera of a few pixels."""
        return StreamInfo("scheduled", SHAPE, self.dtype, frame_interval_s=0.01)

    def start(self) -> None:
        """A new series."""
        self.clock, self._next_src, self._runs = SeriesClock(), 0, True

    def read(self, timeout_s: float = 1.0) -> Frame:
        """The next frame, after those that are lost before it."""
        if not self._turn():
            raise EndOfStream("as the schedule says")
        lost, skipped, self.lost, self.skipped = self.lost, self.skipped, 0, 0
        number = self._next_src + lost + skipped
        self._next_src = number + 1
        self.produced += 1
        self.seen = self.produced
        stamp = FrameStamp(self.clock.series, number, number, self.clock.now_ns(), dropped=lost)
        return Frame(self.make(number), stamp)

    def lose(self, n: int) -> None:
        """Frames that never leave the camera's buffer."""
        if self._runs:
            self.lost, self.produced, self._stats.dropped = self.lost + n, self.produced + n, self._stats.dropped + n

    def skip(self, n: int) -> None:
        """Frames that the source passes over by itself; before the first of a series nobody could know of them."""
        if self._runs and self._next_src:
            self.skipped, self.produced = self.skipped + n, self.produced + n
            self._stats.skipped += n

    def stats(self) -> SourceStats:
        """Totals."""
        return self._stats

    def backlog(self) -> int:
        """None."""
        return 0

    def stop(self) -> None:
        """Frames lost before a frame that never came are only in the totals."""
        self.lost = self.skipped = 0
        self._runs, self.seen = False, self.produced

    def close(self) -> None:
        """Nothing to close."""


class ScheduledRun:
    """One run in lock-step. n_checks: times that the books were looked at."""

    def __init__(self, ops: Sequence[Op], model: str, lossless: bool, patient: bool) -> None:
        self._ops = list(reversed(ops))
        self._settings = RunSettings.model_validate(
            {
                "source": {"name": "synthetic", "n_series": 1 + sum(what == "series" for what, _ in ops)},
                "engine": {"model": model, "threads": 1, "calibration_frames": 1},
                "policy": "lossless" if lossless else "latest",
                "max_backlog_s": 60.0 if patient else 0.2,
                "ring_s": 0.5,
            }
        )
        self._baton, self._wake, self._lossless = Baton(), Wake(lambda: self._pause("denoise", idle=True)), lossless
        self._path = ring_path()
        self.camera = Camera(self._camera_turn)
        self.readers = {stream: Reader(stream) for stream in ("raw", "denoised")}
        self.sent: dict[str, list[tuple[str, int, int]]] = {"raw": [], "denoised": []}
        self._budget = {"acquire": 0, "denoise": 0}
        self._kill_after: int | None = None
        self._ends_series = self._is_dead = False
        self._number = 0
        self._ring: SharedRing | None = None
        self.n_kills = self.n_checks = self._n_rounds = 0
        self.trouble: list[BaseException] = []

    @property
    def ring(self) -> SharedRing:
        """The books of the run."""
        if self._ring is None:
            raise Stuck("acquisition ended before it made a ring")
        return self._ring

    def go(self) -> None:
        """Both parts, until neither has anything left to do."""

        def acquiring() -> None:
            try:
                self._baton.wait_for_turn("acquire")
                acquire.serve(lambda: self.camera, self._settings, self._path, self._wake, Ears())  # type: ignore[arg-type]
            except BaseException as error:  # raised again in the thread that tests
                self.trouble.append(error)
            finally:
                self._baton.leave("acquire", "denoise")

        with replaced(self._sender, lambda _: self._pause("acquire", idle=True)):
            thread = in_thread(acquiring)
            try:
                self._baton.hand_to("acquire", "denoise")
                self._ring = SharedRing.attach(self._path)
                self._ring.ints[Slot.GO] = 1
                self._denoise_until_over()
            finally:
                self.ring.ints[Slot.STOP] = 1
                self._baton.leave("denoise", "acquire")
                thread.join(5)
                removed(self._path)
        if self.trouble:
            raise self.trouble[0]

    def _denoise_until_over(self) -> None:
        """One denoise process after the other: the next one where one was killed or asked to leave."""
        factory, known, warm = factory_for(self._settings.engine, SHAPE), Calibrations(), False
        while True:
            self._number += 1
            self.ring.ints[Slot.LEAVE] = self.ring.ints[Slot.LEFT] = self._number - 1
            try:
                streams = Streams(self._settings.engine, self.ring, factory, known, known.__setitem__)
                loop = Loop(self._settings, self.ring, streams, self._wake, self._number)  # type: ignore[arg-type]
                if warm:
                    loop.warm()
                if loop.run(Outlets(self._settings, self.ring, "model", "backend")):
                    return
                warm = True
            except Killed:
                self.n_kills += 1
                self._is_dead, warm = True, False
            finally:
                trace_no_more()

    def _sender(
        self, _: str, facts: StreamFacts, *, lossless: bool, stopping: Callable[[], bool], **__: object
    ) -> Sender:
        reader, sent = self.readers[facts.stream], self.sent[facts.stream]
        return Sender(reader, facts, lossless, stopping, lambda: self._pause("denoise"), sent)

    def _camera_turn(self) -> bool:
        self._pause("acquire")
        over, self._ends_series = self._ends_series or self._n_rounds > 0, False
        return not over

    def _pause(self, me: Part, *, idle: bool = False) -> None:
        """A place where a part may have to let the other one move. idle: it cannot do anything by itself now."""
        other: Part = "denoise" if me == "acquire" else "acquire"
        if self._ring is None:
            self._baton.hand_to(other, me)
            return
        if me == "denoise":
            self._is_dead = False
        if idle:
            self._budget[me] = 0
        while self._budget[me] == 0:
            self._check()
            if not self._ops:
                self._wind_down(me, other, idle=idle)
                break
            mover = self._apply(*self._ops.pop()) or me
            if mover != me:
                self._baton.hand_to(mover, me)
        else:
            self._budget[me] -= 1
        if me == "denoise" and self._kill_after is not None:
            kill_after_lines(self._kill_after)
            self._kill_after = None

    def _apply(self, what: What, n: int) -> Part | None:
        """One line of the schedule; the part that it lets move."""
        mover: Part | None = None
        match what:
            case "burst" | "denoise":
                mover = "acquire" if what == "burst" else "denoise"
                self._budget[mover] = n
            case "series":
                mover, self._budget["acquire"], self._ends_series = "acquire", 1, True
            case "lose":
                self.camera.lose(n)
            case "skip":
                self.camera.skip(n)
            case "stall" | "wake":
                for reader in self.readers.values():
                    reader.inbox.reads = what == "wake"
            case "kill":
                self._kill_after = n
            case "replace":
                self.ring.ints[Slot.LEAVE] = self._number
            case "stop":
                self.ring.ints[Slot.STOP] = 1
        return None if mover in self._baton.gone else mover

    def _wind_down(self, me: Part, other: Part, *, idle: bool) -> None:
        """The schedule is over: everybody goes on until nothing is left."""
        self._n_rounds += 1
        if self._n_rounds > MAX_ROUNDS:
            raise Stuck("the run does not end")
        for reader in self.readers.values():
            reader.inbox.reads = True
            reader.read()
        if idle:
            self._baton.hand_to(other, me)

    def _check(self) -> None:
        """acquired = delivered + dropped + in flight, now."""
        if self._ring is None or self._is_dead:
            return
        self.n_checks += 1
        try:
            books.check_now(self._ring, self.camera.seen)
        except books.Violation as violation:  # a run takes what is raised in it for trouble with its engine
            self.trouble.append(violation)
