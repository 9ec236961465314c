"""The verb: frames in, denoised frames out, every one exactly once and in order. No threads, sockets or clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine.base import Engine
from rtdenoise.errors import WindowError
from rtdenoise.frame import Frame, FrameStamp, check_frame
from rtdenoise.normalize import Normalization
from rtdenoise.ring import FrameRing, fill_mirrored


class StreamingDenoiser:
    """Slides an engine's window over one stream of frames (one channel of one plane).

    A new series or a lost frame (`stamp.dropped`) closes the segment: what waits for its look-ahead comes out by the edge rule,
    and the window starts again, so no output ever spans a hole. Yielded pixels are float32 counts, valid until
    the next frame is yielded, in a buffer of `output(shape)` where one is given (a publisher's `lease` saves a copy).
    Nothing of a frame's size is allocated after construction.
    """

    def __init__(
        self,
        engine: Engine,
        normalization: Normalization,
        shape: tuple[int, int],
        output: Callable[[tuple[int, int]], NDArray[np.float32]] | None = None,
    ) -> None:
        spec = engine.window
        if len(spec.emits) != spec.hop:
            raise WindowError(
                f"a stream at hop {spec.hop} needs {spec.hop} emitted positions per run, got {spec.emits}"
            )
        self.normalization = normalization
        self._engine, self._spec, self._shape = engine, spec, shape
        n_kept = max(spec.size, spec.min_size) + spec.hop
        self._ring = FrameRing(shape, 1 if spec.size == 1 and spec.hop == 1 else n_kept)
        self._stamps: list[FrameStamp | None] = [None] * n_kept
        self._edge = np.empty((spec.size, *shape), np.float32)
        counts = np.empty(shape, np.float32)
        self._output = output or (lambda _: counts)
        self._series = ""
        self._next_target = 0

    @property
    def pending(self) -> int:
        """Frames pushed that have not come out yet."""
        return self._ring.n_frames - self._next_target

    @property
    def begun(self) -> bool:
        """Whether the current segment has given its first frame."""
        return self._next_target > 0

    def push(self, frame: Frame) -> Iterator[Frame]:
        """Take one frame; yield those that are ready now. Exhaust the iterator: work for the next frame is done after the last one.

        Raises GeometryChanged when the frame has another shape.
        """
        check_frame(frame.pixels, self._shape, frame.pixels.dtype)
        if frame.stamp.series != self._series or frame.stamp.dropped:
            yield from self.flush()
            self._series = frame.stamp.series
        self.normalization.apply(frame.pixels, self._ring.next_slot())
        self._stamps[self._ring.n_frames % len(self._stamps)] = frame.stamp
        self._ring.commit()
        while (due := self._due()) is not None:
            yield from self._run(*due)
        self._prepare()

    def flush(self) -> Iterator[Frame]:
        """End the segment: yield every frame that still waits, by the edge rule, and forget the window."""
        while self.pending:
            if self._spec.edge == "trim":
                yield from self._flush_trimmed()
            else:
                yield from self._run_mirrored(self._next_target, min(self._spec.hop, self.pending))
        self.reset()

    def reset(self) -> None:
        """Forget the window and all frames that wait, without output."""
        self._ring.reset()
        self._next_target = 0
        self._engine.reset()

    def _due(self) -> tuple[int, int] | None:
        """(first, stop) of the window that can run now; first is negative where the start must be mirrored."""
        spec = self._spec
        stop = self._next_target + spec.hop + spec.lookahead
        first = stop - spec.size
        if spec.edge == "trim":
            first = max(0, first)
            stop = max(stop, first + spec.min_size)
        return (first, stop) if stop <= self._ring.n_frames else None

    def _run(self, first: int, stop: int) -> Iterator[Frame]:
        if first < 0:
            yield from self._run_mirrored(self._next_target, self._spec.hop)
            return
        denoised = self._engine.run(self._ring.window(first, stop), first, self._next_target, self._spec.hop)
        yield from self._emit(denoised, self._spec.hop, first, stop, complete=stop - first == self._spec.size)

    def _run_mirrored(self, target: int, n_out: int) -> Iterator[Frame]:
        first = target - self._spec.emits[0]
        fill_mirrored(self._ring, first, 0, self._edge)
        denoised = self._engine.run(self._edge, first, target, self._spec.hop)
        stop = min(first + self._spec.size, self._ring.n_frames)
        yield from self._emit(denoised, n_out, max(0, first), stop, complete=False)

    def _flush_trimmed(self) -> Iterator[Frame]:
        n, spec, target = self._ring.n_frames, self._spec, self._next_target
        first = max(0, min(target - spec.emits[0], n - spec.min_size))
        window = self._ring.window(first, n)
        if n < spec.min_size:
            window = self._edge[: spec.min_size]
            fill_mirrored(self._ring, 0, 0, window)
        denoised = self._engine.run(window, first, target, n - target)
        yield from self._emit(denoised, n - target, first, n, complete=False)

    def _emit(
        self, denoised: NDArray[np.float32], n_out: int, first: int, stop: int, *, complete: bool
    ) -> Iterator[Frame]:
        used = (self._stamp(first).src_frame, self._stamp(stop - 1).src_frame)
        target = self._next_target
        self._next_target += n_out
        for i in range(n_out):
            counts = self._output(self._shape)
            self.normalization.invert(denoised[i], counts)
            yield Frame(counts, self._stamp(target + i), used, complete)

    def _stamp(self, i_frame: int) -> FrameStamp:
        stamp = self._stamps[i_frame % len(self._stamps)]
        if stamp is None:
            raise WindowError(f"frame {i_frame} was never pushed")
        return stamp

    def _prepare(self) -> None:
        spec = self._spec
        first = max(0, self._next_target + spec.hop + spec.lookahead - spec.size)
        if first < self._ring.n_frames:
            self._engine.prepare(self._ring.window(first, self._ring.n_frames), first)
