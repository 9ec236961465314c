"""ONNX Runtime on the CPU: the portable engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rtdenoise import machine
from rtdenoise.engine.graph import Array
from rtdenoise.errors import EngineError, MissingExtraError

PROVIDER = "CPUExecutionProvider"


class OrtRuntime:
    """Compiles graphs with ONNX Runtime. Raises MissingExtraError when it is not installed."""

    precision = "fp32"

    def __init__(self, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("onnxruntime", "cpu") from None
        self._ort = onnxruntime
        self.threads = threads
        self.backend = "onnxruntime-cpu"
        self.device = machine.cpu_name()

    def compile(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> OrtGraph:
        """Load the graph at `path`; `shapes` are checked on the first run. Raises EngineError when another provider was bound."""
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = self._ort.InferenceSession(str(path), options, providers=[PROVIDER])
        except Exception as error:  # the library raises a dozen private types
            raise EngineError(f"{path}: ONNX Runtime cannot load it: {str(error).splitlines()[0]}") from None
        if (bound := session.get_providers()) != [PROVIDER]:
            raise EngineError(f"{path}: asked ONNX Runtime for {PROVIDER}, it bound {bound}")
        return OrtGraph(session)


class OrtGraph:
    """An ONNX Runtime session with bound memory."""

    def __init__(self, session: object) -> None:
        self._session = session
        self._binding = session.io_binding()  # type: ignore[attr-defined]
        self._inputs = [i.name for i in session.get_inputs()]  # type: ignore[attr-defined]
        self._outputs = [o.name for o in session.get_outputs()]  # type: ignore[attr-defined]

    def run(self, inputs: tuple[Array, ...], *outs: Array) -> None:
        """Run on C-contiguous float32 `inputs`, writing into `outs`; no copy on either side."""
        for name, array in zip(self._inputs, inputs, strict=True):
            self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        for name, array in zip(self._outputs, outs, strict=True):
            self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(self._binding)  # type: ignore[attr-defined]
