"""CUDA's runtime API on memory of the host: what a program takes and gives back is counted, as no card tells it."""
# ruff: noqa: N802, N815 - the names are CUDA's

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorIllegalAddress = 700


class HostCuda:
    """Work is done at once, unless its stream is being recorded.

    taken: how much of each kind is not given back.  room: bytes on the card.  fails: what a call returns from now on.
    """

    cudaError_t = Status
    cudaStreamNonBlocking, cudaEventDisableTiming = 1, 2
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.taken = dict.fromkeys(("memory", "pinned", "stream", "event", "graph", "launch"), 0)
        self.fails: dict[str, Status] = {}
        self.calls: list[str] = []
        self._memory: dict[int, Any] = {}
        self._handle = 0
        self._recording: list[Callable[[], None]] | None = None
        self._graphs: dict[int, list[Callable[[], None]]] = {}

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name in self.fails:
                return (self.fails[name], None)
            return getattr(self, "_" + name)(*arguments)

        if not name.startswith("cuda"):
            raise AttributeError(name)
        return call

    @property
    def in_use(self) -> int:
        return sum(len(memory) for memory in self._memory.values())

    def _cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        return (Status.cudaSuccess,)

    def _cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return (Status.cudaSuccess, SimpleNamespace(name=b"Host card", major=8, minor=6))

    def _cudaGetErrorString(self, status: Status) -> tuple[Any, ...]:
        return (Status.cudaSuccess, b"an illegal memory access was encountered")

    def _cudaMemGetInfo(self) -> tuple[Any, ...]:
        return (Status.cudaSuccess, self.room - self.in_use, self.room)

    def _cudaMalloc(self, n_bytes: int, kind: str = "memory") -> tuple[Any, ...]:
        if self.in_use + n_bytes > self.room:
            return (Status.cudaErrorMemoryAllocation, None)
        memory = (ctypes.c_ubyte * n_bytes)()
        self._memory[ctypes.addressof(memory)] = memory
        self.taken[kind] += 1
        return (Status.cudaSuccess, ctypes.addressof(memory))

    def _cudaMallocHost(self, n_bytes: int) -> tuple[Any, ...]:
        return self._cudaMalloc(n_bytes, "pinned")

    def _cudaFree(self, address: int, kind: str = "memory") -> tuple[Any, ...]:
        del self._memory[address]
        self.taken[kind] -= 1
        return (Status.cudaSuccess,)

    def _cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return self._cudaFree(address, "pinned")

    def _cudaMemcpyAsync(self, to: int, source: int, n_bytes: int, kind: int, stream: int) -> tuple[Any, ...]:
        return self._put(lambda: ctypes.memmove(to, source, n_bytes))

    def _cudaMemsetAsync(self, to: int, value: int, n_bytes: int, stream: int) -> tuple[Any, ...]:
        return self._put(lambda: ctypes.memset(to, value, n_bytes))

    def _cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return self._made("stream")

    def _cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        return self._gone("stream")

    def _cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        return (Status.cudaSuccess,)

    def _cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any, ...]:
        return (Status.cudaSuccess,)

    def _cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return self._made("event")

    def _cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        return self._gone("event")

    def _cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        return (Status.cudaSuccess,)

    def _cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        return (Status.cudaSuccess,)

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        assert self._recording is None, "the stream is being recorded already"
        self._recording = []
        return (Status.cudaSuccess,)

    def _cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        status, graph = self._made("graph")
        self._graphs[graph], self._recording = self._recording or [], None
        return (status, graph)

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        status, launch = self._made("launch")
        self._graphs[launch] = self._graphs[graph]
        return (status, launch)

    def _cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        return self._gone("graph")

    def _cudaGraphExecDestroy(self, launch: int) -> tuple[Any, ...]:
        return self._gone("launch")

    def _cudaGraphLaunch(self, launch: int, stream: int) -> tuple[Any, ...]:
        for work in self._graphs[launch]:
            work()
        return (Status.cudaSuccess,)

    def _put(self, work: Callable[[], object]) -> tuple[Any, ...]:
        if self._recording is None:
            work()
        else:
            self._recording.append(work)  # type: ignore[arg-type]
        return (Status.cudaSuccess,)

    def _made(self, kind: str) -> tuple[Any, ...]:
        self._handle += 1
        self.taken[kind] += 1
        return (Status.cudaSuccess, self._handle)

    def _gone(self, kind: str) -> tuple[Any, ...]:
        self.taken[kind] -= 1
        return (Status.cudaSuccess,)
