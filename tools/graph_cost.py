"""What one run of a graph costs at least: multiplications and bytes, layer by layer, counted from the graph that the engine reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Shapes = Sequence[Sequence[int]]
NARROW = 16
"""Maps per group below which a vector of 512 bits (16 float32) is not filled."""
DENSE_SHARE = 0.9
"""Share of the multiplications that must lie in plain layers for a network to count as dense. Engineering choice."""


@dataclass(slots=True, frozen=True)
class Layer:
    """One layer that multiplies. flop: 2 per multiply-add.  maps: the smaller of input and output maps per group; 0 for MatMul.

    axes: spatial ones of a convolution.  elements: in and out and weights, each once.
    """

    name: str
    kind: str
    flop: float
    elements: int
    maps: int = 0
    dilation: int = 1
    axes: int = 0

    @property
    def bucket(self) -> str:
        """What it is limited by, if it is limited by anything but the processor's peak."""
        if not self.axes:
            return "attention"
        if self.dilation > 1:
            return "dilated branches"
        if self.maps < NARROW:
            return "small channels/groups"
        return "dense 2-D" if self.axes == 2 else "dense 3-D"


def layers(path: Path, shapes: Shapes) -> list[Layer]:
    """Of an ONNX or OpenVINO file, for inputs of these shapes. OpenVINO works the sizes out, as it does before it compiles."""
    import openvino

    model = openvino.Core().read_model(str(path))
    model.reshape({port.get_any_name(): list(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
    return [layer for op in model.get_ordered_ops() if (layer := _layer(op)) is not None]


def gflop(counted: Sequence[Layer]) -> float:
    """Of one run."""
    return sum(layer.flop for layer in counted) / 1e9


def megabytes(counted: Sequence[Layer], element_bytes: int) -> float:
    """A lower bound of what one run moves: every multiplying layer reads its inputs and weights and writes its output once.

    Everything between them counts as fused into them.
    """
    return sum(layer.elements for layer in counted) * element_bytes / 1e6


def is_dense(counted: Sequence[Layer]) -> bool:
    """Whether nearly all is plain 2-D convolution with enough maps, and nothing is dilated."""
    plain = sum(layer.flop for layer in counted if layer.bucket == "dense 2-D")
    dilated = any(layer.bucket == "dilated branches" for layer in counted)
    return not dilated and plain >= DENSE_SHARE * sum(layer.flop for layer in counted)


def _layer(op: Any) -> Layer | None:
    kind = op.get_type_name()
    if kind == "MatMul":
        return _product(op)
    if kind not in ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"):
        return None
    into, weights = (tuple(value.get_shape()) for value in op.input_values()[:2])
    out = tuple(op.output(0).get_shape())
    grouped = kind.startswith("Group")
    per_group = weights[1:] if grouped else weights  # (out, in, kernel ...), for a transposed one (in, out, kernel ...)
    per_element = per_group[1] * math.prod(per_group[2:])
    transposed = kind.endswith(
        "BackpropData"
    )  # every input element is spread over outputs, and not the other way round
    return Layer(
        name=op.get_friendly_name(),
        kind=kind,
        flop=2.0 * math.prod(into if transposed else out) * per_element,
        elements=math.prod(into) + math.prod(out) + math.prod(weights),
        maps=min(per_group[:2]),
        dilation=max(op.get_attributes().get("dilations", [1])),
        axes=len(out) - 2,
    )


def _product(op: Any) -> Layer:
    left, right = (tuple(value.get_shape()) for value in op.input_values())
    out = tuple(op.output(0).get_shape())
    summed = left[-2] if op.get_attributes()["transpose_a"] and len(left) > 1 else left[-1]
    return Layer(
        name=op.get_friendly_name(),
        kind="MatMul",
        flop=2.0 * math.prod(out) * summed,
        elements=math.prod(left) + math.prod(right) + math.prod(out),
    )
