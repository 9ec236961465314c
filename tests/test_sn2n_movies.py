"""SN2N with files of its authors and on movies: nothing in a file runs, and intensity stays what was calibrated."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdenoise import bundle as bundles
from rtdenoise import checkpoints
from rtdenoise.errors import FileFormatError
from rtdenoise.evaluate.streaming import streamed
from rtdenoise.export import BundleFacts, export_bundle
from rtdenoise.importing import import_checkpoint
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch
from rtdenoise.normalize import Normalization
from rtdenoise.settings import EngineSettings
from rtdenoise.simulate import preset, simulate
from tests import sn2n_file

SN2N = base.load("sn2n")
WIDTH = " ".join(map(str, sn2n_file.SMALL))
Counts = NDArray[Any]


@pytest.mark.parametrize("dims", [2, 3])
def test_their_pickled_network_is_read_without_their_program(tmp_path: Path, dims: int) -> None:
    path = tmp_path / "model.pth"
    wanted = sn2n_file.write(path, dims)
    found = checkpoints.read(path).tensors
    assert "SN2N.models" not in sys.modules
    assert found.keys() == wanted.keys()
    assert len(found) == 128
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


class Calls:
    """Pickles as a call of `os.mkdir`."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (self._folder,)


def test_code_hidden_in_their_network_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    sn2n_file.write(path, 2, note=Calls(tmp_path / "made"))
    with pytest.raises(FileFormatError, match="mkdir executed, which no weights need"):
        checkpoints.read(path)
    assert not (tmp_path / "made").exists()


def test_another_class_of_their_module_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = type("Trainer", (), {"__module__": "SN2N.trainer"})
    trainer = types.ModuleType("SN2N.trainer")
    trainer.Trainer = foreign  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "SN2N.trainer", trainer)
    path = tmp_path / "model.pth"
    sn2n_file.write(path, 2, trainer=foreign())
    with pytest.raises(FileFormatError, match=r"wants SN2N\.trainer\.Trainer executed"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up2.conv.double_conv.4.running_var": None}, r"missing \['up2.conv.double_conv.4.running_var'\]"),
        ({"extra.weight": torch.zeros(1)}, r"unknown \['extra.weight'\]"),
        ({"outc.conv.bias": torch.zeros(3)}, r"outc.conv.bias is \(3,\), SN2N-2D needs \(1,\)"),
        ({"inc.double_conv.3.weight": torch.zeros(4)}, "no 4-dimensional inc.double_conv.3.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: dict[str, Tensor | None], message: str) -> None:
    state = {k: v for k, v in ({**SN2N.network(width=WIDTH).state_dict(), **change}).items() if v is not None}
    assert SN2N.from_upstream is not None
    with pytest.raises(FileFormatError, match=message):
        SN2N.from_upstream(state)


def test_counters_of_the_norms_need_not_be_there() -> None:
    state = {k: v for k, v in SN2N.network(width=WIDTH).state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(state) == 110
    assert SN2N.from_upstream is not None
    SN2N.from_upstream(state)


def test_a_network_for_frames_is_not_one_for_blocks(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    sn2n_file.write(path, 2)
    with pytest.raises(FileFormatError, match=r"model\.pth: not a checkpoint of SN2N-3D"):
        import_checkpoint(path, "sn2n3d", tmp_path / "bundle")


def movie(brightness: float = 1.0) -> Counts:
    """(T, Y, X) counts; from frame 10 on all that is above the camera's offset is `brightness` times as bright."""
    made = simulate(preset("calcium", seed=7, snr_db=3.0, shape=(64, 64), n_frames=20))
    offset, clean = 100.0, made.clean[:1] - made.clean.min() + 50.0  # nothing blinks: only the camera's noise is left
    factor = np.where(np.arange(20) < 10, 1.0, brightness)[:, None, None]
    rng = np.random.default_rng(1)
    counts: Counts = (offset + rng.normal(factor * clean, 30.0)).clip(0).astype(np.uint16)
    return counts


def trained(folder: Path) -> str:
    """A narrow network of our own form after a short training, as a bundle."""
    torch.manual_seed(0)
    network = SN2N.network(**SN2N.narrow)
    task = SN2N.task(network, error="mse")
    normal = torch.from_numpy(movie()[:10].astype(np.float32))
    normal = ((normal - normal.mean()) / normal.std()).unsqueeze(1)
    optimizer, chance = task.optimizer(network, 2e-3, 1.0), torch.Generator().manual_seed(0)
    network.train()
    for i in range(60):
        loss = task.loss(network, Batch(normal[i % 5 :: 5], torch.ones(2), chance)).total
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    export_bundle(SN2N, network.eval(), folder, BundleFacts("own", Normalization(0.0, 1.0)))
    return str(folder)


@pytest.fixture(scope="module", params=["imported", "own"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "own":
        return trained(folder / "bundle")
    sn2n_file.write(folder / "model.pth", 2)
    import_checkpoint(folder / "model.pth", "sn2n", folder / "bundle")
    assert bundles.read(folder / "bundle").manifest.normalization.rule == "min-max"
    return str(folder / "bundle")


def denoised(model: str, counts: Counts) -> Counts:
    return streamed(counts, EngineSettings(model=model, backend="onnxruntime-cpu", threads=1)).frames


def test_a_movie_that_doubles_its_brightness_after_calibration_keeps_it(model: str) -> None:
    counts = movie(brightness=2.0)
    given, out = counts.mean((1, 2)) - 100, denoised(model, counts).mean((1, 2)) - 100
    assert given[10:].mean() > 1.9 * given[:10].mean()
    np.testing.assert_allclose(out, given, rtol=0.1)


def test_the_mean_of_a_steady_movie_flickers_no_more_than_before(model: str) -> None:
    counts = movie()
    out = denoised(model, counts)
    assert out.mean((1, 2)).std() <= 1.1 * counts.mean((1, 2)).std()
    assert out.std(0).mean() < counts.std(0).mean()
