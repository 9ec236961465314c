"""DeepInterpolation against numbers made with the authors' network, through the doors everybody uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rtdenoise.checkpoints import read
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from rtdenoise.train import check, movies
from tests import golden_rule
from tests.real_movies import real_movie

DI = base.load("deepinterpolation")
CASES = golden_rule.names("deepinterpolation_")
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 3e-6
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2


def keras(case: golden_rule.Case, first: int = 0) -> dict[str, Tensor]:
    """The case's weights as the authors' files hold them: kernels (Y, X, inputs, outputs), layers numbered on from
    `first`.
    """
    named = {}
    for i, (_, tensor) in enumerate(case.state_dict().items()):
        layer = f"conv2d_{first + i // 2}" if first + i // 2 else "conv2d"
        stored = tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor
        named[f"{layer}/{'bias' if i % 2 else 'kernel'}:0"] = stored
    return named


def imported(case: golden_rule.Case, first: int = 0, **facts: int) -> Network:
    assert DI.from_upstream is not None
    return DI.from_upstream(keras(case, first), **facts)


def window(case: golden_rule.Case) -> Tensor:
    """The case's 60 frames with a frame of nonsense where the unseen one is."""
    neighbours = torch.from_numpy(golden_rule.frames(tuple(case.meta["input_shape"][0]), case.meta["phase"]))
    np.testing.assert_allclose(neighbours.flatten()[:8], case.arrays["in_first"][0], rtol=1e-6)
    unseen = torch.full_like(neighbours[:, :1], 1e6)
    return torch.cat([neighbours[:, :30], unseen, neighbours[:, 30:]], 1)


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    network = imported(case)
    assert sum(p.numel() for p in network.parameters()) == case.meta["params_total"]
    assert network.window == WindowSpec(61, (30,))
    with torch.no_grad():
        gap = network(window(case)).numpy() - case.arrays["out"]
    assert np.abs(gap).max() / case.arrays["out"].std() < FP32


