"""The verb: frames in, denoised frames out, every one exactly once and in order. No threads, sockets or clocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine.base import Engine
from rtdenoise.engine.store import n_kept, store_for
from rtdenoise.errors import WindowError
from rtdenoise.frame import Frame, FrameStamp, check_frame
from rtdenoise.normalize import Normalization
from rtdenoise.ring import mirrored


@dataclass(slots=True, frozen=True)
class _Run:
    """One run of the engine, and the frames that come out of it."""

    ticket: int
    stamps: tuple[FrameStamp, ...]
    used: tuple[int, int]
    complete: bool


class StreamingDenoiser:
    """Slides an engine's window over one stream of frames (one channel of one plane).

    A new series or a lost frame (`stamp.dropped`) closes the segment: what waits for its look-ahead comes out by the edge rule,
    and the window starts again, so no output ever spans a hole. Yielded pixels are float32 counts, valid until
    the next frame is yielded, in a buffer of `output(shape)` where one is given (a publisher's `lease` saves a copy).
    Nothing of a frame's size is allocated after the first window.

    ahead: runs that may be under way on a card when `push` returns; the same frames come out that many runs later, while the card
    works on newer ones. For files: live, a frame is wanted now. An engine in host memory has none.
    """

    def __init__(
        self,
        engine: Engine,
        normalization: Normalization,
        shape: tuple[int, int],
        output: Callable[[tuple[int, int]], NDArray[np.float32]] | None = None,
        ahead: int = 0,
    ) -> None:
        spec = engine.window
        if len(spec.emits) != spec.hop:
            raise WindowError(
                f"a stream at hop {spec.hop} needs {spec.hop} emitted positions per run, got {spec.emits}"
            )
        self.normalization = normalization
        self._spec, self._shape, self._output = spec, shape, output
        self._store = store_for(engine, normalization, shape)
        self._ahead = min(ahead, self._store.most_ahead)
        self._under_way: deque[_Run] = deque()
        self._stamps: list[FrameStamp | None] = [None] * n_kept(spec)
        self._series = ""
        self._next_target = 0
        self._n_out = 0

    @property
    def pending(self) -> int:
        """Frames pushed that have not come out yet."""
        return self._store.n_frames - self._n_out

    @property
    def begun(self) -> bool:
        """Whether the current segment has given its first frame."""
        return self._n_out > 0

    def push(self, frame: Frame) -> Iterator[Frame]:
        """Take one frame; yield those that are ready now. Exhaust the iterator: work for the next frame is done after the last one.

        Raises GeometryChanged when the frame has another shape.
        """
        check_frame(frame.pixels, self._shape, frame.pixels.dtype)
        if frame.stamp.series != self._series or frame.stamp.dropped:
            yield from self.flush()
            self._series = frame.stamp.series
        self._stamps[self._store.n_frames % len(self._stamps)] = frame.stamp
        self._store.put(frame.pixels)
        while (due := self._due()) is not None:
            self._run(*due)
            yield from self._ready(self._ahead)
        spec = self._spec
        self._store.prepare(max(0, self._next_target + spec.hop + spec.lookahead - spec.size))

    def flush(self) -> Iterator[Frame]:
        """End the segment: yield every frame that still waits, by the edge rule, and forget the window."""
        while (n_left := self._store.n_frames - self._next_target) > 0:
            if self._spec.edge == "trim":
                self._run_trimmed()
            else:
                self._run_mirrored(min(self._spec.hop, n_left))
            yield from self._ready(self._ahead)
        yield from self._ready(0)
        self.reset()

    def reset(self) -> None:
        """Forget the window and all frames that wait, without output."""
        self._store.reset()
        self._under_way.clear()
        self._next_target = self._n_out = 0

    def _due(self) -> tuple[int, int] | None:
        """(first, stop) of the window that can run now; first is negative where the start must be mirrored."""
        spec = self._spec
        stop = self._next_target + spec.hop + spec.lookahead
        first = stop - spec.size
        if spec.edge == "trim":
            first = max(0, first)
            stop = max(stop, first + spec.min_size)
        return (first, stop) if stop <= self._store.n_frames else None

    def _run(self, first: int, stop: int) -> None:
        if first < 0:
            self._run_mirrored(self._spec.hop)
        else:
            self._begin(range(first, stop), first, self._spec.hop, complete=stop - first == self._spec.size)

    def _run_mirrored(self, n_out: int) -> None:
        first = self._next_target - self._spec.emits[0]
        self._begin(mirrored(first, self._spec.size, self._store.n_frames), first, n_out, complete=False)

    def _run_trimmed(self) -> None:
        n, spec, target = self._store.n_frames, self._spec, self._next_target
        first = max(0, min(target - spec.emits[0], n - spec.min_size))
        frames = range(first, n) if n >= spec.min_size else mirrored(0, spec.min_size, n)
        self._begin(frames, first, n - target, complete=False)

    def _begin(self, frames: Sequence[int], first: int, n_out: int, *, complete: bool) -> None:
        """Run the engine on a window of frame numbers, for the next `n_out` frames."""
        target = self._next_target
        used = (self._stamp(min(frames)).src_frame, self._stamp(max(frames)).src_frame)
        stamps = tuple(self._stamp(target + i) for i in range(n_out))
        ticket = self._store.denoise(frames, first, target, n_out)
        self._next_target += n_out
        self._under_way.append(_Run(ticket, stamps, used, complete))

    def _ready(self, n_ahead: int) -> Iterator[Frame]:
        """Everything that came of all runs but the newest `n_ahead`."""
        while len(self._under_way) > n_ahead:
            run = self._under_way.popleft()
            self._n_out += len(run.stamps)
            for i, stamp in enumerate(run.stamps):
                out = None if self._output is None else self._output(self._shape)
                yield Frame(self._store.counts(run.ticket, i, out), stamp, run.used, run.complete)

    def _stamp(self, i_frame: int) -> FrameStamp:
        stamp = self._stamps[i_frame % len(self._stamps)]
        if stamp is None:
            raise WindowError(f"frame {i_frame} was never pushed")
        return stamp
