"""Weights files of other programs: plain tensors out of them, or one line that says why not; never code."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtdenoise.checkpoints import read
from rtdenoise.errors import FileFormatError
from rtdenoise.methods.umvd.network import temporal_filter
from tests.real_movies import real_movie

KEYS = ("first.weight", "first.bias")


def tensors(prefix: str = "") -> OrderedDict[str, Tensor]:
    return OrderedDict((prefix + key, torch.full((2, 3), float(i))) for i, key in enumerate(KEYS))


def saved(folder: Path, stored: object, *, legacy: bool = False) -> Path:
    torch.save(stored, folder / "net.pth", _use_new_zipfile_serialization=not legacy)
    return folder / "net.pth"


def assert_one_line(path: Path, *words: str) -> None:
    with pytest.raises(FileFormatError) as refused:
        read(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "stored",
    [
        tensors(),
        dict(tensors("module.")),
        {"state_dict": tensors(), "epoch": 3},
        {"model": tensors("module."), "optimizer": {"state": {0: {"step": 7}}, "param_groups": []}},
        {"params": tensors()},
        [tensors()],
        {
            "model": [tensors("module.")],
            "best_score": np.float64(0.5),
            "args": argparse.Namespace(lr=1e-4, bias=False),
            "optimizer": [{}],
        },
    ],
    ids=["plain", "parallel", "state_dict", "model", "params", "list", "udvd"],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_a_state_dict_is_found_where_training_programs_put_it(stored: object, legacy: bool, tmp_path: Path) -> None:
    found = read(saved(tmp_path, stored, legacy=legacy)).tensors
    assert list(found) == list(KEYS)
    assert all(torch.equal(found[key], wanted) for key, wanted in tensors().items())


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self._call


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    ("function", "name"), [(os.mkdir, f"{os.name}.mkdir"), (eval, "eval"), (Path, "pathlib")], ids=str
)
def test_code_in_a_checkpoint_is_named_and_not_executed(
    function: object, name: str, legacy: bool, tmp_path: Path
) -> None:
    made = tmp_path / "made by the checkpoint"
    argument = f"__import__('os').mkdir({str(made)!r})" if function is eval else str(made)
    path = saved(tmp_path, {"state_dict": tensors(), "note": Calls(function, argument)}, legacy=legacy)
    assert_one_line(path, "executed, which no weights need", name)
    assert not made.exists()


def test_code_behind_the_form_of_a_whole_network_is_not_executed(tmp_path: Path) -> None:
    module = whole_network(5, 1.0)[0]
    module.later = Calls(os.mkdir, str(tmp_path / "made"))  # type: ignore[assignment]
    assert_one_line(saved(tmp_path, [module]), "mkdir executed")
    assert not (tmp_path / "made").exists()


class Pair(nn.Module):
    def __init__(self, frames: int, level: float) -> None:
        super().__init__()
        self.n_f = frames
        self.weights = temporal_filter(frames, level)
        self.conv1 = nn.Conv2d(1, 21, 3, bias=False)
        self.pad, self.act, self.up = nn.ReplicationPad2d(1), nn.ReLU(), nn.Upsample(scale_factor=2)


class Outer(nn.Module):
    def __init__(self, frames: int, level: float) -> None:
        super().__init__()
        self.n_f, self.weights = frames, temporal_filter(frames, level)
        self.enc1, self.pool = Pair(frames, level), nn.MaxPool2d(2)


def whole_network(frames: int, level: float) -> list[nn.Module]:
    """A module pickled with its classes, which live in a program's `model.py` that nobody has any more."""
    torch.manual_seed(0)
    return [Outer(frames, level)]


@pytest.fixture
def authors_program(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = types.ModuleType("model")
    for each in (Pair, Outer):
        setattr(gone, each.__name__, each)
        monkeypatch.setattr(each, "__module__", "model")
    monkeypatch.setitem(sys.modules, "model", gone)


@pytest.mark.parametrize(("frames", "level"), [(5, 1), (7, 1), (7, 2), (5, 64)])
def test_a_whole_network_gives_its_tensors_and_its_filter(
    frames: int, level: float, tmp_path: Path, authors_program: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = whole_network(frames, level)
    path = saved(tmp_path, network)
    monkeypatch.delitem(sys.modules, "model")
    found = read(path)
    assert list(found.tensors) == ["enc1.conv1.weight"]
    assert torch.equal(found.tensors["enc1.conv1.weight"], network[0].state_dict()["enc1.conv1.weight"])
    assert found.facts["level"] == pytest.approx(level, abs=0.01)


def test_a_network_that_contains_itself_is_refused(tmp_path: Path, authors_program: None) -> None:
    (network,) = whole_network(5, 1.0)
    network.enc1._modules["again"] = network  # type: ignore[union-attr, assignment]
    assert_one_line(saved(tmp_path, [network]), "contains itself")


def test_a_network_of_unknown_layers_is_refused_by_name(tmp_path: Path) -> None:
    assert_one_line(saved(tmp_path, [nn.Linear(2, 2)]), "torch.nn.modules.linear.Linear executed")


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ([1, 2], "holds a list, no tensors by name"),
        ({}, "holds a dict, no tensors by name"),
        ({"epoch": 3, "loss": 0.1}, "'epoch' is a int, not a tensor"),
        (torch.zeros(3), "holds a Tensor"),
    ],
)
def test_a_file_without_tensors_by_name_is_refused(stored: object, words: str, tmp_path: Path) -> None:
    assert_one_line(saved(tmp_path, stored), words)