def test_the_output_depends_on_the_pixels_it_should_and_never_on_its_own_frame() -> None:
    case = golden_rule.case("deepinterpolation_60ch_48x64")
    x = window(case).requires_grad_()
    row, column = x.shape[2] // 2, x.shape[3] // 2
    (gradient,) = torch.autograd.grad(imported(case)(x)[0, 0, row, column], x)
    near, wanted = gradient[0, :, row - 4 : row + 5, column - 4 : column + 5], case.arrays["jac0"][0]
    seen = torch.cat([near[:30], near[31:]]).numpy()
    assert np.abs(seen - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert torch.count_nonzero(gradient[0, 30]) == 0


def test_half_precision_stays_close() -> None:
    case = golden_rule.case("deepinterpolation_b2_32x16")
    x = window(case).clamp(max=10).half()
    with torch.no_grad():
        gap = imported(case).half()(x).float().numpy() - case.arrays["out"]
    assert np.abs(gap).max() / case.arrays["out"].std() < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / case.arrays["out"].std() < FP16_RMS


def test_layers_count_in_order_and_not_by_their_numbers() -> None:
    case = golden_rule.case("deepinterpolation_b2_32x16")
    with torch.no_grad():
        torch.testing.assert_close(imported(case, first=96)(window(case)), imported(case)(window(case)))


def test_frames_of_a_checkpoint_may_be_dealt_to_before_and_after() -> None:
    case = golden_rule.case("deepinterpolation_b2_32x16")
    network = imported(case, pre=60)
    assert network.window == WindowSpec(61, (60,))  # no look-ahead
    network = imported(case, omission=1)
    assert network.window == WindowSpec(63, (31,))
    assert network.unseen == (30, 31, 32)
    with pytest.raises(FileFormatError, match=r"sees 60 frames, not 10 \+ 10"):
        imported(case, pre=10, post=10)


def test_a_network_of_another_form_is_told_from_its_shapes() -> None:
    """One pooling, two convolutions below it, and a readout of 3 x 3 that merges the only skip."""
    assert DI.from_upstream is not None
    tensors = read(real_movie("checkpoints/astrocast_2p_invivo_input_size_64_64.h5")).tensors
    network = DI.from_upstream(tensors)
    assert network.window == WindowSpec(11, (5,))
    assert sum(p.numel() for p in network.parameters()) == 59_201
    x = torch.randn(1, 11, 16, 16, generator=torch.Generator().manual_seed(0))
    kernels = [t.permute(3, 2, 0, 1) if t.ndim == 4 else t for t in tensors.values()]
    y = torch.cat([x[:, :5], x[:, 6:]], 1)
    with torch.no_grad():
        skip = functional.relu(functional.conv2d(y, *kernels[0:2], padding=1))
        y = functional.relu(functional.conv2d(functional.max_pool2d(skip, 2), *kernels[2:4], padding=1))
        y = (
            functional.relu(functional.conv2d(y, *kernels[4:6], padding=1))
            .repeat_interleave(2, -1)
            .repeat_interleave(2, -2)
        )
        y = functional.conv2d(torch.cat([y, skip], 1), *kernels[6:8], padding=1)
        torch.testing.assert_close(network(x), y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_normalization/gamma:0": torch.ones(64)}, "unknown tensor batch_normalization/gamma:0"),
        ({"conv2d_3/bias:0": None}, "conv2d_3/bias:0 is missing"),
        ({"conv2d_3/bias:0": torch.zeros(7)}, r"conv2d_3/bias:0 is \(7,\).* needs \(512,\)"),
        ({"conv2d_2/kernel:0": torch.zeros(5, 5, 128, 256)}, r"conv2d_2/kernel:0 is \(256, 128, 5, 5\)"),
        ({"conv2d_4/kernel:0": torch.zeros(9)}, r"conv2d_4/kernel:0 is \(9,\)"),
        ({"conv2d_9/kernel:0": torch.zeros(1, 1, 64, 3)}, "no U-Net"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(change: dict[str, Tensor | None], message: str) -> None:
    state = keras(golden_rule.case("deepinterpolation_b2_32x16")) | change
    assert DI.from_upstream is not None
    with pytest.raises(FileFormatError, match=message):
        DI.from_upstream({name: tensor for name, tensor in state.items() if tensor is not None})


class Repeats(Network):
    """Gives the frame before the one it should predict."""

    window = WindowSpec(61, (30,))

    def forward(self, frames: Tensor) -> Tensor:
        return frames[:, 29:30]


@pytest.mark.parametrize(("error", "wanted"), [("mae", 3.0), ("mse", 9.0)])
def test_the_target_is_the_noisy_frame_itself(error: str, wanted: float) -> None:
    clips = torch.zeros(2, 61, 16, 16)
    clips[:, 30] = 3
    network = Repeats()
    losses = DI.task(network, error=error).loss(network, Batch(clips, torch.ones(2), torch.Generator()))
    assert losses.total.item() == wanted


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got 0 \+ 0"):
        DI.network(pre=0, post=0)
    with pytest.raises(ConfigError, match="3 up-samplings to 1 poolings"):
        DI.network(down="8", bottom="8", up="8 8 8")
    with pytest.raises(ConfigError, match="positive numbers, like"):
        DI.network(down="8 x")
    with pytest.raises(ConfigError, match="`mae` or `mse`, not 'l3'"):
        DI.task(Repeats(), error="l3")


def test_the_gain_of_a_validation_counts_only_frames_with_all_their_neighbours() -> None:
    clean = np.zeros((8, 16, 16), np.float32)
    noisy = np.random.default_rng(0).normal(0, 1, clean.shape).astype(np.float32)
    movie = movies.of_counts("noise", noisy, clean)
    network = DI.network(pre=2, post=2, down="4", bottom="4", up="4")
    output = check.denoised(DI, network, movie)
    (gain,) = check.gains(DI, network, [movie]).values()
    assert gain == pytest.approx(10 * np.log10(np.square(noisy[2:6]).mean() / np.square(output[2:6]).mean()), abs=1e-3)
