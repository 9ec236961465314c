"""ONNX Runtime: the portable engine, on the CPU or on an NVIDIA card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rtdenoise import machine
from rtdenoise.engine.cuda import CudaDevice, require_driver
from rtdenoise.engine.graph import Array, memory_error, one_line
from rtdenoise.errors import EngineError, MissingExtraError

Provider = Literal["cpu", "cuda"]
Shapes = tuple[tuple[int, ...], ...]
PROVIDERS: dict[Provider, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),  # fp32 is what the name promises
}
"""By the second part of the engine's name: ONNX Runtime's own name, and its settings."""


class OrtRuntime:
    """Compiles graphs with ONNX Runtime. Raises MissingExtraError when it is not installed, EngineError where it has no such provider."""

    precision = "fp32"

    def __init__(self, threads: int, provider: Provider = "cpu") -> None:
        if provider == "cuda":
            require_driver()
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError(*_package(provider)) from None
        self._ort, self._provider = onnxruntime, provider
        self.threads = threads
        self.backend = f"onnxruntime-{provider}"
        if provider == "cuda":
            _prepare_cuda(onnxruntime)
        self.device = CudaDevice().name if provider == "cuda" else machine.cpu_name()

    def compile(self, path: Path, shapes: Shapes) -> OrtGraph:
        """Load the graph at `path`; `shapes` are checked on the first run. Raises EngineError when another provider was bound."""
        name, settings = PROVIDERS[self._provider]
        try:
            options = self._options(path, shapes)
            session = self._ort.InferenceSession(str(path), options, providers=[(name, settings)])
        except Exception as error:  # the library raises a dozen private types
            raise EngineError(f"{path}: ONNX Runtime cannot load it: {one_line(error)}") from None
        bound = session.get_providers()
        if bound[:1] != [name] or (self._provider == "cpu" and len(bound) > 1):
            raise EngineError(f"{path}: asked ONNX Runtime for {name}, it bound {bound}")
        return OrtGraph(session)

    def _options(self, path: Path, shapes: Shapes) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if self._provider == "cuda":
            # The library puts layers that it has no kernel for on the CPU and says nothing. Sizes must be known for it: what
            # computes them would be refused as well, since it belongs on the CPU.
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            for size, n in free_sizes(self._ort, path, shapes).items():
                options.add_free_dimension_override_by_name(size, n)
        return options


def free_sizes(onnxruntime: Any, path: Path, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """What the named sizes of a graph's inputs are for these shapes, such as `Y` 512 and `X` 512. (Any: the module has no types.)"""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    entries = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"][0]]).get_inputs()
    pairs = (
        pair for entry, shape in zip(entries, shapes, strict=True) for pair in zip(entry.shape, shape, strict=True)
    )
    return {size: n for size, n in pairs if isinstance(size, str)}


class OrtGraph:
    """An ONNX Runtime session with bound memory."""

    def __init__(self, session: object) -> None:
        self._session = session
        self._binding = session.io_binding()  # type: ignore[attr-defined]
        self._inputs = [i.name for i in session.get_inputs()]  # type: ignore[attr-defined]
        self._outputs = [o.name for o in session.get_outputs()]  # type: ignore[attr-defined]

    def run(self, inputs: tuple[Array, ...], *outs: Array) -> None:
        """Run on C-contiguous float32 `inputs`, writing into `outs`; no copy on either side where the provider is the CPU.

        Raises EngineError when there is not enough memory, and what the library raises for anything else.
        """
        for name, array in zip(self._inputs, inputs, strict=True):
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in zip(self._outputs, outs, strict=True):
            self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        try:
            self._session.run_with_iobinding(self._binding)  # type: ignore[attr-defined]
        except Exception as error:  # the library raises plain RuntimeError for everything
            raise memory_error("ONNX Runtime", error) from None


def _package(provider: Provider) -> tuple[str, str]:
    return ("onnxruntime-gpu", "gpu") if provider == "cuda" else ("onnxruntime", "cpu")


def _prepare_cuda(onnxruntime: Any) -> None:
    """Find CUDA's libraries where pip has put them. Raises EngineError for the package that was built without CUDA."""
    if PROVIDERS["cuda"][0] not in onnxruntime.get_available_providers():
        raise EngineError(
            "this onnxruntime was built for the CPU alone: pip uninstall onnxruntime, then pip install 'rtdenoise[gpu]'"
        )
    onnxruntime.preload_dlls()
