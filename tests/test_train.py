"""Training by recipe: it learns, it continues exactly, and it says what is wrong before it starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr

from rtdenoise import bundle as bundles
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.export import load_network
from rtdenoise.methods import base
from rtdenoise.train import card, movies, run, state, train
from rtdenoise.train.begin import begin
from rtdenoise.train.loop import Training
from rtdenoise.train.recipe import load

RECIPE = """
name = "tiny"
method = "fast"
[network]
frames = 2
[data]
movies = ["*.tif"]
[train]
steps = {steps}
batch = 1
crop_px = 40
learning_rate = 2e-3
schedule = "cosine"
freeze_norm_at = 0.5
checkpoint_every = 4
threads = 1
"""


def write_recipe(folder: Path) -> Path:
    counts = np.random.default_rng(0).poisson(20, (12, 48, 56)).astype(np.uint16)
    tifffile.imwrite(folder / "movie.tif", counts)
    (folder / "recipe.toml").write_text(RECIPE.format(steps=8), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_recipe(tmp_path_factory.mktemp("trained"))
    train(folder, quiet=True)
    return folder


def begun(folder: Path) -> Training:
    recipe, _ = load(folder)
    return begin(recipe, base.load("fast"), movies.gather(recipe.data, folder))


def weights(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in training.network.parameters()])


def test_an_interrupted_run_continues_as_if_it_had_not_been(folder: Path, tmp_path: Path) -> None:
    whole, first = begun(folder), begun(folder)
    for _ in range(8):
        whole.advance()
    for _ in range(5):
        first.advance()
    state.save(first, tmp_path / "state.pt")
    second = begun(folder)
    state.restore(second, tmp_path / "state.pt")
    while second.step < 8:
        second.advance()
    assert torch.equal(weights(second), weights(whole))
    norms = [name for name in whole.network.state_dict() if "running" in name]
    assert all(torch.equal(whole.network.state_dict()[n], second.network.state_dict()[n]) for n in norms)


def test_a_recipe_becomes_a_bundle_with_the_trained_weights(trained: Path) -> None:
    read = bundles.read(trained / "bundle")
    assert read.name == "tiny"
    assert read.manifest.merge == "halving"
    assert read.manifest.method_config == {"frames": 2}
    assert read.manifest.provenance["steps"] == 8
    _, network = load_network(read)
    saved = torch.load(trained / run.CHECKPOINT, weights_only=True)["best"]["weights"]
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())


def test_a_finished_run_is_exported_again_without_training(trained: Path) -> None:
    first = bundles.read(trained / "bundle").manifest.checksums
    again = train(trained / "recipe.toml", quiet=True)
    assert again.manifest.checksums == first


def test_norms_stand_still_once_they_are_frozen(folder: Path) -> None:
    training = begun(folder)
    for _ in range(4):
        training.advance()
    before = {k: v.clone() for k, v in training.network.state_dict().items() if "running" in k}
    training.advance()
    assert all(torch.equal(v, training.network.state_dict()[k]) for k, v in before.items())


def test_the_cosine_schedule_ends_near_zero(folder: Path) -> None:
    training = begun(folder)
    assert training.learning_rate() == 2e-3
    training.step = 7
    assert 0 < training.learning_rate() < 1e-4


def test_zarr_and_tiff_give_the_same_movie(folder: Path) -> None:
    counts = tifffile.imread(folder / "movie.tif")
    image = zarr.open_group(str(folder / "movie.zarr"), mode="w")
    image.create_array("0", data=counts[:, None, None])  # T C Z Y X
    a = movies.from_file(folder / "movie.tif", 10)
    b = movies.from_file(folder / "movie.zarr", 10)
    assert len(a.counts) == 10
    assert np.array_equal(a.counts, b.counts)
    assert a.normalization == b.normalization


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("crop_px = 40", "crop_size = 40"), r"\[train\]: unknown crop_size; known: steps, batch, crop_px"),
        (("crop_px = 40", "crop_px = 42"), "multiple of 4"),
        (("crop_px = 40", "crop_px = 20"), "below what fast needs, 40"),
        (("crop_px = 40", "crop_px = 400"), "lower train.crop_px"),
        (("frames = 2", "frames = 6"), "one of"),
        (("frames = 2", "depth = 4"), "depth"),
        (('"fast"', '"slow"'), "unknown method 'slow'; registered: .*fast"),
        (('"*.tif"', '"*.nwb"'), r"no movie matches '\*.nwb'"),
        (('movies = ["*.tif"]', ""), "needs `movies` or `simulated`"),
    ],
)
def test_a_wrong_recipe_is_refused_before_training(folder: Path, change: tuple[str, str], message: str) -> None:
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    (folder / "recipe.toml").write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        train(folder, quiet=True)


def test_a_seed_for_both_learning_and_validation_is_refused(folder: Path) -> None:
    group = 'preset = "calcium"\nseeds = [7]\nsnr_db = [3.0]\n'
    text = RECIPE.format(steps=2).replace('movies = ["*.tif"]', "[[data.simulated]]\n" + group)
    (folder / "recipe.toml").write_text(text + "[[validate_on]]\n" + group, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"seeds \[7\] are both"):
        load(folder)


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused(folder: Path) -> None:
    checkpoint = folder / run.CHECKPOINT
    state.save(begun(folder), checkpoint)
    (folder / "recipe.toml").write_text(RECIPE.format(steps=9), encoding="utf-8")
    with pytest.raises(ConfigError, match="another version of the recipe"):
        train(folder, quiet=True)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(FileFormatError, match="damaged checkpoint"):
        train(folder, quiet=True)


def test_a_file_that_is_not_a_movie_is_refused_by_name(folder: Path) -> None:
    (folder / "broken.tif").write_bytes(b"II*\0 not a tiff")
    with pytest.raises(FileFormatError, match=r"broken\.tif"):
        train(folder, quiet=True)
    tifffile.imwrite(folder / "broken.tif", np.zeros((3, 8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(FileFormatError, match=r"broken\.tif.*one channel"):
        train(folder, quiet=True)


def test_the_card_says_what_the_live_stream_gives(trained: Path) -> None:
    simulated = 'preset = "calcium"\nseeds = [3]\nsnr_db = [{snr}]\nshape = [64, 64]\nn_frames = 24\n'
    text = RECIPE.format(steps=8) + "[card]\nlimits = ['It is tiny.']\n"
    text += "".join("[[card.score_on]]\n" + simulated.format(snr=snr) for snr in ("0.0", "10.0"))
    (trained / "recipe.toml").write_text(text, encoding="utf-8")
    recipe, _ = load(trained)
    made = bundles.read(trained / "bundle")
    boards = list(card.measure(made, recipe.card.score_on))
    card.write(trained, recipe, base.load("fast"), made, boards)
    written = (trained / card.CARD).read_text(encoding="utf-8")
    assert [board.snr_db for board in boards] == [0.0, 10.0]
    outputs = {standing.contestant.label: standing for standing in boards[1].standings}
    assert {"raw", "gauss2d-ema", "tiny", "tiny (causal)"} <= set(outputs)
    assert "gauss3d" not in outputs, "it waits longer than this model"
    for begins, label in (("| tiny | 1 = 33 ms |", "tiny"), ("| tiny (causal) | 0 |", "tiny (causal)")):
        lines = [line.replace("*", "") for line in written.splitlines() if line.startswith(begins)]
        assert f"{begins} {outputs[label]['psnr']:.1f} |" in lines[1]
    best = boards[1].best_rival(outputs["tiny"].group, "psnr")
    assert f"| {best.contestant.label} | " in written
    assert "](training.png)" in written
    assert (trained / "training.png").read_bytes().startswith(b"\x89PNG")
    assert "- It is tiny." in written
    assert "doi:10.1038/s41467-025-64681-8" in written
    sums = dict(reversed(line.split()) for line in (trained / card.SUMS).read_text(encoding="utf-8").splitlines())
    assert sums["model.onnx"] == made.manifest.checksums["model.onnx"]
    assert set(sums) == {"model.onnx", "weights.npz"}
