"""A card made of host memory that does everything as late as its Protocol allows, so that what is not waited for is seen to be wrong."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rtdenoise.errors import EngineError

ALIGNED = 256
DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}

Array = NDArray[np.generic]
Work = Callable[[], None]


class LateCard:
    """Behind the Device protocol. Memory is found by its address; what was not allocated, or is not aligned, is an error.

    Work waits in a queue until somebody waits for it; a copy home is made after all other work that nothing holds back.
    allocated, pinned_bytes, uploaded: what was asked for so far.  room: bytes that the card has.
    """

    name = "late card"

    def __init__(self, room: int = 1 << 40) -> None:
        self.room = room
        self.allocated: list[int] = []
        self.n_pinned = 0
        self.uploaded: list[int] = []
        self.launches = 0
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._queue: list[Work] = []
        self._fetches: dict[int, Work] = {}
        self._recording: list[Work] | None = None

    @property
    def in_use(self) -> int:
        return sum(map(len, self._memory.values()))

    def alloc(self, n_bytes: int) -> int:
        if self.in_use + n_bytes > self.room:
            raise EngineError(f"{self.name}: no room for {n_bytes} bytes; use smaller frames")
        whole = np.full(n_bytes + ALIGNED, 0xFF, np.uint8)  # float32 of these bytes is not a number
        memory = whole[-whole.ctypes.data % ALIGNED :][:n_bytes]
        self._memory[memory.ctypes.data] = memory
        self.allocated.append(n_bytes)
        return memory.ctypes.data

    def free(self, address: int) -> None:
        del self._memory[address]

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        self.n_pinned += 1
        return np.zeros(shape, dtype)

    def upload(self, address: int, array: Array) -> None:
        assert array.flags.c_contiguous
        assert self._recording is None
        self.uploaded.append(array.nbytes)
        self._put(lambda: self._copied(self.view(address, array.nbytes), array.reshape(-1).view(np.uint8)))

    def copy(self, to: int, source: int, n_bytes: int) -> None:
        self._put(lambda: self._copied(self.view(to, n_bytes), self.view(source, n_bytes)))

    def clear(self, address: int, n_bytes: int) -> None:
        self._put(lambda: self.view(address, n_bytes).fill(0))

    def fetch(self, array: Array, address: int) -> int:
        assert self._recording is None
        ticket = len(self._fetches)
        into = array.reshape(-1).view(np.uint8)
        self._fetches[ticket] = lambda: self._copied(into, self.view(address, array.nbytes))
        return ticket

    def hold(self, ticket: int) -> None:
        self._put(lambda: self._bring_home(ticket))

    def wait(self, ticket: int) -> None:
        self._work()
        self._bring_home(ticket)

    def captured(self, queue: Work) -> Work:
        self._recording = recorded = []
        queue()
        self._recording = None

        def replay() -> None:
            self.launches += 1
            self._queue.extend(recorded)

        return replay

    def synchronize(self) -> None:
        self._work()
        for ticket in self._fetches:
            self._bring_home(ticket)

    def close(self) -> None:
        self._memory.clear()

    def run_graph(self, session: object, addresses: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> None:
        self._put(lambda: self._computed(session, addresses, shapes))

    def view(self, address: int, n_bytes: int) -> NDArray[np.uint8]:
        """The bytes at an address. Raises IndexError where nothing was allocated."""
        starts = sorted(self._memory)
        start = starts[bisect.bisect(starts, address) - 1]
        begin = address - start
        if begin < 0 or begin + n_bytes > len(self._memory[start]):
            raise IndexError(f"{n_bytes} bytes at {address} were never allocated")
        return self._memory[start][begin : begin + n_bytes]

    def _put(self, work: Work) -> None:
        (self._queue if self._recording is None else self._recording).append(work)

    def _work(self) -> None:
        waiting, self._queue = self._queue, []
        for work in waiting:
            work()

    def _bring_home(self, ticket: int) -> None:
        self._fetches[ticket]()
        self._fetches[ticket] = _nothing

    @staticmethod
    def _copied(to: NDArray[np.uint8], source: NDArray[np.uint8]) -> None:
        to[...] = source

    def _computed(self, session: object, addresses: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> None:
        inputs = session.get_inputs()  # type: ignore[attr-defined]
        assert not any(address % ALIGNED for address in addresses)
        arrays = {}
        for port, address, shape in zip(inputs, addresses, shapes, strict=False):
            dtype = np.dtype(DTYPES[port.type])
            arrays[port.name] = self.view(address, int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
        outputs = session.run(None, arrays)  # type: ignore[attr-defined]
        for output, address in zip(outputs, addresses[len(inputs) :], strict=True):
            self._copied(self.view(address, output.nbytes), np.ascontiguousarray(output).reshape(-1).view(np.uint8))


class LateGraph:
    """An ONNX file run by ONNX Runtime on memory of the card."""

    def __init__(self, card: LateCard, session: object, shapes: tuple[tuple[int, ...], ...]) -> None:
        self._card, self._session, self._shapes = card, session, shapes

    def enqueue(self, addresses: tuple[int, ...]) -> None:
        self._card.run_graph(self._session, addresses, self._shapes)


class LateRuntime:
    """Behind the DeviceRuntime protocol."""

    backend, device, precision, threads = "late-card", "late card", "fp32", 1

    def __init__(self, card: LateCard | None = None) -> None:
        self.card = card or LateCard()
        self.compiled: list[str] = []

    def compile_on_device(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> LateGraph:
        import onnxruntime

        self.compiled.append(path.stem)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return LateGraph(self.card, session, shapes)

    def compile(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> None:
        raise AssertionError("a runtime that works on a card is never asked to move whole windows")


def _nothing() -> None:
    """Came home before."""
