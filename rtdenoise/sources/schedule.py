"""When each image of a replay is due, and what its stamp says: evenly, as the rate asks, or as it was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdenoise.files import Movie
from rtdenoise.files.prefetch import Span


@dataclass(slots=True, frozen=True)
class ImageFacts:
    """What the stamp of one image says. t_src: ns.  dropped: images of its channel and plane that the recording lacks before it."""

    channel: int
    plane: int
    src_frame: int
    t_src: int
    dropped: int = 0


class Schedule(Protocol):
    """`number` counts the images that are played, from 0, on past the end of a movie that loops."""

    def facts(self, number: int) -> ImageFacts:
        """Of one image."""

    def due_ns(self, number: int) -> int | None:
        """When it is due, after the first; None: at once."""

    def n_due(self, elapsed_ns: int) -> int:
        """Images due so long after the first; 0 where all are due at once."""


class EvenSchedule:
    """A movie's images, one after the other.

    interval_ns: between images as they are played, None for as fast as they are read.  t_src_step_ns: between time points by the
    movie's own rate.  start: the time point at which t_src is 0.
    """

    def __init__(self, movie: Movie, span: Span, interval_ns: float | None, t_src_step_ns: float, start: int) -> None:
        self._movie, self._first, self._interval_ns = movie, span.first, interval_ns
        self._t_src_step_ns, self._start = t_src_step_ns, start

    def facts(self, number: int) -> ImageFacts:
        """Time goes on when a movie loops."""
        channel, plane, src_frame = self._movie.frame_stamp(self._first + number)
        return ImageFacts(channel, plane, src_frame, round((src_frame - self._start) * self._t_src_step_ns))

    def due_ns(self, number: int) -> int | None:
        """A multiple of the interval."""
        return None if self._interval_ns is None else int(number * self._interval_ns)

    def n_due(self, elapsed_ns: int) -> int:
        """The first is due at 0."""
        return 0 if self._interval_ns is None else int(elapsed_ns / self._interval_ns) + 1


class RecordedSchedule:
    """A recorded series: order, stamps and holes as they were; when it loops, camera numbers and times go on.

    interval_ns: None: each image as long after the first as it arrived then; otherwise evenly; 0: as fast as they are read.
    """

    def __init__(self, stamps: Mapping[str, NDArray[np.int64]], span: Span, interval_ns: float | None) -> None:
        part = slice(span.first, span.first + span.n_images)
        self._rows = {name: column[part] for name, column in stamps.items()}
        self._interval_ns = interval_ns
        arrived = np.maximum.accumulate(self._rows["t_in"])
        self._due = arrived - arrived[0]
        # A loop begins one mean interval after its last image, with the next camera number.
        self._loop_ns = int(self._due[-1]) + max(1, int(self._due[-1]) // max(1, len(self._due) - 1))
        self._loop_frames = int(np.ptp(self._rows["src_frame"])) + 1

    def facts(self, number: int) -> ImageFacts:
        """As recorded."""
        loop, i = divmod(number, len(self._due))
        channel, plane, src_frame, t_src, dropped = (
            int(self._rows[name][i]) for name in ("channel", "plane", "src_frame", "t_src", "dropped")
        )
        return ImageFacts(channel, plane, src_frame + loop * self._loop_frames, t_src + loop * self._loop_ns, dropped)

    def due_ns(self, number: int) -> int | None:
        """By arrival, or evenly."""
        if self._interval_ns is not None:
            return int(number * self._interval_ns) if self._interval_ns else None
        loop, i = divmod(number, len(self._due))
        return int(self._due[i]) + loop * self._loop_ns

    def n_due(self, elapsed_ns: int) -> int:
        """The first is due at 0."""
        if self._interval_ns is not None:
            return int(elapsed_ns / self._interval_ns) + 1 if self._interval_ns else 0
        loop, within = divmod(elapsed_ns, self._loop_ns)
        return loop * len(self._due) + int(np.searchsorted(self._due, within, side="right"))
