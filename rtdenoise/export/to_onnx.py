"""One torch module -> one ONNX file, dynamic in Y and X."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import onnxslim
import torch
from torch import Tensor, nn

from rtdenoise.errors import EngineError

OPSET = 20
TRACED = (40, 48)
"""Size the graph is traced at; parity checks others, because a frozen size shows only there (engines sheet 1)."""


class HalfInside(nn.Module):
    """A module that computes in FP16 behind float32 inputs and outputs, so that normalisation stays in float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, frames: Tensor, partial: Tensor | None = None) -> Tensor:
        """See the class."""
        # Named, not *inputs: the exporter matches dynamic sizes with arguments one to one.
        inputs = [frames.half()] if partial is None else [frames.half(), partial.half()]
        return self.module(*inputs).float()  # type: ignore[no-any-return]


def to_onnx(module: nn.Module, channels: dict[str, int], output: str) -> bytes:
    """`module` as ONNX. channels: input name -> frames or maps; every input is (1, channels, Y, X) float32.

    Raises EngineError when the exported graph is not valid.
    """
    inputs = tuple(torch.zeros(1, n, *TRACED) for n in channels.values())
    free = {2: torch.export.Dim("Y", min=8, max=16384), 3: torch.export.Dim("X", min=8, max=16384)}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(channels),
            output_names=[output],
            dynamic_shapes=tuple(free for _ in inputs),
            verbose=False,
        )
        if program is None:
            raise EngineError(f"the ONNX exporter returned no graph for {type(module).__name__}")
        model: onnx.ModelProto = onnxslim.slim(program.model_proto)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise EngineError(f"the exported graph of {type(module).__name__} is not valid ONNX: {error}") from None
    model.doc_string = ""
    for node in model.graph.node:  # stack traces of the machine it was exported on
        del node.metadata_props[:]
        node.doc_string = ""
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter writes progress to stdout and warns about versions of itself."""
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        yield
    logging.getLogger("torch.onnx").setLevel(level)
