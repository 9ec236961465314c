"""The raw frames of a run in one file that the acquire and denoise processes map into memory.

One writer and one reader. Every slot carries a sequence number that is negative while the slot is being written, so a reader knows
a torn or overwritten frame from a good one, and a process that is killed leaves the file readable for the others.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import SourceError
from rtdenoise.frame import FRAME_DTYPES, Frame, FrameStamp, Pixels, StreamInfo
from rtdenoise.latency import N_BINS, LatencyHistogram
from rtdenoise.ringfile import PAGE, reserve, touch

DROP_REASONS = (
    "source: lost in the camera buffer",
    "source: skipped by policy",
    "acquire: bad frame",
    "ring: overwritten before it was read",
    "denoise: behind",
    "denoise: engine failed",
    "denoise: stopped before it was sent",
    "acquire: came late or twice",
)
STAGES = ("copy", "queue", "denoise", "publish", "age")
"""copy: from the source into the ring.  queue: arrival to pick-up.  age: arrival to hand-over of the denoised frame to the publisher."""


class Slot(IntEnum):
    """Places of the shared integers.

    CURSOR: the next frame that the denoise process takes; OPEN: frames that it took and has not settled.
    Of the handover between denoise processes, which are numbered from 1 on: LEAVE: the number up to which they shall go; LEFT: up to
    which they have gone, with their ports free; *_SUBSCRIBERS: who listens; *_SERIES: of the frame sent last; HANDOVER: 1 while one
    warms up beside the running one. RECALIBRATE: how often it was asked for.
    QUEUED_*: how full the queue of the slowest subscriber is, in 1/1000.
    RECORD*: of the raw recorder: its `recording.tape.TapeState`, frames written and lost, bytes, seconds of room on the disk, and the
    next frame it will write. DENOISED_*: of the one of denoised frames.
    """

    MAGIC = 0
    CAPACITY = 1
    STATE = 2
    STOP = 3
    HEAD = 4
    TAIL = 5
    SERIES_END = 6
    ACQUIRED = 7
    DELIVERED = 8
    SENT_RAW = 9
    SENT_DENOISED = 10
    PULL_CPU_NS = 11
    RESTARTS = 12
    SUSPECT = 13
    GO = 14
    RAW_UPTO = 15
    CURSOR = 16
    OPEN = 17
    DROPPED = 32
    RECORDER_STATE = 40
    RECORDED = 41
    RECORDER_LOST = 42
    RECORDED_BYTES = 43
    RECORDER_SECONDS_LEFT = 44
    RECORDER_CURSOR = 45
    DENOISED_RECORDED = 46
    DENOISED_LOST = 47
    LEAVE = 48
    LEFT = 49
    RAW_SUBSCRIBERS = 50
    DENOISED_SUBSCRIBERS = 51
    RECALIBRATE = 52
    RAW_SERIES = 53
    DENOISED_SERIES = 54
    HANDOVER = 55
    QUEUED_RAW = 56
    QUEUED_DENOISED = 57


class State(IntEnum):
    """Life of a run, as `acquire` sees it."""

    OPENING = 0
    RUNNING = 1
    ENDED = 2
    FAILED = 3


_MAGIC = 0x52544452494E4731
_TEXT_BYTES = 65_536
_N_INTS = 64
_N_STAMP = 10


class SharedRing:
    """The last `capacity` raw frames, the running totals and the latencies of one run.

    Frames have linear numbers from 0 over all series of the run. `head` is the number of the next frame to be written,
    `tail` the oldest frame that is neither delivered nor dropped.
    """

    def __init__(self, path: Path, info: StreamInfo, capacity: int, memory: mmap.mmap) -> None:
        self.path, self.info, self.capacity = path, info, capacity
        self._memory = memory
        layout = _Layout(info, capacity)
        self.ints = layout.ints(memory)
        self._rows, self._sequence, self._settled = layout.stamps(memory)
        self._pixels = layout.pixels(memory)
        counts = layout.latencies(memory)
        self.latency = {stage: LatencyHistogram(counts[i]) for i, stage in enumerate(STAGES)}
        self._series = ("", 0, 0)

    @classmethod
    def create(cls, path: Path, info: StreamInfo, capacity: int) -> Self:
        """Make the file and map it. Raises SourceError when the disk has no room for it."""
        layout = _Layout(info, capacity)
        try:
            with path.open("w+b") as file:
                reserve(file.fileno(), layout.size)
                memory = mmap.mmap(file.fileno(), layout.size)
        except OSError as error:
            raise SourceError(f"{path}: no room for a ring of {layout.size >> 20} MiB: {error.strerror}") from None
        touch(memory)
        text = json.dumps(asdict(info) | {"scan": dict(info.scan)}).encode()
        memory[layout.text : layout.text + len(text)] = text
        ring = cls(path, info, capacity, memory)
        ring.ints[Slot.CAPACITY] = capacity
        ring.ints[Slot.SERIES_END] = -1
        ring.ints[Slot.MAGIC] = _MAGIC
        return ring

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Map a ring that another process made. Raises SourceError when the file is not one."""
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        ints = np.frombuffer(memory, np.int64, _N_INTS)
        if len(memory) < PAGE or ints[Slot.MAGIC] != _MAGIC:
            raise SourceError(f"{path}: not a frame ring")
        touch(memory)
        text = bytes(memory[_N_INTS * 8 : _N_INTS * 8 + _TEXT_BYTES]).rstrip(b"\0")
        values = json.loads(text)
        info = StreamInfo(**(values | {"shape": tuple(values["shape"])}))
        return cls(path, info, int(ints[Slot.CAPACITY]), memory)

    # --- the writer ---------------------------------------------------------------------------------------------------

    def write(self, frame: Frame, epoch_ns: int) -> None:
        """Copy one frame in as number `head`. `epoch_ns`: perf_counter_ns at the start of its series. Overwrites the oldest."""
        number = int(self.ints[Slot.HEAD])
        slot = number % self.capacity
        self._sequence[slot] = -(number + 1)
        np.copyto(self._pixels[slot], frame.pixels)
        s = frame.stamp
        high, low = _split(s.series)
        self._rows[slot] = (s.src_frame, s.t_in, s.t_src, s.channel, s.plane, s.dropped, epoch_ns, high, low, 0)
        self._sequence[slot] = number + 1
        self.ints[Slot.HEAD] = number + 1

    def end_series(self) -> None:
        """Say that the frame before `head` was the last of its series."""
        self.ints[Slot.SERIES_END] = self.ints[Slot.HEAD]

    # --- the reader ---------------------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """Number of the next frame to be written."""
        return int(self.ints[Slot.HEAD])

    @property
    def oldest(self) -> int:
        """Oldest frame that the writer is not about to overwrite."""
        return max(0, self.head - self.capacity + 1)

    def frame(self, number: int) -> Frame | None:
        """Frame `number` (stamp.frame == number) with a view of its pixels in the ring, None when it was overwritten.

        The view may be overwritten at any time: use it, then ask `intact`.
        """
        if not self.intact(number):
            return None
        slot = number % self.capacity
        src, t_in, t_src, channel, plane, dropped, _, high, low, _ = self._rows[slot].tolist()
        stamp = FrameStamp(self._series_id(high, low), number, src, t_in, t_src, 0, channel, plane, dropped)
        return Frame(self._pixels[slot], stamp) if self.intact(number) else None

    def intact(self, number: int) -> bool:
        """Whether frame `number` is complete and still here."""
        return bool(self._sequence[number % self.capacity] == number + 1)

    def epoch_ns(self, number: int) -> int:
        """perf_counter_ns at which the series of frame `number` started."""
        return int(self._rows[number % self.capacity, 6])

    def settle(self, number: int) -> None:
        """Mark frame `number` as delivered or dropped."""
        slot = number % self.capacity
        # A frame that waits for its look-ahead may be settled after the one that overwrote it.
        self._settled[slot] = max(number + 1, int(self._settled[slot]))

    def is_settled(self, number: int) -> bool:
        """Whether frame `number`, which must still be here, was delivered or dropped."""
        return bool(self._settled[number % self.capacity] == number + 1)

    def in_flight(self) -> int:
        """Frames that were neither delivered nor dropped yet, those among them that were overwritten before anybody read them."""
        cursor, head = int(self.ints[Slot.CURSOR]), self.head
        settled_before = np.count_nonzero((self._settled > cursor) & (self._settled <= head))
        return max(0, head - cursor - int(settled_before)) + int(self.ints[Slot.OPEN])

    # --- both ---------------------------------------------------------------------------------------------------------

    def dropped(self) -> dict[str, int]:
        """Running totals by stage and reason, those that are not zero."""
        counts = self.ints[Slot.DROPPED : Slot.DROPPED + len(DROP_REASONS)].tolist()
        return {reason: n for reason, n in zip(DROP_REASONS, counts, strict=True) if n}

    def count_drop(self, reason: str, n: int = 1) -> None:
        """Add to a drop counter; each reason has one writing process."""
        self.ints[Slot.DROPPED + DROP_REASONS.index(reason)] += n

    @property
    def state(self) -> State:
        """What `acquire` last said."""
        return State(int(self.ints[Slot.STATE]))

    def close(self) -> None:
        """Drop every view of the file. The file stays until `remove`."""
        del self.ints, self._rows, self._sequence, self._settled, self._pixels
        self.latency = {}
        try:
            self._memory.close()
        except BufferError:  # somebody still holds a frame's pixels; the mapping goes when they do
            return

    def _series_id(self, high: int, low: int) -> str:
        if self._series[1:] != (high, low):
            self._series = (f"{high & 0xFFFFFFFFFFFFFFFF:016x}{low & 0xFFFFFFFFFFFFFFFF:016x}", high, low)
        return self._series[0]


