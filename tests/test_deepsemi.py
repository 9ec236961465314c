"""DeepSeMi against numbers made with the authors' network, and with the checkpoints that they published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from tests import golden_rule, real_movies

DEEPSEMI = base.load("deepsemi")
CASES = golden_rule.names("deepsemi_")
RULE = "deepsemi_T3XY3_c15_f8_16x24x24"
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 1e-5
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2
CHECKPOINTS = {
    "T1XY1_pretrain_d_f8_deepsemi_49": "T1XY1",
    "T3XY3_pretrain_d_f8_deepsemi_19": "T3XY3",
    "T3XY3_pretrain_d_f16_deepsemi_19": "T3XY3",
    "T5XY5_pretrain_d_f8_deepsemi_19": "T5XY5",
}


def imported(case: golden_rule.Case, **facts: Any) -> Network:
    """All positions of the block come out, in the order of fusion that the stored numbers were made with."""
    assert DEEPSEMI.from_upstream is not None
    depth = case.meta["output_shape"][2]
    facts = {"net_type": case.meta["config"]["net_type"], "depth": depth, "keep": depth, "fusion": "identity", **facts}
    return DEEPSEMI.from_upstream(case.state_dict(), **facts)


def movie(case: golden_rule.Case, raw: bool = False) -> Tensor:
    _, context, depth, *size = case.meta["input_shape"][0]
    return torch.from_numpy(golden_rule.frames((1, depth + context - 1, *size), case.meta["phase"], raw=raw))


def error(mine: Tensor, wanted: NDArray[np.float32]) -> float:
    return float(np.abs(mine.detach().numpy() - wanted).max() / wanted.std())


def small(net_type: str = "T1XY1", **facts: Any) -> Network:
    """A block of 8 frames with 3 of context, 2 maps, its biases large enough to see what zeros beyond the frame do."""
    torch.manual_seed(5)
    network = DEEPSEMI.network(**{"depth": 8, "context": 3, "width": 2, "keep": 4, "net_type": net_type} | facts).eval()
    for parameter in network.parameters():
        parameter.data.abs_()
    return network


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    network, x = imported(case), movie(case)
    np.testing.assert_allclose(x.flatten()[:8], case.arrays["in_first"][0], rtol=1e-6)
    with torch.no_grad():
        assert error(network(x), case.arrays["out"][0]) < FP32


@pytest.mark.parametrize("name", CASES)
def test_every_output_depends_on_the_voxels_it_should(name: str) -> None:
    case = golden_rule.case(name)
    x = movie(case).requires_grad_()
    depth, height, width = case.meta["output_shape"][2:]
    row, column, wanted = height // 2, width // 2, case.arrays["jac0"][0]
    (gradient,) = torch.autograd.grad(imported(case)(x)[0, depth // 2, row, column], x)
    near = gradient[0, :, row - 4 : row + 5, column - 4 : column + 5].numpy()
    assert np.abs(near - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.array_equal(near == 0, wanted == 0)
    np.testing.assert_allclose(gradient[0].abs().sum((1, 2)), case.arrays["frame_grad0"][0], rtol=2e-3)


@pytest.mark.parametrize("keep", [2, 8])
@pytest.mark.parametrize("name", CASES)
def test_the_kept_positions_are_those_in_the_middle_of_the_authors_block(name: str, keep: int) -> None:
    case = golden_rule.case(name)
    depth, first = case.meta["output_shape"][2], (case.meta["output_shape"][2] - keep) // 2
    network = imported(case, keep=keep)
    reach = (network.window.size - depth) // 2
    assert network.window.emits == tuple(range(reach + first, reach + first + keep))
    with torch.no_grad():
        out = network(movie(case)).numpy()
    wanted = case.arrays["out"][0]
    assert np.abs(out - wanted[:, first : first + keep]).max() / wanted.std() < FP32


def test_half_precision_stays_close_to_the_authors_output() -> None:
    case = golden_rule.case(RULE)
    window = imported(case).deploy().graphs["window"].half()
    with torch.no_grad():
        out = window(movie(case).half()).float().numpy()
    gap, spread = out - case.arrays["out"][0], case.arrays["out"].std()
    assert np.abs(gap).max() / spread < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / spread < FP16_RMS


def test_weights_trained_on_counts_serve_frames_over_a_scale_exactly() -> None:
    case = golden_rule.case(RULE)
    x = movie(case, raw=True)
    with torch.no_grad():
        in_counts, over_scale = imported(case)(x), imported(case, scale=64.0)(x / 64)
    torch.testing.assert_close(over_scale * 64, in_counts, rtol=1e-5, atol=1e-3)


def holes(network: Network, k: int, row: int, column: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(T, 7, 7) voxels around (k, row, column) that the output there does not depend on."""
    x = noise(1, network.window.size, *size).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, k, row, column], x)
    frames = slice(network.window.emits[k] - 2, network.window.emits[k] + 3)
    padded = torch.nn.functional.pad(gradient[0, frames], [3] * 4, value=1.0)
    hole: NDArray[np.bool_] = (padded[:, row : row + 7, column : column + 7] == 0).numpy()
    return hole


