"""UMVD against numbers made with the authors' network, through the doors everybody uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from rtdenoise.methods.umvd.network import UmvdNetwork, temporal_filter
from tests import golden_rule

UMVD = base.load("umvd")
CASES = golden_rule.names("umvd_")
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 1e-5
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2


def imported(case: golden_rule.Case) -> Network:
    assert UMVD.from_upstream is not None
    return UMVD.from_upstream(case.state_dict(), level=case.meta["config"]["level"])


def window_of(case: golden_rule.Case) -> torch.Tensor:
    """The authors' time axis is the batch axis; ours is the second."""
    frames = golden_rule.frames(tuple(case.meta["input_shape"][0]), case.meta["phase"])
    np.testing.assert_allclose(frames.ravel()[:8], case.arrays["in_first"][0], rtol=1e-6)
    return torch.from_numpy(frames).transpose(0, 1).contiguous()


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    network = imported(case)
    assert sum(p.numel() for p in network.parameters()) == case.meta["params_total"]
    with torch.no_grad():
        gap = network(window_of(case)).numpy() - case.arrays["out"]
    assert np.abs(gap).max() / case.arrays["out"].std() < FP32


@pytest.mark.parametrize("name", CASES)
def test_the_output_depends_on_the_pixels_it_should_and_never_on_its_own_frame(name: str) -> None:
    case = golden_rule.case(name)
    network, x, wanted = imported(case), window_of(case).requires_grad_(), case.arrays["jac0"][0]
    row, column, reach = x.shape[2] // 2, x.shape[3] // 2, wanted.shape[-1] // 2
    (gradient,) = torch.autograd.grad(network(x)[0, 0, row, column], x)
    near = gradient[0, :, row - reach : row + reach + 1, column - reach : column + reach + 1].numpy()
    assert np.abs(near - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.array_equal(near == 0, wanted == 0)
    (centre,) = network.unseen
    assert not gradient[0, centre].any()
    np.testing.assert_allclose(gradient[0].abs().sum((1, 2)), case.arrays["frame_grad0"][0], rtol=2e-3)


def test_half_precision_stays_close() -> None:
    case = golden_rule.case("umvd_n7_level1_40x48")
    with torch.no_grad():
        out = imported(case).half()(window_of(case).half()).float().numpy()
    gap, spread = out - case.arrays["out"], case.arrays["out"].std()
    assert np.abs(gap).max() / spread < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / spread < FP16_RMS


def test_the_temporal_filter_is_the_authors() -> None:
    stored = golden_rule.case("weights_umvd").arrays
    for name, weights in stored.items():
        frames, level = name.removeprefix("n").split("_level")
        np.testing.assert_allclose(temporal_filter(int(frames), float(level)), weights, atol=1e-7)
        assert weights[int(frames) // 2] == 0


def test_the_level_that_a_checkpoint_does_not_show_changes_the_output() -> None:
    state, x = golden_rule.case("umvd_n5_level64_40x48").state_dict(), torch.randn(1, 5, 16, 16)
    assert UMVD.from_upstream is not None
    with torch.no_grad():
        flat, line = (UMVD.from_upstream(state, level=level)(x) for level in (64, 1))
    assert (flat - line).std() > 0.05 * flat.std()


def test_the_output_scales_with_the_input_so_the_unit_does_not_matter() -> None:
    network, x = UmvdNetwork(**UMVD.narrow), torch.randn(1, 7, 20, 24)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(network(255 * x) / 255, network(x), rtol=1e-5, atol=1e-5)


def test_a_moving_object_at_the_centre_leaves_no_trace() -> None:
    network, x = UmvdNetwork(**UMVD.narrow), torch.randn(1, 7, 24, 24)  # type: ignore[arg-type]
    flash = x.clone()
    flash[:, 3] += 1000
    with torch.no_grad():
        assert torch.equal(network(flash), network(x))


def test_the_target_is_the_centre_frame() -> None:
    task, clips = UMVD.task(UmvdNetwork(**UMVD.narrow)), torch.zeros(2, 7, 16, 16)  # type: ignore[arg-type]
    clips[:, 3] = 4
    silent = torch.nn.Conv2d(7, 1, 1, bias=False)
    torch.nn.init.zeros_(silent.weight)
    batch = Batch(clips, torch.ones(2), torch.Generator())
    assert task.loss(silent, batch).total.item() == 8
    assert UMVD.task(UmvdNetwork(**UMVD.narrow), error="l1").loss(silent, batch).total.item() == 4  # type: ignore[arg-type]


def test_the_learning_rate_falls_at_the_published_epochs() -> None:
    task = UMVD.task(UmvdNetwork(**UMVD.narrow))  # type: ignore[arg-type]
    assert [1e-3 * task.schedule(epoch / 25) for epoch in (0, 9.5, 10, 19.5, 20, 25)] == [
        *(5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4, 1.25e-4)
    ]


@pytest.mark.parametrize("frames", [1, 4, 6])
def test_a_window_without_a_centre_is_refused(frames: int) -> None:
    with pytest.raises(ConfigError, match="odd number of frames"):
        UmvdNetwork(frames=frames)


def test_an_unknown_error_is_refused() -> None:
    with pytest.raises(ConfigError, match="`mse` or `l1`, not 'ssim'"):
        UMVD.task(UmvdNetwork(**UMVD.narrow), error="ssim")  # type: ignore[arg-type]


def test_a_foreign_checkpoint_is_refused_by_name() -> None:
    good = golden_rule.case("umvd_n5_level1_odd_41x39").state_dict()
    read = UMVD.from_upstream
    assert read is not None
    with pytest.raises(FileFormatError, match=r"missing.*dec2\.conv3"):
        read({k: v for k, v in good.items() if not k.startswith("dec2.conv3")})
    with pytest.raises(FileFormatError, match=r"unknown.*extra"):
        read({**good, "extra": torch.zeros(1)})
    with pytest.raises(FileFormatError, match=r"enc2\.conv4\.conv\.weight is \(48, 48, 1, 1\)"):
        read({**good, "enc2.conv4.conv.weight": torch.zeros(48, 48, 1, 1)})
    with pytest.raises(FileFormatError, match="3 colours"):
        read({**good, "conv1.depthconv.weight": torch.zeros(63, 3, 3, 3)})
    with pytest.raises(FileFormatError, match="odd number of frames"):
        read({**good, "enc1.conv1.conv.weight": torch.zeros(48, 84, 3, 3)})
