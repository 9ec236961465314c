"""Every way to run a bundle's graphs, and the order in which `auto` tries them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rtdenoise import machine
from rtdenoise.bundle import Bundle, GraphKind
from rtdenoise.engine.graph import Runtime, RuntimeFactory
from rtdenoise.engine.ort import OrtRuntime
from rtdenoise.engine.ov import OpenVinoRuntime
from rtdenoise.engine.trt import GRAPHS, NAMES, Precision, TrtRuntime
from rtdenoise.engine.trt_build import Module
from rtdenoise.errors import ConfigError

AUTO = "auto"


@dataclass(slots=True, frozen=True)
class Backend:
    """One way to run graphs. opens: makes the runtime for a number of threads.  graphs: which of a bundle's graphs it takes.

    gpu: needs an NVIDIA card and its driver.  report: file in export/reports with what a card gave; empty as long as none has run it.
    """

    opens: RuntimeFactory
    graphs: GraphKind = "fp32"
    gpu: bool = False
    report: str = ""


def _tensorrt(module: Module, precision: Precision) -> Backend:
    return Backend(lambda threads: TrtRuntime(module, precision, threads), GRAPHS[precision], gpu=True)


BACKENDS: dict[str, Backend] = {
    **{f"{name}-{precision}": _tensorrt(module, precision) for precision in GRAPHS for module, name in NAMES.items()},
    "onnxruntime-cuda": Backend(lambda threads: OrtRuntime(threads, "cuda"), gpu=True),
    "openvino-int8": Backend(lambda threads: OpenVinoRuntime(threads, "int8"), "int8"),
    "openvino-bf16": Backend(lambda threads: OpenVinoRuntime(threads, "bf16")),
    "openvino-fp32": Backend(lambda threads: OpenVinoRuntime(threads, "fp32")),
    "onnxruntime-cpu": Backend(OrtRuntime),
}
"""Fastest first."""


def chain(bundle: Bundle) -> list[str]:
    """What `auto` tries for a bundle, in order: the engine that it was measured to be fastest with, then all others, fastest first.

    Left out are those whose graphs the bundle does not have, int8 unless it was measured (its error depends on the movie), and,
    on a machine without an NVIDIA driver, those that need one.
    """
    measured = bundle.manifest.engine
    has_driver = machine.cuda_driver() is not None
    names = [
        name
        for name, backend in BACKENDS.items()
        if bundle.has_graphs(backend.graphs) and "int8" not in name and (has_driver or not backend.gpu)
    ]
    return [measured, *(name for name in names if name != measured)] if measured else names


def taking(kind: GraphKind) -> list[str]:
    """Names of the engines that take this form of graphs."""
    return [name for name, backend in BACKENDS.items() if backend.graphs == kind]


def open_runtime(backend: str, threads: int = 0) -> Runtime:
    """The named runtime. Raises ConfigError for an unknown name, MissingExtraError or EngineError when it cannot be opened here."""
    if backend not in BACKENDS:
        raise ConfigError(f"unknown engine {backend!r}; known: {AUTO}, {', '.join(BACKENDS)}")
    return BACKENDS[backend].opens(threads or os.cpu_count() or 1)
