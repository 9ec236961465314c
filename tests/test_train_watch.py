"""How a training is watched without the truth: held-out frames, the best weights, when it ends, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from rtdenoise import bundle as bundles
from rtdenoise.errors import ConfigError
from rtdenoise.export import load_network
from rtdenoise.methods import base
from rtdenoise.train import check, movies, run, state, train
from rtdenoise.train.begin import begin
from rtdenoise.train.loop import Training
from rtdenoise.train.recipe import load

from . import plain_method, test_train

LENGTH = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe of the plain method and a movie whose frame k holds counts around 10 k."""
    ramp = 10 * np.arange(LENGTH)[:, None, None] + np.random.default_rng(0).integers(0, 5, (LENGTH, 24, 28))
    tifffile.imwrite(tmp_path / "movie.tif", ramp.astype(np.uint16))
    (tmp_path / "recipe.toml").write_text(plain_method.RECIPE, encoding="utf-8")
    return tmp_path


def begun(folder: Path, *changes: str) -> Training:
    text = plain_method.RECIPE + "".join(f"{change}\n" for change in changes)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    recipe, _ = load(folder)
    return begin(recipe, plain_method.METHOD, movies.gather(recipe.data, folder))


def numbers(training: Training) -> list[torch.Tensor]:
    assert isinstance(training.task, plain_method.PlainTask)
    return [*training.network.state_dict().values(), *training.task.state_dict().values()]


def test_the_last_frames_of_a_movie_are_never_learned_from(folder: Path) -> None:
    training = begun(folder, "held_out = 0.25")
    movie = movies.from_file(folder / "movie.tif", LENGTH)

    def frames_seen(seed: int, crops: object) -> set[int]:
        clips, _ = crops.draw(200, torch.Generator().manual_seed(seed))  # type: ignore[attr-defined]
        counts = clips * movie.normalization.scale + movie.normalization.offset
        return set((counts.mean((2, 3)) / 10).floor().int().flatten().tolist())

    assert training.held_out is not None
    assert frames_seen(0, training.crops) == set(range(30))
    assert frames_seen(0, training.held_out.crops) == set(range(30, 40))


def test_at_least_one_clip_is_held_out(folder: Path) -> None:
    training = begun(folder, "held_out = 0.01")
    assert training.held_out is not None
    assert training.held_out.crops.draw(1, torch.Generator())[0].shape == (1, 3, 16, 16)


def test_a_movie_too_short_for_both_is_refused_by_name(folder: Path) -> None:
    tifffile.imwrite(folder / "short.tif", np.random.default_rng(0).integers(0, 9, (5, 24, 28)).astype(np.uint16))
    with pytest.raises(ConfigError, match=r"short\.tif has 5 frames.*set train\.held_out = 0"):
        begun(folder)
    assert begun(folder, "held_out = 0").held_out is None


@pytest.mark.parametrize("key", ["patience = 3", 'schedule = "plateau"'])
def test_what_follows_the_validation_loss_needs_one(folder: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="give `held_out`"):
        begun(folder, "held_out = 0", key)


def test_looking_at_held_out_frames_changes_nothing(folder: Path) -> None:
    watched, alone = begun(folder), begun(folder)
    for _ in range(4):
        watched.advance()
        alone.advance()
        assert watched.validate() == watched.validate()
    assert all(torch.equal(a, b) for a, b in zip(numbers(watched), numbers(alone), strict=True))


def test_the_best_weights_are_kept_when_later_ones_are_worse(folder: Path) -> None:
    training = begun(folder)
    for _ in range(6):
        training.advance()
    first, good = training.validate(), training.network.conv.weight.detach().clone()
    with torch.no_grad():
        training.network.conv.weight.fill_(100)
    worse = training.validate()
    assert first is not None
    assert worse is not None
    assert worse > first
    assert (training.kept_step, training.best.stale) == (6, 1)
    assert torch.equal(training.best.weights["conv.weight"], good)
    assert begun(folder, 'keep = "last"').kept_step == 0


def test_a_run_goes_on_in_all_it_remembers(folder: Path, tmp_path: Path) -> None:
    keys = ('schedule = "plateau"', "plateau_patience = 1", "patience = 20")
    whole, first = begun(folder, *keys), begun(folder, *keys)
    for training, n_steps in ((whole, 12), (first, 7)):
        for _ in range(n_steps):
            training.advance()
            training.validate()
    state.save(first, tmp_path / "state.pt")
    second = begun(folder, *keys)
    state.restore(second, tmp_path / "state.pt")
    while not second.over:
        second.advance()
        second.validate()
    assert second.step == 12
    assert all(torch.equal(a, b) for a, b in zip(numbers(second), numbers(whole), strict=True))
    assert (second.smooth_loss, second.learning_rate()) == (whole.smooth_loss, whole.learning_rate())
    assert (second.best.loss, second.best.step, second.best.stale) == (
        whole.best.loss,
        whole.best.step,
        whole.best.stale,
    )
    assert torch.equal(second.best.weights["conv.weight"], whole.best.weights["conv.weight"])


