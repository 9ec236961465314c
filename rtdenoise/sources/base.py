"""The one Protocol behind which every camera, file and simulator stands."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rtdenoise.frame import Frame, StreamInfo

__all__ = ["SeriesClock", "Source", "SourceStats", "StreamInfo"]


@dataclass(slots=True)
class SourceStats:
    """Running totals. received: frames returned by read; dropped: lost before us; skipped: thrown away by our own policy;
    wipes: times the camera buffer was overwritten; suspect: frames popped from a nearly full buffer; max_backlog: frames;
    pull_cpu_ns: CPU time of the thread that pulls (0 where a source does not measure it).
    """

    received: int = 0
    dropped: int = 0
    skipped: int = 0
    wipes: int = 0
    suspect: int = 0
    max_backlog: int = 0
    pull_cpu_ns: int = 0


@runtime_checkable
class Source(Protocol):
    """Frames in order, one series at a time. Constructed from its own `Settings` model: `SomeSource(SomeSource.Settings(...))`.

    open() connects and reads the geometry; start() begins a new series (new id, frame 0); read() waits at most `timeout_s`
    and returns None when nothing came, raises EndOfStream at the end of the series and a SourceError otherwise.
    stop() and close() may be called from any state, any number of times, and never hang.
    The receiver owns the pixels of a returned frame until the next read. `clock` is the clock of the current series.
    """

    @property
    def clock(self) -> SeriesClock: ...
    def open(self) -> StreamInfo: ...
    def start(self) -> None: ...
    def read(self, timeout_s: float = 1.0) -> Frame | None: ...
    def backlog(self) -> int: ...
    def stats(self) -> SourceStats: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class SeriesClock:
    """Identity and time zero of one series."""

    def __init__(self) -> None:
        self.series = uuid.uuid4().hex
        self.epoch_ns = time.perf_counter_ns()

    def now_ns(self) -> int:
        """Ns since the series started."""
        return time.perf_counter_ns() - self.epoch_ns
