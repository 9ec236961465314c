"""TensorRT on an NVIDIA card, through the API that `tensorrt_rtx` and `tensorrt` share; plans are kept between runs."""

from __future__ import annotations

import math
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rtdenoise.bundle import GraphKind
from rtdenoise.engine.cuda import CudaDevice, require_driver
from rtdenoise.engine.device import Device, DeviceGraph
from rtdenoise.engine.graph import Array
from rtdenoise.engine.plans import PlanCache, PlanKey, graph_hash
from rtdenoise.engine.trt_build import (
    Module,
    Shapes,
    Timings,
    build_plan,
    journal,
    last_error,
    library,
    require_installed,
)
from rtdenoise.errors import EngineError

Precision = Literal["fp16", "bf16", "int8", "fp32"]
GRAPHS: dict[Precision, GraphKind] = {"int8": "qdq", "fp16": "fp16", "bf16": "bf16", "fp32": "fp32"}
"""Which of a bundle's graphs each precision takes: TensorRT 11 computes in what the graph is written in. Fastest first."""
NAMES: dict[Module, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
JIT, TIMING = "jit", "timing"
"""Suffixes of what is kept beside plans: kernels that TensorRT-RTX compiled for this card, and what TensorRT measured."""


class TrtRuntime:
    """Builds or reads plans for one card and precision. notes: why plans had to be built, one line each.

    Raises EngineError without a driver or where the library does not load, MissingExtraError when it is not installed.
    """

    def __init__(self, module: Module, precision: Precision, threads: int = 1, cache: PlanCache | None = None) -> None:
        self._driver = require_driver()
        require_installed(module)
        self._module, self._trt = module, library(module)
        self._cache = cache or PlanCache()
        self.card = CudaDevice()
        self._runtime = self._trt.Runtime(journal(module))
        self.backend = f"{NAMES[module]}-{precision}"
        self.device = self.card.name
        self.precision: str = precision
        self.threads = threads
        self.notes: list[str] = []

    def compile(self, path: Path, shapes: Shapes) -> StagedGraph:
        """The graph at `path` for inputs of these shapes, with arrays of the host in and out. Raises EngineError."""
        graph = self.compile_on_device(path, shapes)
        return StagedGraph(self.card, graph, shapes, graph.shapes[len(shapes) :])

    def compile_on_device(self, path: Path, shapes: Shapes) -> TrtGraph:
        """The graph at `path` for inputs of these shapes, on memory of the card; it has run once. Raises EngineError."""
        key = self._key(path, shapes)
        engine = self._engine(key, path)
        context, jit = self._context(engine, key, path)
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        names.sort(key=lambda name: engine.get_tensor_mode(name) != self._trt.TensorIOMode.INPUT)
        for name, shape in zip(names, shapes, strict=False):
            if not context.set_input_shape(name, shape):
                raise EngineError(f"{path}: input {name} does not take {shape}: {last_error(self._module)}")
        graph = TrtGraph(self._module, context, names, self.card)
        graph.warm_up(tuple(engine.get_tensor_dtype(name).itemsize for name in names))
        if jit is not None and (kept := bytes(jit.serialize())) != self._cache.read(key, JIT):
            self._cache.write(key, JIT, kept)
        return graph

    def _key(self, path: Path, shapes: Shapes) -> PlanKey:
        return PlanKey(
            graph=graph_hash(path),
            shapes=shapes,
            precision=self.precision,
            backend=NAMES[self._module],
            version=str(self._trt.__version__),
            gpu=self.card.name,
            compute_capability=self.card.compute_capability,
            driver=self._driver,
        )

    def _engine(self, key: PlanKey, path: Path) -> Any:
        """The plan, loaded. One that was kept and does not load is built anew, once."""
        build = partial(self._build, key, path)
        plan = self._cache.fetch(key, build)
        engine = self._runtime.deserialize_cuda_engine(plan.content)
        if engine is None and not plan.note:
            why = last_error(self._module)
            self._cache.discard(key)
            plan = replace(
                self._cache.fetch(key, build), note=f"the plan that was kept does not load ({why}); built anew"
            )
            engine = self._runtime.deserialize_cuda_engine(plan.content)
        if engine is None:
            self._cache.discard(key)
            raise EngineError(f"{path}: {self.device} does not load its plan: {last_error(self._module)}")
        if plan.note:
            self.notes.append(f"{self.backend}: {plan.note}")
        return engine

    def _build(self, key: PlanKey, path: Path) -> bytes:
        tf32 = self.precision == "int8"  # its first and last layers are float32; fp32 keeps what its name promises
        if self._module == "tensorrt_rtx":
            return build_plan(self._module, path, key.shapes, key.compute_capability, tf32=tf32)
        measured = replace(key, graph="", shapes=(), precision="")
        timings = Timings(self._cache.read(measured, TIMING))
        plan = build_plan(self._module, path, key.shapes, tf32=tf32, timings=timings)
        self._cache.write(measured, TIMING, timings.content)
        return plan

    def _context(self, engine: Any, key: PlanKey, path: Path) -> tuple[Any, Any]:
        """What runs the engine, and for TensorRT-RTX the cache of the kernels it compiles on this card."""
        if self._module == "tensorrt":
            context, jit = engine.create_execution_context(), None
        else:
            settings = engine.create_runtime_config()
            jit = settings.create_runtime_cache()
            if kept := self._cache.read(key, JIT):
                jit.deserialize(kept)  # refuses by itself what another driver or version compiled
            settings.set_runtime_cache(jit)
            # At once: kernels that are compiled while frames come in make the first ones late, and cannot be recorded.
            settings.dynamic_shapes_kernel_specialization_strategy = (
                self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            context = engine.create_execution_context(settings)
        if context is None:
            why = last_error(self._module)
            raise EngineError(f"{path}: {self.device} has no room for it: {why}; use a smaller frame or model")
        return context, jit


class TrtGraph:
    """A plan with its own scratch memory, run in the card's work stream. shapes: of the inputs, then of the outputs."""

    def __init__(self, module: Module, context: Any, names: list[str], card: CudaDevice) -> None:
        self.shapes: Shapes = tuple(tuple(context.get_tensor_shape(name)) for name in names)
        self._module, self._context, self._names, self._card = module, context, names, card
        self._bound: tuple[int, ...] = ()

    def enqueue(self, addresses: tuple[int, ...]) -> None:
        """Queue one run on this memory; see DeviceGraph. Raises EngineError when the library refuses."""
        bound = addresses == self._bound or self._bind(addresses)
        if not bound or not self._context.execute_async_v3(self._card.stream):
            raise EngineError(f"{self._card.name}: {self._module} cannot run: {last_error(self._module)}; open it anew")

    def warm_up(self, item_bytes: tuple[int, ...]) -> None:
        """Run once on zeros: the library takes memory and compiles kernels in its first run, which no recording may hold."""
        sizes = [math.prod(shape) * item for shape, item in zip(self.shapes, item_bytes, strict=True)]
        addresses: list[int] = []
        try:
            for size in sizes:
                addresses.append(self._card.alloc(size))
                self._card.clear(addresses[-1], size)
            self.enqueue(tuple(addresses))
            self._card.synchronize()
        finally:
            for address in addresses:
                self._card.free(address)

    def _bind(self, addresses: tuple[int, ...]) -> bool:
        taken = [self._context.set_tensor_address(n, a) for n, a in zip(self._names, addresses, strict=True)]
        self._bound = addresses if all(taken) else ()
        return all(taken)


class StagedGraph:
    """A graph of a card behind the Graph protocol: float32 arrays of the host in and out, through pinned memory that is reused."""

    def __init__(self, card: Device, graph: DeviceGraph, in_shapes: Shapes, out_shapes: Shapes) -> None:
        self._card, self._graph = card, graph
        self._staged, self._fetched = (
            [card.pinned(s, np.float32) for s in shapes] for shapes in (in_shapes, out_shapes)
        )
        self._addresses: list[int] = []
        weakref.finalize(self, _free, card, self._addresses).atexit = False
        for array in (*self._staged, *self._fetched):
            self._addresses.append(card.alloc(array.nbytes))
        self._bound, n_inputs = tuple(self._addresses), len(self._staged)
        self._into, self._from = self._bound[:n_inputs], self._bound[n_inputs:]

    def run(self, inputs: tuple[Array, ...], *outs: Array) -> None:
        """Run on `inputs` and write into `outs`; blocks until they are there."""
        for array, staged, address in zip(inputs, self._staged, self._into, strict=True):
            np.copyto(staged, array)
            self._card.upload(address, staged)
        self._graph.enqueue(self._bound)
        tickets = [self._card.fetch(array, address) for array, address in zip(self._fetched, self._from, strict=True)]
        for ticket, fetched, out in zip(tickets, self._fetched, outs, strict=True):
            self._card.wait(ticket)
            np.copyto(out, fetched)


def _free(card: Device, addresses: list[int]) -> None:
    for address in addresses:
        card.free(address)