def test_a_plateau_lowers_the_learning_rate(folder: Path) -> None:
    training = begun(folder, 'schedule = "plateau"', "plateau_factor = 0.1", "plateau_patience = 1")
    for _ in range(3):  # the first is the best of three equal ones, two are no better: more than the patience
        training.validate()
    training.advance()
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)


def test_the_published_schedule_is_the_tasks(folder: Path) -> None:
    training = begun(folder)
    assert training.learning_rate() == 0.05
    training.step = 6
    assert training.learning_rate() == pytest.approx(0.005)


def test_device_and_patience_may_change_between_two_parts_of_a_run(folder: Path, tmp_path: Path) -> None:
    state.save(begun(folder), tmp_path / "state.pt")
    state.restore(begun(folder, "patience = 2", 'precision = "bf16-mixed"', 'device = "cpu"'), tmp_path / "state.pt")
    with pytest.raises(ConfigError, match="another version of the recipe"):
        state.restore(begun(folder, "held_out = 0.2"), tmp_path / "state.pt")


def test_half_precision_learns_nearly_the_same(folder: Path) -> None:
    single, mixed = begun(folder), begun(folder, 'precision = "bf16-mixed"')
    for _ in range(6):
        single.advance()
        mixed.advance()
    assert mixed.network.conv.weight.dtype == torch.float32
    assert mixed.smooth_loss != single.smooth_loss
    assert mixed.smooth_loss == pytest.approx(single.smooth_loss, rel=2e-2)  # bfloat16 keeps 8 bits: 0.4 % per number


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: neither is an error")
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (('device = "cuda"',), "torch sees no GPU"),
        (('precision = "16-mixed"',), "needs a GPU"),
        (("devices = 3",), "train.batch 4 cannot be shared by 3 processes"),
    ],
)
def test_what_this_machine_cannot_do_is_said_before_training(folder: Path, keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        begun(folder, *keys)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_a_gpu_learns_nearly_the_same(folder: Path, tmp_path: Path, precision: str) -> None:
    here, there = begun(folder, 'device = "cpu"'), begun(folder, 'device = "cuda"', f'precision = "{precision}"')
    for _ in range(4):
        here.advance()
        there.advance()
    state.save(there, tmp_path / "state.pt")
    again = begun(folder, 'device = "cuda"', f'precision = "{precision}"')
    state.restore(again, tmp_path / "state.pt")
    assert again.validate() == pytest.approx(here.validate(), rel=5e-2)


def test_windows_may_be_denoised_in_batches(folder: Path) -> None:
    training, movie = begun(folder), movies.from_file(folder / "movie.tif", LENGTH)
    one = check.denoised(plain_method.METHOD, training.network, movie)
    many = check.denoised(plain_method.METHOD, training.network, movie, batch=7)
    np.testing.assert_allclose(many, one, rtol=1e-5)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training that learned nothing after its first validation."""
    folder = test_train.write_recipe(tmp_path_factory.mktemp("stopped"))
    text = test_train.RECIPE.format(steps=50).replace("2e-3", "1e-30").replace("freeze_norm_at = 0.5", "")
    text += "freeze_norm_at = 0\nvalidate_every = 2\npatience = 2\n"
    text += '[[validate_on]]\npreset = "calcium"\nseeds = [2]\nsnr_db = [3.0]\nshape = [64, 64]\nn_frames = 12\n'
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    train(folder, quiet=True)
    return folder


def test_training_ends_when_the_validation_loss_stands_still(stopped: Path) -> None:
    made = bundles.read(stopped / "bundle")
    assert (made.manifest.provenance["steps"], made.manifest.provenance["kept_step"]) == (6, 2)
    saved = torch.load(stopped / run.CHECKPOINT, weights_only=True)
    _, network = load_network(made)
    assert all(torch.equal(value, saved["best"]["weights"][name]) for name, value in network.state_dict().items())
    recipe, _ = load(stopped)
    again = begin(recipe, base.load("fast"), movies.gather(recipe.data, stopped))
    state.restore(again, stopped / run.CHECKPOINT)
    assert again.over


def test_the_curve_of_a_training_is_kept_beside_its_recipe(stopped: Path) -> None:
    curve = json.loads((stopped / run.CURVE).read_text(encoding="utf-8"))
    assert (curve["steps"], curve["kept_step"], curve["processes"], curve["precision"]) == (6, 2, 1, "32")
    assert curve["versions"]["torch"] == torch.__version__
    assert [entry["step"] for entry in curve["curve"]] == [2, 4, 6]
    for entry in curve["curve"]:
        assert entry["validation_loss"] == curve["curve"][0]["validation_loss"]
        assert np.isfinite([entry["loss"], entry["learning_rate"], entry["seconds"]]).all()
        assert np.isfinite(entry["gain_db"]["calcium seed 2 3 dB"])
    assert curve["curve"] == json.loads((stopped / run.LOG).read_text(encoding="utf-8"))
