"""Graphs in int8, calibrated on clips: for OpenVINO by NNCF, for TensorRT with explicit quantise and dequantise nodes."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.export.edges import Layer, first_and_last

Array = NDArray[np.float32]
Sample = tuple[Array, ...]
"""One array per graph input, in the graph's order."""


@dataclass(slots=True, frozen=True)
class Quantizing:
    """How int8 is made of float. n_first, n_last: layers in a row from the inputs and to the output that stay in float: the
    first, whose input has the movie's whole range, and the last two (engines sheet 5: they halve what int8 takes from
    bright transients, for 12 % of the time).  ranges: of activations, the widest of all samples, or the mean of every
    sample's own, which cuts what is rarely reached for finer steps below.  headroom: contrast, in that of the clips, of the
    brightest samples: cells brighter than those of the clips must not be cut. Without it int8 took 10 % (UMVD) to 45 %
    (SUPPORT) from the brightest pixels of movies brighter than the clips; more of it makes every step coarser.
    """

    n_first: int = 1
    n_last: int = 2
    ranges: Literal["widest", "mean"] = "widest"
    headroom: float = 1.5

    def __str__(self) -> str:
        ranges = f"{self.ranges} ranges, headroom {self.headroom:g}"
        return f"{ranges}, first {self.n_first} and last {self.n_last} layers in float"


TRIED: dict[str, tuple[Quantizing, ...]] = {
    "int8": (Quantizing(), Quantizing(ranges="mean"), Quantizing(headroom=2.5), Quantizing(3, 4, headroom=2.2)),
    "qdq": (Quantizing(), Quantizing(2, 3), Quantizing(3, 4, headroom=2.2)),
}
"""In turn, until a bundle is within its target's tolerances. UMVD needs the widest ranges (with means it lost 70 % of the
brightest pixels of one clip), DeepVID v2 the means (0.05 dB lost instead of 0.4).
"""
CONVOLUTIONS = ("Conv", "ConvTranspose")
"""What is quantised for TensorRT: with more, its parser meets nodes it does not have (engines sheet 4)."""
HEAVY = {*CONVOLUTIONS, "MatMul", "Gemm"}
OV_HEAVY = {
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
}
ATTENTION = ("MatMul", "ScaledDotProductAttention", "Softmax")
"""Left in float: their inputs are small differences of tokens, which eight bits take away."""


def to_int8(graph: bytes, samples: Sequence[Sample], how: Quantizing | None = None) -> tuple[bytes, bytes]:
    """OpenVINO's .xml and .bin of an ONNX graph with int8 convolutions, dynamic in Y and X; weights per channel, symmetric.

    Raises MissingExtraError without NNCF or OpenVINO, EngineError when the graph cannot be quantised.
    """
    nncf, openvino = _nncf()
    how = how or Quantizing()
    with _quiet():
        model = openvino.Core().read_model(io.BytesIO(graph))
        dynamic = {port.get_any_name(): port.get_partial_shape() for port in model.inputs}
        # NNCF quantises nothing behind a Reshape whose sizes it does not know, 29 % of UMVD's work.
        model.reshape(dict(zip(dynamic, (list(array.shape) for array in samples[0]), strict=True)))
        scope = nncf.IgnoredScope(names=_ov_ends(model, how), types=list(ATTENTION), validate=False)
        names = [port.get_any_name() for port in model.inputs]
        try:
            quantized = nncf.quantize(
                model,
                nncf.Dataset([dict(zip(names, sample, strict=True)) for sample in samples]),
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(samples),
                fast_bias_correction=True,
                ignored_scope=scope,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=_ranges(nncf, how)
                ),
            )
        except Exception as error:  # both libraries raise a dozen types
            raise EngineError(f"NNCF cannot quantise the graph: {_first_line(error)}") from None
        quantized.reshape(dynamic)
        return _serialized(openvino, quantized)


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
    with tempfile.TemporaryDirectory() as folder, _quiet():
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
            raise EngineError(f"ONNX Runtime cannot quantise the graph: {_first_line(error)}") from None
        return _plain(onnx.load(out))


def _nncf() -> tuple[Any, Any]:
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise MissingExtraError(error.name or "nncf", "quantize") from None
    return nncf, openvino


def _ranges(nncf: Any, how: Quantizing) -> Any:
    known = nncf.quantization.range_estimator.RangeEstimatorParametersSet
    return known.MINMAX if how.ranges == "widest" else known.MEAN_MINMAX


def _ov_ends(model: Any, how: Quantizing) -> list[str]:
    layers = {op.get_friendly_name(): Layer(op.get_type_name() in OV_HEAVY) for op in model.get_ordered_ops()}
    for op in model.get_ordered_ops():
        for value in op.input_values():
            _connect(layers, value.get_node().get_friendly_name(), op.get_friendly_name())
    frames = [port.get_node().get_friendly_name() for port in model.inputs if _carries_frames(port.get_any_name())]
    return first_and_last(layers, frames, model.outputs[0].get_node().get_friendly_name(), how.n_first, how.n_last)


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
                _connect(layers, makers.get(value, f"input {value}"), node.name)
    _connect(layers, makers[model.graph.output[0].name], "output")
    return first_and_last(
        layers, [f"input {name}" for name in inputs if _carries_frames(name)], "output", how.n_first, how.n_last
    )


def _connect(layers: dict[str, Layer], one: str, next_one: str) -> None:
    layers[one].after.append(next_one)
    layers[next_one].before.append(one)


def _carries_frames(name: str) -> bool:
    """Frames, and what was computed of older ones; not what a network carries from step to step."""
    return not name.startswith("state_")


def _reader(ort: Any, model: onnx.ModelProto, samples: Sequence[Sample]) -> Any:
    names = [value.name for value in model.graph.input]

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            sample = next(self.left, None)
            return None if sample is None else dict(zip(names, sample, strict=True))

    return Reader()


def _serialized(openvino: Any, model: Any) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, str(xml), str(weights))
        text = xml.read_text(encoding="utf-8")
        return re.sub(
            r"\s*<rt_info>(?:(?!<rt_info>).)*</rt_info>\s*(?=</net>)", "\n", text, flags=re.DOTALL
        ).encode(), (weights.read_bytes())


def _plain(model: onnx.ModelProto) -> bytes:
    """Without what the quantiser noted about itself."""
    model.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return bytes(model.SerializeToString())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Both quantisers print progress and advice."""
    levels = {name: logging.getLogger(name).level for name in ("nncf", "")}
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
