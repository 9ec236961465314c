"""The two-stage form: the first stage runs once per new frame, the second on what it gave for all frames of the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise.bundle import StageFacts
from rtdenoise.engine.base import EngineInfo, Window
from rtdenoise.engine.graph import Array, Graph
from rtdenoise.errors import WindowError
from rtdenoise.frame import WindowSpec


def n_places(facts: StageFacts, size: int) -> int:
    """Places in a window of `size` frames that the first stage is run at."""
    return size - facts.span + 1


def encode_shape(facts: StageFacts, shape: tuple[int, int]) -> tuple[int, ...]:
    """What `encode` takes for frames of `shape` (Y, X)."""
    return (1, facts.span, *shape)


def fuse_shape(facts: StageFacts, size: int, shape: tuple[int, int]) -> tuple[int, ...]:
    """What `fuse` takes for windows of `size` frames of `shape` (Y, X)."""
    return (1, n_places(facts, size) * facts.maps, *shape)


@dataclass(slots=True, frozen=True)
class StageGraphs:
    """The graphs `encode` and `fuse` of one network, its window, and the positions that `fuse` gives."""

    encode: Graph
    fuse: Graph
    facts: StageFacts
    size: int
    emits: tuple[int, ...]


class StagedEngine:
    """A pure function of the window that remembers the features of its frames.

    Features lie in a ring of 2 N places, each at i and at i + N, so that the newest N are always one contiguous view and
    `fuse` takes them without a copy (engines sheet 3). They are remembered by the number of their first frame in the
    segment. A number below 0 stands for a mirrored frame, which depends on how many frames there were: those are computed anew.
    Numbers beyond the last frame come only when the segment ends, when how many there are is settled; then comes `reset`.
    """

    def __init__(self, graphs: StageGraphs, spec: WindowSpec, shape: tuple[int, int], info: EngineInfo) -> None:
        self.window = spec
        self._graphs, self._info = graphs, info
        self._span, self._n = graphs.facts.span, n_places(graphs.facts, graphs.size)
        self._rows = {position: row for row, position in enumerate(graphs.emits)}
        if missing := [p for p in spec.emits if p not in self._rows]:
            raise WindowError(f"{info.model} emits positions {graphs.emits}, not {missing}")
        self._features = np.zeros((2 * self._n, graphs.facts.maps, *shape), np.float32)
        self._fused_shape = fuse_shape(graphs.facts, graphs.size, shape)
        self._held: list[int | None] = [None] * self._n
        self._out = np.empty((1, len(graphs.emits), *shape), np.float32)

    def run(self, window: Window, first: int, target: int, n_out: int) -> NDArray[np.float32]:
        """(n_out, Y, X) of this window; see Engine.run."""
        self._encode(window, first, self._n)
        self._graphs.fuse.run((self._view(first),), self._out)
        row = self._rows[target - first]
        return self._out[0, row : row + n_out]

    def prepare(self, window: Window, first: int) -> None:
        """Run the first stage on the frames that are here, so that at a segment's start only the newest is left."""
        self._encode(window, first, min(self._n, len(window) - self._span + 1))

    def reset(self) -> None:
        """Forget all features: frame numbers start again at 0."""
        self._held = [None] * self._n

    def describe(self) -> EngineInfo:
        """What was bound."""
        return self._info

    def close(self) -> None:
        """Nothing to release beyond memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _encode(self, window: Window, first: int, n: int) -> None:
        """The first stage at the oldest `n` places of the window, where it has not run yet."""
        for i in range(n):
            number, slot = first + i, (first + i) % self._n
            if self._held[slot] == number:
                continue
            self._graphs.encode.run((window[None, i : i + self._span],), self._features[slot : slot + 1])
            np.copyto(self._features[slot + self._n], self._features[slot])
            self._held[slot] = number if number >= 0 else None

    def _view(self, first: int) -> Array:
        """Features of the window that begins with frame `first`, in order, where they lie."""
        start = first % self._n
        view: Array = self._features[start : start + self._n].reshape(self._fused_shape)
        return view
