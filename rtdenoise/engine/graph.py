"""One compiled network graph on one device: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Graph(Protocol):
    """A graph compiled for fixed shapes. `run` blocks, writes into `outs`, one array per output, and keeps nothing else."""

    def run(self, inputs: tuple[Array, ...], *outs: Array) -> None: ...


class Runtime(Protocol):
    """A library that compiles graphs, opened for one precision and number of threads."""

    backend: str
    device: str
    precision: str
    threads: int

    def compile(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> Graph: ...


RuntimeFactory = Callable[[int], Runtime]
