"""DeepVID v2 against numbers made with the authors' network, and its mean image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch
from rtdenoise.methods.deepvidv2 import DeepVidV2Network, EdgeMaps
from tests import golden_rule

V2 = base.load("deepvidv2")
CASES = [name for name in golden_rule.names("deepvidv2_") if "train" not in name]
FP32 = 2e-4  # of the output's sd
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2


def imported(state: dict[str, Tensor], **facts: int) -> DeepVidV2Network:
    assert V2.from_upstream is not None
    network = V2.from_upstream(state, **facts)
    assert isinstance(network, DeepVidV2Network)
    return network


def channels(case: golden_rule.Case) -> Tensor:
    """Seven frames, neighbours first, and four maps: what the authors' network itself takes."""
    return torch.from_numpy(golden_rule.frames(tuple(case.meta["input_shape"][0]), case.meta["phase"]))


def error(mine: Tensor, case: golden_rule.Case) -> float:
    wanted = case.arrays["out"]
    return float(np.abs(mine.detach().numpy() - wanted).max() / wanted.std())


def movie(n_frames: int, *size: int, seed: int = 0) -> Tensor:
    return torch.randn(1, n_frames, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    with torch.no_grad():
        assert error(imported(case.state_dict()).core(channels(case)), case) < FP32


def test_the_output_depends_on_each_channel_as_the_authors_does() -> None:
    case = golden_rule.case("deepvidv2_40x48")
    x = channels(case).requires_grad_()
    (gradient,) = torch.autograd.grad(imported(case.state_dict()).core(x)[0, 0, 20, 24], x)
    wanted = case.arrays["jac0"][0]
    assert np.abs(gradient[0, :, 16:25, 20:29].numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(gradient[0].abs().sum((1, 2)).numpy(), case.arrays["frame_grad0"][0], rtol=2e-3)


def test_training_mode_gives_the_authors_output_and_statistics() -> None:
    case = golden_rule.case("deepvidv2_train_b2_24x28")
    core = imported(case.state_dict()).core.train()
    assert error(core(channels(case)), case) < FP32
    after = core.state_dict()
    mine = np.concatenate([after[str(key)].numpy().ravel() for key in case.arrays["bn_after_keys"]])
    np.testing.assert_allclose(mine, case.arrays["bn_after"], atol=1e-5)


@pytest.mark.parametrize("n_frames", [1, 5])
def test_edges_are_the_authors_edges_of_the_mean_image(n_frames: int) -> None:
    case = golden_rule.case("edges_deepvidv2")
    image = torch.from_numpy(golden_rule.frames(tuple(case.meta["shape"]), case.meta["phase"]))
    swing = torch.linspace(-3, 3, n_frames)[None, :, None, None] if n_frames > 1 else 0.0
    maps = EdgeMaps()(image + swing)
    np.testing.assert_allclose(maps[0].numpy(), case.arrays["edges"], atol=1e-5)


def test_the_window_is_the_authors_input_put_together() -> None:
    case = golden_rule.case("deepvidv2_40x48")
    network, frames = imported(case.state_dict(), prior=20), movie(20, 12, 16)
    assert network.window.lookahead == 3
    near = frames[:, [13, 14, 15, 17, 18, 19, 16]]
    with torch.no_grad():
        wanted = network.core(torch.cat([near, EdgeMaps()(frames)], 1))
        torch.testing.assert_close(network(frames), wanted)


def test_older_frames_reach_the_output_through_their_mean_alone() -> None:
    torch.manual_seed(0)
    network, frames = V2.network(**V2.narrow).eval(), movie(61, 32, 40)
    shuffled = frames[:, [*reversed(range(54)), *range(54, 61)]]
    with torch.no_grad():
        torch.testing.assert_close(network(shuffled), network(frames), rtol=0, atol=1e-5)
        assert (network(frames.roll(1, 1)) - network(frames)).abs().max() > 1e-3


def test_a_flat_movie_gives_numbers() -> None:
    with torch.no_grad():
        assert torch.isfinite(V2.network(**V2.narrow).eval()(torch.full((1, 61, 16, 16), 3.0))).all()


def test_half_precision_stays_close() -> None:
    case = golden_rule.case("deepvidv2_40x48")
    core = imported(case.state_dict()).core.half()
    with torch.no_grad():
        gap = core(channels(case)[..., :24, :24].half()).float()
        gap = gap[0, 0, :12, :12].numpy() - case.arrays["out"][0, 0, :12, :12]  # 12 px from where the crop shows
    assert np.abs(gap).max() / case.arrays["out"].std() < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / case.arrays["out"].std() < FP16_RMS


def test_half_precision_keeps_the_edges_under_a_bright_background() -> None:
    pattern = torch.from_numpy(golden_rule.frames((1, 1, 160, 200)))
    frames = (movie(61, 160, 200) + pattern + 8).half()
    maps = EdgeMaps().half()(frames)
    assert maps.dtype == torch.float16
    assert (maps.float() - EdgeMaps()(frames.float())).abs().max() < 5e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.2.model.1.conv.bias": None}, "missing .'model.2.model.1.conv.bias'."),
        ({"model.0.extra": torch.zeros(1)}, "unknown .'model.0.extra'."),
        ({"model.1.model.0.norm.weight": torch.zeros(3)}, r"model.1.model.0.norm.weight is \(3,\), .* \(64,\)"),
        ({"in_block.conv.weight": torch.zeros(64, 8, 3, 3)}, "takes 8 maps"),
        ({"in_block.conv.weight": None}, "no in_block.conv.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_tensor(change: dict[str, Tensor | None], message: str) -> None:
    state = golden_rule.case("deepvidv2_40x48").state_dict() | change
    with pytest.raises(FileFormatError, match=message):
        imported({name: tensor for name, tensor in state.items() if tensor is not None})


def test_another_width_depth_and_window_are_read_from_the_weights() -> None:
    network = V2.network(frames=5, prior=9, features=6, blocks=2)
    again = imported(network.core.state_dict(), prior=9)
    assert again.facts == network.facts


def test_the_penalty_is_the_published_sum_over_all_convolutions() -> None:
    network = V2.network(features=4, blocks=1, prior=7)
    losses = V2.task(network).loss(network, Batch(movie(7, 32, 32), torch.ones(1), torch.Generator().manual_seed(1)))
    convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    numbers = torch.cat([p.flatten() for conv in convs for p in conv.parameters()])
    wanted = 0.01 * (numbers.abs().sum() + numbers.square().sum()).item()
    assert losses.terms["penalty"] == pytest.approx(wanted, rel=1e-5)


def test_a_crop_of_which_the_ratio_is_no_pixel_is_too_small() -> None:
    network = V2.network(**V2.narrow)
    assert V2.task(network).min_crop == 15  # 0.005 of 14 x 14 is less than one
    with pytest.raises(ConfigError, match=r"ratio in 0\.\.1"):
        V2.task(network, ratio=1.5)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 6 of 61"):
        V2.network(frames=6)
    with pytest.raises(ConfigError, match="got 7 of 5"):
        V2.network(prior=5)
