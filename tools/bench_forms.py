"""What the benchmarks of engines run: networks of the published width, and their graphs in a cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benching import apart

import rtdenoise
from rtdenoise.bundle import StageFacts, StepFacts
from rtdenoise.engine.backends import BACKENDS, open_runtime
from rtdenoise.engine.base import EngineInfo
from rtdenoise.engine.graph import Array, Runtime
from rtdenoise.engine.staged import n_places
from rtdenoise.engine.stepped import SteppedEngine, graph_shapes

CALIBRATED = 128
"""Side of the frames that int8 is calibrated on, px. Engineering choice: fast, and large enough for every network."""
N_SAMPLES = 3
COMPARED = 64
"""Side of the frames that a step is compared with one pass of PyTorch on, px: a pass over a hundred large ones takes 16 GB."""
PACKAGE = Path(rtdenoise.__file__).parent
NETWORKS = ("methods", "nn", "export/to_onnx.py")
QUANTISING = ("export/quantize.py", "export/int8.py")
"""Sources whose change makes cached graphs stale."""
OUTPUTS = {"window": "denoised", "older": "partial", "newest": "denoised", "encode": "features", "fuse": "denoised"}
Fact = int | float | str | bool


@dataclass(slots=True, frozen=True)
class Case:
    """One network at one size. facts: what differs from the published network."""

    method: str
    side: int
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return (self.side, self.side)

    def folder(self, cache: Path) -> Path:
        """Where its graphs lie: another one as soon as the networks' sources change. The size is not part of it: graphs fit any."""
        facts = hashlib.sha256(json.dumps(dict(self.facts), sort_keys=True).encode()).hexdigest()
        return cache / f"{self.method}-{facts[:6]}-{_fingerprint(NETWORKS)}"


def network_of(case: Case) -> Any:
    """With fixed random weights, in the memory layout that its authors run it in. (Any: a torch module.)"""
    import torch

    from rtdenoise.methods import base

    torch.manual_seed(0)
    network = base.load(case.method).network(**case.facts).eval()
    for parameter in network.parameters():  # a network may keep its weights channels-last for training
        parameter.data = parameter.data.contiguous()
    return network


def prepare(case: Case, cache: Path, kinds: set[str]) -> Path:
    """The folder with the case's graphs, exported and quantised as far as they are not there yet.

    An int8 graph that cannot be made leaves `int8-<sources>.txt` with the reason. Raises RuntimeError when the export fails.
    """
    folder = case.folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "done").exists() or not probe(folder, "window", case.side).exists():
        apart(_make, case, folder)
    if "int8" in kinds and not _int8(folder, "done").exists() and not why_not(folder):
        apart(_quantise, case, folder)
    return folder


def why_not(folder: Path) -> str:
    """Why there are no int8 graphs; empty when they are there."""
    reason = _int8(folder, "txt")
    return reason.read_text(encoding="utf-8") if reason.exists() else ""


def graph_path(folder: Path, role: str, engine: str) -> Path:
    """The file that `engine` takes."""
    kind = BACKENDS[engine].graphs
    return _int8(folder, f"{role}.xml") if kind == "int8" else folder / f"{role}.onnx"


def roles(folder: Path) -> list[str]:
    """Of the exported graphs."""
    return sorted(path.stem for path in folder.glob("*.onnx"))


def shapes_of(folder: Path, role: str, shape: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """Of a graph's inputs, for frames of `shape`."""
    if role == "step":
        facts = deployed_step(folder)
        assert facts is not None
        return graph_shapes(facts, shape)
    return tuple((1, n, *shape) for n in _maps(folder)[role])


def output_shape(folder: Path, shape: tuple[int, int]) -> tuple[int, ...]:
    """Of the network's output, for frames of `shape`."""
    return (1, len(emits_of(folder)), *shape)


def emits_of(folder: Path) -> tuple[int, ...]:
    """Positions of the window that the network gives."""
    return tuple(_maps(folder)["emits"])


def deployed_step(folder: Path) -> StepFacts | None:
    """Facts of the step graph, where there is one."""
    path = folder / "step.json"
    return StepFacts.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def deployed_stages(folder: Path) -> StageFacts | None:
    """Facts of the two stages, where the network has them."""
    path = folder / "stages.json"
    return StageFacts.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def _fingerprint(sources: Sequence[str]) -> str:
    files = [f for s in sources for f in ([PACKAGE / s] if s.endswith(".py") else sorted((PACKAGE / s).rglob("*.py")))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in (*files, Path(__file__)))).hexdigest()[:8]


def _int8(folder: Path, name: str) -> Path:
    return folder / f"int8-{_fingerprint(QUANTISING)}-{name}"


def _maps(folder: Path) -> dict[str, list[int]]:
    maps: dict[str, list[int]] = json.loads((folder / "maps.json").read_text(encoding="utf-8"))
    return maps


def probe(folder: Path, role: str, side: int) -> Path:
    """Frames that `window` or `step` is run on; `wanted`: what PyTorch makes of those of the step."""
    return folder / f"{role}-{side}.npy"


def _inputs(network: Any, deployed: Any) -> dict[str, dict[str, int]]:
    size, newest, stages = network.window.size, deployed.newest_frames, deployed.stages
    inputs = {"window": {"frames": size}}
    if newest:
        inputs |= {
            "older": {"frames": size - newest},
            "newest": {"frames": newest, "partial": len(network.window.emits)},
        }
    if stages is not None:
        places = n_places(stages, size)
        inputs |= {"encode": {"frames": stages.span}, "fuse": {"features": places * stages.maps}}
    return inputs


