"""The latency dial: the same weights, less look-ahead, and nothing later than that is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtdenoise import bundle as bundles
from rtdenoise.engine.dial import lookaheads_of, window_of
from rtdenoise.engine.load import EngineChoice, EngineFactory
from rtdenoise.errors import ConfigError
from rtdenoise.evaluate.streaming import streamed
from rtdenoise.export import BundleFacts, Target, export_bundle
from rtdenoise.methods import base
from rtdenoise.normalize import Normalization
from rtdenoise.settings import EngineSettings
from tests.test_cli import cli

Frames = NDArray[np.float32]
BLOCK, CENTRE = "deepsemi-calcium", "umvd-calcium"


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> str:
    method = base.load("deepcadrt")
    torch.manual_seed(0)
    facts = BundleFacts("unet", Normalization(0.0, 1.0), rule="fixed")
    folder = tmp_path_factory.mktemp("unet") / "bundle"
    export_bundle(method, method.network(width=4, frames=16).eval(), folder, facts, Target(shape=(24, 32)))
    return str(folder)


def denoised(model: str, movie: Frames, latency: int | str) -> Frames:
    asked = EngineSettings.model_validate(
        {"model": model, "latency": latency, "threads": 1, "backend": "onnxruntime-cpu"}
    )
    return streamed(movie, asked).frames


@pytest.mark.parametrize("latency", [0, 1, 2, 4, 8])
def test_a_frame_depends_on_its_look_ahead_and_on_nothing_later(unet: str, latency: int) -> None:
    movie = np.random.default_rng(0).standard_normal((60, 16, 16)).astype(np.float32)
    later, within = movie.copy(), movie.copy()
    target = 40
    later[target + latency + 1 :] += 3
    within[target + latency] += 3
    before = denoised(unet, movie, latency)
    np.testing.assert_array_equal(denoised(unet, later, latency)[target], before[target])
    assert np.abs(denoised(unet, within, latency)[target] - before[target]).max() > 0


def test_look_aheads_are_powers_of_two_and_then_the_full_one(unet: str) -> None:
    assert EngineFactory(EngineChoice(unet), (16, 16)).latencies() == [0, 1, 2, 4, 8, 44]
    assert lookaheads_of(bundles.read(CENTRE)) == [3]
    assert EngineFactory(EngineChoice("fast-simulated"), (16, 16)).latencies() == [0, 3]
    assert EngineFactory(EngineChoice("median"), (16, 16)).latencies() == [2]


def test_every_look_ahead_that_is_named_can_be_run(unet: str) -> None:
    for model in (unet, BLOCK, "fast-simulated"):
        bundle = bundles.read(model)
        for lookahead in lookaheads_of(bundle):
            assert window_of(bundle, lookahead).lookahead == lookahead


def test_full_is_what_the_longest_look_ahead_gives(unet: str) -> None:
    movie = np.random.default_rng(1).standard_normal((70, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(denoised(unet, movie, 44), denoised(unet, movie, "full"))
    np.testing.assert_array_equal(denoised(unet, movie, 0), denoised(unet, movie, "causal"))


def test_hops_of_a_shorter_look_ahead_grow_as_far_as_the_block_allows(unet: str) -> None:
    assert EngineFactory(EngineChoice(unet, latency=4), (16, 16)).hops() == [1, 2, 4, 8]
    assert EngineFactory(EngineChoice(unet), (16, 16)).hops() == [8]


def test_a_look_ahead_that_a_model_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="umvd-calcium has no output with a look-ahead of 1: it waits for 3 frames"):
        window_of(bundles.read(CENTRE), 1)
    with pytest.raises(ConfigError, match="look-ahead of 2; use 0 or full"):
        window_of(bundles.read("fast-simulated"), 2)
    with pytest.raises(ConfigError, match="lower the hop"):
        window_of(bundles.read(CENTRE), "full", 2)


def test_nonsense_on_the_command_line_is_one_line(tmp_path: Path) -> None:
    for words in ("soon", "-1"):
        done = cli("denoise", tmp_path / "no.tif", tmp_path / "out.ome.tif", "--latency", words)
        assert done.returncode == 1
        assert "latency" in done.stderr
        assert "Traceback" not in done.stderr
