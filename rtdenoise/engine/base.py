"""The Protocol of everything that turns a window of frames into denoised frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rtdenoise.frame import WindowSpec

Window = NDArray[np.float32]


@dataclass(slots=True, frozen=True)
class EngineInfo:
    """What was really bound.

    backend: as on the wire ('openvino-bf16').  device: hardware name.  model: bundle name and short hash.
    """

    backend: str
    device: str
    model: str
    precision: str
    threads: int


@runtime_checkable
class Engine(Protocol):
    """A pure function of the window, possibly with a cache of what it computed for earlier windows.

    `run(window, first, target, n_out)`: `window` is (T, Y, X) normalised float32, C-contiguous, frames `first .. first+T-1` of the
    current segment (`first` is negative where the start was mirrored); returns (n_out, Y, X): frames `target .. target+n_out-1`.
    T equals `window.size`, or lies between `window.min_size` and `window.size` at the edges of a segment (edge rule "trim").
    The returned array is reused by the next run: copy what you keep.
    `prepare(window, first)`: what has arrived of the window that runs next; work that need not wait for the newest frame is done here.
    `reset()`: frame numbers start again at 0 (new series, or after a gap); everything cached is forgotten.
    """

    @property
    def window(self) -> WindowSpec: ...
    def run(self, window: Window, first: int, target: int, n_out: int) -> NDArray[np.float32]: ...
    def prepare(self, window: Window, first: int) -> None: ...
    def reset(self) -> None: ...
    def describe(self) -> EngineInfo: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
