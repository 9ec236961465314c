"""What every registered method must do once it is exported: the same numbers in every engine, at any size, in half precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rtdenoise import bundle as bundles
from rtdenoise import catalogue, registry
from rtdenoise.bundle import Bundle
from rtdenoise.engine.backends import open_runtime, taking
from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.export import BundleFacts, export_bundle
from rtdenoise.export import target as targets
from rtdenoise.export.pack import load_network
from rtdenoise.export.parity import probe_frames
from rtdenoise.methods import base
from rtdenoise.methods.base import Method, Network
from rtdenoise.normalize import Normalization

METHODS = registry.names(registry.METHODS)
MODELS = catalogue.registered()["bundles"]
SIZES = [(40, 48), (61, 83)]
WORST_FP32, RMS_BF16 = 2e-4, 3e-2  # of the output's sd; of its rms, since bf16 keeps 8 bits of a value


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


def rms(image: np.ndarray) -> float:
    return float(np.sqrt(np.square(image).mean()))


@pytest.mark.parametrize("model", MODELS)
def test_half_precision_of_a_shipped_model_stays_within_the_portable_target(model: str, tmp_path: Path) -> None:
    method, network = load_network(bundles.read(model))  # trained weights: an untrained output hardly varies
    facts = BundleFacts(model, Normalization(0.0, 1.0))
    target = targets.find("portable-fp16").model_copy(update={"shape": (64, 88)})  # a quarter of its pixels: in time
    bundle, report = export_bundle(method, network, tmp_path / "half", facts, target)
    assert bundle.manifest.precision == "fp16"
    assert all(gap.bright < 6e-2 for gap in report.gaps)
