"""Graphs in int8 for OpenVINO on the CPU, calibrated on clips by NNCF."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.export.edges import Layer, first_and_last
from rtdenoise.export.quantize import Array, Quantizing, Sample, carries_frames, connect, first_line, quiet

HEAVY = {
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
}
ATTENTION = ("MatMul", "ScaledDotProductAttention", "Softmax")
"""Left in float: their inputs are small differences of tokens, which eight bits take away."""
BETWEEN = (
    "Add",
    "Subtract",
    "Multiply",
    "Divide",
    "Maximum",
    "Minimum",
    "Power",
    "PRelu",
    "Sqrt",
    "Exp",
    "ReduceMean",
    "ReduceSum",
    "MVN",
    "Interpolate",
    "AvgPool",
)
"""What NNCF quantises beside `HEAVY`, as far as our networks have it."""
RANKED_ON, RANKED_PX = 3, 64
"""Samples, and their largest side in px, on which single layers are judged. Engineering choice: their order, not their error, matters."""


def to_int8(graph: bytes, samples: Sequence[Sample], how: Quantizing | None = None) -> tuple[bytes, bytes]:
    """OpenVINO's .xml and .bin of an ONNX graph with int8 convolutions, dynamic in Y and X; weights per channel, symmetric.

    Raises MissingExtraError without NNCF or OpenVINO, EngineError when the graph cannot be quantised.
    """
    nncf, openvino = _nncf()
    how = how or Quantizing()
    with quiet():
        model = openvino.Core().read_model(io.BytesIO(graph))
        dynamic = {port.get_any_name(): port.get_partial_shape() for port in model.inputs}
        kept = _ends(model, how)
        if how.spare:
            kept += _harmful(graph, samples, how, kept)
        quantized = _quantized(nncf, _sized(openvino, graph, samples), samples, how, kept)
        quantized.reshape(dynamic)
        return _serialized(openvino, quantized)


def _nncf() -> tuple[Any, Any]:
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise MissingExtraError(error.name or "nncf", "quantize") from None
    return nncf, openvino


def _sized(openvino: Any, graph: bytes, samples: Sequence[Sample]) -> Any:
    """The graph at the samples' size: NNCF quantises nothing behind a Reshape whose sizes it does not know, 29 % of UMVD's work."""
    model = openvino.Core().read_model(io.BytesIO(graph))
    names = [port.get_any_name() for port in model.inputs]
    model.reshape(dict(zip(names, (list(array.shape) for array in samples[0]), strict=True)))
    return model


def _quantized(nncf: Any, model: Any, samples: Sequence[Sample], how: Quantizing, kept: Sequence[str]) -> Any:
    """`model` in int8 but for the layers `kept`."""
    names = [port.get_any_name() for port in model.inputs]
    types = [*ATTENTION, *(BETWEEN if how.between == "float" else ())]
    known = nncf.quantization.range_estimator.RangeEstimatorParametersSet
    ranges = known.MINMAX if how.ranges == "widest" else known.MEAN_MINMAX
    try:
        return nncf.quantize(
            model,
            nncf.Dataset([dict(zip(names, sample, strict=True)) for sample in samples]),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(samples),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=list(kept), types=types, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )
    except Exception as error:  # both libraries raise a dozen types
        raise EngineError(f"NNCF cannot quantise the graph: {first_line(error)}") from None


def _ends(model: Any, how: Quantizing) -> list[str]:
    layers = {op.get_friendly_name(): Layer(op.get_type_name() in HEAVY) for op in model.get_ordered_ops()}
    for op in model.get_ordered_ops():
        for value in op.input_values():
            connect(layers, value.get_node().get_friendly_name(), op.get_friendly_name())
    frames = [port.get_node().get_friendly_name() for port in model.inputs if carries_frames(port.get_any_name())]
    return first_and_last(layers, frames, model.outputs[0].get_node().get_friendly_name(), how.n_first, how.n_last)


def _harmful(graph: bytes, samples: Sequence[Sample], how: Quantizing, kept: Sequence[str]) -> list[str]:
    """The layers that, in int8 alone, change the outputs most: so many that together they make `how.spare` of all such changes."""
    nncf, openvino = _nncf()
    few = [_cut(sample) for sample in samples[:: max(1, len(samples) // RANKED_ON)][:RANKED_ON]]
    model = _sized(openvino, graph, few)
    heavy = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() in HEAVY - set(ATTENTION)]
    wanted, alone = _outputs(openvino, model, few), replace(how, between="float")
    harm = {}
    for layer in [name for name in heavy if name not in kept]:
        others = [name for name in heavy if name != layer]
        made = _quantized(nncf, _sized(openvino, graph, few), few, alone, others)
        harm[layer] = _change(wanted, _outputs(openvino, made, few))
    worst = sorted(harm, key=lambda name: -harm[name])
    before = np.cumsum([0.0, *(harm[name] for name in worst)])
    return [name for name, sum_before in zip(worst, before, strict=False) if sum_before < how.spare * before[-1]]


def _cut(sample: Sample) -> Sample:
    """The upper left of each input, where all have one size; states of several sizes stay whole."""
    if len({array.shape[-2:] for array in sample}) > 1:
        return sample
    return tuple(np.ascontiguousarray(array[..., :RANKED_PX, :RANKED_PX]) for array in sample)


def _outputs(openvino: Any, model: Any, samples: Iterable[Sample]) -> list[list[Array]]:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [[np.array(value) for value in compiled(list(sample)).values()] for sample in samples]


def _change(wanted: list[list[Array]], found: list[list[Array]]) -> float:
    """Mean squared difference of all outputs, each in its own variance."""
    pairs = [pair for one, other in zip(wanted, found, strict=True) for pair in zip(one, other, strict=True)]
    return float(np.mean([np.square(a - b).mean() / max(float(a.var()), 1e-12) for a, b in pairs]))


def _serialized(openvino: Any, model: Any) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, str(xml), str(weights))
        text = xml.read_text(encoding="utf-8")
        return re.sub(
            r"\s*<rt_info>(?:(?!<rt_info>).)*</rt_info>\s*(?=</net>)", "\n", text, flags=re.DOTALL
        ).encode(), (weights.read_bytes())
