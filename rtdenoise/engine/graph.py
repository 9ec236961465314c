"""One compiled network graph on one device: arrays in, one array out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Graph(Protocol):
    """A graph compiled for fixed shapes. `run` blocks, writes into `out` and keeps references to nothing else."""

    def run(self, inputs: tuple[Array, ...], out: Array) -> None: ...


class Runtime(Protocol):
    """A library that compiles graphs, opened for one precision and number of threads."""

    backend: str
    device: str
    precision: str
    threads: int

    def compile(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> Graph: ...


RuntimeFactory = Callable[[int], Runtime]
