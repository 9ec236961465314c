"""UDVD against numbers made with the authors' network, through the doors everybody uses."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from rtdenoise.errors import FileFormatError
from rtdenoise.export.to_onnx import to_onnx
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from rtdenoise.methods.udvd import UdvdNetwork
from rtdenoise.methods.udvd.halfplane import LEFT, UP, beyond
from tests import golden_rule

UDVD = base.load("udvd")
CASES = golden_rule.names("udvd_")
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 9e-6
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2


def imported(case: golden_rule.Case) -> UdvdNetwork:
    assert UDVD.from_upstream is not None
    network = UDVD.from_upstream(case.state_dict())
    assert isinstance(network, UdvdNetwork)
    return network


def input_of(case: golden_rule.Case) -> torch.Tensor:
    return torch.from_numpy(golden_rule.frames(tuple(case.meta["input_shape"][0]), case.meta["phase"]))


def everything(network: UdvdNetwork, frames: torch.Tensor) -> torch.Tensor:
    """All outputs as the authors compute them: mirrored out to a square first, cut back afterwards."""
    height, width = frames.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = torch.nn.functional.pad(frames, (left, side - width - left, top, side - height - top), mode="reflect")
    features = torch.cat([network.encode(square[:, i : i + 3]) for i in range(3)], 1)
    return network.predict(features)[..., top : top + height, left : left + width]


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output_and_its_dependence_on_every_pixel(name: str) -> None:
    case = golden_rule.case(name)
    network, x = imported(case), input_of(case).requires_grad_()
    np.testing.assert_allclose(x.detach().flatten()[:8], case.arrays["in_first"][0], rtol=1e-6)
    y, wanted = everything(network, x), case.arrays["jac0"]
    assert np.abs(y.detach().numpy() - case.arrays["out"]).max() < FP32 * case.arrays["out"].std()
    row, column = x.shape[2] // 2, x.shape[3] // 2
    for k in range(len(wanted)):
        (gradient,) = torch.autograd.grad(y[0, k, row, column], x, retain_graph=True)
        near = gradient[0, :, row - 4 : row + 5, column - 4 : column + 5].numpy()
        assert np.abs(near - wanted[k]).max() <= 1e-4 * np.abs(wanted).max()
        assert not near[:, 4, 4].any()
        totals = gradient[0].abs().sum((1, 2))
        np.testing.assert_allclose(totals.numpy(), case.arrays["frame_grad0"][k], rtol=2e-3)


def test_no_frame_of_the_window_shows_a_pixel_to_itself_in_a_frame_that_is_not_square() -> None:
    torch.manual_seed(0)
    network = UDVD.network(**UDVD.narrow)
    x = torch.randn(1, 5, 27, 38).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 0, 13, 20], x)
    assert not gradient[0, :, 13, 20].any()
    assert (gradient[0, :, 12:15, 19:22] != 0).sum() == 5 * 8


def test_a_network_for_gaussian_noise_gives_its_mean() -> None:
    case = golden_rule.case("udvd_c1o2_odd_31x31")
    with torch.no_grad():
        mean = imported(case)(input_of(case)).numpy()
    assert np.abs(mean - case.arrays["out"][:, :1]).max() < FP32 * case.arrays["out"].std()


def test_a_turned_movie_gives_the_turned_output() -> None:
    """With one and the same kernel in all four directions and a readout that treats them alike."""
    torch.manual_seed(0)
    network = UDVD.network(**UDVD.narrow)
    first = network.get_parameter("readout.0.weight").data
    first.copy_(first.reshape(32, 4, 8, 1, 1).mean(1, keepdim=True).expand(-1, 4, -1, -1, -1).reshape_as(first))
    x = torch.randn(1, 5, 25, 34)
    with torch.no_grad():
        torch.testing.assert_close(network(x.rot90(1, (2, 3))), network(x).rot90(1, (2, 3)))


def test_what_runs_live_makes_no_kernel_and_turns_no_frame() -> None:
    network = UDVD.network(**UDVD.narrow).deploy().graphs["window"]
    with torch.no_grad():
        graph = make_fx(network)(torch.zeros(1, 5, 16, 20)).graph
    convs = [node for node in graph.nodes if node.target is torch.ops.aten.convolution.default]
    assert len(convs) == 2 * 2 * 17 + 3  # two stages, upwards and to the left
    assert all(node.args[1].op == "get_attr" for node in convs)
    assert not [node for node in graph.nodes if "transpose" in str(node.target) or "rot90" in str(node.target)]


class MovedAndPooled(torch.nn.Module):
    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.max_pool2d(beyond(frames, self.axis), 2)


@pytest.mark.parametrize("axis", [UP, LEFT])
def test_the_row_of_zeros_counts_where_it_is_pooled(axis: int) -> None:
    """ONNX Runtime turned a zero padding before a pooling into the pooling's own, which is of minus infinity."""
    session = onnxruntime.InferenceSession(to_onnx(MovedAndPooled(axis), {"frames": 1}, "pooled"))
    x = -torch.rand(1, 1, 9, 12, generator=torch.Generator().manual_seed(0))
    pooled = session.run(None, {"frames": x.numpy()})[0]
    assert np.array_equal(pooled, MovedAndPooled(axis)(x).numpy())
    assert not (pooled[..., 0, :] if axis == UP else pooled[..., 0]).any()