def test_a_program_for_torch_alone_is_not_taken_for_weights(tmp_path: Path) -> None:
    torch.jit.script(nn.ReLU()).save(str(tmp_path / "net.pt"))
    assert_one_line(tmp_path / "net.pt", "TorchScript")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_torch_file_is_refused(share: float, legacy: bool, tmp_path: Path) -> None:
    path = saved(tmp_path, {key: torch.zeros(40, 40) for key in KEYS}, legacy=legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert_one_line(path, "not a whole file of torch.save")


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\x03\x04", b"II*\x00 a TIFF", pickle.dumps({"a": 1}, protocol=4)]
)
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    assert_one_line(tmp_path / "net.pth", "PyTorch" if not content or content[0] == 0x49 else "torch.save")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert_one_line(tmp_path / "nowhere.pth", "cannot be opened")
    assert_one_line(tmp_path, "cannot be opened")


def keras_file(path: Path, *, whole_model: bool, cut: bool = False) -> dict[str, np.ndarray]:
    """Two layers as Keras writes them; `cut`: the list of layers in pieces, as for very many layers."""
    stored = {
        "conv2d_7/kernel:0": np.arange(36, dtype=np.float32).reshape(3, 3, 2, 2),
        "conv2d_7/bias:0": np.ones(2, np.float32),
    }
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole_model else file
        names = [np.array([name], dtype="S") for name in ("input_1", "conv2d_7")]
        if cut:
            group.attrs["layer_names0"], group.attrs["layer_names1"] = names
        else:
            group.attrs["layer_names"] = np.concatenate(names)
        group.create_group("input_1").attrs["weight_names"] = np.array([], dtype="S")
        layer = group.create_group("conv2d_7")
        layer.attrs["weight_names"] = np.array(list(stored), dtype="S")
        for name, values in stored.items():
            layer[name] = values
    return stored


@pytest.mark.parametrize(("whole_model", "cut"), [(True, False), (False, False), (True, True)])
def test_keras_weights_are_read_as_stored(whole_model: bool, cut: bool, tmp_path: Path) -> None:
    stored = keras_file(tmp_path / "net.h5", whole_model=whole_model, cut=cut)
    found = read(tmp_path / "net.h5").tensors
    assert list(found) == list(stored)
    for name, values in stored.items():
        np.testing.assert_array_equal(found[name].numpy(), values)


def test_a_damaged_keras_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    keras_file(path, whole_model=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert_one_line(path, "damaged HDF5 file")
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        del file["model_weights/conv2d_7/conv2d_7"]
    assert_one_line(path, "damaged HDF5 file")


def test_a_movie_in_hdf5_is_not_taken_for_weights(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file["mov"] = np.zeros((3, 4, 4), np.uint16)
    assert_one_line(tmp_path / "movie.h5", "without the weights of a Keras model")


@pytest.mark.parametrize(
    ("name", "n_tensors", "n_parameters"),
    [
        ("deepinterp_2p_20210731_0125.h5", 20, 128_193),
        ("astrocast_2p_invivo_input_size_64_64.h5", 8, 59_201),
        ("deepcad_lelouch_E_20_Iter_6000.pth", 30, 1_020_337),
        ("deepsemi_T1XY1_pretrain_d_f8_deepsemi_49.pth", 82, 73_395),
    ],
)
def test_published_files_are_read(name: str, n_tensors: int, n_parameters: int) -> None:
    found = read(real_movie(f"checkpoints/{name}")).tensors
    assert len(found) == n_tensors
    assert sum(tensor.numel() for tensor in found.values()) == n_parameters
    assert not any(key.startswith("module.") for key in found)
