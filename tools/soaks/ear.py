"""A subscriber in a process of its own: what arrives there, how old it is, and whether every pixel is the one that was taken."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Self

import numpy as np

from rtdenoise.frame import Frame
from rtdenoise.latency import LatencyHistogram
from rtdenoise.sources.synthetic import counted
from rtdenoise.status import StartMessage, StatusMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from soaks.bins import Bins, sparse

SAY_S = 0.5
MOMENT_S = 0.1
"""The worst age is kept for every tenth of a second: fine enough to see when a display has caught up."""
N_MOMENTS = 6000
"""Ten minutes of them."""
START_S = 60.0


@dataclass(slots=True, frozen=True)
class Ear:
    """How to listen. busy_ms: what this subscriber does with each frame.  newest: passes over what is older, as a viewer does.

    exact: pixels must be those of the counter frame that the header names (raw streams).
    """

    endpoint: str
    status: str
    stream: str
    busy_ms: float = 0.0
    newest: bool = False
    exact: bool = False


@dataclass(slots=True)
class Heard:
    """Totals since the beginning. joined_at: number of the first frame.  wrong: frames with a pixel of another frame.

    disorder: frames that came after a later one.  moments: (perf_counter s, worst age in ms) since the last word.
    starts_ms: how long a new series was heard of only through its frames.  unbalanced: status messages that do not add up.
    """

    at: float = 0.0
    joined_at: int = -1
    received: int = 0
    skipped: int = 0
    missed: int = 0
    stray: int = 0
    bad: int = 0
    wrong: int = 0
    disorder: int = 0
    n_series: int = 0
    n_status: int = 0
    unbalanced: int = 0
    ages: Bins = field(default_factory=dict)
    moments: list[tuple[float, float]] = field(default_factory=list)
    starts_ms: list[float] = field(default_factory=list)


class Listener:
    """The process, as the soak sees it. `heard` is its last word; `moments` what it said of its worst ages lately."""

    def __init__(self, ear: Ear) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_listen, args=(ear, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.heard = Heard()
        self.moments: deque[tuple[float, float]] = deque(maxlen=N_MOMENTS)
        if not self._pipe.poll(START_S) or self._pipe.recv() != "listening":
            raise RuntimeError("the subscriber's process did not start")

    def hear(self) -> Heard:
        """Take in what it has said meanwhile."""
        with suppress(EOFError, OSError):  # a killed subscriber says no more
            while self._pipe.poll():
                self.heard = self._pipe.recv()
                self.moments += self.heard.moments
        return self.heard

    def finish(self) -> Heard:
        """Ask for its last word, then end it."""
        with suppress(OSError):
            self._pipe.send("finish")
        self.process.join(5)
        heard = self.hear()
        self.close()
        return heard

    def close(self) -> None:
        """End the process, frozen or not."""
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)
        self._pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _listen(ear: Ear, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Subscriber(ear.endpoint, stream=ear.stream) as frames, StatusSubscriber(ear.status) as status:
        listening = _Listening(ear, frames, status)
        pipe.send("listening")
        said_at = time.perf_counter()
        while not pipe.poll():
            listening.take()
            if time.perf_counter() - said_at >= SAY_S:
                said_at = time.perf_counter()
                pipe.send(listening.word())
        for _ in range(1000):
            if not listening.take():
                break
        pipe.send(listening.word())


class _Listening:
    """What was heard, while it is being heard."""

    def __init__(self, ear: Ear, frames: Subscriber, status: StatusSubscriber) -> None:
        self._ear, self._frames, self._status = ear, frames, status
        self._heard = Heard()
        self._histogram = LatencyHistogram()
        self._starts: dict[str, StartMessage] = {}
        self._waiting: dict[str, float] = {}
        self._series, self._newest_src = "", Counter[tuple[int, int]]()

    def take(self) -> bool:
        """One frame, and what is done with it; False when none came."""
        message = self._frames.newest(0.05) if self._ear.newest else self._frames.read(0.05)
        now = time.perf_counter_ns()
        if message is None:
            return False
        self._note_identity(message.frame)
        self._note_age(message.frame.stamp.series, message.frame.stamp.t_in, now)
        if self._ear.busy_ms:
            time.sleep(self._ear.busy_ms / 1e3)
        return True

    def word(self) -> Heard:
        """Everything so far; what is told only once begins anew."""
        self._learn_starts()
        heard, frames = self._heard, self._frames
        heard.at = time.perf_counter()
        heard.received, heard.skipped, heard.missed = frames.received, frames.skipped, frames.missed
        heard.stray, heard.bad = frames.stray, frames.bad
        heard.ages = sparse(self._histogram.counts)
        said = Heard(**{name: getattr(heard, name) for name in Heard.__slots__})
        heard.moments, heard.starts_ms = [], []
        return said

    def _note_identity(self, frame: Frame) -> None:
        stamp, heard = frame.stamp, self._heard
        if stamp.series != self._series:
            self._series = stamp.series
            self._newest_src.clear()
            heard.n_series += 1
            heard.joined_at = stamp.frame if heard.joined_at < 0 else heard.joined_at
            self._waiting[stamp.series] = time.perf_counter()
        number = stamp.src_frame + 1
        heard.disorder += number <= self._newest_src[stamp.key]
        self._newest_src[stamp.key] = number
        heard.wrong += self._ear.exact and not is_counter_frame(frame)

    def _note_age(self, series: str, t_in: int, now: int) -> None:
        start = self._starts.get(series)
        if start is None:
            self._learn_starts()
            return
        age_ns = now - start.epoch_ns - t_in
        self._histogram.add(age_ns)
        at, moments = now / 1e9, self._heard.moments
        if moments and at - moments[-1][0] < MOMENT_S:
            moments[-1] = (moments[-1][0], max(moments[-1][1], age_ns / 1e6))
        else:
            moments.append((at, age_ns / 1e6))

    def _learn_starts(self) -> None:
        for message in _all(self._status):
            if isinstance(message, StatusMessage):
                self._heard.n_status += 1
                self._heard.unbalanced += not message.balanced
            elif isinstance(message, StartMessage) and message.series not in self._starts:
                self._starts = {message.series: message}
                since = self._waiting.pop(message.series, None)
                self._heard.starts_ms.append(0.0 if since is None else 1e3 * (time.perf_counter() - since))


def _all(status: StatusSubscriber) -> Iterator[object]:
    while (message := status.read(0)) is not None:
        yield message


def is_counter_frame(frame: Frame) -> bool:
    """Whether every pixel is the one of the counter frame that the stamp names."""
    pixels, number = frame.pixels, frame.stamp.src_frame
    rest = pixels.reshape(-1)[1:]
    return counted(pixels) == number and bool(np.all(rest == rest[0]))