def test_half_precision_stays_close() -> None:
    """Of a narrow network: processors without FP16 take minutes for the published one."""
    torch.manual_seed(0)
    network = UDVD.network(**UDVD.narrow)
    x = torch.from_numpy(golden_rule.frames((1, 5, 24, 26)))
    with torch.no_grad():
        wanted = network(x).numpy()
        out = network.deploy().graphs["window"].half()(x.half()).float().numpy()
    gap, spread = out - wanted, wanted.std()
    assert np.abs(gap).max() / spread < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / spread < FP16_RMS


class OffByTwo(Network):
    """Gives the frame that it should predict, less 2, and remembers what it was shown."""

    window = UDVD.network(**UDVD.narrow).window

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        self.shown = frames
        return frames[:, 2:3] - 2.0


def test_the_loss_is_half_the_summed_squared_error_of_a_clip() -> None:
    clips = torch.randn(3, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = UDVD.task(network := OffByTwo()).loss(
        network, Batch(clips, torch.ones(3), torch.Generator().manual_seed(1))
    )
    assert losses.total.item() == pytest.approx(64 * 4 / 2, rel=1e-5)


def test_clips_are_mirrored_and_reversed_in_time() -> None:
    network, clips = OffByTwo(), torch.arange(5 * 16.0).reshape(1, 5, 4, 4).expand(80, 5, 4, 4)
    UDVD.task(network).loss(network, Batch(clips, torch.ones(80), torch.Generator().manual_seed(0)))
    assert len({tuple(clip.flatten().tolist()) for clip in network.shown}) == 8


def test_the_learning_rate_is_halved_three_times() -> None:
    schedule = UDVD.task(UDVD.network(**UDVD.narrow)).schedule
    assert [schedule(epoch / 40) for epoch in (0, 19, 20, 24, 25, 29, 30, 39)] == [
        1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125
    ]  # fmt: skip


def test_a_foreign_checkpoint_is_refused_by_name() -> None:
    assert UDVD.from_upstream is not None
    good = golden_rule.case("udvd_c1o1_40x40").state_dict()
    with pytest.raises(FileFormatError, match=r"no denoiser_2\.dec2\.conv3\.conv\.weight"):
        UDVD.from_upstream({k: v for k, v in good.items() if k != "denoiser_2.dec2.conv3.conv.weight"})
    with pytest.raises(FileFormatError, match=r"unknown \['sigma_net"):
        UDVD.from_upstream({**good, "sigma_net.enc1.conv1.weight": torch.zeros(1)})
    with pytest.raises(FileFormatError, match=r"enc1\.conv1\.conv\.weight is \(48, 9, 3, 3\)"):
        UDVD.from_upstream({**good, "denoiser_1.enc1.conv1.conv.weight": torch.zeros(48, 9, 3, 3)})
