"""A real run with its processes and listeners, watched: what every test of the live path is made of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Self

import numpy as np
import psutil  # type: ignore[import-untyped]
from numpy.typing import NDArray

from rtdenoise.session import Session
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing
from rtdenoise.summary import Summary
from soaks.bins import Bins, sparse
from soaks.ear import Ear, Heard, Listener
from soaks.gauges import Gauges

POLL_S = 0.02
GAUGE_S = 5.0
"""Between two looks at the memory: a look holds the process up for a moment."""
FIRST_FRAMES_S = 30.0
N_LOOKS = 50


class SoakFailed(Exception):
    """The run itself broke, so that nothing can be judged."""


def ear(settings: RunSettings, stream: str, *, busy_ms: float = 0.0, newest: bool = False, exact: bool = False) -> Ear:
    """How to listen to a stream of a run; see Ear."""
    ends = settings.endpoints
    return Ear(getattr(ends, stream), ends.status, stream, busy_ms, newest, exact)


class Live:
    """A session and its listeners. Use as a context manager; the listeners are there before the first frame.

    news: what the session had to say.
    """

    def __init__(self, settings: RunSettings, ears: Mapping[str, Ear]) -> None:
        self.settings = settings
        self.news: list[str] = []
        self.session = Session(settings, self.news.append)
        self.listeners: dict[str, Listener] = {}
        self.gauges = Gauges()
        self._ears = ears
        self._gauged_at = 0.0
        self._published: NDArray[np.int64] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            for name, ear in self._ears.items():
                self.add(name, ear)
            self._stack.enter_context(self.session)
            self._wait_for_frames()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def ring(self) -> SharedRing:
        """The ring of the run."""
        if self.session.ring is None:
            raise SoakFailed("the session has no ring")
        return self.session.ring

    def add(self, name: str, ear: Ear) -> Listener:
        """One more listener, from now on."""
        self.listeners[name] = self._stack.enter_context(Listener(ear))
        return self.listeners[name]

    def remove(self, name: str) -> Heard:
        """Let a listener go; its last word."""
        return self.listeners.pop(name).finish()

    def watch(self, seconds: float, often: Callable[[], None] = lambda: None) -> None:
        """Keep the run going for so long. Raises SoakFailed when it ends before."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self.look()
            often()
            time.sleep(min(POLL_S, left_s))

    def look(self) -> None:
        """One look at everybody."""
        if not self.session.poll():
            raise SoakFailed(f"the run ended by itself: {self.session.summary().error or self.news[-1:]}")
        for listener in self.listeners.values():
            listener.hear()
        if time.monotonic() - self._gauged_at >= GAUGE_S:
            self._gauged_at = time.monotonic()
            self.gauges.read(self.pids())

    def pids(self) -> dict[str, int]:
        """Role -> process: supervisor, acquire, denoise, and every listener."""
        found = {"supervisor": os.getpid()}
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if role := self._role(child.pid):
                    found[role] = child.pid
        return found

    def denoise(self) -> psutil.Process:
        """The denoise process, to be frozen or killed."""
        return psutil.Process(self.session.denoise_pid)

    def published(self) -> Bins:
        """How long handing a denoised frame to the publisher took, since the last time this was asked."""
        now = self.ring.latency["publish"].counts.copy()
        before, self._published = self._published, now
        return sparse(now if before is None else now - before)

    def unaccounted(self) -> int:
        """Frames of which nobody knows where they are. Three processes count at the same time: looked at until it adds up."""
        found = 0
        for _ in range(N_LOOKS):
            found = missing_frames(self.session.summary())
            if found == 0:
                break
        return found

    def finish(self) -> tuple[Summary, dict[str, Heard]]:
        """End the run in order; its figures, and the last word of every listener."""
        self.session.stop()
        summary = self.session.run()
        return summary, {name: self.listeners[name].finish() for name in tuple(self.listeners)}

    def _role(self, pid: int) -> str:
        known = {listener.process.pid: name for name, listener in self.listeners.items()}
        known[self.session.denoise_pid] = "denoise"
        acquire = self.session._acquire
        known[acquire.pid if acquire else None] = "acquire"
        return known.get(pid, "")

    def _wait_for_frames(self) -> None:
        """Until every listener has heard something: from then on the run is in its stride."""
        deadline = time.monotonic() + FIRST_FRAMES_S
        while not all(listener.hear().received for listener in self.listeners.values()):
            self.look()
            time.sleep(POLL_S)
            if time.monotonic() > deadline:
                raise SoakFailed(f"no frame reached a listener within {FIRST_FRAMES_S:.0f} s: {self.news[-3:]}")


def missing_frames(summary: Summary) -> int:
    """acquired - delivered - dropped - in flight."""
    return summary.acquired - summary.delivered - sum(summary.dropped.values()) - summary.in_flight
