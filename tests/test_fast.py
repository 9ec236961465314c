"""FAST against numbers made with the authors' networks, through the doors everybody uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from rtdenoise.methods.fast.task import Draw, FastTask, deal, loss_terms
from rtdenoise.nn.sampling import pairs_per_frame, view
from tests import golden_rule

FAST = base.load("fast")
CASES = [name for name in golden_rule.names("fast_") if "train" not in name]
RULE = "fast_c4_40x48"  # the pipeline cases fill their weights as this one does
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 2e-5
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2


def imported(case: golden_rule.Case, **facts: float) -> Network:
    assert FAST.from_upstream is not None
    return FAST.from_upstream(case.state_dict(), **facts)


def error(mine: torch.Tensor, case: golden_rule.Case) -> float:
    wanted = case.arrays["out"]
    return float(np.abs(mine.detach().numpy() - wanted).max() / wanted.std())


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    network = imported(case)
    x = torch.from_numpy(golden_rule.frames(tuple(case.meta["input_shape"][0]), case.meta["phase"]))
    np.testing.assert_allclose(x.flatten()[:8], case.arrays["in_first"][0], rtol=1e-6)
    with torch.no_grad():
        assert error(network(x), case) < FP32


@pytest.mark.parametrize("name", [name for name in CASES if "_b2_" not in name])
def test_every_output_depends_on_the_pixels_it_should(name: str) -> None:
    case = golden_rule.case(name)
    network = imported(case)
    x = torch.from_numpy(golden_rule.frames(tuple(case.meta["input_shape"][0]), case.meta["phase"])).requires_grad_()
    y, wanted = network(x), case.arrays["jac0"]
    row, column, reach = x.shape[2] // 2, x.shape[3] // 2, wanted.shape[-1] // 2
    for k in range(len(wanted)):
        (gradient,) = torch.autograd.grad(y[0, k, row, column], x, retain_graph=True)
        padded = torch.nn.functional.pad(gradient[0], [reach] * 4)
        near = padded[:, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
        assert np.abs(near.numpy() - wanted[k]).max() <= 1e-4 * np.abs(wanted).max()
        totals, frame_totals = gradient[0].abs().sum((1, 2)), case.arrays["frame_grad0"][k]
        np.testing.assert_allclose(totals.numpy(), frame_totals, rtol=2e-3)


def test_training_mode_gives_the_authors_output_and_statistics() -> None:
    case = golden_rule.case("fast_c4_train_40x48")
    network = imported(case).train()
    x = torch.from_numpy(golden_rule.frames(tuple(case.meta["input_shape"][0])))
    assert error(network(x), case) < FP32
    after = network.state_dict()
    mine = np.concatenate([after[str(key)].numpy().ravel() for key in case.arrays["bn_after_keys"]])
    np.testing.assert_allclose(mine, case.arrays["bn_after"], atol=1e-5)


def test_half_precision_stays_close_for_weights_trained_on_large_counts() -> None:
    case, counts = golden_rule.case("fast_c4_40x48"), 3000.0
    state = case.state_dict()
    state["encoders.0.basic_module.SingleConv1.batchnorm.running_mean"] *= counts
    state["encoders.0.basic_module.SingleConv1.batchnorm.running_var"] *= counts**2
    state["final_conv.weight"] *= counts
    state["final_conv.bias"] *= counts
    assert FAST.from_upstream is not None
    window = FAST.from_upstream(state, scale=counts).deploy().graphs["window"].half()
    with torch.no_grad():
        out = window(torch.from_numpy(golden_rule.frames((1, 4, 40, 48))).half()).float().numpy()
    gap, spread = out - case.arrays["out"], case.arrays["out"].std()
    assert np.abs(gap).max() / spread < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / spread < FP16_RMS


def test_weights_trained_on_counts_serve_normalised_frames_exactly() -> None:
    case = golden_rule.case("fast_c4_40x48")
    x = torch.from_numpy(golden_rule.frames((1, 4, 40, 48), raw=True)) - 100
    with torch.no_grad():
        in_counts = imported(case)(x)
        normalised = imported(case, scale=64.0)(x / 64.0)
    torch.testing.assert_close(normalised * 64.0, in_counts, rtol=1e-5, atol=1e-3)


def halved(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n windows, C, Y, X) -> (n + C - 1, Y, X): the first window writes, each later one replaces by the mean of old
    and new.
    """
    n, c, *size = windows.shape
    merged = np.zeros((n + c - 1, *size), np.float32)
    merged[:c] = windows[0]
    for j in range(1, n):
        merged[j : j + c - 1] = (merged[j : j + c - 1] + windows[j, :-1]) / 2
        merged[j + c - 1] = windows[j, -1]
    return merged


def test_a_movie_merges_as_the_authors_merge_it() -> None:
    case = golden_rule.case("movie_fast_c4")
    n, frames = case.meta["N"], case.meta["C"]
    raw = golden_rule.frames((1, n, *case.meta["shape"][1:]), raw=True)[0]
    x = torch.from_numpy((raw - raw.mean()) / 30)
    network = imported(golden_rule.case(RULE))
    with torch.no_grad():
        windows = np.stack([network(x[None, j : j + frames])[0].numpy() for j in range(n - frames + 1)])
    spread = case.arrays["merged"].std()
    assert np.abs(halved(windows) - case.arrays["merged"]).max() / spread < 1e-4
    assert np.abs(windows[:, -1] - case.arrays["causal"]).max() / spread < 1e-4


