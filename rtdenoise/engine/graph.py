"""One compiled network graph on one device: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import EngineError

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


def lacks_memory(error: BaseException) -> bool:
    """Whether a library did not get the memory it wanted; each says so in words of its own."""
    words = ("bad_alloc", "failed to allocate", "out of memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def one_line(error: BaseException) -> str:
    """What a library has to say, without the places in its own code that it says first, and never nothing."""
    if lacks_memory(error):
        return "there is not enough memory; close other programs, or use smaller frames or another engine"
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def memory_error(library: str, error: Exception) -> Exception:
    """An EngineError in plain words where a run did not get its memory, and `error` itself where something else was wrong."""
    return EngineError(f"{library}: {one_line(error)}") if lacks_memory(error) else error
