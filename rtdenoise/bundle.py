"""The folder a trained model ships in: manifest, ONNX graphs, weights, checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rtdenoise import config
from rtdenoise.config import Settings
from rtdenoise.errors import BundleError, ConfigError

GraphKind = Literal["fp32", "fp16", "bf16", "int8", "qdq"]
"""Forms of the same graphs. fp32: ONNX, always there.  fp16, bf16: ONNX that computes in half precision behind float32 inputs
and outputs.  int8: OpenVINO's own format, quantised.  qdq: ONNX with explicit quantise and dequantise nodes, for TensorRT.
"""
MANIFEST = "manifest.json"
BUILTIN = Path(__file__).parent / "bundles"
DEMO = "fast-simulated"


class WindowFacts(Settings):
    """The window of the exported graph: T frames in, the positions in `emits` out.

    hop: how many of them a run keeps at most, those in the middle; None for all.
    """

    size: int = Field(ge=1)
    emits: tuple[int, ...]
    hop: int | None = Field(default=None, ge=1)


class StateFacts(Settings):
    """One tensor that a network carries from step to step: (1, frames, Y / 2**level, X / 2**level, maps) float32; maps
    come last, as runtimes keep them inside.
    """

    maps: int = Field(ge=1)
    frames: int = Field(ge=1)
    level: int = Field(ge=0)

    def shape(self, frame: tuple[int, int]) -> tuple[int, int, int, int, int]:
        """For frames (Y, X)."""
        return (1, self.frames, frame[0] >> self.level, frame[1] >> self.level, self.maps)


class StepFacts(Settings):
    """A network that carries what it computed: each step takes `len(emits)` new frames and gives the frames `emits` of the
    window that ends with them, as one pass over the whole movie would.

    inputs: (first, stop) in the window of the frames that a step takes, those that enter first of all; after the steps
    from where these begin with the window to where they end with it, nothing is left of the zeros the states began with.
    phase: frames that one pass over the window would need before it for its poolings to fall where the steps' do.
    multiple: what Y and X of the graph are multiples of; other frames are filled up with copies of their last pixels.
    """

    size: int = Field(ge=1)
    emits: tuple[int, ...]
    inputs: tuple[tuple[int, int], ...]
    states: tuple[StateFacts, ...]
    phase: int = Field(default=0, ge=0)
    multiple: int = Field(default=1, ge=1)


class StageFacts(Settings):
    """A network whose first stage needs to run only once per new frame: graph `encode` takes `span` frames and gives `maps`
    feature maps; `fuse` takes those of all (T - span + 1) positions, oldest first, and gives what `window` gives.
    """

    span: int = Field(ge=1)
    maps: int = Field(ge=1)


class NormalizationFacts(Settings):
    """How training normalised. `mean-sd`: calibrated anew for every field of view, or these numbers for whoever does not.
    `fixed`: always these numbers (networks of other authors that live in camera counts).
    """

    rule: Literal["mean-sd", "min-max", "fixed"] = "mean-sd"
    offset: float
    scale: float = Field(gt=0)


class Manifest(Settings):
    """Everything between camera counts and published counts, and what the model was made for.

    graphs: role -> file. `window` is the whole network, (1, T, Y, X) normalised -> (1, K, Y, X). A network whose older frames
    can be computed before the newest arrive also has `older` (1, T - newest_frames, Y, X) -> (1, K, Y, X) and
    `newest` (1, newest_frames, Y, X) + that -> the same as `window`. A network with `step` facts has that graph too: frames
    and states -> (1, K, Y, X) and the next states. A network with `stages` has `encode` and `fuse`.
    variants: the same roles in other forms than fp32, as far as an export made them.
    engine: what `rtdenoise export --auto` measured to be fastest within tolerance; empty when nothing was measured.
    min_side: the smallest Y and X, px.
    merge: `halving` when overlapping outputs are averaged 1/2, 1/4, ... (FAST), `none` otherwise.
    """

    format: Literal[1] = 1
    name: str
    method: str
    method_config: dict[str, int | float | str | bool] = {}
    window: WindowFacts
    min_side: int = 1
    merge: Literal["none", "halving"] = "none"
    graphs: dict[str, str]
    newest_frames: int = 0
    step: StepFacts | None = None
    stages: StageFacts | None = None
    variants: dict[GraphKind, dict[str, str]] = {}
    engine: str = ""
    latency_cost_db: dict[int, float] = Field(default={}, description="look-ahead -> PSNR lost against the full output")
    precision: Literal["fp32", "fp16"] = "fp32"
    normalization: NormalizationFacts
    frame_rate_hz: float | None = None
    pixel_um: float | None = None
    indicator: str | None = None
    noise_gain: float | None = None
    provenance: dict[str, Any] = {}
    created: str = ""
    checksums: dict[str, str] = {}


class Bundle:
    """A checked folder on disk."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def name(self) -> str:
        """The model's name, as on cards and on the wire."""
        return self.manifest.name

    @cached_property
    def hash(self) -> str:
        """First 12 hex digits that identify the graphs, independent of the folder's place and time."""
        files = "".join(self.manifest.checksums[f] for f in sorted(self.manifest.graphs.values()))
        return hashlib.sha256(files.encode()).hexdigest()[:12]

    def graph(self, role: str, kind: GraphKind = "fp32") -> Path:
        """Path of the graph that plays `role`. Raises BundleError when the bundle has none."""
        graphs = self.roles(kind)
        if role not in graphs:
            there = ", ".join(graphs) or f"no {kind} graphs"
            raise BundleError(f"{self.path}: no {kind} graph {role!r}; it has {there}; rtdenoise export makes others")
        return self.path / graphs[role]

    def roles(self, kind: GraphKind = "fp32") -> Mapping[str, str]:
        """Role -> file of this form of its graphs; empty when it has none."""
        return self.manifest.graphs if kind == "fp32" else self.manifest.variants.get(kind, {})

    def has_graphs(self, kind: GraphKind) -> bool:
        """Whether the bundle holds this form of its graphs."""
        return kind == "fp32" or kind in self.manifest.variants


