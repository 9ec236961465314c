"""SUPPORT against numbers made with the authors' network, through the doors everybody uses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.export.to_onnx import to_onnx
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from tests import golden_rule

SUPPORT = base.load("support")
CASES = golden_rule.names("support_")
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 8e-6
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2


def imported(case: golden_rule.Case) -> Network:
    """The case's weights; larger holes than one pixel are not in the file."""
    assert SUPPORT.from_upstream is not None
    hole = case.meta["config"]["bs_size"]
    facts = {"hole_y": hole[0], "hole_x": hole[1]} if hole != [1, 1] else {}
    return SUPPORT.from_upstream(case.state_dict(), **facts)


def input_of(case: golden_rule.Case) -> torch.Tensor:
    return torch.from_numpy(golden_rule.frames(tuple(case.meta["input_shape"][0]), case.meta["phase"]))


def error(mine: torch.Tensor, case: golden_rule.Case) -> float:
    wanted = case.arrays["out"]
    return float(np.abs(mine.detach().numpy() - wanted).max() / wanted.std())


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output_and_its_dependence_on_every_pixel(name: str) -> None:
    case = golden_rule.case(name)
    network, x = imported(case), input_of(case).requires_grad_()
    np.testing.assert_allclose(x.detach().flatten()[:8], case.arrays["in_first"][0], rtol=1e-6)
    y, wanted = network(x), case.arrays["jac0"][0]
    assert error(y, case) < FP32
    row, column = x.shape[2] // 2, x.shape[3] // 2
    (gradient,) = torch.autograd.grad(y[0, 0, row, column], x)
    near = gradient[0, :, row - 4 : row + 5, column - 4 : column + 5].numpy()
    assert np.abs(near - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.array_equal(near == 0, wanted == 0)
    totals = gradient[0].abs().sum((1, 2))
    np.testing.assert_allclose(totals.numpy(), case.arrays["frame_grad0"][0], rtol=2e-3)


@pytest.mark.parametrize(("hole_y", "hole_x"), [(1, 1), (3, 3), (1, 3), (5, 3)])
def test_the_hole_hides_its_pixels_and_no_others(hole_y: int, hole_x: int) -> None:
    torch.manual_seed(0)
    network = SUPPORT.network(**SUPPORT.narrow, hole_y=hole_y, hole_x=hole_x)
    x = torch.randn(1, 61, 32, 32).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 0, 16, 16], x)
    hidden = (gradient[0, 30, 11:22, 11:22] == 0).nonzero() - 5
    assert len(hidden) == hole_y * hole_x
    assert hidden.abs().amax(0).tolist() == [hole_y // 2, hole_x // 2]


def test_a_hidden_plane_leaves_no_pixel_of_its_own_frame() -> None:
    network = SUPPORT.network(**SUPPORT.narrow, plane=True)
    x = torch.randn(1, 61, 20, 20, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, 30] = 7
    with torch.no_grad():
        assert torch.equal(network(x), network(other))


@pytest.mark.parametrize("lookahead", [0, 4])
def test_the_predicted_frame_may_be_any_of_the_window(lookahead: int) -> None:
    network = SUPPORT.network(frames=9, first=8, most=8, blind_channels=8, lookahead=lookahead)
    assert network.window.lookahead == lookahead
    x = torch.randn(1, 9, 24, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 0, 12, 12], x)
    own = gradient[0, 8 - lookahead]
    assert own[12, 12] == 0
    assert own[12, 13] != 0


def test_what_runs_live_is_made_of_ordinary_convolutions() -> None:
    network = SUPPORT.network(frames=7, first=8, most=8, blind_channels=8, hole_x=3)
    graph = onnx.load_from_string(to_onnx(network.deploy().graphs["window"], {"frames": 7}, "denoised")).graph
    made = {name for node in graph.node for name in node.output}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convs) == 5 + 4 + 2 + 8 + 2 + 2 + 4
    assert not any(set(node.input[1:]) & made for node in convs)  # every kernel is a constant
    assert not {node.op_type for node in graph.node} & {"Transpose", "Pad", "ScatterND"}


