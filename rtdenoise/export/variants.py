"""Other forms of a bundle's graphs: half precision from the network, int8 from the FP32 graphs and clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle, GraphKind
from rtdenoise.engine.ort import OrtRuntime
from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.export.clips import Clip
from rtdenoise.export.int8 import to_int8
from rtdenoise.export.qdq import to_qdq
from rtdenoise.export.quantize import Quantizing, Sample
from rtdenoise.export.reference import Kept, Recorder
from rtdenoise.export.streams import forms_of, streamed
from rtdenoise.export.to_onnx import HalfInside, StepHalfInside, step_to_onnx, to_onnx
from rtdenoise.methods.base import Deployment, Network
from rtdenoise.normalize import Normalization

FILES = {"window": "model", "older": "older", "newest": "newest", "step": "step", "encode": "encode", "fuse": "fuse"}
"""Role -> name of its files, without what says the form."""
OUTPUTS = {"window": "denoised", "older": "partial", "newest": "denoised", "encode": "features", "fuse": "denoised"}
HALVES: dict[GraphKind, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""Forms that are made of the network itself."""
SAMPLES = 6
"""Inputs of a graph that are kept per clip to calibrate on, up to twice as many. Engineering choice."""
BRIGHTER_EVERY = 3
"""Every third input is shown once more with more contrast. Engineering choice."""
PEAK_SAMPLES = 2
"""Inputs per graph that the largest activation is looked for in. Engineering choice."""

Made = dict[str, dict[str, bytes]]
"""Role -> files, the graph's first."""


def graphs_of(network: Network, deployed: Deployment, precision: torch.dtype = torch.float32) -> dict[str, bytes]:
    """Every role as ONNX; in half precision behind float32 inputs and outputs."""
    inputs = _inputs(network, deployed)
    graphs = {}
    for role, module in deployed.graphs.items():
        whole = precision == torch.float32
        if role == "step" and deployed.step is not None:
            graphs[role] = step_to_onnx(module if whole else StepHalfInside(deepcopy(module), precision), deployed.step)
        else:
            form = module if whole else HalfInside(deepcopy(module), precision)
            graphs[role] = to_onnx(form, inputs[role], OUTPUTS[role])
    return graphs


def files_of(kind: GraphKind, graphs: Mapping[str, bytes]) -> Made:
    """ONNX graphs under the names that this form has in a bundle."""
    end = ".onnx" if kind == "fp32" else f"-{kind}.onnx"
    return {role: {FILES[role] + end: graph} for role, graph in graphs.items()}


def quantized(
    bundle: Bundle, kind: GraphKind, samples: Mapping[str, Sequence[Sample]], how: Quantizing | None = None
) -> Made:
    """Every role of the bundle's FP32 graphs in int8, `kind` `int8` for OpenVINO or `qdq` for TensorRT.

    Raises MissingExtraError or EngineError as the quantisers do.
    """
    made: Made = {}
    for role, file in bundle.manifest.graphs.items():
        graph, stem = (bundle.path / file).read_bytes(), f"{FILES[role]}-{kind}"
        if kind == "qdq":
            made[role] = {f"{stem}.onnx": to_qdq(graph, samples[role], how)}
        else:
            text, weights = to_int8(graph, samples[role], how)
            made[role] = {f"{stem}.xml": text, f"{stem}.bin": weights}
    nodes = b"QuantizeLinear" if kind == "qdq" else b"FakeQuantize"
    if not any(nodes in next(iter(files.values())) for files in made.values()):
        raise EngineError(f"{bundle.name}: {how or Quantizing()}: nothing is left to quantise; keep fewer in float")
    return made


def with_form(bundle: Bundle, kind: GraphKind, made: Made, out: Path) -> Bundle:
    """A copy of the bundle in `out` that has this form of its graphs, too."""
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.checksums}
    for graphs in made.values():
        files |= graphs
    variants = {**bundle.manifest.variants, kind: {role: next(iter(graphs)) for role, graphs in made.items()}}
    return bundles.write(out, bundle.manifest.model_copy(update={"variants": variants}), files)


def samples_of(
    bundle: Bundle, clips: Sequence[Clip], threads: int = 0, headroom: float = 1.0
) -> dict[str, list[Sample]]:
    """What every graph is given while the FP32 graphs denoise the clips, by role; some of it with `headroom` times the contrast."""
    found = _given(bundle, clips, threads)
    if headroom > 1:
        for role, more in _given(bundle, [_brighter(clip, headroom) for clip in clips], threads).items():
            found[role] += more[::BRIGHTER_EVERY]
    return found


def _brighter(clip: Clip, times: float) -> Clip:
    usual = clip.normalization
    return replace(clip, normalization=Normalization(usual.offset, usual.scale / times))


def _given(bundle: Bundle, clips: Sequence[Clip], threads: int) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {role: [] for role in bundle.manifest.graphs}
    for clip in clips:
        recorder = Recorder(bundle, OrtRuntime(threads or torch.get_num_threads()), SAMPLES)
        for form in forms_of(bundle):
            streamed(form.factory("onnxruntime-cpu", clip.shape, threads).over(recorder), clip)
        for role, kept in recorder.kept.items():
            found[role] += kept.samples
        ran = recorder.kept.get("window")
        found["window"] += [] if ran is not None and ran.samples else _windows(bundle, clip)
    return found


def peak_activation(bundle: Bundle, samples: Mapping[str, Sequence[Sample]]) -> float:
    """The largest magnitude of any value inside the FP32 graphs; half precision ends at 65504."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "cpu") from None
    peak = 0.0
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    for role, file in bundle.manifest.graphs.items():
        model = onnx.load(bundle.path / file)
        inner = [value for node in model.graph.node for value in node.output if value]
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in inner)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [port.name for port in session.get_inputs()]
        for sample in samples[role][:: max(1, len(samples[role]) // PEAK_SAMPLES)][:PEAK_SAMPLES]:
            for value in session.run(None, dict(zip(names, sample, strict=True))):
                if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.size:
                    peak = max(peak, float(np.abs(value).max()))
    return peak


def _inputs(network: Network, deployed: Deployment) -> dict[str, dict[str, int]]:
    """Names and channels of what every graph but the step takes."""
    window, newest = network.window.size, deployed.newest_frames
    inputs = {
        "window": {"frames": window},
        "older": {"frames": window - newest},
        "newest": {"frames": newest, "partial": len(network.window.emits)},
    }
    if (stages := deployed.stages) is not None:
        inputs["encode"] = {"frames": stages.span}
        inputs["fuse"] = {"features": (window - stages.span + 1) * stages.maps}
    return inputs


def _windows(bundle: Bundle, clip: Clip) -> list[Sample]:
    """Windows of the clip, for a graph that the stream does not run."""
    size, kept = bundle.manifest.window.size, Kept(SAMPLES)
    normal = np.empty(clip.counts.shape, np.float32)
    clip.normalization.apply(clip.counts, normal)
    for first in range(len(normal) - size + 1):
        kept.show((normal[None, first : first + size],))
    return kept.samples
