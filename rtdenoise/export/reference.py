"""PyTorch FP32 behind the engines' own protocol: what every other engine is compared with. Never in the live path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from rtdenoise.bundle import Bundle, GraphKind
from rtdenoise.engine.graph import Array, Graph, Runtime
from rtdenoise.engine.ort import OrtRuntime
from rtdenoise.engine.ov import OpenVinoRuntime


class TorchRuntime:
    """Runs a network's deployed modules in place of the bundle's graphs."""

    backend, device, precision = "torch", "CPU", "fp32"

    def __init__(self, bundle: Bundle, modules: Mapping[str, nn.Module]) -> None:
        self._bundle, self._modules = bundle, modules
        self.threads = torch.get_num_threads()

    def compile(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> Graph:
        """The module that plays the role of the graph at `path`."""
        return _TorchGraph(self._modules[role_of(self._bundle, path)].eval())


class _TorchGraph:
    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def run(self, inputs: tuple[Array, ...], *outs: Array) -> None:
        with torch.no_grad():
            found = self._module(*(torch.from_numpy(array) for array in inputs))
        for tensor, out in zip(found if isinstance(found, tuple) else (found,), outs, strict=True):
            out[:] = tensor.numpy()


class OtherKind:
    """Another form of the bundle's graphs on the CPU, as half precision that a GPU is meant to run: with ONNX Runtime, and
    bfloat16, which that does not have, with OpenVINO.
    """

    device = "CPU"

    def __init__(self, bundle: Bundle, kind: GraphKind, threads: int) -> None:
        threads = threads or os.cpu_count() or 1
        self._bundle = bundle
        self._runtime: Runtime = OpenVinoRuntime(threads, "bf16") if kind == "bf16" else OrtRuntime(threads)
        self.backend = self._runtime.backend
        self.precision: str = kind
        self.threads = self._runtime.threads

    def compile(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> Graph:
        """The graph of this kind with the role of the one at `path`."""
        kind: GraphKind = self.precision  # type: ignore[assignment]
        return self._runtime.compile(self._bundle.graph(role_of(self._bundle, path), kind), shapes)


class Recorder:
    """A runtime that keeps what its graphs are given: some runs of each, evenly over time."""

    def __init__(self, bundle: Bundle, runtime: Runtime, n_kept: int) -> None:
        self._bundle, self._runtime, self._n_kept = bundle, runtime, n_kept
        self.backend, self.device = runtime.backend, runtime.device
        self.precision, self.threads = runtime.precision, runtime.threads
        self.kept: dict[str, Kept] = {}

    def compile(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> Graph:
        """A graph whose inputs are kept under its role."""
        kept = self.kept.setdefault(role_of(self._bundle, path), Kept(self._n_kept))
        return _RecordedGraph(self._runtime.compile(path, shapes), kept)


class Kept:
    """Every n-th of what it is shown; n doubles whenever too many are kept."""

    def __init__(self, n_kept: int) -> None:
        self.samples: list[tuple[Array, ...]] = []
        self._n_kept, self._every, self._seen = n_kept, 1, 0

    def show(self, inputs: tuple[Array, ...]) -> None:
        """Keep a copy, perhaps."""
        if self._seen % self._every == 0:
            self.samples.append(tuple(array.copy() for array in inputs))
        self._seen += 1
        if len(self.samples) == 2 * self._n_kept:
            self.samples = self.samples[::2]
            self._every *= 2


class _RecordedGraph:
    def __init__(self, graph: Graph, kept: Kept) -> None:
        self._graph, self._kept = graph, kept

    def run(self, inputs: tuple[Array, ...], *outs: Array) -> None:
        self._kept.show(inputs)
        self._graph.run(inputs, *outs)


def role_of(bundle: Bundle, path: Path) -> str:
    """What the FP32 graph at `path` is for."""
    return next(role for role, file in bundle.manifest.graphs.items() if file == path.name)
