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
from rtdenoise.child import Child, await_word, rebuilt
from rtdenoise.control import ControlEndpoint
from rtdenoise.denoise import Ready
from rtdenoise.desk import Desk
from rtdenoise.engine import load
from rtdenoise.errors import ConfigError, RtDenoiseError, SourceDisconnected
from rtdenoise.handover import Answer
from rtdenoise.logbook import Logbook
from rtdenoise.publish import StatusPublisher
from rtdenoise.recording import denoised, events
from rtdenoise.reporter import Reporter, marked
from rtdenoise.scrape import MetricsServer
from rtdenoise.settings import EngineSettings, RunSettings
from rtdenoise.shared import SharedRing, Slot, State
from rtdenoise.sources.base import Source
from rtdenoise.succession import POLL_S, Succession
from rtdenoise.summary import Summary


class Session:
    """Supervises one run. Use as a context manager; `on_news` gets lines for a person: mode, restarts, trouble.

    When the denoise process dies, before its first frame or later, another one takes over by the chain of `Fallback`.

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
        self.log = Logbook(settings.log_dir, {"settings": settings.model_dump(mode="json")})
        self._on_news = on_news
        self._spawn = multiprocessing.get_context("spawn")
        self._ring_path = (
            ringfile.default_folder(settings.ring_mb << 20) / f"rtdenoise-{os.getpid()}-{uuid.uuid4().hex[:8]}.ring"
        )
        self._wake = self._spawn.Semaphore(0)
        self._acquire: Child | None = None
        self._tape: Child | None = None
        self._error: RtDenoiseError | None = None
        self._said: list[str] = []
        self._succession = Succession(
            settings,
            lambda settings, *more: self._launch(denoise.main, settings, *more),
            self._say,
            self._changed,
            self._meanwhile,
        )
        self.ring: SharedRing | None = None
        self._status: StatusPublisher | None = None
        self._reporter: Reporter | None = None
        self._control: ControlEndpoint | None = None
        self._desk: Desk | None = None
        self.metrics: MetricsServer | None = None

    def start(self) -> None:
        """Open the source, build the engine, bind the endpoints, then let frames flow."""
        self._check_before_spawning()
        ringfile.remove_orphans(self._ring_path.parent)
        self._status = StatusPublisher(self.settings.endpoints.status, remote=self.settings.remote)
        self._control = ControlEndpoint(self.settings.endpoints.control)
        self._acquire = (
            self._launch(acquire.main, self.settings) if self._source is None else self._take_from(self._source)
        )
        await_word(self._acquire, "opened", "the source did not open", self._overhear)
        self.ring = SharedRing.attach(self._ring_path)
        ready = self._succession.start(self.ring)
        self._reporter = Reporter(
            self.ring, self._status, ready, self.settings, self._succession.calibrations, self.log
        )
        if self.settings.metrics_port is not None:
            self.metrics = MetricsServer(self.settings.metrics_port, self.ring, self._reporter)
        for line in [*self._said, *([self.log.trouble] if self.log.trouble else [])]:
            self._reporter.note(line)
        self._news(f"{ready.mode}: {ready.reason}")
        if self.settings.record is not None and self.settings.record.denoised is not None:
            self._tape = self._launch(denoised.main, self.settings)
            await_word(self._tape, "opened", "denoised frames cannot be recorded", self._overhear)
        self._desk = Desk(self._control, self)
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
        while self._tape is not None and (message := self._tape.hear()):
            self._overhear(message)
        running = self._succession.watch()
        reporter.tick()
        if self._desk is not None:
            self._desk.serve()
        return running

    def stop(self) -> None:
        """Ask the run to end; frames already taken are still denoised and published."""
        if self.ring is not None:
            if self._reporter is not None and self.ring.state in (State.OPENING, State.RUNNING):
                self._reporter.stopping()
            self.ring.ints[Slot.STOP] = 1

    def summary(self) -> Summary:
        """Where every frame went and how long it took, so far."""
        return self._running().summary(str(self._error) if self._error else "")

    def mark(self, text: str) -> dict[str, Any]:
        """Say that something happens just now: in the next status message, and beside the recording where there is one.

        Returns the event; its frame is the newest that was taken. (Any: JSON values.) Raises ConfigError before the first frame.
        """
        reporter, ring = self._running(), self.ring
        event = marked(ring, text) if ring is not None else None
        if event is None:
            raise ConfigError("there is no frame yet to put a mark on; mark again when the series has begun")
        reporter.event(event)
        if self.settings.record is not None:
            events.append(self.settings.record.folder, event)
        self.log.write(f"mark at frame {event['src_frame']}: {text}")
        return event

    def recalibrate(self) -> str:
        """Let the next frames of every stream give it a new offset and scale; a line that says so.

        Raises ConfigError for a model that brings its own.
        """
        if self.ring is None or not self._succession.is_calibrated:
            raise ConfigError(f"{self.engine.model} brings its own offset and scale; nothing is calibrated")
        self.ring.ints[Slot.RECALIBRATE] += 1
        line = f"the next {self.engine.calibration_frames} frames of every stream give it a new offset and scale"
        self._say(line)
        return line

    def change_engine(self, engine: EngineSettings, says: str, answer: Answer = lambda _ok, _line: None) -> None:
        """Go on with another engine, model or look-ahead as soon as a process with it is warm; the running one goes on until then.

        says: what it is, for a person.  answer: told once, later.  Raises ConfigError or BundleError when it cannot even begin.
        """
        self._succession.begin(engine, says, answer)

    @property
    def engine(self) -> EngineSettings:
        """What denoises now, as it was asked for."""
        return self._succession.settings.engine

    @property
    def ready(self) -> Ready | None:
        """What the newest denoise process said before its first frame; None before there is one."""
        return self._succession.ready

    @property
    def trying(self) -> str:
        """The engine that was opened last, or is being opened."""
        return self._succession.trying

    @property
    def children(self) -> list[Child]:
        """Every process of the run."""
        return [*(child for child in (self._acquire, self._tape) if child), *self._succession.children]

    @property
    def denoise_pid(self) -> int | None:
        """Process id of the denoise process, None while there is none."""
        return self._succession.pid

    def close(self) -> None:
        """End every process and remove the ring. Safe from any state, any number of times."""
        self.stop()
        if self._acquire is not None:
            self._acquire.end()
        self._succession.close()
        if self._tape is not None:
            self._tape.end()
        if self._reporter is not None:
            self._reporter.end(self._error)
        if self.metrics is not None:
            self.metrics.close()
            self.metrics = None
        if self._status is not None:
            self._status.close()
        if self._control is not None:
            self._control.close()
        if self.ring is not None:
            self.ring.close()
            self.ring = None
        ringfile.remove(self._ring_path)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as error:
            self.log.write(f"not started: {type(error).__name__}: {error}")
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._error = self._error or next((error for error in exc if isinstance(error, RtDenoiseError)), None)
        self.close()

    def _check_before_spawning(self) -> None:
        """Mistakes that need no process to be seen come first and fast."""
        if self._source is None:
            acquire.open_source(self.settings.source)
        load.check(self.settings.engine)

    def _launch(self, main: Callable[..., None], settings: RunSettings, *more: object) -> Child:
        ours, theirs = self._spawn.Pipe(duplex=False)
        words = self.log.words_of(main.__module__.rpartition(".")[2])
        args = (words and words.path, main, settings, self._ring_path, self._wake, theirs, *more)
        process = self._spawn.Process(target=lastwords.recorded, args=args, daemon=True)
        process.start()
        theirs.close()
        return Child(process, ours, words)

    def _take_from(self, source: Source) -> Child:
        ours, theirs = self._spawn.Pipe(duplex=False)
        args = (lambda: source, self.settings, self._ring_path, self._wake, theirs)
        thread = threading.Thread(target=acquire.serve, args=args, name="acquire", daemon=True)
        thread.start()
        return Child(thread, ours)

    def _overhear(self, message: tuple[object, ...]) -> None:
        """What acquire has to say to a person, before the run and in it."""
        if message[0] == "note":
            self._say(str(message[1]))

    def _hear_acquire(self, child: Child) -> None:
        while message := child.hear():
            if message[0] == "error":
                self._error = rebuilt(message[1], message[2])
            self._overhear(message)
        ring = self.ring
        if ring is not None and not child.process.is_alive() and ring.state in (State.OPENING, State.RUNNING):
            how = child.ending
            self._error = SourceDisconnected(f"the acquire process died ({how}); frames taken before were kept")
            ring.end_series()
            ring.ints[Slot.STATE] = State.FAILED

    def _changed(self, ready: Ready, why: str) -> None:
        """Another denoise process is at work."""
        if self._reporter is not None:
            self._reporter.now_ready(ready, why)
        if ready.hop:
            self._news(f"{why}: {ready.mode}{_with(ready)}: {ready.reason}")

    def _meanwhile(self) -> None:
        """While a denoise process is awaited."""
        if self._error:
            raise self._error
        if self._reporter is not None:
            self._reporter.tick()
        if self._desk is not None:
            self._desk.serve()

    def _news(self, line: str) -> None:
        """To the person who started the run, and to its log."""
        self.log.news(line)
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
