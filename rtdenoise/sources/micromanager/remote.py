"""One daemon thread does everything that touches the bridge, because a dead server blocks whoever called it for ever."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from rtdenoise.errors import EndOfStream, SourceDisconnected, SourceError, SourceStalled
from rtdenoise.sources.micromanager import bridge
from rtdenoise.sources.micromanager.base import ANSWER_S, STOP_S, Arrival, Core, Popped, T, Take
from rtdenoise.sources.micromanager.sequence import Sequence
from rtdenoise.sources.micromanager.settings import MicromanagerSettings

BEAT_S = 2.0
"""Silence of the thread before the port is probed. Engineering choice: ten times the longest wait seen behind a snapped image."""
NAP_S = 0.001
"""Between two looks at an empty buffer; each is two messages. Engineering choice: half a millisecond of latency on three."""
_SLICE_S = 0.25
_JOIN_S = 1.0


class RemoteDriver:
    """Pulls on its own thread into a bounded queue (drop_oldest, counted as skipped); nothing here waits for ever."""

    def __init__(self, settings: MicromanagerSettings) -> None:
        """Connects. Raises SourceDisconnected when no Micro-Manager answers."""
        self.take: Take = bridge.take
        self._settings = settings
        self._where = f"{settings.host}:{settings.port}"
        bridge.greet(settings.host, settings.port)
        self._core: Core | None = None
        self._restore: Callable[[], None] = lambda: None
        self._sequence: Sequence | None = None
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[Core], Any]]] = queue.SimpleQueue()
        self._news = threading.Condition()
        self._frames: deque[Popped] = deque()
        self._depth = 1
        self._in_camera = 0
        self._end: Exception | None = None
        self._lost: SourceDisconnected | None = None
        self._closing = threading.Event()
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"micromanager-{settings.port}", daemon=True)
        self._thread.start()
        try:
            self.call(lambda core: None)
        except BaseException:
            self.close()
            raise

    def call(self, job: Callable[[Core], T], within_s: float = ANSWER_S) -> T:
        """`job(core)` on the thread. Raises what it raises, SourceDisconnected for a dead server, SourceStalled for a silent one."""
        answer: Future[T] = Future()
        self._jobs.put((answer, job))
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if wait([answer], _SLICE_S).done:
                return answer.result()
            self._probe()
            if self._lost is not None:
                raise self._lost
        raise SourceStalled(f"Micro-Manager on {self._where} does not answer; look at its window for an open question")

    def follow(self, sequence: Sequence | None) -> None:
        """Pull the frames of `sequence` from now on; what is left of the one before is forgotten."""
        with self._news:
            self._frames.clear()
            self._end = None
            if sequence is not None:
                self._depth = self._settings.depth or _frames_in(self._settings.buffer_mb, sequence.frame_bytes)
            self._sequence = sequence
        self._jobs.put((Future(), lambda core: None))  # ends the wait of an idle thread

    def next(self, timeout_s: float) -> Arrival | None:
        """The oldest frame in the queue."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._news:
                arrival = self._oldest()
                left = deadline - time.monotonic()
                if arrival is not None or left <= 0:
                    return arrival
                self._news.wait(min(left, _SLICE_S))
            self._probe()

    def waiting(self) -> int:
        """Frames in our queue, and in the camera buffer when we last looked."""
        return len(self._frames) + self._in_camera

    def close(self) -> None:
        """Restore what we changed, release the core, end the thread; at most a few seconds, whatever the server does."""
        if not self._closing.is_set():
            with contextlib.suppress(SourceError):  # a server that is gone has nothing to restore
                self.call(lambda core: self._restore(), STOP_S)
        self._closing.set()
        self._thread.join(_JOIN_S)

    def _oldest(self) -> Arrival | None:
        """Takes from the queue; the error that ended the sequence comes after its last frame."""
        if self._frames and self._sequence is not None:
            popped = self._frames.popleft()
            return popped, self._sequence.ledger.deliver(popped.channel, popped.number)
        if self._lost is not None:
            raise self._lost
        if self._end is not None:
            end = self._end
            if isinstance(end, SourceStalled):
                self._end = None
            raise end
        return None

    def _probe(self) -> None:
        """Find out whether a silent thread waits for a server that is gone, and free it then."""
        if self._lost is not None or time.monotonic() - self._beat < BEAT_S:
            return
        if not bridge.port_answers(self._settings.host, self._settings.port):
            self._lost = SourceDisconnected(
                f"Micro-Manager on {self._where} went away; start it again, then open the source again"
            )
            self._closing.set()
            bridge.abandon(self._core, self._settings.port)

    def _run(self) -> None:
        try:
            core = self._core = bridge.connect(self._settings.host, self._settings.port)
            self._restore = bridge.quiet_state(core)
        except Exception as error:
            self._refuse(error)
            return
        while not self._closing.is_set():
            self._beat = time.monotonic()
            self._answer(core, wait_s=0.05 if self._sequence is None or self._end is not None else 0.0)
            self._pull()
        self._core = None
        if self._lost is None:
            bridge.release(core)

    def _refuse(self, error: Exception) -> None:
        """Answer every call with the reason why there is no connection."""
        while not self._closing.is_set():
            self._beat = time.monotonic()
            with contextlib.suppress(queue.Empty):
                self._jobs.get(timeout=0.05)[0].set_exception(error)

    def _answer(self, core: Core, wait_s: float) -> None:
        try:
            answer, job = self._jobs.get(timeout=wait_s) if wait_s else self._jobs.get_nowait()
        except queue.Empty:
            return
        try:
            answer.set_result(job(core))
        except BaseException as error:
            answer.set_exception(error)

    def _pull(self) -> None:
        sequence, cpu_ns = self._sequence, time.thread_time_ns()
        if sequence is None or self._end is not None:
            return
        try:
            popped = sequence.poll()
            self._put(sequence, popped)
        except (SourceError, EndOfStream) as end:
            self._finish(sequence, end)
        else:
            if popped is None:
                time.sleep(NAP_S)
        sequence.stats.pull_cpu_ns += time.thread_time_ns() - cpu_ns

    def _put(self, sequence: Sequence, popped: Popped | None) -> None:
        if popped is None:
            self._in_camera = 0
            return
        with self._news:
            if sequence is not self._sequence:
                return
            self._frames.append(popped)
            self._in_camera = sequence.left
            sequence.stats.max_backlog = max(sequence.stats.max_backlog, self.waiting())
            if len(self._frames) > self._depth:
                oldest = self._frames.popleft()
                sequence.ledger.skip(oldest.channel, oldest.number)
            self._news.notify_all()

    def _finish(self, sequence: Sequence, end: Exception) -> None:
        with self._news:
            if sequence is self._sequence:
                self._end = end
            self._news.notify_all()


def _frames_in(megabytes: int, frame_bytes: int) -> int:
    return max(8, megabytes * 2**20 // frame_bytes)
