"""The identities that must hold: of the run at every step, and of every subscriber."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from rtdenoise.shared import SharedRing, Slot
from soaks.wireless import Reader

Sent = list[tuple[str, int, int]]
"""(series, number in the stream, camera number) of every frame published."""


class Violation(AssertionError):
    """The books of a run do not add up."""


def check_now(ring: SharedRing, seen: int) -> None:
    """acquired = delivered + dropped + in flight, and acquired is what the camera made. Raises Violation."""
    acquired, delivered = int(ring.ints[Slot.ACQUIRED]), int(ring.ints[Slot.DELIVERED])
    dropped, in_flight = ring.dropped(), ring.in_flight()
    if acquired != delivered + sum(dropped.values()) + in_flight:
        raise Violation(f"{acquired} acquired, {delivered} delivered, {dropped} dropped, {in_flight} in flight")
    if acquired != seen and seen:
        raise Violation(f"{acquired} acquired of {seen} that the camera made")


def check_end(ring: SharedRing, produced: int) -> None:
    """As check_now, with nothing in flight and every frame of the camera accounted for. Raises Violation."""
    check_now(ring, produced)
    if ring.in_flight():
        raise Violation(f"{ring.in_flight()} frames are in flight after the end")


def check_delivered(sent: Sent, delivered: int, n_kills: int) -> None:
    """delivered = denoised frames that went out; a kill may fall between the two. Raises Violation."""
    n_sent = len({(series, src) for series, _, src in sent})
    if abs(n_sent - delivered) > n_kills:
        raise Violation(f"{delivered} frames are said to be delivered, {n_sent} were")


def check_reader(stream: str, sent: Sent, reader: Reader, n_kills: int, *, in_order: bool = True) -> None:
    """published = received + missed + what was lost after the last frame that came. Raises Violation.

    A process that is killed between sending a frame and noting it leaves one that is sent again.
    """
    subscriber, got = reader.subscriber, reader.got
    last = {frame.stamp.series: frame.stamp.frame for frame in got}
    n_sent = len({(series, number) for series, number, _ in sent})
    unseen = len({(series, number) for series, number, _ in sent if number > last.get(series, -1)})
    if n_sent != len({(f.stamp.series, f.stamp.frame) for f in got}) + subscriber.missed + unseen:
        raise Violation(f"{stream}: {n_sent} sent, {len(got)} received, {subscriber.missed} missed, {unseen} unseen")
    if subscriber.stray or subscriber.bad or subscriber.received != len(got):
        raise Violation(f"{stream}: {subscriber.stray} stray, {subscriber.bad} bad, {subscriber.received} received")
    again = sum(n - 1 for n in Counter((series, src) for series, _, src in sent).values())
    if again > n_kills:
        raise Violation(f"{stream}: {again} frames sent twice after {n_kills} kills")
    for earlier, later in pairwise(got if in_order else ()):
        if earlier.stamp.series == later.stamp.series and earlier.stamp.src_frame > later.stamp.src_frame:
            raise Violation(f"{stream}: frame {later.stamp.src_frame} after {earlier.stamp.src_frame}")
