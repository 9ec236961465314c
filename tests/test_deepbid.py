"""DeepBID: its names, its views; the network itself is DeepCAD-RT's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rtdenoise import checkpoints
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch
from tests import golden_rule
from tests.test_deepcad import FP32, RULE, WRONG, Remembers, error, imported, movie

DEEPBID = base.load("deepbid")
CASES = golden_rule.names("deepbid_")


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    with torch.no_grad():
        assert error(imported(case)(movie(case)), case.arrays["out"][:, 0]) < FP32


@pytest.mark.parametrize("name", CASES)
def test_every_output_depends_on_the_voxels_it_should(name: str) -> None:
    case = golden_rule.case(name)
    depth, height, width = case.meta["output_shape"][2:]
    row, column, wanted = height // 2, width // 2, case.arrays["jac0"][0]
    x = movie(case).double().requires_grad_()
    (gradient,) = torch.autograd.grad(imported(case).double()(x)[0, depth // 2, row, column], x)
    near = gradient[0, :, row - 4 : row + 5, column - 4 : column + 5].numpy()
    assert np.abs(near - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("nesting", ["params", "params_ema"])
def test_its_files_are_read_as_they_are_saved(nesting: str, tmp_path: Path) -> None:
    state = golden_rule.case(CASES[0]).state_dict()
    path = tmp_path / "net_g_100000.pth"
    torch.save({nesting: {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    assert DEEPBID.from_upstream is not None
    assert DEEPBID.from_upstream(checkpoints.read(path).tensors).facts["width"] == 16


def test_a_deepcad_checkpoint_is_refused_with_the_name_it_imports_as() -> None:
    assert DEEPBID.from_upstream is not None
    with pytest.raises(FileFormatError, match="import it as deepcadrt or deepcad"):
        DEEPBID.from_upstream(golden_rule.case(RULE).state_dict())


@pytest.mark.parametrize(("change", "message"), [w for w in WRONG if all(k.startswith("Generator.") for k in w[0])])
def test_another_checkpoint_is_refused_by_the_name_of_the_tensor(
    change: dict[str, torch.Tensor | None], message: str
) -> None:
    assert DEEPBID.from_upstream is not None
    changed = {name.removeprefix("Generator."): tensor for name, tensor in change.items()}
    state = {**golden_rule.case(CASES[0]).state_dict(), **changed}
    with pytest.raises(FileFormatError, match=message):
        DEEPBID.from_upstream({name: tensor for name, tensor in state.items() if tensor is not None})


@pytest.mark.parametrize(
    ("views", "clip_frames", "shapes"),
    [
        ("biscan", 8, {(2, 8, 16, 32), (2, 8, 32, 16)}),
        ("line", 16, {(2, 8, 32, 32)}),
        ("frame", 16, {(2, 8, 32, 32)}),
    ],
)
def test_a_view_holds_the_lines_that_its_mode_says(views: str, clip_frames: int, shapes: set[tuple[int, ...]]) -> None:
    network, stub, chance = DEEPBID.network(width=1, frames=8), Remembers(), torch.Generator().manual_seed(0)
    task = DEEPBID.task(network, views=views)
    assert task.clip_frames == clip_frames
    rows = torch.arange(32.0)[:, None].expand(32, 32) % 2  # odd lines are bright
    seen = set()
    for _ in range(20):
        task.loss(stub, Batch(rows.expand(2, clip_frames, 32, 32), torch.ones(2), chance))
        seen.add(tuple(stub.given.shape))
        if views != "frame":
            assert all(clip.unique().numel() == 1 for clip in stub.given)  # of one parity, whichever the coin says
    assert seen == shapes


def test_crops_with_a_line_left_over_are_refused() -> None:
    network = DEEPBID.network(width=1, frames=8)
    batch = Batch(torch.from_numpy(np.zeros((1, 8, 33, 32), np.float32)), torch.ones(1), torch.Generator())
    with pytest.raises(ConfigError, match="33 rows"):
        DEEPBID.task(network).loss(network, batch)
