"""Exported graphs against PyTorch FP32, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from rtdenoise.bundle import GraphKind, StepFacts
from rtdenoise.config import Settings
from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.export.target import Target
from rtdenoise.methods.base import Deployment, Network

ODD = (61, 83)
"""The second size: not square, odd, so that a size frozen into the graph shows."""
STEPPED = ((64, 88), (40, 48))
"""Sizes at which steps are compared with one pass over 100 frames or so: small ones. Engineering choice."""
BRIGHT = 0.001
"""Share of pixels that count as bright (engines sheet 5)."""

Array = NDArray[np.float32]


class Gap(Settings):
    """Distance of one form of the graphs at one size, in sd of the PyTorch output; see `Tolerances`."""

    form: str
    graphs: GraphKind = "fp32"
    shape: tuple[int, int]
    worst: float
    mean: float
    bright: float
    psnr_db: float = Field(description="over the range of PyTorch's output")


def compare(network: Network, graphs: Mapping[str, bytes], deployed: Deployment, target: Target) -> list[Gap]:
    """All forms at the target's size and at an odd one, steps at small ones. `network` is the float32 one as trained."""
    gaps = compare_steps(network, graphs["step"], deployed.step) if deployed.step is not None else []
    for shape in (target.shape, ODD):
        frames = probe_frames(network.window.size, shape)
        with torch.no_grad():
            wanted = network.eval()(torch.from_numpy(frames)).numpy()
        for form, output in _outputs(graphs, frames, deployed).items():
            gaps.append(_gap(form, shape, output, wanted))
    return [gap.model_copy(update={"graphs": target.graphs}) for gap in gaps]


def compare_steps(network: Network, graph: bytes, step: StepFacts) -> list[Gap]:
    """The step graph, run through one window from empty states, against the network's one pass over the whole window."""
    gaps = []
    for shape in STEPPED:
        frames = probe_frames(step.size, shape)
        after = -(step.phase + step.size) % len(step.emits)
        padded = np.pad(frames, ((0, 0), (step.phase, after), (0, 0), (0, 0)))
        with torch.no_grad():
            whole = network.eval()(torch.from_numpy(padded)).numpy()
        wanted = whole[:, step.phase + step.emits[0] :][:, : len(step.emits)]
        gaps.append(_gap("step", shape, _stepped(graph, frames, step), wanted))
    return gaps


def _stepped(graph: bytes, frames: Array, step: StepFacts) -> Array:
    session, hop = _session(graph), len(step.emits)
    carried = [np.zeros(state.shape(frames.shape[-2:]), np.float32) for state in step.states]
    outputs: list[Array] = []
    for behind in range(step.inputs[0][0], -1, -hop):
        parts = [frames[:, max(0, first - behind) :][:, : stop - first] for first, stop in step.inputs]
        names = [i.name for i in session.get_inputs()]
        inputs = {n: np.ascontiguousarray(a) for n, a in zip(names, [*parts, *carried], strict=True)}
        outputs = [np.asarray(o, np.float32) for o in session.run(None, inputs)]
        carried = outputs[1:]
    return outputs[0]


def refuse(gaps: list[Gap], target: Target, name: str) -> None:
    """Raise EngineError that names the worst excess over the target's tolerances, if there is one."""
    limits = target.tolerance
    for gap in gaps:
        for measure in ("worst", "mean", "bright"):
            value, limit = getattr(gap, measure), getattr(limits, measure)
            if not value <= limit:
                raise EngineError(_excess(name, gap, f"{measure} error {value:.2g} sd", f"{limit:.2g}", target))
        if not gap.psnr_db >= limits.psnr_db:
            raise EngineError(_excess(name, gap, f"PSNR {gap.psnr_db:.1f} dB", f"{limits.psnr_db:.1f}", target))


def probe_frames(n_frames: int, shape: tuple[int, int]) -> Array:
    """(1, T, Y, X) normalised: noise of sd 1 with cells up to 20 sd bright, as photon-starved movies have; always
    the same.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    frames = rng.standard_normal((1, n_frames, *shape)).astype(np.float32)
    for _ in range(12):
        cy, cx, brightness = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(2, 20, (n_frames, 1, 1))
        frames[0] += (brightness * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 18.0)).astype(np.float32)
    return frames


def _outputs(graphs: Mapping[str, bytes], frames: Array, deployed: Deployment) -> dict[str, Array]:
    outputs = {"window": _run(graphs["window"], {"frames": frames})}
    if newest_frames := deployed.newest_frames:
        partial = _run(graphs["older"], {"frames": frames[:, :-newest_frames]})
        newest = {"frames": frames[:, -newest_frames:], "partial": partial}
        outputs["older + newest"] = _run(graphs["newest"], newest)
    if deployed.stages is not None:
        span = deployed.stages.span
        parts = [frames[:, i : i + span] for i in range(frames.shape[1] - span + 1)]
        features = np.concatenate([_run(graphs["encode"], {"frames": part}) for part in parts], 1)
        outputs["encode + fuse"] = _run(graphs["fuse"], {"features": features})
    return outputs


def _run(graph: bytes, inputs: Mapping[str, Array]) -> Array:
    contiguous = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    return np.asarray(_session(graph).run(None, contiguous)[0], dtype=np.float32)


def _session(graph: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "cpu") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _gap(form: str, shape: tuple[int, int], output: Array, wanted: Array) -> Gap:
    if output.shape != wanted.shape:
        raise EngineError(
            f"the graph gives {output.shape} where the network gives {wanted.shape}; a size is frozen in it"
        )
    error, spread = np.abs(output - wanted, dtype=np.float64), float(wanted.std())
    bright = error[wanted >= np.quantile(wanted, 1 - BRIGHT)]
    mse = float(np.square(error).mean())
    psnr = 10 * np.log10(float(np.ptp(wanted)) ** 2 / mse) if mse else 999.0
    return Gap(
        form=form,
        shape=shape,
        worst=float(error.max()) / spread,
        mean=float(error.mean()) / spread,
        bright=float(np.quantile(bright, 0.99)) / spread,
        psnr_db=float(psnr),
    )


def _excess(name: str, gap: Gap, found: str, limit: str, target: Target) -> str:
    place = f"{gap.form} at {gap.shape[0]} x {gap.shape[1]}"
    return f"{name}: {place}: {found}, target {target.name} allows {limit}; export in fp32 or loosen the target"