def _make(case: Case, folder: Path) -> None:
    if not (folder / "done").exists():
        _export(case, folder)
    _probes(case, folder)


def _export(case: Case, folder: Path) -> None:
    from rtdenoise.export.to_onnx import step_to_onnx, to_onnx

    network = network_of(case)
    deployed = network.deploy()
    inputs = _inputs(network, deployed)
    for role, module in deployed.graphs.items():
        if role == "step":
            made = step_to_onnx(module, deployed.step)
            (folder / "step.json").write_text(deployed.step.model_dump_json(), encoding="utf-8")
        else:
            made = to_onnx(module, inputs[role], OUTPUTS[role])
        (folder / f"{role}.onnx").write_bytes(made)
    facts = {role: list(channels.values()) for role, channels in inputs.items()}
    facts |= {"emits": list(network.window.emits)}
    if deployed.stages is not None:
        (folder / "stages.json").write_text(deployed.stages.model_dump_json(), encoding="utf-8")
    (folder / "maps.json").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "done").touch()


def _probes(case: Case, folder: Path) -> None:
    """Here, not where they are needed: making them loads torch."""
    import torch

    from rtdenoise.export.parity import probe_frames

    if (step := deployed_step(folder)) is not None:
        frames, after = probe_frames(step.size, (COMPARED, COMPARED)), -(step.phase + step.size) % len(step.emits)
        np.save(probe(folder, "step", COMPARED), frames)
        padded = np.pad(frames, ((0, 0), (step.phase, after), (0, 0), (0, 0)))
        with torch.inference_mode():
            whole = network_of(case)(torch.from_numpy(padded)).numpy()
        np.save(probe(folder, "wanted", COMPARED), whole[0, step.phase + step.emits[0] :][: len(step.emits)])
    np.save(probe(folder, "window", case.side), probe_frames(_maps(folder)["window"][0], case.shape))


def _quantise(case: Case, folder: Path) -> None:
    from rtdenoise.export.int8 import to_int8

    try:
        for role in roles(folder):
            xml, weights = to_int8((folder / f"{role}.onnx").read_bytes(), _samples(folder, role))
            _int8(folder, f"{role}.xml").write_bytes(xml)
            _int8(folder, f"{role}.bin").write_bytes(weights)
    except Exception as error:  # the library raises whatever it likes; the report says what
        _int8(folder, "txt").write_text(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
    else:
        _int8(folder, "done").touch()


def _samples(folder: Path, role: str) -> list[tuple[Array, ...]]:
    """Inputs as they occur."""
    from rtdenoise.export.parity import probe_frames

    runtime, shape = open_runtime("onnxruntime-cpu"), (CALIBRATED, CALIBRATED)
    if role == "step":
        return _step_samples(folder, runtime, shape)
    size, n = (shapes_of(folder, name, shape)[0][1] for name in ("window", role))
    clip = probe_frames(size + N_SAMPLES - 1, shape)
    windows = [np.ascontiguousarray(clip[:, i : i + size]) for i in range(N_SAMPLES)]
    if role == "fuse":
        return [(_features(folder, runtime, window),) for window in windows]
    if role != "newest":
        return [(np.ascontiguousarray(window[:, :n]),) for window in windows]
    older = _outputs(folder, runtime, "older", [np.ascontiguousarray(w[:, :-n]) for w in windows], size)
    return [(np.ascontiguousarray(w[:, -n:]), partial) for w, partial in zip(windows, older, strict=True)]


def _features(folder: Path, runtime: Runtime, window: Array) -> Array:
    facts = deployed_stages(folder)
    assert facts is not None
    places = range(n_places(facts, window.shape[1]))
    parts = [np.ascontiguousarray(window[:, i : i + facts.span]) for i in places]
    return np.concatenate(_outputs(folder, runtime, "encode", parts, facts.maps), axis=1)


def _outputs(folder: Path, runtime: Runtime, role: str, inputs: Sequence[Array], maps: int) -> list[Array]:
    shape: tuple[int, int] = inputs[0].shape[2:]  # type: ignore[assignment]
    graph = runtime.compile(folder / f"{role}.onnx", shapes_of(folder, role, shape))
    outs = [np.empty((1, maps, *shape), np.float32) for _ in inputs]
    for array, out in zip(inputs, outs, strict=True):
        graph.run((array,), out)
    return outs


def _step_samples(folder: Path, runtime: Runtime, shape: tuple[int, int]) -> list[tuple[Array, ...]]:
    from rtdenoise.export.parity import probe_frames

    facts = deployed_step(folder)
    assert facts is not None
    taken: list[tuple[Array, ...]] = []
    graph = runtime.compile(folder / "step.onnx", graph_shapes(facts, shape))

    class Kept:
        """Runs the graph and keeps what goes in."""

        def run(self, inputs: tuple[Array, ...], *outs: Array) -> None:
            taken.append(tuple(array.copy() for array in inputs))
            graph.run(inputs, *outs)

    window = probe_frames(facts.size, shape)[0]
    SteppedEngine(Kept(), facts, shape, EngineInfo("", "", "", "", 0)).run(window, 0, facts.emits[0], len(facts.emits))
    return taken[-N_SAMPLES:]
