"""Memory and work on a card, as far as the streaming engines need it: addresses, one stream for work and one for what comes home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray


class DeviceGraph(Protocol):
    """A graph compiled for fixed shapes on one device. `enqueue` puts one run into the work stream and returns at once.

    addresses: of every input, then of every output, C-contiguous, of the dtype that the graph has (frames float32).
    """

    def enqueue(self, addresses: tuple[int, ...]) -> None: ...


class Device(Protocol):
    """One card. Everything but `alloc`, `pinned` and the waits is queued in order in the work stream and returns at once.

    alloc: bytes of device memory, freed with `free`; raises EngineError when there is no room.
    pinned: host memory that copies to and from the card run at full speed with.
    upload, copy, clear: host to device, device to device, zero bytes. An array that is uploaded must stay as it is until a wait.
    fetch: device to host on a stream of its own, after the work queued so far; returns a ticket for `wait`.
    hold(ticket): the work queued next waits for that copy, so that its source may be written again.
    captured: records the work that `queue` puts into the stream once and returns what replays it with one launch (a CUDA graph).
    """

    name: str

    def alloc(self, n_bytes: int) -> int: ...
    def free(self, address: int) -> None: ...
    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]: ...
    def upload(self, address: int, array: NDArray[np.generic]) -> None: ...
    def copy(self, to: int, source: int, n_bytes: int) -> None: ...
    def clear(self, address: int, n_bytes: int) -> None: ...
    def fetch(self, array: NDArray[np.generic], address: int) -> int: ...
    def hold(self, ticket: int) -> None: ...
    def wait(self, ticket: int) -> None: ...
    def captured(self, queue: Callable[[], None]) -> Callable[[], None]: ...
    def synchronize(self) -> None: ...
    def close(self) -> None: ...


@runtime_checkable
class DeviceRuntime(Protocol):
    """A runtime whose graphs work on memory of a card; see `rtdenoise.engine.graph.Runtime` for the rest."""

    backend: str
    device: str
    precision: str
    threads: int
    card: Device

    def compile_on_device(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> DeviceGraph: ...
