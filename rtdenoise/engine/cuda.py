"""An NVIDIA card through the CUDA runtime: memory, a stream for work and one for what comes home, recorded launches. No torch."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rtdenoise import machine
from rtdenoise.errors import EngineError, MissingExtraError

NO_DRIVER = "no NVIDIA driver with a card here"
_N_TICKETS = 8
"""Events that copies to the host share in turn: more than anybody has under way at once. Engineering choice."""


def require_driver() -> int:
    """CUDA version that the driver here serves. Raises EngineError without one: what is built on it crashes where it is missing."""
    driver = machine.cuda_driver()
    if driver is None:
        raise EngineError(f"{NO_DRIVER}; use --engine auto, or install the driver")
    return driver


def bindings() -> Any:
    """CUDA's runtime API. (Any: it has no types.) Raises MissingExtraError."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        raise MissingExtraError("cuda-bindings", "gpu") from None
    return runtime


class CudaDevice:
    """The first card that CUDA sees (`CUDA_VISIBLE_DEVICES` chooses), behind the Device protocol.

    Everything taken on the card goes back with `close`, or when the last graph that uses it is gone. cuda: the API, for tests.
    Raises EngineError in one line for whatever CUDA refuses.
    """

    def __init__(self, cuda: Any = None) -> None:
        self._cuda = cuda or bindings()
        self.name = "the card"
        self._call("cudaSetDevice", 0)
        (facts,) = self._call("cudaGetDeviceProperties", 0)
        self.name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
        self.compute_capability = f"{facts.major}.{facts.minor}"
        self._owned = _Owned([], [], set())
        self._give_back = weakref.finalize(self, _release, self._cuda, self._owned)
        self._give_back.atexit = False  # at the end of a process the driver gives everything back by itself
        self._work, self._home = (self._stream() for _ in range(2))
        self._ready = self._event()
        self._fetched = [self._event() for _ in range(_N_TICKETS)]
        self._n_fetched = 0

    @property
    def stream(self) -> int:
        """Handle of the work stream, for libraries that queue their own kernels."""
        return int(self._work)

    def alloc(self, n_bytes: int) -> int:
        """Address of new memory on the card, aligned to 256 bytes. Raises EngineError when there is no room."""
        (address,) = self._call("cudaMalloc", n_bytes)
        self._owned.addresses.add(int(address))
        return int(address)

    def free(self, address: int) -> None:
        """Give memory back, once the work that uses it is done; after `close` there is nothing left to give back."""
        if address in self._owned.addresses:
            self._owned.addresses.discard(address)
            self._call("cudaFree", address)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Host memory that copies to and from the card run at full speed with; freed with its last view."""
        kind = np.dtype(dtype)
        n_bytes = int(np.prod(shape)) * kind.itemsize
        (address,) = self._call("cudaMallocHost", n_bytes)
        memory = (ctypes.c_ubyte * n_bytes).from_address(int(address))
        weakref.finalize(memory, self._cuda.cudaFreeHost, int(address)).atexit = False
        array: NDArray[Any] = np.frombuffer(memoryview(memory), kind).reshape(shape)
        return array

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queue a copy of a C-contiguous array to the card; it must stay as it is until a wait."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._work)

    def copy(self, to: int, source: int, n_bytes: int) -> None:
        """Queue a copy on the card."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", to, source, n_bytes, kind, self._work)

    def clear(self, address: int, n_bytes: int) -> None:
        """Queue zeros."""
        self._call("cudaMemsetAsync", address, 0, n_bytes, self._work)

    def fetch(self, array: NDArray[Any], address: int) -> int:
        """Queue a copy to the host behind the work so far, beside the work to come; returns its ticket."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaEventRecord", self._ready, self._work)
        self._call("cudaStreamWaitEvent", self._home, self._ready, 0)
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._home)
        ticket = self._n_fetched
        self._call("cudaEventRecord", self._fetched[ticket % _N_TICKETS], self._home)
        self._n_fetched += 1
        return ticket

    def hold(self, ticket: int) -> None:
        """Let the work queued next wait for that copy. An older ticket's event stands for a later copy, which ends later still."""
        self._call("cudaStreamWaitEvent", self._work, self._fetched[ticket % _N_TICKETS], 0)

    def wait(self, ticket: int) -> None:
        """Block until that copy has come home."""
        self._call("cudaEventSynchronize", self._fetched[ticket % _N_TICKETS])

    def captured(self, queue: Callable[[], None]) -> Callable[[], None]:
        """What replays the work of `queue` with one launch. `queue` runs once, and only its work stream is recorded: no `fetch`."""
        self._call(
            "cudaStreamBeginCapture", self._work, self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )
        try:
            queue()
        except BaseException:
            _, begun = self._cuda.cudaStreamEndCapture(self._work)  # a stream left recording refuses all other work
            if begun and int(begun):
                self._cuda.cudaGraphDestroy(begun)
            raise
        (graph,) = self._call("cudaStreamEndCapture", self._work)
        try:
            (launch,) = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._cuda.cudaGraphDestroy(graph)
        recorded = _Recorded(self._call, launch, self._work)
        weakref.finalize(recorded, self._cuda.cudaGraphExecDestroy, launch).atexit = False
        return recorded

    def synchronize(self) -> None:
        """Block until everything queued is done."""
        self._call("cudaStreamSynchronize", self._work)
        self._call("cudaStreamSynchronize", self._home)

    def close(self) -> None:
        """Give back streams, events and memory, after the work under way. Idempotent; host arrays stay as they are."""
        self._give_back()

    def _stream(self) -> Any:
        (stream,) = self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        self._owned.streams.append(stream)
        return stream

    def _event(self) -> Any:
        (event,) = self._call("cudaEventCreateWithFlags", self._cuda.cudaEventDisableTiming)
        self._owned.events.append(event)
        return event

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """What CUDA returns beside its status. (Any: integers and handles of its own.)"""
        status, *values = getattr(self._cuda, name)(*arguments)
        if status != self._cuda.cudaError_t.cudaSuccess:
            raise EngineError(self._why(name, status, arguments))
        return tuple(values)

    def _why(self, name: str, status: Any, arguments: tuple[Any, ...]) -> str:
        if status != self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            _, text = self._cuda.cudaGetErrorString(status)
            return f"{self.name}: {name}: {status.name}: {text.decode()}; restart, and if it stays update the driver"
        wanted = f"{arguments[0] >> 20} MiB" if name in ("cudaMalloc", "cudaMallocHost") else name
        failed, free, total = self._cuda.cudaMemGetInfo()
        room = "" if failed else f", {free >> 20} of {total >> 20} MiB are free"
        return (
            f"{self.name}: out of memory (cudaErrorMemoryAllocation) for {wanted}{room}; "
            "close other programs on the card, or use a smaller frame or model"
        )


class _Owned(NamedTuple):
    """What a card must be given back."""

    streams: list[Any]
    events: list[Any]
    addresses: set[int]


class _Recorded:
    """Queues recorded work with one launch. (Any: CUDA's handles.)"""

    def __init__(self, call: Callable[..., tuple[Any, ...]], launch: Any, stream: Any) -> None:
        self._call, self._launch, self._stream = call, launch, stream

    def __call__(self) -> None:
        self._call("cudaGraphLaunch", self._launch, self._stream)


def _release(cuda: Any, owned: _Owned) -> None:
    """Errors are of no use here: they only repeat what the work before has already reported."""
    for stream in owned.streams:
        cuda.cudaStreamSynchronize(stream)
    for address in owned.addresses:
        cuda.cudaFree(address)
    for event in owned.events:
        cuda.cudaEventDestroy(event)
    for stream in owned.streams:
        cuda.cudaStreamDestroy(stream)
    for kept in owned:
        kept.clear()
