"""The one Protocol behind which every camera, file and simulator stands."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from rtdenoise.frame import Frame


@dataclass(slots=True, frozen=True)
class StreamInfo:
    """What a source will deliver, known before the first frame.

    shape: (Y, X).  dtype: numpy name, one of FRAME_DTYPES.  frame_interval_s: per frame of one channel and plane, None if unknown.
    live: True when frames come whether or not anybody reads.  capacity: frames the device buffers.  n_frames: frames in a series, None if open-ended.
    scan: what the acquisition software says about the scan (bidirectional, line_time_s, ...), empty when it says nothing.
    """

    name: str
    shape: tuple[int, int]
    dtype: str
    bit_depth: int = 16
    channels: int = 1
    planes: int = 1
    frame_interval_s: float | None = None
    live: bool = True
    capacity: int = 0
    n_frames: int | None = None
    um_per_px: float | None = None
    scan: Mapping[str, Any] = field(default_factory=dict)


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
    The receiver owns the pixels of a returned frame until the next read.
    """

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
