"""One live run: starts the acquire and denoise processes, watches over them, and says how it goes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Self

from rtdenoise import acquire, denoise, errors, ringfile
from rtdenoise.denoise import Calibrations, Ready
from rtdenoise.engine import load
from rtdenoise.errors import ConfigError, EngineError, RtDenoiseError, SourceDisconnected, SourceError
from rtdenoise.publish import StatusPublisher
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot, State
from rtdenoise.sources.base import Source
from rtdenoise.summary import Reporter, Summary

START_TIMEOUT_S = 120.0
"""Longest a microscope may take to open or an engine to be built. Engineering choice."""
STOP_TIMEOUT_S = 15.0
POLL_S = 0.02
MAX_RESTARTS = 3
"""After so many deaths of the denoise process the run goes on with raw frames only."""


class Session:
    """Supervises one run. Use as a context manager; `on_news` gets lines for a person: mode, restarts, trouble.

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
        self._news = on_news
        self._spawn = multiprocessing.get_context("spawn")
        self._ring_path = (
            ringfile.default_folder(settings.ring_mb << 20) / f"rtdenoise-{os.getpid()}-{uuid.uuid4().hex[:8]}.ring"
        )
        self._wake = self._spawn.Semaphore(0)
        self._acquire: _Child | None = None
        self._denoise: _Child | None = None
        self._calibrations: Calibrations = {}
        self._error: RtDenoiseError | None = None
        self._restarts = 0
        self.ring: SharedRing | None = None
        self._status: StatusPublisher | None = None
        self._reporter: Reporter | None = None

    def start(self) -> None:
        """Open the source, build the engine, bind the endpoints, then let frames flow."""
        self._check_before_spawning()
        ringfile.remove_orphans(self._ring_path.parent)
        self._status = StatusPublisher(self.settings.endpoints.status)
        self._acquire = self._launch(acquire.main) if self._source is None else self._take_from(self._source)
        self._await(self._acquire, "opened", "the source did not open")
        self.ring = SharedRing.attach(self._ring_path)
        self._start_denoise(raw_only="")
        if self.ready is None:
            raise EngineError("the denoise process ended before it was ready; run rtdenoise doctor")
        self._reporter = Reporter(self.ring, self._status, self.ready)
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

    def _launch(self, main: Callable[..., None], *more: object, **named: object) -> _Child:
        ours, theirs = self._spawn.Pipe(duplex=False)
        args = (self.settings, self._ring_path, self._wake, theirs, *more)
        process = self._spawn.Process(target=main, args=args, kwargs=named, daemon=True)
        process.start()
        theirs.close()
        return _Child(process, ours)

    def _take_from(self, source: Source) -> _Child:
        ours, theirs = self._spawn.Pipe(duplex=False)
        args = (lambda: source, self.settings, self._ring_path, self._wake, theirs)
        thread = threading.Thread(target=acquire.serve, args=args, name="acquire", daemon=True)
        thread.start()
        return _Child(thread, ours)

    def _start_denoise(self, raw_only: str) -> None:
        self._denoise = self._launch(denoise.main, self._calibrations, raw_only=raw_only)
        self.ready = self._await(self._denoise, "ready", "the engine was not ready")

    def _await(self, child: _Child, wanted: str, complaint: str) -> Any:
        """The value of the message `wanted`; raises what the child could not do. (Any: each message has its own type.)"""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            message = child.hear(timeout_s=0.1)
            if message is None and not child.process.is_alive() and not child.said_something():
                raise SourceError(f"{complaint}: its process ended with code {child.exitcode}")
            if message and message[0] == wanted:
                return message[1]
            if message and message[0] == "error":
                raise _rebuilt(message[1], message[2])
            if self._error:
                raise self._error
        raise SourceError(f"{complaint} within {START_TIMEOUT_S:.0f} s")

    def _hear_acquire(self, child: _Child) -> None:
        while message := child.hear():
            if message[0] == "error":
                self._error = _rebuilt(message[1], message[2])
        ring = self.ring
        if ring is not None and not child.process.is_alive() and ring.state in (State.OPENING, State.RUNNING):
            code = child.exitcode
            self._error = SourceDisconnected(f"the acquire process died (code {code}); frames taken before were kept")
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
        self._restart_denoise(trouble or f"the denoise process died (code {child.exitcode})")
        return True

    def _restart_denoise(self, trouble: str) -> None:
        """A stated chain: the same engine again, three times; then raw frames only. Acquisition goes on meanwhile."""
        child, ring = self._denoise, self.ring
        if child is None or ring is None:
            return
        child.end()
        self._restarts += 1
        ring.ints[Slot.RESTARTS] = self._restarts
        raw_only = trouble if self._restarts > MAX_RESTARTS else ""
        self._news(f"{trouble}; " + ("raw frames only from here" if raw_only else f"restart {self._restarts}"))
        try:
            self._start_denoise(raw_only)
        except RtDenoiseError as error:
            if raw_only:
                raise
            self._news(f"{error}; raw frames only from here")
            self._end_denoise()
            self._start_denoise(str(error))
        if self._reporter is not None and self.ready is not None:
            self._reporter.now_ready(self.ready)

    def _end_denoise(self) -> None:
        if self._denoise is not None:
            self._denoise.end()

    def _running(self) -> Reporter:
        if self._reporter is None:
            raise ConfigError("the session has not started; use it as a context manager")
        return self._reporter


class _Child:
    """A process, or the thread that stands for one, and what it says to us."""

    def __init__(self, process: BaseProcess | threading.Thread, ears: Connection) -> None:
        self.process, self._ears = process, ears

    def hear(self, timeout_s: float = 0.0) -> tuple[Any, ...] | None:
        """The next message, None when there is none or the process is gone. (Any: each message has its own type.)"""
        try:
            return self._ears.recv() if self._ears.poll(timeout_s) else None
        except (EOFError, OSError):
            return None

    def said_something(self) -> bool:
        try:
            return self._ears.poll()
        except (EOFError, OSError):
            return False

    @property
    def exitcode(self) -> int | None:
        """How the process ended; None while it runs, and for a thread."""
        return self.process.exitcode if isinstance(self.process, BaseProcess) else None

    @property
    def pid(self) -> int | None:
        """Process id; our own for a thread."""
        return self.process.pid if isinstance(self.process, BaseProcess) else os.getpid()

    def end(self) -> None:
        """Wait for the process to end by itself, then make it."""
        self.process.join(STOP_TIMEOUT_S if self.process.is_alive() else 0)
        if isinstance(self.process, BaseProcess) and self.process.is_alive():
            self.process.kill()
            self.process.join(5)
        self._ears.close()


def _rebuilt(name: str, text: str) -> RtDenoiseError:
    kind = getattr(errors, name, RtDenoiseError)
    if isinstance(kind, type) and issubclass(kind, RtDenoiseError) and kind is not errors.MissingExtraError:
        return kind(text)
    return RtDenoiseError(text)