def test_sampler_deals_the_authors_pixels() -> None:
    case = golden_rule.case("sampler_fast")
    shape = tuple(case.meta["shape"])
    pairs = pairs_per_frame(shape[1], (shape[2] // 2, shape[3] // 2), case.meta["counter"])
    assert np.array_equal(pairs.flatten(1).numpy(), case.arrays["pair_index"])
    first = view(torch.from_numpy(golden_rule.frames(shape)), pairs, 0)[0]
    second = view(torch.from_numpy(golden_rule.frames(shape, k0=1)), pairs, 1)[0]
    assert np.array_equal(first.numpy(), case.arrays["sub1"])
    assert np.array_equal(second.numpy(), case.arrays["sub2"])


def test_one_training_step_is_the_authors_step() -> None:
    case = golden_rule.case("trainstep_fast")
    shape = tuple(case.meta["shape"])
    network = imported(golden_rule.case(RULE)).double().train()
    inputs, targets = (torch.from_numpy(golden_rule.frames(shape, k0=k)).double() for k in (0, 1))
    pairs = pairs_per_frame(shape[1], (shape[2] // 2, shape[3] // 2), case.meta["counter"])[None]
    draw = Draw(pairs, torch.from_numpy(case.arrays["crops"]))
    losses = loss_terms(network, inputs, targets, draw, torch.ones(1, dtype=torch.float64))
    optimizer = FAST.task(network).optimizer(network, 1e-4, 1.0)
    losses.total.backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    optimizer.step()
    mine = sorted([losses.total.item(), *losses.terms.values()])
    np.testing.assert_allclose(mine, sorted(case.arrays["losses"]), rtol=1e-6)
    for key, (total, squares) in zip(case.arrays["grad_keys"], case.arrays["grad_sum_sumsq"], strict=True):
        gradient = gradients[str(key)]
        np.testing.assert_allclose([gradient.sum(), gradient.square().sum()], [total, squares], rtol=1e-6, atol=1e-12)
    after = dict(network.named_parameters())
    np.testing.assert_allclose(after["final_conv.bias"].detach(), case.arrays["final_bias_after"], rtol=1e-6)
    sums = [float(after[str(key)].detach().sum()) for key in case.arrays["grad_keys"]]
    np.testing.assert_allclose(sums, case.arrays["param_sum_after"], rtol=1e-6, atol=1e-9)


def test_input_and_target_are_always_adjacent_frames() -> None:
    clips = torch.arange(5.0).reshape(1, 5, 1, 1).expand(64, 5, 2, 2)
    inputs, targets = deal(clips, torch.Generator().manual_seed(0))
    assert torch.equal((inputs - targets).abs(), torch.ones_like(inputs))
    assert {float(v) for v in (inputs - targets).flatten()} == {-1.0, 1.0}


class SumOfFrames(Network):
    """Every output is the sum of the input frames; `power` is the mean square of what it gave for the first, small
    view.
    """

    window = WindowSpec(4, range(4))
    power = 0.0

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        total = frames.sum(1, keepdim=True).expand_as(frames)
        self.power = self.power or total.square().mean().item()
        return total


def leak(pattern: str) -> float:
    """Covariance of target noise and the sum of the inputs, for movies of nothing but noise of variance 1."""
    clips = torch.randn(16, 5, 64, 64, generator=torch.Generator().manual_seed(0))
    network = SumOfFrames()
    chance = torch.Generator().manual_seed(1)
    losses = FAST.task(network, pattern=pattern).loss(network, Batch(clips, torch.ones(16), chance))
    return (network.power + 1 - losses.terms["noise2noise"]) / 2


def test_the_noise_of_a_target_is_never_in_its_input() -> None:
    assert abs(leak("window")) < 0.05
    assert leak("frame") > 0.1  # as published; the test would see a leak if there were one


def test_an_unknown_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="by `window` or by `frame`, not by 'movie'"):
        FastTask(FAST.network(), "movie")  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", [4, 8, 16, 32])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_the_parts_that_run_apart_add_up_to_the_network(frames: int, groups: int) -> None:
    torch.manual_seed(frames)
    network = FAST.network(frames=frames)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.5, 0.5)
            module.bias.data.uniform_(-0.5, 0.5)
    x = torch.randn(1, frames, 21, 30)
    deployed = network.eval().deploy(groups_per_branch=groups)
    with torch.no_grad():
        wanted = network(x)
        older = deployed.graphs["older"](x[:, : -deployed.newest_frames])
        together = deployed.graphs["newest"](x[:, -deployed.newest_frames :], older)
        whole = deployed.graphs["window"](x)
    torch.testing.assert_close(together, wanted, rtol=0, atol=1e-5 * float(wanted.std()))
    torch.testing.assert_close(whole, wanted, rtol=0, atol=1e-5 * float(wanted.std()))


@pytest.mark.parametrize("frames", [1, 3, 6, 64])
def test_a_number_of_frames_without_a_published_network_is_refused(frames: int) -> None:
    with pytest.raises(ConfigError, match="frames"):
        FAST.network(frames=frames)


def test_a_foreign_checkpoint_is_refused_by_name() -> None:
    good = golden_rule.case(RULE).state_dict()
    assert FAST.from_upstream is not None
    with pytest.raises(FileFormatError, match=r"missing.*encoders\.0"):
        FAST.from_upstream({k: v for k, v in good.items() if not k.startswith("encoders.0")})
    with pytest.raises(FileFormatError, match="extra"):
        FAST.from_upstream({**good, "extra": torch.zeros(1)})
    with pytest.raises(FileFormatError, match="trained on 4 frames, not 8"):
        FAST.from_upstream(good, frames=8)


@pytest.mark.parametrize("side", [38, 41])
def test_a_crop_that_cannot_be_dealt_is_refused(side: int) -> None:
    network = FAST.network()
    task = FastTask(network)
    with pytest.raises(ConfigError, match="even crops of at least 40 px"):
        task.loss(network, Batch(torch.zeros(1, 5, side, side), torch.ones(1), torch.Generator()))
