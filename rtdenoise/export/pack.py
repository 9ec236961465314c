"""Write a bundle, and make one bundle into another for a target."""

from __future__ import annotations

import io
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle, Manifest, NormalizationFacts, WindowFacts
from rtdenoise.errors import BundleError
from rtdenoise.export import parity
from rtdenoise.export import target as targets
from rtdenoise.export.parity import Report
from rtdenoise.export.target import Target
from rtdenoise.export.to_onnx import HalfInside, StepHalfInside, step_to_onnx, to_onnx
from rtdenoise.frame import WindowSpec
from rtdenoise.methods import base
from rtdenoise.methods.base import Method, Network
from rtdenoise.normalize import Normalization

FILES = {"window": "model.onnx", "older": "older.onnx", "newest": "newest.onnx", "step": "step.onnx"}
FILES |= {"encode": "encode.onnx", "fuse": "fuse.onnx"}
WEIGHTS = "weights.npz"


@dataclass(slots=True, frozen=True)
class BundleFacts:
    """What a manifest says beyond the network itself; see `rtdenoise.bundle.Manifest`."""

    name: str
    normalization: Normalization
    rule: Literal["mean-sd", "min-max", "fixed"] = "mean-sd"
    frame_rate_hz: float | None = None
    pixel_um: float | None = None
    indicator: str | None = None
    noise_gain: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def export_bundle(
    method: Method, network: Network, out: Path, facts: BundleFacts, target: Target | None = None
) -> tuple[Bundle, Report]:
    """Export `network` for `target` (portable FP32 by default) into the folder `out`.

    Nothing is written unless the graphs agree with the network: raises EngineError where the target's tolerances are
    exceeded.
    """
    target = target or Target()
    deployed = network.eval().deploy(**target.deploy)
    graphs = _graphs(network, deployed, half=target.precision == "fp16")
    gaps = parity.compare(network, graphs, deployed, target)
    if deployed.step is not None:
        gaps += parity.compare_steps(network, graphs["step"], deployed.step)
    parity.refuse(gaps, target, facts.name)
    manifest = Manifest(
        name=facts.name,
        method=method.name,
        method_config=network.facts,
        window=_window_facts(network.window),
        min_side=network.min_side,
        merge=method.merge,
        graphs={role: FILES[role] for role in graphs},
        newest_frames=deployed.newest_frames,
        step=deployed.step,
        stages=deployed.stages,
        precision=target.precision,
        normalization=NormalizationFacts(
            rule=facts.rule, offset=facts.normalization.offset, scale=facts.normalization.scale
        ),
        frame_rate_hz=facts.frame_rate_hz,
        pixel_um=facts.pixel_um,
        indicator=facts.indicator,
        noise_gain=facts.noise_gain,
        provenance={**facts.provenance, "target": target.model_dump(mode="json")},
    )
    files = {FILES[role]: graph for role, graph in graphs.items()} | {WEIGHTS: _weights(network)}
    written = bundles.write(out, manifest, files)
    return written, _report(facts.name, target, gaps, files)


def run_export(bundle_path: str | Path, target_name: str | None, out: Path) -> Report:
    """Export a bundle anew for a target into `out`; the report also lies beside it as `<out>.report.json`.

    Raises BundleError for a bundle without weights, ConfigError for an unknown target, EngineError for graphs
    outside its tolerances.
    """
    source, target = bundles.read(bundle_path), targets.find(target_name)
    if out.resolve() == source.path.resolve():
        raise BundleError(f"{out}: a bundle cannot be exported onto itself; choose another folder")
    method, network = load_network(source)
    made = source.manifest
    facts = BundleFacts(
        name=made.name,
        normalization=Normalization(made.normalization.offset, made.normalization.scale),
        rule=made.normalization.rule,
        frame_rate_hz=made.frame_rate_hz,
        pixel_um=made.pixel_um,
        indicator=made.indicator,
        noise_gain=made.noise_gain,
        provenance=made.provenance,
    )
    _, report = export_bundle(method, network, out, facts, target)
    out.with_name(out.name + ".report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return report


def load_network(bundle: Bundle) -> tuple[Method, Network]:
    """The method and its network with the bundle's weights, in eval mode. Raises BundleError when they do not fit."""
    method = base.load(bundle.manifest.method)
    path = bundle.path / WEIGHTS
    if WEIGHTS not in bundle.manifest.checksums:
        raise BundleError(
            f"{bundle.path}: it ships no {WEIGHTS}, only graphs; export from the bundle that training wrote"
        )
    network = method.network(**bundle.manifest.method_config)
    try:
        with np.load(path, allow_pickle=False) as stored:
            network.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
    except (RuntimeError, ValueError, OSError) as error:
        raise BundleError(f"{path}: does not hold the weights of {method.name}: {error}") from None
    return method, network.eval()


def _graphs(network: Network, deployed: base.Deployment, *, half: bool) -> dict[str, bytes]:
    window, emitted, newest = network.window.size, len(network.window.emits), deployed.newest_frames
    inputs = {
        "window": {"frames": window},
        "older": {"frames": window - newest},
        "newest": {"frames": newest, "partial": emitted},
    }
    outputs = {"window": "denoised", "older": "partial", "newest": "denoised", "encode": "features", "fuse": "denoised"}
    if (stages := deployed.stages) is not None:
        inputs["encode"] = {"frames": stages.span}
        inputs["fuse"] = {"features": (window - stages.span + 1) * stages.maps}
    graphs = {}
    for role, module in deployed.graphs.items():
        if role == "step" and deployed.step is not None:
            step = StepHalfInside(deepcopy(module)) if half else module
            graphs[role] = step_to_onnx(step, deployed.step)
            continue
        form = HalfInside(deepcopy(module)) if half else module
        graphs[role] = to_onnx(form, inputs[role], outputs[role])
    return graphs


def _window_facts(spec: WindowSpec) -> WindowFacts:
    """`hop` is for networks that give more frames than a run should keep."""
    kept = spec.hop if 1 < spec.hop < len(spec.emits) else None
    return WindowFacts(size=spec.size, emits=tuple(spec.emits), hop=kept)


def _weights(network: Network) -> bytes:
    stored = io.BytesIO()
    np.savez_compressed(stored, **{name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()})
    return stored.getvalue()


def _report(name: str, target: Target, gaps: list[parity.Gap], files: Mapping[str, bytes]) -> Report:
    import onnxruntime

    sizes = {file: len(content) for file, content in files.items()}
    return Report(bundle=name, target=target, gaps=tuple(gaps), bytes=sizes, onnxruntime=onnxruntime.__version__)
