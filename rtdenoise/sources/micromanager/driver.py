"""Who calls the core. For a core in this process: the reader's own thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rtdenoise.frame import Pixels
from rtdenoise.sources.micromanager.base import ANSWER_S, Arrival, Core, T, Take
from rtdenoise.sources.micromanager.inprocess import borrow, give_back
from rtdenoise.sources.micromanager.sequence import NAP_S, Sequence
from rtdenoise.sources.micromanager.settings import MicromanagerSettings


class LocalDriver:
    """MMCore in this process: the circular buffer is the queue, and whoever reads does the popping."""

    def __init__(
        self,
        settings: MicromanagerSettings,
        core: Core | None = None,
        take: Take | None = None,
        let_go: Callable[[], None] = give_back,
    ) -> None:
        """core: one that is loaded already, with what pops from it and what lets go of it; else that of pycromanager."""
        self.take: Take = take or _take
        self._let_go = let_go
        self._depth = settings.depth
        self._core: Core | None = core or borrow(settings)
        self._sequence: Sequence | None = None
        self._lock = threading.Lock()  # popping from two threads would lose the order

    def call(self, job: Callable[[Core], T], within_s: float = ANSWER_S) -> T:
        """`job(core)` on the caller's thread, never during a pop; a call into our own process cannot be given up."""
        with self._lock:
            if self._core is None:
                raise RuntimeError("core call after close")
            return job(self._core)

    def follow(self, sequence: Sequence | None) -> None:
        """Hand out the frames of `sequence` from now on."""
        with self._lock:
            self._sequence = sequence

    def next(self, timeout_s: float) -> Arrival | None:
        """Poll with short naps until a frame is there."""
        cpu_ns, deadline = time.thread_time_ns(), time.perf_counter() + timeout_s
        sequence = self._sequence
        try:
            while sequence is not None and sequence is self._sequence:
                arrival = self._try(sequence)
                if arrival is not None or time.perf_counter() >= deadline:
                    return arrival
                time.sleep(NAP_S)
            return None
        finally:
            if sequence is not None:
                sequence.stats.pull_cpu_ns += time.thread_time_ns() - cpu_ns

    def waiting(self) -> int:
        """Frames in the circular buffer."""
        with self._lock:
            return self._sequence.waiting() if self._sequence is not None else 0

    def close(self) -> None:
        """Give the core back; it is unloaded when nobody else in this process uses it."""
        with self._lock:
            core, self._core, self._sequence = self._core, None, None
        if core is not None:
            self._let_go()

    def _try(self, sequence: Sequence) -> Arrival | None:
        """The next frame that is not too old, if one is there."""
        while True:
            with self._lock:
                if sequence is not self._sequence:
                    return None
                popped = sequence.poll()
                if popped is None:
                    return None
                if self._depth is None or sequence.waiting() < self._depth:
                    return popped, sequence.ledger.deliver(popped.channel, popped.number)
                sequence.ledger.skip(popped.channel, popped.number)


def _take(core: Core) -> tuple[Pixels, Mapping[str, Any]]:
    image = core.pop_next_tagged_image()
    return image.pix, image.tags
