"""PyTorch on a card behind the DeviceRuntime protocol: what the resident engines would give with its kernels. For benchmarks only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtdenoise import bundle as bundles
from rtdenoise.engine.cuda import CudaDevice

Shapes = tuple[tuple[int, ...], ...]
Function = Callable[..., Tensor]


class TorchCard(CudaDevice):
    """A card whose recordings PyTorch makes: its memory for what lies between layers must belong to the recording."""

    def __init__(self) -> None:
        torch.cuda.init()
        torch.backends.cudnn.benchmark = True  # the run before a recording chooses the kernels
        super().__init__()
        self.torch_stream = torch.cuda.ExternalStream(self.stream)

    def captured(self, queue: Callable[[], None]) -> Callable[[], None]:
        """See Device."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.torch_stream):
            queue()

        def replay() -> None:
            with torch.cuda.stream(self.torch_stream):
                graph.replay()

        return replay


class TorchRuntime:
    """The window network of a bundle in half precision, and the graphs around it."""

    backend, precision, threads = "torch-fp16", "fp16", 1

    def __init__(self, bundle: Path, card: Any = None) -> None:
        from rtdenoise.export.pack import load_network

        self.card = card or TorchCard()
        self.device = self.card.name
        network = load_network(bundles.read(bundle))[1]
        self._on = "cuda" if isinstance(self.card, CudaDevice) else "cpu"
        self._network = network.deploy().graphs["window"].to(self._on).half()

    def compile(self, path: Path, shapes: Shapes) -> Any:
        """Raises TypeError: these graphs work in the card's memory alone."""
        raise TypeError(f"{path}: PyTorch is only measured with frames on the card")

    def compile_on_device(self, path: Path, shapes: Shapes) -> TorchGraph:
        """Ours by name, any other is the bundle's."""
        return TorchGraph(self.card, FUNCTIONS.get(path.stem, self._denoised), path.stem, shapes, self._on)

    def _denoised(self, frames: Tensor) -> Tensor:
        return self._network(frames.half()).float()


class TorchGraph:
    """A function on tensors that lie at addresses."""

    def __init__(self, card: Any, function: Function, name: str, shapes: Shapes, on: str) -> None:
        self._card, self._function, self._shapes, self._on = card, function, shapes, on
        self._types = ["|u1" if name in ("ingest-uint8", "ingest-uint16", "ingest-int16") else "<f4", *["<f4"] * 9]
        with torch.inference_mode():
            dtypes = [torch.uint8 if kind == "|u1" else torch.float32 for kind in self._types]
            zeros = [torch.zeros(s, dtype=d, device=on) for s, d in zip(shapes, dtypes, strict=False)]
            self._out_shape = tuple(function(*zeros).shape)

    def enqueue(self, addresses: tuple[int, ...]) -> None:
        """See DeviceGraph."""
        tensors = [
            _at(address, shape, kind, self._on)
            for address, shape, kind in zip(addresses, (*self._shapes, self._out_shape), self._kinds(), strict=True)
        ]
        with torch.inference_mode(), torch.cuda.stream(getattr(self._card, "torch_stream", None)):
            tensors[-1].copy_(self._function(*tensors[:-1]))

    def _kinds(self) -> list[str]:
        return [*self._types[: len(self._shapes)], "<f4"]


class _Memory:
    """What lies at an address, in the words that PyTorch understands."""

    def __init__(self, address: int, shape: tuple[int, ...], kind: str) -> None:
        facts = {"shape": shape, "typestr": kind, "data": (address, False), "version": 3}
        self.__cuda_array_interface__ = self.__array_interface__ = facts


def _at(address: int, shape: tuple[int, ...], kind: str, on: str) -> Tensor:
    memory = _Memory(address, shape, kind)
    return torch.as_tensor(memory, device="cuda") if on == "cuda" else torch.from_numpy(np.asarray(memory))


def _frame(counts: Tensor, offset: Tensor, inverse: Tensor) -> Tensor:
    return (counts[:, None] - offset) * inverse


def _unsigned(raw: Tensor, offset: Tensor, inverse: Tensor) -> Tensor:
    return _frame(raw[..., 0].float() + 256 * raw[..., 1].float(), offset, inverse)


def _signed(raw: Tensor, offset: Tensor, inverse: Tensor) -> Tensor:
    high = raw[..., 1].float()
    return _frame(raw[..., 0].float() + 256 * (high - 256 * (high >= 128)), offset, inverse)


FUNCTIONS: dict[str, Function] = {
    "ingest-uint8": lambda raw, offset, inverse: _frame(raw.float(), offset, inverse),
    "ingest-uint16": _unsigned,
    "ingest-int16": _signed,
    "ingest-float32": _frame,
    "finish": lambda frames, scale, offset: frames * scale + offset,
    "merge": lambda predictions, weights, scale, offset: (predictions * weights).sum(1) * scale + offset,
}
"""What rtdenoise/engine/graphs holds."""
