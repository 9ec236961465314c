"""SN2N against numbers made with the authors' network, and its own parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdenoise.errors import ConfigError
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from rtdenoise.methods.sn2n.task import diagonals, fourier_doubled, lines
from tests import golden_rule

SN2N, SN2N_3D = base.load("sn2n"), base.load("sn2n3d")
CASES = golden_rule.names("sn2n")
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 3e-5
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2
SMALL = "4 6 8 8 8"


def imported(case: golden_rule.Case, **facts: str) -> Network:
    loader = base.load(case.meta["method"]).from_upstream
    assert loader is not None
    statistics = "running" if case.meta["mode"] == "eval" else "batch"
    return loader(case.state_dict(), **{"statistics": statistics, "intensity": "network"} | facts)


def input_of(case: golden_rule.Case) -> Tensor:
    shape = tuple(case.meta["input_shape"][0])
    frames = torch.from_numpy(golden_rule.frames(shape, case.meta["phase"]))
    return frames[:, 0] if len(shape) == 5 else frames


def error(mine: Tensor, case: golden_rule.Case) -> float:
    wanted = case.arrays["out"]
    return float(np.abs(mine.detach().numpy().reshape(wanted.shape) - wanted).max() / wanted.std())


@pytest.mark.parametrize("name", CASES)
def test_it_gives_what_the_authors_network_gives(name: str) -> None:
    case = golden_rule.case(name)
    network = imported(case)
    with torch.no_grad():
        assert error(network(input_of(case)), case) < FP32
    assert sum(p.numel() for p in network.parameters()) == case.meta["params_total"]


def test_a_pixel_answers_to_its_neighbourhood_as_the_authors_does() -> None:
    case = golden_rule.case("sn2n2d_running_40x48")
    x = input_of(case).requires_grad_()
    (seen,) = torch.autograd.grad(imported(case)(x)[0, 0, 20, 24], x)
    wanted = case.arrays["jac0"][0, 0]
    assert np.abs(seen[0, 0, 16:25, 20:29].numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert float(seen.abs().sum()) == pytest.approx(float(case.arrays["frame_grad0"][0, 0]), rel=1e-3)


@pytest.mark.parametrize("name", ["sn2n2d_batchstat_40x48", "sn2n2d_batchstat_odd_37x51"])
def test_running_statistics_are_learned_as_the_authors_are(name: str) -> None:
    case = golden_rule.case(name)
    network = imported(case, statistics="running").train()
    assert error(network(input_of(case)), case) < FP32
    state = network.state_dict()
    learned = torch.cat([state[str(key)].flatten() for key in case.arrays["bn_after_keys"]])
    np.testing.assert_allclose(learned.numpy(), case.arrays["bn_after"], rtol=1e-4, atol=1e-5)


def test_half_precision_stays_close() -> None:
    case = golden_rule.case("sn2n2d_running_40x48")
    network = imported(case).deploy().graphs["window"].half()
    with torch.no_grad():
        gap = network(input_of(case).half()).float().numpy() - case.arrays["out"]
    assert np.abs(gap).max() / case.arrays["out"].std() < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / case.arrays["out"].std() < FP16_RMS


def test_the_views_are_upsampled_as_the_authors_do() -> None:
    case = golden_rule.case("sampler_sn2n")
    image = golden_rule.frames((1, 1, 128, 128))[0, 0].astype(np.float64)
    image = 255 * (image - image.min()) / np.ptp(image)
    for half, name in zip(diagonals(torch.from_numpy(image)), ("left128", "right128"), strict=True):
        full = fourier_doubled(half).clamp(min=0).numpy()  # the authors cut at 0
        assert np.abs(full - case.arrays[name]).max() < 1e-4  # of 255; stored as float32


def small(dims: int = 2, **facts: str) -> Network:
    torch.manual_seed(2)
    method = SN2N if dims == 2 else SN2N_3D
    return method.network(**{"width": SMALL, "dims": dims} | facts).eval()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_by_its_own_statistics_a_window_knows_nothing_of_others(dims: int, training: bool) -> None:
    network = small(dims).train(training)
    x = noise(2, network.window.size, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:], network(x[1:]), rtol=0, atol=1e-5)
        torch.testing.assert_close(network(torch.stack([9 * x[0], x[1]]))[1:], network(x[1:]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_fitted_output_has_the_level_and_the_gain_of_its_input(dims: int) -> None:
    network = small(dims, intensity="fitted")
    x = noise(1, network.window.size, 32, 48)
    with torch.no_grad():
        out, brighter = network(x), network(40 * x + 100)
    torch.testing.assert_close(out.mean((-2, -1)), x.mean((-2, -1)), rtol=0, atol=1e-5)
    torch.testing.assert_close(brighter.mean((-2, -1)), 40 * x.mean((-2, -1)) + 100, rtol=0, atol=1e-3)
    torch.testing.assert_close(((x - out) * out).mean((-2, -1)), ((x - out).mean((-2, -1)) * 0), rtol=0, atol=1e-3)


def test_a_block_of_any_size_is_mirrored_and_cut() -> None:
    network = small(3, statistics="running")
    x = noise(1, 16, 37, 45)
    whole = torch.cat([x, x[:, :, -12:-1].flip(-2)], -2)
    whole = torch.cat([whole, whole[..., -4:-1].flip(-1)], -1)
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(whole)[..., :37, :45], rtol=0, atol=1e-6)


def test_flat_frames_do_not_end_in_numbers_that_are_none() -> None:
    network = small(intensity="fitted")
    with torch.no_grad():
        torch.testing.assert_close(network(torch.full((1, 1, 32, 32), 5.0)), torch.full((1, 1, 32, 32), 5.0))


@pytest.mark.parametrize(
    "facts",
    [{"width": "4 4"}, {"width": "4 4 4 4 x"}, {"statistics": "none"}, {"output": "relu"}, {"dims": 4}],
)
def test_facts_that_do_not_fit_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="SN2N"):
        SN2N.network(**facts)


def test_both_views_show_the_same_place() -> None:
    ramp = torch.arange(64.0).repeat(1, 1, 64, 1) + 3 * torch.arange(64.0)[:, None]
    left, right = diagonals(ramp)
    assert torch.equal(left, right)
    upper, lower = lines(ramp)
    assert torch.equal(upper + 3, lower)


@pytest.mark.parametrize("options", [{}, {"upsampling": "none"}, {"pairs": "lines", "error": "mse"}])
def test_the_loss_is_the_published_sum(options: dict[str, Any]) -> None:
    network = small()
    task = SN2N.task(network, **options)
    clips = noise(3, 1, 64, 64)
    chance = torch.Generator().manual_seed(5)
    found = task.loss(network, Batch(clips, torch.ones(3), chance))
    x, y = task.views(clips, torch.Generator().manual_seed(5))  # type: ignore[attr-defined]
    with torch.no_grad():
        of_x, of_y = network(x), network(y)
    gaps = torch.stack([of_x - y, of_y - x, of_x - of_y])
    wanted = gaps.square().mean() if options.get("error") == "mse" else gaps.abs().mean()
    assert found.total.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert sum(found.terms.values()) == pytest.approx(wanted.item(), rel=1e-4)


def test_without_the_constraint_one_view_predicts_the_other() -> None:
    network = small()
    task = SN2N.task(network, constraint=0.0)
    clips = noise(2, 1, 32, 32)
    found = task.loss(network, Batch(clips, torch.ones(2), torch.Generator().manual_seed(5)))
    x, y = task.views(clips, torch.Generator().manual_seed(5))  # type: ignore[attr-defined]
    assert found.total.item() == pytest.approx((network(x) - y).abs().mean().item(), rel=1e-5)


@pytest.mark.parametrize("options", [{"error": "l1"}, {"pairs": "any"}, {"upsampling": "yes"}, {"constraint": -1.0}])
def test_options_that_the_task_does_not_have_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="SN2N"):
        SN2N.task(small(), **options)


@pytest.mark.parametrize("size", [(31, 32), (33, 40), (16, 16)])
def test_crops_that_cannot_be_halved_are_refused(size: tuple[int, int]) -> None:
    task = SN2N.task(small())
    with pytest.raises(ConfigError, match="even crops of at least 32 px"):
        task.loss(small(), Batch(noise(1, 1, *size), torch.ones(1), torch.Generator()))
