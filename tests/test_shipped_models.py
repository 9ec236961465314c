"""Every model that ships, through the doors a user takes: a new one is held to this without a new test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtdenoise import bundle as bundles
from rtdenoise import catalogue, offline
from rtdenoise.bundle import Bundle
from rtdenoise.engine.load import open_engine
from rtdenoise.errors import ConfigError
from rtdenoise.files import open_movie
from rtdenoise.train.recipe import Recipe
from rtdenoise.train.recipe import load as load_recipe
from tests.mm_rig import need_camera
from tests.real_movies import SCANIMAGE_3, real_movie
from tests.runs import copied, numbered, run_lossless, settings

MODELS = catalogue.registered()["bundles"]
MOST_BYTES = 5_000_000
RECIPES = Path(__file__).resolve().parents[1] / "models"
SIZES = [(64, 64), (65, 97), (1024, 1024)]
TWINS = {"deepcad-calcium": "deepcadrt-calcium", "deepbid-calcium": "deepcadrt-calcium"}
"""Models whose graph differs from another's in its weights alone."""


@pytest.fixture(params=MODELS)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return bundles.read(request.param)


def test_it_is_small_enough_to_be_cloned(bundle: Bundle) -> None:
    assert sum((bundle.path / name).stat().st_size for name in bundle.manifest.checksums) <= MOST_BYTES


def test_a_short_recording_is_denoised_live_as_offline_with_every_frame_accounted_for(bundle: Bundle) -> None:
    path = real_movie(SCANIMAGE_3)  # 30 frames: fewer than the longest windows
    asked = settings(
        "replay",
        {"path": str(path), "rate": "max"},
        engine={"backend": "openvino-fp32", "model": bundle.name, "threads": 1},
    )
    summary, raw, denoised = run_lossless(asked, copied)
    assert summary.error == ""
    assert summary.balanced
    with open_movie(path) as movie:
        wanted = {f.stamp.src_frame: f.pixels.copy() for f in offline.denoised(movie, asked.engine)}
    spread = max(float(np.ptp(pixels)) for _, _, pixels in raw)
    assert [number for _, number, _ in denoised] == list(range(30))
    for _, number, pixels in denoised:
        assert np.abs(pixels - wanted[number]).max() <= 1e-6 * spread


def test_it_runs_live_from_the_demo_camera_or_says_that_it_cannot_keep_up(bundle: Bundle) -> None:
    need_camera()
    asked = settings(
        "micromanager",
        {"width": 64, "height": 64, "exposure_ms": 33.3, "n_frames": 60},
        engine={"model": bundle.name},
    )
    summary, _, denoised = run_lossless(asked, numbered)
    assert summary.error == ""
    assert summary.balanced
    assert summary.acquired == 60
    assert len(denoised) == summary.delivered


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_frames_of_any_size_come_out_finite_and_quieter(bundle: Bundle, shape: tuple[int, int]) -> None:
    if shape == SIZES[-1] and bundle.name in TWINS:
        pytest.skip(f"half a minute for the graph of {TWINS[bundle.name]}, which runs at this size")
    with open_engine(bundle.path, shape=shape) as engine:
        window = np.random.default_rng(0).standard_normal((engine.window.size, *shape), np.float32)
        target = engine.window.emits[0]
        output = engine.run(window, 0, target, engine.window.hop)
        assert output.shape == (engine.window.hop, *shape)
        assert np.isfinite(output).all()
        assert output.std() < window.std()


def test_causal_output_is_refused_where_there_is_none(bundle: Bundle) -> None:
    facts = bundle.manifest.window
    if facts.emits[-1] == facts.size - 1:
        with open_engine(bundle.path, shape=(64, 64), latency="causal") as engine:
            assert engine.window.lookahead == 0
    else:
        with pytest.raises(ConfigError, match="look-ahead"):
            open_engine(bundle.path, shape=(64, 64), latency="causal")


def test_its_recipe_is_the_one_that_made_it(bundle: Bundle) -> None:
    recipe, _ = load_recipe(RECIPES / bundle.name)
    made = Recipe.model_validate(bundle.manifest.provenance["recipe"])
    assert made == recipe.model_copy(update={"card": made.card, "bundle": made.bundle})