PLACES = [(0, 0, 0), (1, 7, 8), (2, 11, 14), (3, 18, 20), (3, 4, 26)]


@pytest.mark.parametrize(("net_type", "side"), [("T1XY1", 1), ("TsimXYsim", 3)])
@pytest.mark.parametrize("place", PLACES)
def test_no_voxel_sees_itself_in_frames_of_any_size(net_type: str, side: int, place: tuple[int, int, int]) -> None:
    k, row, column = place
    hole = holes(small(net_type), k, row, column, (19, 27))
    reach = side // 2
    middle = np.zeros_like(hole)
    middle[2 - reach : 3 + reach, 3 - reach : 4 + reach, 3 - reach : 4 + reach] = True
    inside = np.zeros_like(hole)  # beyond the frame nothing can be seen or not seen
    inside[:, max(3 - row, 0) : 3 + 19 - row, max(3 - column, 0) : 3 + 27 - column] = True
    assert hole[2, 3, 3]
    assert np.array_equal(hole, middle & inside)


@pytest.mark.parametrize("net_type", ["T3XY3", "T5XY5"])
def test_the_authors_other_patterns_do_see_the_voxel_itself(net_type: str) -> None:
    assert not holes(small(net_type), 2, 11, 14, (19, 27)).any()


def test_the_four_space_directions_are_turns_of_one() -> None:
    network, x = small(), noise(1, 10, 16, 24)
    network.get_parameter("output_block.0.weight").data[:, :4] = 0  # those of time
    with torch.no_grad():
        for turns in (1, 2, 3):
            torch.testing.assert_close(network(x.rot90(turns, (2, 3))), network(x).rot90(turns, (2, 3)))


def test_the_order_of_directions_changes_nothing_where_the_authors_draw_it_at_random() -> None:
    case = golden_rule.case(RULE)
    assert DEEPSEMI.from_upstream is not None
    state = case.state_dict()
    shuffled = dict(state)
    blocks = state["output_block.0.weight"].chunk(6, dim=1)
    shuffled["output_block.0.weight"] = torch.cat([blocks[i] for i in (1, 0, 4, 2, 5, 3)], dim=1)
    outputs = {}
    with torch.no_grad():
        for fusion in ("mean", "identity"):
            facts: dict[str, Any] = {"net_type": "T3XY3", "depth": 16, "keep": 4, "fusion": fusion}
            outputs[fusion] = [DEEPSEMI.from_upstream(s, **facts)(movie(case)) for s in (state, shuffled)]
    torch.testing.assert_close(*outputs["mean"])
    assert (outputs["identity"][0] - outputs["identity"][1]).abs().max() > 0.1


def test_frames_of_other_sizes_continue_in_zeros() -> None:
    network, x = small(), noise(1, 10, 19, 27)
    with torch.no_grad():
        whole = network(torch.nn.functional.pad(x, (0, 5, 0, 5)))
        torch.testing.assert_close(network(x), whole[..., :19, :27])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Network_T.encode_block_2.1.bias": None}, "missing.*Network_T.encode_block_2.1.bias"),
        ({"Network_XY.input_block_1.0.weight": None}, "no Network_XY.input_block_1.0.weight"),
        ({"Network_T.norm.weight": torch.zeros(8)}, "unknown.*Network_T.norm.weight"),
        ({"output_block.0.weight": torch.zeros(8, 24, 1, 1, 1)}, r"output_block.0.weight is \(8, 24.*needs \(8, 48"),
    ],
)
def test_another_checkpoint_is_refused_by_the_name_of_the_tensor(
    change: dict[str, Tensor | None], message: str
) -> None:
    assert DEEPSEMI.from_upstream is not None
    state = {**golden_rule.case(RULE).state_dict(), **change}
    with pytest.raises(FileFormatError, match=message):
        DEEPSEMI.from_upstream({name: tensor for name, tensor in state.items() if tensor is not None})


