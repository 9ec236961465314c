"""The plain window form: all T frames each run, chosen positions out."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine.base import EngineInfo, Window
from rtdenoise.engine.graph import Graph
from rtdenoise.errors import WindowError
from rtdenoise.frame import WindowSpec


class WindowEngine:
    """Runs one graph (1, T, Y, X) -> (1, K, Y, X) on every window and returns the positions that the stream asks for."""

    stateless = True

    def __init__(
        self, graph: Graph, emits: tuple[int, ...], spec: WindowSpec, shape: tuple[int, int], info: EngineInfo
    ) -> None:
        self.window = spec
        self._graph, self._info = graph, info
        self._rows = {position: row for row, position in enumerate(emits)}
        self._out = np.empty((1, len(emits), *shape), np.float32)
        if missing := [p for p in spec.emits if p not in self._rows]:
            raise WindowError(f"{info.model} emits positions {emits}, not {missing}")

    def run(self, window: Window, first: int, target: int, n_out: int) -> NDArray[np.float32]:
        """(n_out, Y, X) of this window; see Engine.run."""
        self._graph.run((window[None],), self._out)
        row = self._rows[target - first]
        return self._out[0, row : row + n_out]

    def prepare(self, window: Window, first: int) -> None:
        """Nothing can be done ahead: every frame of the window enters the first layer together."""

    def reset(self) -> None:
        """Nothing is remembered between windows."""

    def describe(self) -> EngineInfo:
        """What was bound."""
        return self._info

    def close(self) -> None:
        """Nothing to release beyond memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
