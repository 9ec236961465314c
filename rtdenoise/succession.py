"""Which denoise process serves a run: the first one, the one after a death, the one that somebody asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rtdenoise import calibration
from rtdenoise.background import Brake
from rtdenoise.child import START_TIMEOUT_S, Child, Died, await_word
from rtdenoise.denoise import Place, Ready
from rtdenoise.errors import ConfigError, EngineError, RtDenoiseError
from rtdenoise.fallback import fallback_for
from rtdenoise.handover import LEAVE_TIMEOUT_S, Answer, Handover
from rtdenoise.recording import events
from rtdenoise.settings import EngineSettings, RunSettings
from rtdenoise.shared import SharedRing, Slot
from rtdenoise.streams import Calibrations

POLL_S = 0.02
"""Time between two looks of a session at its processes."""


class Succession:
    """The denoise processes of one run, one after the other; each goes on with the next frame that none before it has settled.

    launch: starts one with settings, calibrations and its place.  say: a line for everybody.  changed: another process is at work,
    and why.  meanwhile: what must go on while we wait for one; it may raise what ends the run.
    ready: of the process at work, None before the first one is.  trying: the engine that was opened last, or is being opened.
    settings: with the engine that is asked for now.  calibrations: of the streams, as far as they are known.
    """

    def __init__(
        self,
        settings: RunSettings,
        launch: Callable[[RunSettings, Calibrations, Place], Child],
        say: Callable[[str], None],
        changed: Callable[[Ready, str], None],
        meanwhile: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.ready: Ready | None = None
        self.trying = ""
        self.calibrations: Calibrations = {}
        self._launch, self._say, self._changed, self._meanwhile = launch, say, changed, meanwhile
        self._ring: SharedRing | None = None
        self._child: Child | None = None
        self._retired: list[Child] = []
        self._handover: Handover | None = None
        self._n_started = self._n_restarts = 0
        self._is_running = self._is_recovering = False
        self._fallback = fallback_for(settings.engine)
        self._rule = ""
        self._by_rule: dict[str, Calibrations] = {}

    def start(self, ring: SharedRing) -> Ready:
        """Start the first process, by the stated chain; raises what none could do."""
        self._ring = ring
        self._rule = calibration.rule_of(self.settings.engine)
        try:
            self._start_one()
        except Died as death:
            self._recover(str(death))
        if self.ready is None:
            raise EngineError("the denoise process ended before it was ready; run rtdenoise doctor")
        self._is_running = True
        return self.ready

    def watch(self) -> bool:
        """One look at the processes; False when the run is over."""
        for gone in [child for child in self._retired if not child.process.is_alive()]:
            self._retired.remove(gone)
            gone.end()
        if self._handover is not None:
            self._watch_handover(self._handover)
        return self._child is not None and self._watch_running(self._child)

    def begin(self, engine: EngineSettings, says: str, answer: Answer) -> None:
        """Start a process with another engine beside the running one, which goes on until the new one is warm.

        answer: told once whether it has taken over, and in a line why not.
        Raises ConfigError when it cannot begin now, and BundleError for a model that is none.
        """
        if self._handover is not None:
            raise ConfigError(f"{self._handover.says} is under way; ask again when it is done")
        if not self._is_running or self._is_recovering or self._ring is None:
            raise ConfigError("the denoise process is being started; ask again in a few seconds")
        settings = self.settings.model_copy(update={"engine": engine})
        rule = calibration.rule_of(engine)
        self._by_rule[self._rule] = dict(self.calibrations)
        known = dict(self._by_rule.get(rule, {}))
        place = self._next_place(standby=True)
        child = self._launch(settings, known, place)
        self._ring.ints[Slot.HANDOVER] = 1
        deadline = time.monotonic() + START_TIMEOUT_S
        self._handover = Handover(
            child, settings, self.settings, place, says, rule, self._rule, known, answer, deadline, Brake(child.pid)
        )

    @property
    def is_calibrated(self) -> bool:
        """Whether the running model takes offset and scale from the frames of the run."""
        return bool(self._rule)

    @property
    def children(self) -> list[Child]:
        """Every process that there is."""
        standby = [] if self._handover is None or self._handover.child is self._child else [self._handover.child]
        return [*([self._child] if self._child else []), *standby, *self._retired]

    @property
    def pid(self) -> int | None:
        """Process id of the process at work, None while there is none."""
        return self._child.pid if self._child else None

    def close(self) -> None:
        """End every process. Safe from any state."""
        self._abandon("the run has ended")
        for child in self.children:
            child.end()

    # --- one after a death --------------------------------------------------------------------------------------------

    def _start_one(self, raw_only: str = "") -> None:
        place = self._next_place(raw_only=raw_only)
        self.trying = ""
        if self._ring is not None:
            self._ring.ints[Slot.LEAVE] = self._ring.ints[Slot.LEFT] = place.number - 1
        self._child = self._launch(self.settings, dict(self.calibrations), place)
        self.ready = await_word(self._child, "ready", "the engine was not ready", self._overhear, self._meanwhile)

    def _next_place(self, *, standby: bool = False, raw_only: str = "") -> Place:
        self._n_started += 1
        return Place(self._n_started, standby, raw_only, () if standby else self._fallback.without)

    def _overhear(self, message: tuple[Any, ...]) -> None:
        if message[0] == "trying":
            self.trying = message[1]
        elif message[0] == "calibrated":
            key, values = message[1]
            self.calibrations[key] = values
            events.note_calibration(self.settings.record, key, values)

    def _recover(self, trouble: str) -> None:
        """Until a denoise process is ready again, by the stated chain. Acquisition goes on meanwhile.

        Raises RtDenoiseError where nothing is left to try before the first frame, or where not even raw frames go out.
        """
        self._is_recovering = True
        try:
            self._recover_from(trouble)
        finally:
            self._is_recovering = False

    def _recover_from(self, trouble: str) -> None:
        while True:
            self._end_child()
            step = self._fallback.after(self.trying)
            if step.raw_only and not self._is_running:
                raise EngineError(f"{trouble}; nothing else is left to try; run rtdenoise doctor")
            self._say(f"{trouble}; {step.says}")
            self._pause(step.wait_s)
            try:
                return self._restart(trouble if step.raw_only else "")
            except Died as death:
                if step.raw_only and (self._is_stopping or not self._is_running):
                    raise  # else acquisition and recording go on, and so do we
                trouble = str(death)
            except RtDenoiseError as error:
                if step.raw_only or not self._is_running:
                    raise
                self._fallback.given_up = True
                self._say(f"{error}; raw frames only from here")
                self._end_child()
                return self._restart(str(error))

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_stopping:
            self._meanwhile()
            time.sleep(POLL_S)

    @property
    def _is_stopping(self) -> bool:
        return self._ring is None or bool(self._ring.ints[Slot.STOP])

    def _restart(self, raw_only: str) -> None:
        self._n_restarts += 1
        if self._ring is not None:
            self._ring.ints[Slot.RESTARTS] = self._n_restarts
        self._start_one(raw_only)
        if self._is_running and self.ready is not None:
            self._changed(self.ready, "the denoise process was restarted")

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.end()

    def _watch_running(self, child: Child) -> bool:
        trouble = ""
        while message := child.hear():
            if message[0] == "done":
                return False
            if message[0] == "left":
                self._promote()
                return True
            if message[0] == "on":
                self._arrived(message[1])
            elif message[0] == "error":
                trouble = message[2]
            else:
                self._overhear(message)
        if child.process.is_alive() and not trouble:
            return True
        handover = self._handover
        if handover is not None and handover.ready is not None and handover.child is not child:
            self._promote()  # it was leaving anyway
            return True
        trouble = trouble or f"the denoise process died ({child.ending})"
        self._abandon(f"meanwhile {trouble}")
        self._recover(trouble)
        return True

    # --- one that was asked for ---------------------------------------------------------------------------------------

    def _watch_handover(self, handover: Handover) -> None:
        if handover.child is self._child:
            return  # it has taken over, and is watched as the one at work
        trouble = handover.hear()
        handover.brake.hold(back=handover.ready is None and self._is_behind())
        upto = handover.place.number - 1
        if handover.ready is not None and self._ring is not None and self._ring.ints[Slot.LEAVE] < upto:
            self._ring.ints[Slot.LEAVE] = upto
            handover.deadline = time.monotonic() + LEAVE_TIMEOUT_S
        is_late = time.monotonic() > handover.deadline
        if handover.ready is None:
            if trouble or is_late:
                self._abandon(trouble or f"it was not ready within {START_TIMEOUT_S:.0f} s")
        elif is_late and self._child is not None:
            self._child.kill()  # a subscriber that reads nothing may hold up a lossless one

    def _is_behind(self) -> bool:
        """Whether more frames wait for the process at work than in the steady state."""
        ring, ready = self._ring, self.ready
        if ring is None or ready is None or not ring.info.live:
            return False
        n_streams = ring.info.channels * ring.info.planes
        per_look = n_streams * POLL_S / ring.info.frame_interval_s if ring.info.frame_interval_s else 0
        return bool(ring.head - ring.ints[Slot.CURSOR] > 2 * n_streams * (1 + ready.hop) + per_look)

    def _promote(self) -> None:
        """The running process has left; the one that warmed up is the one at work."""
        handover = self._handover
        if handover is None or self._ring is None:
            return
        if self._child is not None:
            self._retired.append(self._child)
        self._ring.ints[Slot.LEAVE] = self._ring.ints[Slot.LEFT] = handover.place.number - 1
        self._ring.ints[Slot.HANDOVER] = 0
        self._child, self.ready, self.trying = handover.child, handover.ready, handover.trying
        self._use(handover.settings, handover.rule, handover.known)

    def _use(self, settings: RunSettings, rule: str, known: Calibrations) -> None:
        self.settings, self._rule, self._fallback = settings, rule, fallback_for(settings.engine)
        self.calibrations.clear()  # the same object for ever: others look at it
        self.calibrations.update(known)

    def _arrived(self, n_missing: int) -> None:
        """The process at work has its ports, and the subscribers that came back."""
        lost = f"{n_missing} subscribers did not come back within a second" if n_missing else ""
        handover = self._handover
        if handover is None or handover.child is not self._child or self.ready is None:
            if lost:
                self._say(lost)
            return
        self._handover = None
        says = f"{handover.says} has taken over" + (f"; {lost}" if lost else "")
        self._changed(self.ready, says)
        handover.answer(True, f"{says}; {self.ready.reason}")

    def _abandon(self, why: str) -> None:
        """Give up a handover; the running process goes on, or one with its settings follows it."""
        handover, self._handover = self._handover, None
        if handover is None:
            return
        if handover.child is not self._child:
            handover.child.kill()
            self._retired.append(handover.child)
        else:
            self._use(handover.before, handover.rule_before, self._by_rule.get(handover.rule_before, {}))
        if self._ring is not None:
            self._ring.ints[Slot.HANDOVER] = 0
        handover.answer(False, f"{handover.says} was not taken: {why}")