def find(name_or_path: str | Path) -> Path:
    """A bundle folder by path, or one that ships in the package by name. Raises BundleError when there is none."""
    for candidate in (Path(name_or_path), BUILTIN / str(name_or_path)):
        if (candidate / MANIFEST).is_file():
            return candidate
    shipped = sorted(p.name for p in BUILTIN.iterdir() if (p / MANIFEST).is_file()) if BUILTIN.is_dir() else []
    raise BundleError(f"{name_or_path}: no bundle here (no {MANIFEST}); in the package: {', '.join(shipped) or 'none'}")


def read(name_or_path: str | Path) -> Bundle:
    """Load and verify a bundle. Raises BundleError for a missing, changed or foreign file."""
    path = find(name_or_path)
    try:
        values = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        manifest = config.build(Manifest, values, str(path / MANIFEST))
    except (ValueError, ConfigError) as error:
        raise BundleError(f"{path / MANIFEST}: cannot be read: {error}") from None
    for file in (f for graphs in (manifest.graphs, *manifest.variants.values()) for f in graphs.values()):
        if file not in manifest.checksums:
            raise BundleError(f"{path / MANIFEST}: {file} has no checksum; export the bundle again")
    for file, wanted in manifest.checksums.items():
        _verify(path, file, wanted)
    return Bundle(path, manifest)


def write(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write `files` (name -> content) and then the manifest with their checksums. The manifest comes last, so a torn bundle has none."""
    path.mkdir(parents=True, exist_ok=True)
    (path / MANIFEST).unlink(missing_ok=True)
    for name, content in files.items():
        _write_atomically(path / name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    complete = manifest.model_copy(update={"checksums": sums, "created": manifest.created or now})
    _write_atomically(path / MANIFEST, (complete.model_dump_json(indent=2) + "\n").encode())
    return Bundle(path, complete)


def annotate(path: Path, **changes: Any) -> Bundle:
    """Replace fields of the manifest that no graph depends on; the other files stay. Raises BundleError as `read` does."""
    bundle = read(path)
    manifest = bundle.manifest.model_copy(update=changes)
    _write_atomically(bundle.path / MANIFEST, (manifest.model_dump_json(indent=2) + "\n").encode())
    return read(bundle.path)


def _verify(path: Path, file: str, wanted: str) -> None:
    target = (path / file).resolve()
    if path.resolve() not in target.parents:
        raise BundleError(f"{path}: {file} points outside the bundle")
    if not target.is_file():
        raise BundleError(f"{path}: {file} is missing; copy the whole bundle again")
    if hashlib.sha256(target.read_bytes()).hexdigest() != wanted:
        raise BundleError(f"{path}: {file} does not match its checksum; copy the bundle again or export it anew")


def _write_atomically(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
