"""What every registered method must do once it is exported: the same numbers in every engine, at any size, in half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdenoise import bundle as bundles
from rtdenoise import catalogue, registry
from rtdenoise.bundle import Bundle, GraphKind, Manifest
from rtdenoise.engine.backends import open_runtime, taking
from rtdenoise.engine.staged import encode_shape, fuse_shape
from rtdenoise.engine.stepped import graph_shapes as step_shapes
from rtdenoise.engine.trt_build import build_plan
from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.export import BundleFacts, export_bundle, load_network, parity
from rtdenoise.export import target as targets
from rtdenoise.export.parity import probe_frames
from rtdenoise.export.variants import HALVES, files_of, graphs_of, with_form
from rtdenoise.methods import base
from rtdenoise.methods.base import Method, Network
from rtdenoise.normalize import Normalization

METHODS = registry.names(registry.METHODS)
MODELS = catalogue.registered()["bundles"]
SIZES = [(40, 48), (61, 83)]
WORST_FP32, RMS_BF16 = 2e-4, 3e-2  # of the output's sd; of its rms, since bf16 keeps 8 bits of a value
CAPABILITY = "8.6"
"""A card that plans can be built for without having it (engines sheet 4)."""


@pytest.fixture(scope="module", params=METHODS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Method, Network, Bundle]:
    method = base.load(request.param)
    torch.manual_seed(0)
    network = method.network(**method.narrow).eval()
    facts = BundleFacts(method.name, Normalization(0.0, 1.0))
    bundle, report = export_bundle(method, network, tmp_path_factory.mktemp(method.name) / "bundle", facts)
    assert {gap.shape for gap in report.gaps if gap.form != "step"} == {(128, 160), (61, 83)}
    assert ("step" in bundle.manifest.graphs) == any(gap.form == "step" for gap in report.gaps)
    staged = {"encode", "fuse"} <= bundle.manifest.graphs.keys()
    assert staged == (network.stages is not None) == any(gap.form == "encode + fuse" for gap in report.gaps)
    return method, network, bundle


@pytest.mark.parametrize("backend", taking("fp32"))
def test_every_engine_gives_what_pytorch_gives(exported: tuple[Method, Network, Bundle], backend: str) -> None:
    _, network, bundle = exported
    try:
        runtime = open_runtime(backend, threads=1)
    except (MissingExtraError, EngineError) as error:
        pytest.skip(f"{backend} does not open here: {error}")
    for size in SIZES:
        frames = probe_frames(network.window.size, size)
        with torch.no_grad():
            wanted = network(torch.from_numpy(frames)).numpy()
        out = np.empty_like(wanted)
        runtime.compile(bundle.graph("window"), (frames.shape,)).run((frames,), out)
        error = out - wanted
        if runtime.precision == "fp32":
            assert np.abs(error).max() <= WORST_FP32 * wanted.std()
        else:
            assert rms(error) <= RMS_BF16 * rms(wanted)


def test_every_graph_builds_as_a_tensorrt_rtx_plan(exported: tuple[Method, Network, Bundle]) -> None:
    _, _, bundle = exported
    assert_builds(bundle)


def rms(image: np.ndarray) -> float:
    return float(np.sqrt(np.square(image).mean()))


@pytest.fixture(scope="module", params=MODELS)
def halved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[float]]:
    """A bundle in half precision, and how far the brightest pixels of its graphs are off."""
    shipped = bundles.read(request.param)  # trained weights: an untrained output hardly varies
    _, network = load_network(shipped)
    deployed = network.deploy()
    graphs = graphs_of(network, deployed, HALVES["fp16"])
    target = targets.find("portable-fp16").model_copy(update={"shape": (64, 88)})  # a quarter of its pixels: in time
    gaps = parity.compare(network, graphs, deployed, target)
    parity.refuse(gaps, target, request.param)
    folder = tmp_path_factory.mktemp(request.param) / "half"
    return with_form(shipped, "fp16", files_of("fp16", graphs), folder), [gap.bright for gap in gaps]


def test_half_precision_of_a_shipped_model_stays_within_the_portable_target(halved: tuple[Bundle, list[float]]) -> None:
    bundle, brightest = halved
    assert bundle.manifest.precision == "fp32"
    assert bundle.manifest.variants["fp16"].keys() == bundle.manifest.graphs.keys()
    assert max(brightest) < 6e-2


def test_half_precision_of_a_shipped_model_builds_as_a_tensorrt_rtx_plan(halved: tuple[Bundle, list[float]]) -> None:
    bundle, _ = halved
    assert_builds(bundle, "fp16")


def assert_builds(bundle: Bundle, kind: GraphKind = "fp32") -> None:
    """Every graph, for a size that none was traced at. What it computes is not known before a card has run it."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: it has no wheel for this system")
    for role in bundle.manifest.graphs:
        shapes = input_shapes(bundle.manifest, role, (64, 88))
        plan = build_plan("tensorrt_rtx", bundle.graph(role, kind), shapes, CAPABILITY)
        assert len(plan) > 1000, f"{role}: no weights in {len(plan)} bytes"


def input_shapes(facts: Manifest, role: str, shape: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """Of a graph of the bundle, for frames of `shape`."""
    size, newest = facts.window.size, facts.newest_frames
    if role == "step" and facts.step is not None:
        return step_shapes(facts.step, shape)
    if role in ("encode", "fuse") and facts.stages is not None:
        return (encode_shape(facts.stages, shape) if role == "encode" else fuse_shape(facts.stages, size, shape),)
    channels = {"window": (size,), "older": (size - newest,), "newest": (newest, len(facts.window.emits))}[role]
    return tuple((1, n, *shape) for n in channels)