class _Layout:
    """Where things lie in the file."""

    def __init__(self, info: StreamInfo, capacity: int) -> None:
        if info.dtype not in FRAME_DTYPES:
            raise SourceError(f"{info.name} delivers {info.dtype} pixels; rtdenoise takes {', '.join(FRAME_DTYPES)}")
        self._info, self._capacity = info, capacity
        self.text = _N_INTS * 8
        self._latencies = self.text + _TEXT_BYTES
        self._rows = self._latencies + len(STAGES) * N_BINS * 8
        self._pixels = -(-(self._rows + capacity * (_N_STAMP + 2) * 8) // PAGE) * PAGE
        self.size = self._pixels + capacity * info.shape[0] * info.shape[1] * np.dtype(info.dtype).itemsize

    def ints(self, memory: mmap.mmap) -> NDArray[np.int64]:
        return np.frombuffer(memory, np.int64, _N_INTS)

    def latencies(self, memory: mmap.mmap) -> NDArray[np.int64]:
        return np.frombuffer(memory, np.int64, len(STAGES) * N_BINS, self._latencies).reshape(len(STAGES), N_BINS)

    def stamps(self, memory: mmap.mmap) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        n = self._capacity
        every = np.frombuffer(memory, np.int64, n * (_N_STAMP + 2), self._rows)
        return every[: n * _N_STAMP].reshape(n, _N_STAMP), every[n * _N_STAMP : n * (_N_STAMP + 1)], every[-n:]

    def pixels(self, memory: mmap.mmap) -> Pixels:
        y, x = self._info.shape
        return np.frombuffer(memory, self._info.dtype, self._capacity * y * x, self._pixels).reshape(-1, y, x)


def _split(series: str) -> tuple[int, int]:
    """A 128-bit hex id as two signed 64-bit integers."""
    value = int(series, 16)
    return _signed(value >> 64), _signed(value & 0xFFFFFFFFFFFFFFFF)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
