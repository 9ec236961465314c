"""Frames handed over through a memory-mapped file with Scanbox's header: one slot, written by one side, emptied by the other.

16 numbers of int16, then the pixels of channel A and, with two channels, of B, as uint16. The first number is -1 while the slot is
empty, -2 when the writer has stopped, else the number of the frame that waits, counted to 32767 and round again; the second and third
are lines and columns. Whoever reads copies the pixels and writes -1 (scanbox.org, memory-mapped plug-ins). What the writer makes
meanwhile is lost, and seen from the numbers.
"""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rtdenoise.errors import EndOfStream, FileFormatError, GeometryChanged
from rtdenoise.frame import Pixels
from rtdenoise.sources.base import SourceKind, StreamInfo
from rtdenoise.sources.door import BadMessage, Exposure, FeedSettings, interval_s
from rtdenoise.sources.feed import Feed

EMPTY, STOPPED = -1, -2
N_NUMBERS = 16
HEADER_BYTES = 2 * N_NUMBERS
ROUND = 1 << 15
"""Frame numbers are int16 and not negative."""
NAP_S = 0.0005
N_BUFFERS = 4
N_LOOKED_AT, LOOK_S = 8, 1.0


class ShmSettings(FeedSettings):
    """Which file, and how the pixels lie in it."""

    path: Path = Field(description="the memory-mapped file; Scanbox: scanbox.mmap in its own folder")
    channels: Literal[1, 2] = Field(default=1, description="2: pixels of channel B follow those of channel A")
    order: Literal["rows", "columns"] = Field(
        default="rows",
        description="columns: line after line runs downwards, as MATLAB (and so Scanbox) stores an array",
    )
    inverted: bool = Field(
        default=False, description="a bright pixel is a small number, as Scanbox has it: 65535 - value is shown"
    )


@dataclass(slots=True, frozen=True)
class _Slot:
    memory: mmap.mmap
    header: NDArray[np.int16]


class ShmDoor:
    """The slot of one file. Copies a frame out at once, into one of a few buffers, and says that the slot is empty."""

    drains = False

    def __init__(self, settings: ShmSettings) -> None:
        self._settings = settings
        self.name = str(settings.path)
        self.advice = "start the acquisition with its memory map on, and check the path"
        self._slot: _Slot | None = None
        self._buffers: list[NDArray[np.uint16]] = []
        self._i_buffer = self._number = self._n_taken = 0
        self._seen: list[tuple[int, int]] = []

    def connect(self) -> None:
        """The file may come later."""
        self._seen, self._number = [], 0

    def look(self, timeout_s: float) -> StreamInfo | None:
        """The stream, once its first frames have told size and rate."""
        if self._slot is None and not self._map():
            time.sleep(timeout_s)
            return None
        try:
            taken = self._await(timeout_s)
        except (EndOfStream, BadMessage):
            return None
        now = time.perf_counter_ns()
        if taken is not None:
            self._seen.append((taken.number, now))
        if not self._seen or (len(self._seen) < N_LOOKED_AT and now - self._seen[0][1] < LOOK_S * 1e9):
            return None
        numbers, times = zip(*self._seen, strict=True)
        rows, columns = self._buffers[0].shape[1:]
        return StreamInfo(
            f"shared memory {self._settings.path.name}",
            (rows, columns),
            "uint16",
            channels=self._settings.channels,
            frame_interval_s=interval_s(list(numbers), list(times)),
            capacity=1,
        )

    def begin(self) -> None:
        """Nothing: the writer goes on as it likes."""
        self._n_taken = 0

    def forget(self) -> None:
        """Empty the slot."""
        if self._slot is not None and self._slot.header[0] >= 0:
            self._slot.header[0] = EMPTY

    def receive(self, timeout_s: float) -> Exposure | None:
        """The frame in the slot. Raises EndOfStream when the writer has stopped, GeometryChanged, BadMessage."""
        return self._await(timeout_s)

    def close(self) -> None:
        """Let go of the file."""
        self._slot, self._buffers = None, []  # the mapping goes with the last view of it

    def _map(self) -> bool:
        """Map the file, once it is there and long enough for a header."""
        try:
            with self._settings.path.open("r+b") as file:
                if file.seek(0, 2) <= HEADER_BYTES:
                    return False
                memory = mmap.mmap(file.fileno(), 0)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{self.name}: cannot be mapped: {error}") from None
        self._slot = _Slot(memory, np.ndarray(N_NUMBERS, "<i2", memory))
        return True

    def _await(self, timeout_s: float) -> Exposure | None:
        deadline = time.perf_counter() + timeout_s
        while self._slot is not None:
            state = int(self._slot.header[0])
            if state >= 0:
                return self._take(self._slot, state)
            if state == STOPPED and self._n_taken:
                raise EndOfStream(f"{self.name}: the writer has stopped, after {self._n_taken} frames")
            if time.perf_counter() >= deadline:
                return None
            time.sleep(NAP_S)
        return None

    def _take(self, slot: _Slot, state: int) -> Exposure:
        header, memory = slot.header, slot.memory
        lines, columns = int(header[1]), int(header[2])
        n_bytes = 2 * lines * columns * self._settings.channels
        try:
            if lines < 1 or columns < 1 or HEADER_BYTES + n_bytes > len(memory):
                raise BadMessage(f"{lines} x {columns} does not fit the file of {len(memory)} bytes")
            images = self._copied(memory, lines, columns)
        finally:
            header[0] = EMPTY
        step = (state - self._number + ROUND // 2) % ROUND - ROUND // 2
        self._number = state if self._n_taken == 0 else self._number + step
        self._n_taken += 1
        return Exposure(images, self._number)

    def _copied(self, memory: mmap.mmap, lines: int, columns: int) -> tuple[Pixels, ...]:
        shape = (self._settings.channels, lines, columns)
        if not self._buffers:
            self._buffers = [np.empty(shape, np.uint16) for _ in range(N_BUFFERS)]
        if self._buffers[0].shape != shape:
            raise GeometryChanged(
                f"{self.name}: a frame of {lines} x {columns} in a series of {self._buffers[0].shape[1:]}; "
                "stop the run, then start it again with the new geometry"
            )
        self._i_buffer = (self._i_buffer + 1) % N_BUFFERS
        out = self._buffers[self._i_buffer]
        stored = shape if self._settings.order == "rows" else (shape[0], columns, lines)
        there = np.ndarray(stored, "<u2", memory, HEADER_BYTES)
        np.copyto(out, there if self._settings.order == "rows" else there.transpose(0, 2, 1))
        if self._settings.inverted:
            np.invert(out, out=out)  # 65535 - value
        return tuple(out)


ShmSource = SourceKind(
    "frames handed over through a memory-mapped file, as Scanbox does", ShmSettings, lambda s: Feed(ShmDoor(s), s)
)
