"""One torch module -> one ONNX file, dynamic in Y and X."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from itertools import chain
from typing import Any

import onnx
import onnxslim
import torch
from torch import Tensor, nn

from rtdenoise.bundle import StepFacts
from rtdenoise.errors import EngineError

OPSET = 20
OPSET_BF16 = 22
"""The first whose convolutions may be bfloat16."""
SIDE = 16384
TRACED = (40, 48)
"""Size the graph is traced at; parity checks others, because a frozen size shows only there (engines sheet 1)."""


class HalfInside(nn.Module):
    """A module that computes in FP16 or bf16 behind float32 inputs and outputs, so that normalisation stays in float32."""

    def __init__(self, module: nn.Module, precision: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.module, self.precision = module.to(precision), precision

    def forward(self, frames: Tensor, partial: Tensor | None = None) -> Tensor:
        """See the class."""
        # Named, not *inputs: the exporter matches dynamic sizes with arguments one to one.
        inputs = [frames] if partial is None else [frames, partial]
        return self.module(*(x.to(self.precision) for x in inputs)).float()  # type: ignore[no-any-return]


class StepHalfInside(nn.Module):
    """A step that computes in FP16 or bf16 behind float32 frames, states and outputs."""

    def __init__(self, module: nn.Module, precision: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.module, self.precision = module.to(precision), precision

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return tuple(output.float() for output in self.module(*(x.to(self.precision) for x in inputs)))


def to_onnx(module: nn.Module, channels: dict[str, int], output: str) -> bytes:
    """`module` as ONNX. channels: input name -> frames or maps; every input is (1, channels, Y, X) float32.

    Raises EngineError when the exported graph is not valid.
    """
    inputs = tuple(torch.zeros(1, n, *TRACED) for n in channels.values())
    free = {2: torch.export.Dim("Y", min=8, max=SIDE), 3: torch.export.Dim("X", min=8, max=SIDE)}
    return _exported(module, inputs, list(channels), [output], tuple(free for _ in inputs))


def step_to_onnx(module: nn.Module, step: StepFacts) -> bytes:
    """A step as ONNX: frames (1, n, Y, X) and states in, denoised frames and the next states out; dynamic in Y and X.

    Raises EngineError when the exported graph is not valid.
    """
    levels = 1 + max(state.level for state in step.states)
    coarse = {name: torch.export.Dim(name, min=2, max=SIDE >> (levels - 1)) for name in ("y", "x")}
    sides = [
        {name: (dim if (n := 1 << (levels - 1 - i)) == 1 else n * dim) for name, dim in coarse.items()}
        for i in range(levels)
    ]
    frames = [torch.zeros(1, stop - first, *TRACED) for first, stop in step.inputs]
    states = [torch.zeros(*s.shape(TRACED)) for s in step.states]
    free = [{2: sides[0]["y"], 3: sides[0]["x"]} for _ in frames]
    free += [{2: sides[s.level]["y"], 3: sides[s.level]["x"]} for s in step.states]
    carried = [f"state_{i}" for i in range(len(states))]
    names = [f"frames_{i}" for i in range(len(frames))] + carried
    outputs = ["denoised", *(f"next_{name}" for name in carried)]
    return _exported(module, (*frames, *states), names, outputs, _nested(module, free))


def _nested(module: nn.Module, free: list[Any]) -> tuple[Any, ...]:
    """Sizes nested as the arguments of `forward` are: what a `*argument` takes is one tuple."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    named = sum(kind is not inspect.Parameter.VAR_POSITIONAL for kind in kinds)
    return (*free[:named], tuple(free[named:]))


def _exported(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str], shapes: tuple[Any, ...]
) -> bytes:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET_BF16 if _is_bf16(module) else OPSET,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=shapes,
            verbose=False,
        )
        if program is None:
            raise EngineError(f"the ONNX exporter returned no graph for {type(module).__name__}")
        model: onnx.ModelProto = onnxslim.slim(program.model_proto)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(f"the exported graph of {type(module).__name__} is not valid ONNX: {error}") from None
    model.doc_string = ""
    for node in model.graph.node:  # stack traces of the machine it was exported on
        del node.metadata_props[:]
        node.doc_string = ""
    return bytes(model.SerializeToString())


def _is_bf16(module: nn.Module) -> bool:
    return any(tensor.dtype == torch.bfloat16 for tensor in chain(module.parameters(), module.buffers()))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter writes progress to stdout and warns about versions of itself."""
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        yield
    logging.getLogger("torch.onnx").setLevel(level)
