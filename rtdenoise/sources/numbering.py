"""Makes sense of the numbers that a device gives its frames: what is next, what is missing, what came twice, what began again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Key = tuple[int, int]
"""(channel, plane)."""
REORDER = 8
"""A frame at most this many behind the newest one came late; further behind, the numbers may have begun again. Engineering choice."""
MAX_GAP = 1_000_000
"""No device loses so many frames at once (9 h at 30 frames/s): such a jump is a damaged number or another count. Engineering choice."""
Verdict = Literal["next", "repeated", "late", "astray", "restart"]


@dataclass(slots=True)
class _Row:
    newest: int
    seen: deque[int] = field(default_factory=lambda: deque(maxlen=2 * REORDER))
    astray: int | None = None


class Numbering:
    """The numbers of one series, per channel and plane."""

    def __init__(self) -> None:
        self._rows: dict[Key, _Row] = {}

    def judge(self, key: Key, number: int) -> tuple[Verdict, int]:
        """What a frame with this number is, and how many are missing just before it.

        next: in order.  repeated: it was here before.  late: it was given up for lost.  astray: far from the others, on its own.
        restart: the second frame in a row that is far from the others and in order with the one before: a new series has begun.
        """
        row = self._rows.get(key)
        if row is None:
            self._rows[key] = _Row(number, deque([number], maxlen=2 * REORDER))
            return "next", 0
        ahead = number - row.newest
        if 0 < ahead <= MAX_GAP:
            row.newest, row.astray = number, None
            row.seen.append(number)
            return "next", ahead - 1
        if -REORDER <= ahead <= 0:
            return ("repeated" if number in row.seen else "late"), 0
        if row.astray is not None and 0 < number - row.astray <= REORDER:
            return "restart", 0
        row.astray = number
        return "astray", 0