def test_half_precision_stays_close() -> None:
    case = golden_rule.case("support_61f_bs3_40x48")
    half = imported(case).deploy().graphs["window"].half()
    with torch.no_grad():
        out = half(input_of(case).half()).float().numpy()
    gap, spread = out - case.arrays["out"], case.arrays["out"].std()
    assert np.abs(gap).max() / spread < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / spread < FP16_RMS


class OwnFrame(Network):
    """Gives back the frame that it should predict."""

    window = SUPPORT.network(frames=3, first=8).window
    facts = {"hole_y": 1, "hole_x": 1}

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames[:, 1:2] - 2.0


def test_the_loss_is_half_absolute_and_half_squared_error_of_the_noisy_frame() -> None:
    network = OwnFrame()
    clips = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    losses = SUPPORT.task(network).loss(network, Batch(clips, torch.ones(2), torch.Generator().manual_seed(1)))
    assert losses.total.item() == pytest.approx(0.5 * 2 + 0.5 * 4, rel=1e-5)


class Keep(OwnFrame):
    """Remembers what it was shown."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        self.shown = frames
        return frames[:, 1:2]


@pytest.mark.parametrize(("hole_x", "orientations"), [(1, 8), (3, 4)])
def test_clips_turn_by_quarters_unless_the_hole_is_oblong(hole_x: int, orientations: int) -> None:
    network, chance = Keep(), torch.Generator().manual_seed(0)
    network.facts = {"hole_y": 1, "hole_x": hole_x}
    clips = torch.arange(16.0).reshape(1, 1, 4, 4).expand(80, 3, 4, 4)
    SUPPORT.task(network).loss(network, Batch(clips, torch.ones(80), chance))
    assert len({tuple(clip[0].flatten().tolist()) for clip in network.shown}) == orientations


def test_a_foreign_checkpoint_is_refused_by_name() -> None:
    assert SUPPORT.from_upstream is not None
    good = golden_rule.case("support_61f_bs3_40x48").state_dict()
    with pytest.raises(FileFormatError, match=r"no scalars_3x3\.2"):
        SUPPORT.from_upstream({k: v for k, v in good.items() if k != "scalars_3x3.2"})
    with pytest.raises(FileFormatError, match=r"unknown.*extra"):
        SUPPORT.from_upstream({**good, "extra": torch.zeros(1)})
    with pytest.raises(FileFormatError, match=r"dec_layers\.1\.bias is \(3,\), SUPPORT needs \(64,\)"):
        SUPPORT.from_upstream({**good, "dec_layers.1.bias": torch.zeros(3)})
    with pytest.raises(FileFormatError, match="its hole is filled"):
        SUPPORT.from_upstream({**good, "blind_convs3x3.2._spot": torch.ones(64, 64, 1)})


def test_a_hole_that_contradicts_the_weights_is_refused() -> None:
    assert SUPPORT.from_upstream is not None
    dense = golden_rule.case("support_61f_bs1_40x48").state_dict()
    with pytest.raises(FileFormatError, match="a hole of one pixel, not 3"):
        SUPPORT.from_upstream(dense, hole_x=3)
    larger = golden_rule.case("support_61f_bs3_40x48").state_dict()
    with pytest.raises(FileFormatError, match="more than one pixel"):
        SUPPORT.from_upstream(larger, hole_y=1, hole_x=1)
    assert SUPPORT.from_upstream(larger).facts["hole_x"] == 3  # what the authors' program assumes


@pytest.mark.parametrize("facts", [{"hole_y": 2}, {"hole_x": 0}, {"frames": 1}, {"frames": 9, "lookahead": 9}])
def test_what_cannot_be_built_is_refused(facts: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="SUPPORT"):
        SUPPORT.network(**facts)