@pytest.mark.parametrize(
    "facts",
    [
        {"depth": 12},
        {"context": 4},
        {"keep": 5},
        {"keep": 34},
        {"net_type": "T2XY1"},
        {"fusion": "shuffle"},
        {"width": 0},
    ],
    ids=str,
)
def test_facts_that_make_no_network_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="DeepSeMi"):
        DEEPSEMI.network(**facts)


class TargetItself(nn.Module):
    """Predicts the frames it was given, so that only a target from elsewhere leaves a loss."""

    def __init__(self, emits: tuple[int, ...]) -> None:
        super().__init__()
        self.emits = list(emits)

    def forward(self, frames: Tensor, heads: bool = False) -> Tensor:
        return frames[:, None, self.emits].expand(-1, 3 if heads else 1, -1, -1, -1)


def test_however_a_clip_is_turned_its_own_middle_frames_are_the_target() -> None:
    network = small()
    task, stub = DEEPSEMI.task(network), TargetItself(network.window.emits)
    clips, chance = noise(4, task.clip_frames, 32, 32), torch.Generator().manual_seed(0)
    for _ in range(5):
        assert task.loss(stub, Batch(clips, torch.ones(4), chance)).total == 0


def test_the_loss_is_l1_and_mse_of_the_network_and_of_both_directions_of_time() -> None:
    network = small()
    task, clips = DEEPSEMI.task(network), torch.zeros(2, 10, 32, 32)
    losses = task.loss(network, Batch(clips, torch.ones(2), torch.Generator()))
    assert set(losses.terms) == {"whole", "past", "future"}
    with torch.no_grad():
        outputs = network(clips, heads=True).unbind(1)
    torch.testing.assert_close(outputs[0], network(clips))
    wanted = sum(float((out.abs() + out.square()).mean()) for out in outputs)
    assert losses.total.item() == pytest.approx(wanted, rel=1e-5)


def test_crops_that_cannot_be_turned_are_refused() -> None:
    network = small()
    batch = Batch(torch.zeros(1, 10, 32, 40), torch.ones(1), torch.Generator())
    with pytest.raises(ConfigError, match="square crops"):
        DEEPSEMI.task(network).loss(network, batch)


def dim_movie(n_frames: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(T, 64, 64) photons, 2 to 10 per pixel, and what they would be without chance."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    t = np.arange(n_frames)[:, None, None]
    cells = np.zeros((n_frames, 64, 64))
    for i, (row, column, size) in enumerate(rng.uniform((8, 8, 10), (56, 56, 40), (8, 3))):
        cells += np.exp(-((y - row) ** 2 + (x - column) ** 2) / size) * (1 + 0.3 * np.sin(0.2 * t + i))
    clean = 2 + 8 * cells / cells.max()
    return rng.poisson(clean).astype(np.float32), clean.astype(np.float32)


def published(name: str) -> Path:
    path = real_movies.FOLDER / "checkpoints" / f"deepsemi_{name}.pth"
    if not path.is_file():
        pytest.skip(f"the authors' checkpoint {path.name} is not in {path.parent}")
    return path


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_authors_checkpoints_halve_the_error_of_a_dim_movie(name: str) -> None:
    """Of bright movies with little noise they do not: they were trained on counts, and their brightness is off."""
    assert DEEPSEMI.from_upstream is not None
    stored = torch.load(published(name), weights_only=True, map_location="cpu")
    state = {key.removeprefix("module."): tensor for key, tensor in stored.items()}
    network = DEEPSEMI.from_upstream(state, net_type=CHECKPOINTS[name], depth=16, keep=8)
    noisy, clean = dim_movie(network.window.size)
    emits = list(network.window.emits)
    with torch.no_grad():
        out = network(torch.from_numpy(noisy)[None])[0].numpy()
    before, after = (np.sqrt(np.mean((frames - clean[emits]) ** 2)) for frames in (noisy[emits], out))
    assert after < 0.5 * before
