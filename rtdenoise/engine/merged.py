"""The form of a block network whose overlapping outputs are averaged 1/2, 1/4, ... (FAST).

In the stream this is a network with a longer window: a frame's output is a pure function of the block windows that contain it,
and the blocks computed for earlier frames are cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine.base import EngineInfo, Window
from rtdenoise.engine.graph import Graph
from rtdenoise.errors import WindowError
from rtdenoise.frame import WindowSpec

Merging = Literal["full", "causal"]


def merged_window(block: int, hop: int, latency: Merging) -> WindowSpec:
    """Window of the merged network over blocks of `block` frames that start every `hop` frames.

    full: a frame is the average of all blocks that contain it (FAST sheet 1.3), look-ahead block - 1 for the first frame of a hop.
    causal: a frame is taken from the first block that contains it, look-ahead 0 for the newest frame of a hop (FAST sheet 1.9).
    """
    if not 1 <= hop <= block:
        raise WindowError(f"hop {hop} does not fit blocks of {block} frames; use 1..{block}")
    if latency == "causal":
        return WindowSpec(block, range(block - hop, block), hop, edge="trim", min_size=block)
    before = (-(-block // hop) - 1) * hop
    return WindowSpec(before + block, range(before, before + hop), hop, edge="trim", min_size=block)


def block_starts(first: int, stop: int, block: int, hop: int) -> list[int]:
    """Where blocks begin in a window of frames first .. stop-1: on the grid of the hop, and one that ends with the window."""
    last = stop - block
    starts = list(range(-(-first // hop) * hop, last + 1, hop))
    return starts if starts and starts[-1] == last else [*starts, last]


@dataclass(slots=True, frozen=True)
class BlockGraphs:
    """The graphs of one block network: `whole`, and where it can be cut in time `older` and `newest` (its last `n_newest` frames)."""

    whole: Graph
    older: Graph | None = None
    newest: Graph | None = None
    n_newest: int = 0


class MergedEngine:
    """Block windows start at frames 0, hop, 2 hop, ... of a segment, plus one that ends with the segment's last frame.

    `prepare` runs the part of the next block that does not see the newest frames, so that only the rest waits for them.
    """

    def __init__(
        self, graphs: BlockGraphs, block: int, hop: int, latency: Merging, shape: tuple[int, int], info: EngineInfo
    ) -> None:
        self.window = merged_window(block, hop, latency)
        self._graphs, self._block, self._hop, self._latency, self._info = graphs, block, hop, latency, info
        self._blocks = np.empty((-(-block // hop) + 1, 1, block, *shape), np.float32)
        self._starts = [-1] * len(self._blocks)
        self._partial = np.empty((1, block, *shape), np.float32)
        self._partial_start = -1
        self._merged = np.empty((self.window.size, *shape), np.float32)

    def run(self, window: Window, first: int, target: int, n_out: int) -> NDArray[np.float32]:
        """(n_out, Y, X): frames target .. of this window; see Engine.run."""
        starts = block_starts(first, first + len(window), self._block, self._hop)
        for i in range(n_out):
            frame = target + i
            here = [start for start in starts if start <= frame < start + self._block]
            self._merge(here[:1] if self._latency == "causal" else here, frame, self._merged[i], window, first)
        return self._merged[:n_out]

    def prepare(self, window: Window, first: int) -> None:
        """Run the older part of the next block once its frames are here."""
        older, start = self._graphs.older, self._next_start()
        n_older = self._block - self._graphs.n_newest
        here = first <= start and start + n_older <= first + len(window)
        if older is None or not here or self._partial_start == start:
            return
        older.run((window[None, start - first : start - first + n_older],), self._partial)
        self._partial_start = start

    def reset(self) -> None:
        """Forget all blocks: frame numbers start again at 0."""
        self._starts = [-1] * len(self._blocks)
        self._partial_start = -1

    def describe(self) -> EngineInfo:
        """What was bound."""
        return self._info

    def close(self) -> None:
        """Nothing to release beyond memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _merge(self, starts: list[int], frame: int, out: NDArray[np.float32], window: Window, first: int) -> None:
        """Oldest block first, each newer one averaged half and half (FAST sheet 1.3)."""
        for rank, start in enumerate(starts):
            prediction = self._block_output(start, window, first)[frame - start]
            if rank == 0:
                np.copyto(out, prediction)
            else:
                np.add(out, prediction, out=out)
                np.multiply(out, np.float32(0.5), out=out)

    def _block_output(self, start: int, window: Window, first: int) -> NDArray[np.float32]:
        """(C, Y, X) of the block that starts at frame `start`, computed at most once."""
        if start in self._starts:
            return self._block_at(self._starts.index(start))
        slot = self._starts.index(min(self._starts))
        frames = window[None, start - first : start - first + self._block]
        newest, n_newest = self._graphs.newest, self._graphs.n_newest
        if newest is not None and self._partial_start == start:
            newest.run((frames[:, -n_newest:], self._partial), self._blocks[slot])
        else:
            self._graphs.whole.run((frames,), self._blocks[slot])
        self._starts[slot] = start
        return self._block_at(slot)

    def _block_at(self, slot: int) -> NDArray[np.float32]:
        block: NDArray[np.float32] = self._blocks[slot, 0]
        return block

    def _next_start(self) -> int:
        newest = max(self._starts)
        return 0 if newest < 0 else newest + self._hop
