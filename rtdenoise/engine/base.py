"""The Protocol of everything that turns a window of frames into denoised frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rtdenoise.frame import Pixels, WindowSpec
from rtdenoise.normalize import Normalization

Window = NDArray[np.float32]
Counts = NDArray[np.float32]


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


def is_stateless(engine: Engine) -> bool:
    """Whether several streams may use the engine in turn: it says `stateless`, because nothing in it belongs to one of them."""
    return bool(getattr(engine, "stateless", False))


@runtime_checkable
class WindowStore(Protocol):
    """The newest frames of one stream. Nothing of a frame's size is allocated after the first window.

    n_frames: frames put since `reset`.  most_ahead: runs that may begin before the counts of an earlier one are taken.
    `put(pixels)`: the next frame (Y, X) in camera counts; it may change as soon as this returns.
    `denoise(frames, first, target, n_out)`: begins a run on the window of these frame numbers, mirrored ones among them, for
    frames target .. target+n_out-1; see Engine.run. Returns its ticket.
    `counts(ticket, i, out)`: waits for the run; writes counts of its i-th frame into `out`, or without `out` returns a view
    that is valid until `most_ahead` + 1 more runs have begun.
    `prepare(first)`: frames from `first` on belong to the next window; see Engine.prepare.
    """

    @property
    def n_frames(self) -> int: ...
    @property
    def most_ahead(self) -> int: ...
    def put(self, pixels: Pixels) -> None: ...
    def denoise(self, frames: Sequence[int], first: int, target: int, n_out: int) -> int: ...
    def counts(self, ticket: int, i: int, out: Counts | None) -> Counts: ...
    def prepare(self, first: int) -> None: ...
    def reset(self) -> None: ...


@runtime_checkable
class KeepsFrames(Protocol):
    """An engine whose frames stay with it; one stream at a time."""

    def keep(self, normalization: Normalization) -> WindowStore: ...
