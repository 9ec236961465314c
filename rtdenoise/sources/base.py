"""The one Protocol behind which every camera, file and simulator stands."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from rtdenoise.config import Settings
from rtdenoise.frame import Frame, StreamInfo

__all__ = ["DeviceClock", "SeriesClock", "Source", "SourceKind", "SourceStats", "Speaks", "StreamInfo"]

_MAX_TIME_NS = 2**61
"""Sums of two such times still fit the 64 bits of a stamp."""


@dataclass(slots=True)
class SourceStats:
    """Running totals. received: frames returned by read; dropped: lost before us; skipped: thrown away by our own policy;
    wipes: times the camera buffer was overwritten; suspect: frames popped from a nearly full buffer; max_backlog: frames;
    pull_cpu_ns: CPU time of the thread that pulls (0 where a source does not measure it).
    What a sender did wrong, none of it delivered: bad: messages that are not frames of this series; repeated: frames that were
    here before; late: frames that came after a later one, or far out of order. time_back: frames whose device clock went back.
    """

    received: int = 0
    dropped: int = 0
    skipped: int = 0
    wipes: int = 0
    suspect: int = 0
    max_backlog: int = 0
    pull_cpu_ns: int = 0
    bad: int = 0
    repeated: int = 0
    late: int = 0
    time_back: int = 0

    def trouble(self) -> str:
        """What the sender did wrong, in a line; empty when nothing."""
        causes = {
            "messages that are no frames of this series": self.bad,
            "frames that came twice": self.repeated,
            "frames that came out of order": self.late,
            "frames whose clock went back": self.time_back,
        }
        return ", ".join(f"{n} {cause}" for cause, n in causes.items() if n)


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


@runtime_checkable
class Speaks(Protocol):
    """A source that has something to say to a person before its first frame: it calls `say` with a line."""

    say: Callable[[str], None]


class SeriesClock:
    """Identity and time zero of one series."""

    def __init__(self) -> None:
        self.series = uuid.uuid4().hex
        self.epoch_ns = time.perf_counter_ns()

    def now_ns(self) -> int:
        """Ns since the series started."""
        return time.perf_counter_ns() - self.epoch_ns


class DeviceClock:
    """Times of a device on the scale of a series: the first frame's is its arrival. `went_back` counts times before the one before."""

    def __init__(self) -> None:
        self.went_back = 0
        self._offset_ns: int | None = None
        self._last_ns: int | None = None

    def source_ns(self, time_ns: int | None, t_in: int) -> int:
        """Ns since the series started; the arrival where the device has no clock, or one that cannot be right."""
        if time_ns is None or not -_MAX_TIME_NS < time_ns < _MAX_TIME_NS:
            return t_in
        if self._last_ns is not None and time_ns < self._last_ns:
            self.went_back += 1
        self._last_ns = time_ns
        if self._offset_ns is None:
            self._offset_ns = t_in - time_ns
        return time_ns + self._offset_ns


S = TypeVar("S", bound=Settings)


class SourceKind(Generic[S]):
    """A registered kind of source that is no class: `KIND(KIND.Settings(...))` is a Source. `title` says in a line what it is.

    needs, extra: a package that it cannot do without, and the extra that brings it.
    """

    def __init__(
        self, title: str, settings: type[S], make: Callable[[S], Source], *, needs: str = "", extra: str = ""
    ) -> None:
        self.title, self.Settings, self._make = title, settings, make
        self.needs, self.extra = needs, extra

    def __call__(self, settings: S) -> Source:
        """A source with these settings; touches nothing yet."""
        return self._make(settings)
