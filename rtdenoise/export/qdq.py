"""Graphs in int8 for TensorRT: explicit quantise and dequantise nodes, calibrated on clips by ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.export.edges import Layer, first_and_last
from rtdenoise.export.quantize import Array, Quantizing, Sample, carries_frames, connect, first_line, quiet

CONVOLUTIONS = ("Conv", "ConvTranspose")
"""What is quantised for TensorRT: with more, its parser meets nodes it does not have (engines sheet 4)."""
HEAVY = {*CONVOLUTIONS, "MatMul", "Gemm"}


def to_qdq(graph: bytes, samples: Sequence[Sample], how: Quantizing | None = None) -> bytes:
    """The ONNX graph with explicit quantise and dequantise nodes around its convolutions, in the form that TensorRT parses.

    Symmetric activations and weights, weights per channel, biases in float.
    Raises MissingExtraError without ONNX Runtime, EngineError when the graph cannot be quantised.
    """
    try:
        from onnxruntime import quantization as ort
    except ImportError:
        raise MissingExtraError("onnxruntime", "cpu") from None
    model = onnx.load_model_from_string(graph)
    with tempfile.TemporaryDirectory() as folder, quiet():
        out = Path(folder) / "qdq.onnx"
        try:
            ort.quantize_static(
                model,
                out,
                _reader(ort, model, samples),
                op_types_to_quantize=list(CONVOLUTIONS),
                nodes_to_exclude=_onnx_ends(model, how or Quantizing()),
                per_channel=True,
                activation_type=ort.QuantType.QInt8,
                weight_type=ort.QuantType.QInt8,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                },
            )
        except Exception as error:  # the library raises plain exceptions of many kinds
            raise EngineError(f"ONNX Runtime cannot quantise the graph: {first_line(error)}") from None
        return _plain(onnx.load(out))


def _onnx_ends(model: onnx.ModelProto, how: Quantizing) -> list[str]:
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    layers = {node.name: Layer(node.op_type in HEAVY) for node in model.graph.node}
    makers = {output: node.name for node in model.graph.node for output in node.output}
    inputs = {value.name for value in model.graph.input}
    layers |= {f"input {name}": Layer(False) for name in inputs} | {"output": Layer(False)}
    for node in model.graph.node:
        for value in node.input:
            if value in makers or value in inputs:
                connect(layers, makers.get(value, f"input {value}"), node.name)
    connect(layers, makers[model.graph.output[0].name], "output")
    return first_and_last(
        layers, [f"input {name}" for name in inputs if carries_frames(name)], "output", how.n_first, how.n_last
    )


def _reader(ort: Any, model: onnx.ModelProto, samples: Sequence[Sample]) -> Any:
    names = [value.name for value in model.graph.input]

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            sample = next(self.left, None)
            return None if sample is None else dict(zip(names, sample, strict=True))

    return Reader()


def _plain(model: onnx.ModelProto) -> bytes:
    """Without what the quantiser noted about itself."""
    model.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return bytes(model.SerializeToString())
