"""OpenVINO on the CPU: the fast engine without a GPU, bf16 where the processor has it, int8 for quantised graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from rtdenoise.engine.graph import Array, memory_error, one_line
from rtdenoise.errors import EngineError, MissingExtraError

Precision = Literal["fp32", "bf16", "int8"]
STATE, NEXT_STATE = "state_", "next_state_"
"""How the names of what a network carries from step to step begin, in and out."""


class OpenVinoRuntime:
    """Compiles graphs with OpenVINO at one precision. int8: what a quantised graph leaves in float runs in bf16 where the processor has it.

    Raises MissingExtraError when it is not installed, EngineError when bf16 is asked for on a processor without it.
    """

    def __init__(self, threads: int, precision: Precision) -> None:
        try:
            import openvino
        except ImportError:
            raise MissingExtraError("openvino", "live") from None
        self._ov = openvino
        self._core = openvino.Core()
        self.threads = threads
        self.precision: str = precision
        self.device = str(self._core.get_property("CPU", "FULL_DEVICE_NAME"))
        self.backend = f"openvino-{precision}"
        self._rest = "bf16" if precision == "bf16" or (precision == "int8" and has_bf16(self._core)) else "f32"
        if precision == "bf16" and not has_bf16(self._core):
            raise EngineError(f"{self.device} has no bf16 instructions; use --engine openvino-fp32")

    def compile(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> OpenVinoGraph:
        """Compile the graph at `path` for these input shapes. Raises EngineError when something else than asked for was bound."""
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self._rest,
            "INFERENCE_NUM_THREADS": self.threads,
            "ENABLE_CPU_PINNING": False,  # pinned threads make the camera thread late: 3.6 ms against 1.3 ms at p99
        }
        try:
            model = self._core.read_model(str(path))
            model.reshape({port.get_any_name(): list(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
            if self._rest == "bf16":
                model = with_half_states(self._ov, model)
            compiled = self._core.compile_model(model, "CPU", settings)
        except Exception as error:  # the library raises plain RuntimeError for everything
            raise EngineError(f"{path}: OpenVINO cannot compile it: {one_line(error)}") from None
        bound = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        if bound != settings["INFERENCE_PRECISION_HINT"]:
            raise EngineError(
                f"{path}: asked OpenVINO for {self.precision}, it bound {bound}; use --engine openvino-fp32"
            )
        return OpenVinoGraph(self._ov, compiled)


class OpenVinoGraph:
    """A compiled model and its one infer request."""

    def __init__(self, openvino: Any, compiled: Any) -> None:
        self._tensor, half = openvino.Tensor, openvino.Type.bf16
        ports = (*compiled.inputs, *compiled.outputs)
        self._halves = [(port.shape, half) if port.element_type == half else None for port in ports]
        self._request = compiled.create_infer_request()
        self._bound: list[Any] = []

    def run(self, inputs: tuple[Array, ...], *outs: Array) -> None:
        """Run on C-contiguous float32 `inputs`, writing into `outs`; no copy on either side. States in bf16 take the first
        half of their array: nobody but the graph reads them.

        Raises EngineError when there is not enough memory, and what the library raises for anything else.
        """
        # The request does not keep its tensors alive: a tensor freed before infer() is a segmentation fault.
        self._bound = [
            self._tensor(array, shared_memory=True) if half is None else self._tensor(array, *half)
            for array, half in zip((*inputs, *outs), self._halves, strict=True)
        ]
        for i, tensor in enumerate(self._bound[: len(inputs)]):
            self._request.set_input_tensor(i, tensor)
        for i, tensor in enumerate(self._bound[len(inputs) :]):
            self._request.set_output_tensor(i, tensor)
        try:
            self._request.infer()
        except Exception as error:  # the library raises plain RuntimeError for everything
            raise memory_error("OpenVINO", error) from None


def with_half_states(openvino: Any, model: Any) -> Any:
    """The model with the states that it carries from step to step in bf16; as it is where it carries none.

    With states in float32 OpenVINO computes all that lies between them and the next convolution in float32, transposed
    convolutions and poolings included: a step of the 3-D U-Net took 1.3 times as long (256 x 256).
    """
    ports = openvino.preprocess.PrePostProcessor(model)
    for i, port in enumerate(model.inputs):
        if port.get_any_name().startswith(STATE):
            ports.input(i).tensor().set_element_type(openvino.Type.bf16)
    for i, port in enumerate(model.outputs):
        if port.get_any_name().startswith(NEXT_STATE):
            ports.output(i).tensor().set_element_type(openvino.Type.bf16)
    return ports.build()


def has_bf16(core: Any) -> bool:
    """Whether this processor multiplies bf16 natively (avx512_bf16 or AMX), by OpenVINO's own account."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
