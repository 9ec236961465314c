"""The stateful form: each run takes the frames that are new, and what earlier ones left behind is carried on."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise.bundle import StepFacts
from rtdenoise.engine.base import EngineInfo, Window
from rtdenoise.engine.graph import Array, Graph
from rtdenoise.frame import WindowSpec


def stepped_window(facts: StepFacts) -> WindowSpec:
    """The frames that a step's outputs depend on."""
    return WindowSpec(facts.size, facts.emits, len(facts.emits))


def graph_shapes(facts: StepFacts, shape: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """What the graph takes for frames of `shape` (Y, X)."""
    side = padded(facts, shape)
    return (*((1, stop - first, *side) for first, stop in facts.inputs), *(s.shape(side) for s in facts.states))


class SteppedEngine:
    """A pure function of the window that needs only its newest frames, as long as windows follow each other.

    After a reset, or when a window does not follow the last one, it runs through the whole window first.
    """

    def __init__(self, graph: Graph, facts: StepFacts, shape: tuple[int, int], info: EngineInfo) -> None:
        self.window = stepped_window(facts)
        self._graph, self._facts, self._shape, self._info = graph, facts, shape, info
        n_frames = len(facts.inputs)
        shapes = graph_shapes(facts, shape)
        self._frames = [np.zeros(s, np.float32) for s in shapes[:n_frames]]
        self._states = [[np.zeros(s, np.float32) for s in shapes[n_frames:]] for _ in ("old", "new")]
        self._out = np.empty((1, self.window.hop, *padded(facts, shape)), np.float32)
        self._next_stop: int | None = None

    def run(self, window: Window, first: int, target: int, n_out: int) -> NDArray[np.float32]:
        """(n_out, Y, X) of this window; see Engine.run."""
        if self._next_stop != first + self.window.size:
            self._forget()
            for behind in range(self._facts.inputs[0][0], 0, -self.window.hop):
                self._step(window, behind)
        self._step(window, 0)
        self._next_stop = first + self.window.size + self.window.hop
        return self._out[0, :n_out, : self._shape[0], : self._shape[1]]

    def prepare(self, window: Window, first: int) -> None:
        """Nothing can be done ahead: a step begins with its newest frame."""

    def reset(self) -> None:
        """Forget the states."""
        self._next_stop = None

    def describe(self) -> EngineInfo:
        """What was bound."""
        return self._info

    def close(self) -> None:
        """Nothing to release beyond memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _forget(self) -> None:
        for state in self._states[0]:
            state.fill(0.0)

    def _step(self, window: Window, behind: int) -> None:
        """The step that ends `behind` frames before the window does."""
        for (first, stop), into in zip(self._facts.inputs, self._frames, strict=True):
            start = max(0, first - behind)
            _fill(window[start : start + stop - first], into[0])
        old, new = self._states
        self._graph.run((*self._frames, *old), self._out, *new)
        self._states.reverse()


def _fill(frames: Window, into: Array) -> None:
    """Copy, and repeat the last row and column where the graph wants more."""
    y, x = frames.shape[1:]
    into[:, :y, :x] = frames
    into[:, y:, :x] = frames[:, -1:]
    into[:, :, x:] = into[:, :, x - 1 : x]


def padded(facts: StepFacts, shape: tuple[int, int]) -> tuple[int, int]:
    """Y and X of the graph for frames of `shape`."""
    y, x = (-(-side // facts.multiple) * facts.multiple for side in shape)
    return y, x
