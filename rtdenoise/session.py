"""One live run: starts the acquire and denoise processes, watches over them, and says how it goes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Self

from rtdenoise import acquire, denoise, lastwords, ringfile
from rtdenoise.child import Child, Died, rebuilt
from rtdenoise.denoise import Calibrations, Ready
from rtdenoise.engine import filters, load
from rtdenoise.engine.backends import AUTO
from rtdenoise.errors import ConfigError, EngineError, RtDenoiseError, SourceDisconnected
from rtdenoise.fallback import Fallback
from rtdenoise.logbook import Logbook
from rtdenoise.publish import StatusPublisher
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot, State
from rtdenoise.sources.base import Source
from rtdenoise.summary import Reporter, Summary

START_TIMEOUT_S = 120.0
"""Longest a microscope may take to open or an engine to be built. Engineering choice."""
POLL_S = 0.02


class Session:
    """Supervises one run. Use as a context manager; `on_news` gets lines for a person: mode, restarts, trouble.

    When the denoise process dies, before its first frame or later, another one takes over by the chain of `Fallback`.
    trying: the engine that it opened last, or is opening.

    source: an object of this process (an AcquisitionTap) to take frames from, in a thread, instead of `settings.source` in a process.
    Raises at `start` what the processes could not do: ConfigError, SourceError, BundleError, EngineError, WireError, ...
    """

    def __init__(
        self,
        settings: RunSettings,
        on_news: Callable[[str], None] = lambda _: None,
        source: Source | None = None,
    ) -> None:
        self.settings = settings
        self._source = source
        self.ready: Ready | None = None
        self.log = Logbook(settings.log_dir)
        self._on_news = on_news
        self._spawn = multiprocessing.get_context("spawn")
        self._ring_path = (
            ringfile.default_folder(settings.ring_mb << 20) / f"rtdenoise-{os.getpid()}-{uuid.uuid4().hex[:8]}.ring"
        )
        self._wake = self._spawn.Semaphore(0)
        self._acquire: Child | None = None
        self._denoise: Child | None = None
        self._calibrations: Calibrations = {}
        self._error: RtDenoiseError | None = None
        asked = settings.engine
        self._fallback = Fallback(replaceable=asked.backend == AUTO and asked.model not in filters.FILTERS)
        self._restarts = 0
        self._said: list[str] = []
        self.trying = ""
        self.ring: SharedRing | None = None
        self._status: StatusPublisher | None = None
        self._reporter: Reporter | None = None

    def start(self) -> None:
        """Open the source, build the engine, bind the endpoints, then let frames flow."""
        self._check_before_spawning()
        ringfile.remove_orphans(self._ring_path.parent)
        self._status = StatusPublisher(self.settings.endpoints.status, remote=self.settings.remote)
        self._acquire = self._launch(acquire.main) if self._source is None else self._take_from(self._source)
        self._await(self._acquire, "opened", "the source did not open")
        self.ring = SharedRing.attach(self._ring_path)
        try:
            self._start_denoise()
        except Died as death:
            self._recover(str(death))
        if self.ready is None:
            raise EngineError("the denoise process ended before it was ready; run rtdenoise doctor")
        self._reporter = Reporter(self.ring, self._status, self.ready)
        for line in self._said:
            self._reporter.note(line)
        self._news(f"{self.ready.mode}: {self.ready.reason}")
        self.ring.ints[Slot.GO] = 1

    def run(self) -> Summary:
        """Watch until the source ends or `stop`; what went wrong on the way is in the summary."""
        while self.poll():
            time.sleep(POLL_S)
        return self.summary()

    def poll(self) -> bool:
        """One look at the processes and, once a second, a status message. False when the run is over."""
        reporter = self._running()
        if self._acquire is not None:
            self._hear_acquire(self._acquire)
        running = self._watch_denoise()
        reporter.tick()
        return running

    def stop(self) -> None:
        """Ask the run to end; frames already taken are still denoised and published."""
        if self.ring is not None:
            self.ring.ints[Slot.STOP] = 1

    def summary(self) -> Summary:
        """Where every frame went and how long it took, so far."""
        return self._running().summary(str(self._error) if self._error else "")

    @property
    def denoise_pid(self) -> int | None:
        """Process id of the denoise process, None while there is none."""
        return self._denoise.pid if self._denoise else None

    def close(self) -> None:
        """End both processes and remove the ring. Safe from any state."""
        self.stop()
        for child in (self._acquire, self._denoise):
            if child is not None:
                child.end()
        if self._reporter is not None:
            self._reporter.end(str(self._error) if self._error else "")
        if self._status is not None:
            self._status.close()
        if self.ring is not None:
            self.ring.close()
        ringfile.remove(self._ring_path)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_before_spawning(self) -> None:
        """Mistakes that need no process to be seen come first and fast."""
        if self._source is None:
            acquire.open_source(self.settings.source)
        load.check(self.settings.engine)

    def _launch(self, main: Callable[..., None], *more: object, **named: object) -> Child:
        ours, theirs = self._spawn.Pipe(duplex=False)
        words = self.log.words_of(main.__module__.rpartition(".")[2])
        args = (words and words.path, main, self.settings, self._ring_path, self._wake, theirs, *more)
        process = self._spawn.Process(target=lastwords.recorded, args=args, kwargs=named, daemon=True)
        process.start()
        theirs.close()
        return Child(process, ours, words)

    def _take_from(self, source: Source) -> Child:
        ours, theirs = self._spawn.Pipe(duplex=False)
        args = (lambda: source, self.settings, self._ring_path, self._wake, theirs)
        thread = threading.Thread(target=acquire.serve, args=args, name="acquire", daemon=True)
        thread.start()
        return Child(thread, ours)

    def _start_denoise(self, raw_only: str = "") -> None:
        self.trying = ""
        without = self._fallback.without
        self._denoise = self._launch(denoise.main, self._calibrations, raw_only=raw_only, without=without)
        self.ready = self._await(self._denoise, "ready", "the engine was not ready")

    def _await(self, child: Child, wanted: str, complaint: str) -> Any:
        """The value of the message `wanted`; raises what the child could not do. (Any: each message has its own type.)"""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            message = child.hear(timeout_s=0.1)
            if message is None and child.is_gone:
                raise Died(f"{complaint}: its process ended with {child.ending}")
            if message and message[0] == "trying":
                self.trying = message[1]
            if message and message[0] == wanted:
                return message[1]
            if message and message[0] == "error":
                raise rebuilt(message[1], message[2])
            if self._error:
                raise self._error
            if self._reporter is not None:
                self._reporter.tick()
        raise Died(f"{complaint} within {START_TIMEOUT_S:.0f} s")

    def _hear_acquire(self, child: Child) -> None:
        while message := child.hear():
            if message[0] == "error":
                self._error = rebuilt(message[1], message[2])
            elif message[0] == "note":
                self._say(message[1])
        ring = self.ring
        if ring is not None and not child.process.is_alive() and ring.state in (State.OPENING, State.RUNNING):
            how = child.ending
            self._error = SourceDisconnected(f"the acquire process died ({how}); frames taken before were kept")
            ring.end_series()
            ring.ints[Slot.STATE] = State.FAILED

    def _watch_denoise(self) -> bool:
        child = self._denoise
        if child is None:
            return False
        trouble = ""
        while message := child.hear():
            if message[0] == "calibrated":
                key, values = message[1]
                self._calibrations[key] = values
            elif message[0] == "done":
                return False
            elif message[0] == "error":
                trouble = message[2]
        if child.process.is_alive() and not trouble:
            return True
        self._recover(trouble or f"the denoise process died ({child.ending})")
        return True

    def _recover(self, trouble: str) -> None:
        """Until a denoise process is ready again, by the stated chain. Acquisition goes on meanwhile.

        Raises RtDenoiseError where nothing is left to try before the first frame, or where not even raw frames go out.
        """
        while True:
            self._end_denoise()
            step = self._fallback.after(self.trying)
            if step.raw_only and self._reporter is None:
                raise EngineError(f"{trouble}; nothing else is left to try; run rtdenoise doctor")
            self._say(f"{trouble}; {step.says}")
            try:
                return self._restart(trouble if step.raw_only else "")
            except Died as death:
                if step.raw_only:
                    raise
                trouble = str(death)
            except RtDenoiseError as error:
                if step.raw_only or self._reporter is None:
                    raise
                self._fallback.given_up = True
                self._say(f"{error}; raw frames only from here")
                self._end_denoise()
                return self._restart(str(error))

    def _restart(self, raw_only: str) -> None:
        self._restarts += 1
        if self.ring is not None:
            self.ring.ints[Slot.RESTARTS] = self._restarts
        self._start_denoise(raw_only)
        if self._reporter is None or self.ready is None:
            return
        self._reporter.now_ready(self.ready)
        if not raw_only:
            self._news(f"{self.ready.mode}{_with(self.ready)}: {self.ready.reason}")

    def _end_denoise(self) -> None:
        if self._denoise is not None:
            self._denoise.end()

    def _news(self, line: str) -> None:
        """To the person who started the run, and to its log."""
        self.log.write(line)
        self._on_news(line)

    def _say(self, line: str) -> None:
        """To the person who started the run, and to everybody who listens to its status."""
        self._news(line)
        self._said.append(line)
        if self._reporter is not None:
            self._reporter.note(line)

    def _running(self) -> Reporter:
        if self._reporter is None:
            raise ConfigError("the session has not started; use it as a context manager")
        return self._reporter


def _with(ready: Ready) -> str:
    return f" with {ready.backend}" if ready.backend else ""
