"""Exact book-keeping of which camera frames were delivered, skipped and lost."""

from __future__ import annotations

from collections import Counter

from rtdenoise.errors import SourceError
from rtdenoise.sources.base import SourceStats


class Ledger:
    """Counts per channel from the camera's own numbers; frames must be noted in the order in which they were popped.

    A hole in the numbers is the only sign that MMCore overwrote its buffer, so loss is reported with the frame that follows it.
    """

    def __init__(self, capacity: int, *, from_zero: bool) -> None:
        """capacity: frames of the camera buffer. from_zero: False when we joined a running sequence, whose first number is arbitrary."""
        self.stats = SourceStats()
        self._capacity = max(capacity, 1)
        self._from_zero = from_zero
        self._last: dict[int, int] = {}
        self._pending: Counter[int] = Counter()

    def deliver(self, channel: int, number: int) -> int:
        """Note a frame that goes to the reader; returns how many of its channel are missing just before it, for whatever reason."""
        self._advance(channel, number)
        self.stats.received += 1
        return self._pending.pop(channel, 0)

    def skip(self, channel: int, number: int) -> None:
        """Note a frame that was thrown away by our own policy."""
        self._advance(channel, number)
        self.stats.skipped += 1
        self._pending[channel] += 1

    def _advance(self, channel: int, number: int) -> None:
        last = self._last.get(channel, -1 if self._from_zero else number - 1)
        if number <= last:
            raise SourceError(
                f"camera frame {number} came after {last}: somebody restarted the camera; stop this source, then start it again"
            )
        self._last[channel] = number
        if number - last > 1:
            self._lose(channel, number - last - 1)

    def _lose(self, channel: int, lost: int) -> None:
        self._pending[channel] += lost
        self.stats.dropped += lost
        # MMCore empties the whole buffer at once, so every wipe costs one buffer full.
        self.stats.wipes = -(-self.stats.dropped // self._capacity)
