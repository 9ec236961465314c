"""Where every frame went: the bookkeeping of the denoise process, in shared memory so that it survives the process."""

from __future__ import annotations

from rtdenoise.shared import DROP_REASONS, SharedRing, Slot
from rtdenoise.wire import Drops

_SOURCE = [r.startswith(("source", "acquire")) for r in DROP_REASONS]
_INPUT = [r.startswith("ring") or r == "denoise: behind" for r in DROP_REASONS]
_OURS = [r for r in DROP_REASONS if r.startswith(("ring", "denoise"))]


class Ledger:
    """Settles each ring frame once: delivered, or dropped for a reason. Keeps `tail` at the oldest unsettled frame."""

    def __init__(self, ring: SharedRing) -> None:
        self._ring = ring
        self._open: dict[int, None] = {}
        self._cursor = int(ring.ints[Slot.TAIL])
        self._seen: list[int] = []
        self._drops = Drops()

    def resume(self) -> int:
        """The oldest frame that an earlier process of this run left; what was overwritten meanwhile is counted as dropped."""
        ring, ints = self._ring, self._ring.ints
        tail, oldest = int(ints[Slot.TAIL]), ring.oldest
        settled_here = sum(ring.is_settled(n) for n in range(max(tail, oldest), ring.head))
        settled = int(ints[Slot.DELIVERED]) + sum(ring.dropped().get(reason, 0) for reason in _OURS)
        # Between publishing a frame and counting it a process may be killed: the slot's mark, set first, says that it went out.
        missing = max(tail, oldest) - (settled - settled_here)
        if tail < oldest:
            ring.count_drop("ring: overwritten before it was read", missing)
        else:
            ints[Slot.DELIVERED] += missing
        ints[Slot.TAIL] = ints[Slot.CURSOR] = self._cursor = max(tail, oldest)
        ints[Slot.OPEN] = 0
        return self._cursor

    def take(self, number: int, cursor: int) -> None:
        """Frame `number` was read and has to be settled, unless an earlier process did; `cursor` is the next one to read."""
        if number >= self._cursor and not self._ring.is_settled(number):
            self._open[number] = None
        self._cursor = max(self._cursor, cursor)
        self._ring.ints[Slot.CURSOR], self._ring.ints[Slot.OPEN] = self._cursor, len(self._open)

    def first_look(self, number: int) -> bool:
        """Whether frame `number` was not published raw before; remembers it."""
        ints = self._ring.ints
        if number < ints[Slot.RAW_UPTO]:
            return False
        ints[Slot.RAW_UPTO] = number + 1
        return True

    def look_again(self, number: int) -> None:
        """Frame `number` was not published raw after all."""
        self._ring.ints[Slot.RAW_UPTO] = number

    def is_open(self, number: int) -> bool:
        """Whether frame `number` was read and is not settled; what only fills a window was settled by an earlier process."""
        return number in self._open

    def deliver(self, number: int) -> None:
        """Frame `number` was handed to the publisher."""
        if number not in self._open:
            return
        self._ring.settle(number)
        self._ring.ints[Slot.DELIVERED] += 1
        self._close(number)

    def drop(self, number: int, reason: str) -> None:
        """Frame `number` will not come out, for one of `shared.DROP_REASONS`."""
        if number not in self._open:
            return
        if self._ring.intact(number):
            self._ring.settle(number)
        self._ring.count_drop(reason)
        self._close(number)

    def drop_taken(self, reason: str) -> None:
        """Give up every frame that was read and not settled."""
        for number in list(self._open):
            self.drop(number, reason)

    def give_up_rest(self) -> None:
        """At the end of the run: what could not be sent was stopped."""
        for number in range(self._cursor, self._ring.head):
            self.take(number, number + 1)
        self.drop_taken("denoise: stopped before it was sent")

    def drops(self) -> Drops:
        """Running totals as they travel with every frame."""
        counts = self._ring.ints[Slot.DROPPED : Slot.DROPPED + len(DROP_REASONS)].tolist()
        if counts != self._seen:
            source = sum(n for n, mine in zip(counts, _SOURCE, strict=True) if mine)
            given_up = sum(n for n, mine in zip(counts, _INPUT, strict=True) if mine)
            self._seen, self._drops = counts, Drops(source, given_up, sum(counts) - source - given_up)
        return self._drops

    def _close(self, number: int) -> None:
        self._open.pop(number, None)
        self._ring.ints[Slot.OPEN] = len(self._open)
        self._ring.ints[Slot.TAIL] = next(iter(self._open), self._cursor)
