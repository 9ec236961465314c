"""STS-UVD: what its equations say, since the authors published neither code nor weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdenoise.errors import ConfigError
from rtdenoise.export import BundleFacts, export_bundle
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch
from rtdenoise.methods.stsuvd import StsUvdNetwork, StsUvdTask
from rtdenoise.methods.stsuvd.fusion import velocity
from rtdenoise.methods.stsuvd.sampling import centre_weight, neighbour_odds, resampled, taken
from rtdenoise.normalize import Normalization

STSUVD, UMVD = base.load("stsuvd"), base.load("umvd")
SMALL = {"features": 3, "width": 4, "decoder": 6, "head": 8, "encoder_convs": 2, "decoder_convs": 2}


def small(**facts: bool) -> StsUvdNetwork:
    torch.manual_seed(0)
    return StsUvdNetwork(**SMALL, **facts).eval()


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(progress: float = 0.0, seed: int = 0) -> Batch:
    clips = torch.randn(2, 8, 24, 24, generator=chance(7))
    return Batch(clips, torch.ones(2), chance(seed), progress)


def test_live_it_is_the_umvd_network() -> None:
    network, x = small(), torch.randn(2, 7, 21, 30)
    plain = UMVD.network(**SMALL).eval()
    plain.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(network(x), plain(x))
    assert sum(p.numel() for p in StsUvdNetwork().parameters()) == 1_786_191  # sheet C 4.4


def test_kappa_grows_with_motion_and_is_gone_at_the_end() -> None:
    assert centre_weight(torch.tensor(0.0), 3e-4, 0.0) == 0
    assert math.isclose(float(centre_weight(torch.tensor(1000.0), 3e-4, 0.0)), 0.2 * (1 - math.exp(-0.3)), rel_tol=1e-6)
    assert math.isclose(float(centre_weight(torch.tensor(1e9), 3e-4, 0.25)), 0.15, rel_tol=1e-6)
    assert centre_weight(torch.tensor(1e9), 3e-4, 1.0) == 0


def test_kappa_lets_the_centre_frame_in() -> None:
    network, x = small(), torch.randn(1, 7, 20, 20)
    flash = x.clone()
    flash[:, 3] += 5
    with torch.no_grad():
        assert torch.equal(network(flash), network(x))
        assert not torch.allclose(network(flash, kappa=0.2), network(x, kappa=0.2))
        torch.testing.assert_close(network(x, kappa=1e-9), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("alpha", "nearest"), [(3.0, 0.905), (0.0, 4 / 24), (-1.0, 0.0242)])
def test_the_odds_of_a_neighbour_follow_its_distance(alpha: float, nearest: float) -> None:
    steps, odds = neighbour_odds(alpha)
    distance = steps.abs().sum(1)
    assert len(steps) == 24
    assert int(distance.min()) == 1  # never the pixel itself
    wanted = torch.exp(-alpha * distance.double())
    torch.testing.assert_close(odds, wanted / wanted.sum())
    assert abs(float(odds[distance == 1].sum()) - nearest) < 2e-3


def test_the_wanted_share_of_pixels_comes_from_near_neighbours() -> None:
    places = resampled((6, 40, 50), 0.15, 0.0, chance())
    own = torch.arange(2000).reshape(40, 50).expand(6, 40, 50)
    moved = places != own
    assert abs(float(moved.float().mean()) - 0.15) < 0.01
    assert int((places // 50 - own // 50).abs().max()) == 2
    assert int((places % 50 - own % 50).abs().max()) == 2
    assert torch.equal(resampled((6, 40, 50), 0.0, 0.0, chance()), own)
    maps = torch.randn(6, 3, 40, 50)
    assert torch.equal(taken(maps, own), maps)
    assert torch.equal(taken(maps, places)[2, 1].flatten(), maps[2, 1].flatten()[places[2].flatten()])


def test_an_epoch_learns_from_what_the_one_before_it_gave() -> None:
    network = small()
    task = StsUvdTask(network, epochs=2, share=0.0, consistency=0.0, error="mse", eta=0.0)
    clips = batch().clips
    windows = torch.cat([clips[:, :-1], clips[:, 1:]])
    with torch.no_grad():
        first = task.loss(network, batch(0.4)).total
        noisy = torch.cat([clips[:, 3:4], clips[:, 4:5]])
        torch.testing.assert_close(first, 0.5 * (network(windows) - noisy).square().mean())
        assert task.loss(network, batch(0.5)).total < 1e-6  # nothing was learned since: it is its own reference
        network.out3.weight.mul_(2)
        gap = (network(windows) / 2).square().mean()
        torch.testing.assert_close(task.loss(network, batch(0.9)).total, 0.5 * gap, rtol=1e-3, atol=1e-6)


def test_recurrence_mixes_the_noisy_frame_into_the_reference() -> None:
    network, clips = small(), batch().clips
    task = StsUvdTask(network, epochs=2, recurrence=0.25, share=0.0, consistency=0.0, error="mse", eta=0.0)
    windows, noisy = torch.cat([clips[:, :-1], clips[:, 1:]]), torch.cat([clips[:, 3:4], clips[:, 4:5]])
    with torch.no_grad():
        given = network(windows)
        wanted = 0.5 * (0.75 * (given - noisy)).square().mean()
        torch.testing.assert_close(task.loss(network, batch(0.5)).total, wanted, rtol=1e-3, atol=1e-6)


def test_the_loss_on_held_out_frames_is_always_against_the_noisy_frame() -> None:
    network = small()
    task = StsUvdTask(network, epochs=2, consistency=0.0)
    with torch.no_grad():
        early = task.eval().loss(network, batch(1.0, seed=1)).total
        task.train().loss(network, batch(0.9))
        assert torch.equal(task.eval().loss(network, batch(1.0, seed=2)).total, early)


def test_a_training_goes_on_from_its_saved_task_as_if_never_stopped() -> None:
    network = small()
    task = StsUvdTask(network, epochs=2)
    with torch.no_grad():
        task.loss(network, batch(0.6))
        network.out3.weight.mul_(3)
        wanted = task.loss(network, batch(0.7)).total
        again = StsUvdTask(network, epochs=2)
        again.load_state_dict(task.state_dict())
        assert torch.equal(again.loss(network, batch(0.7)).total, wanted)
        assert not torch.equal(StsUvdTask(network, epochs=2).loss(network, batch(0.7)).total, wanted)


def test_only_the_network_learns() -> None:
    network = small()
    task = StsUvdTask(network)
    torch.autograd.backward(task.loss(network, batch(0.9)).total)
    assert all(p.grad is None for p in task.parameters())
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"recurrence": 1.5}, {"share": 1.0}, {"error": "ssim"}])
def test_an_option_out_of_range_is_refused(wrong: dict[str, float | str]) -> None:
    with pytest.raises(ConfigError, match="STS-UVD needs"):
        STSUVD.task(small(), **wrong)


def drifting(pixels_per_frame: float) -> Tensor:
    """(1, 7, 40, 48) cells that drift to the right."""
    place = np.random.default_rng(1)
    y, x = np.mgrid[:40, :48].astype(float)
    frames = np.zeros((7, 40, 48))
    for _ in range(25):
        cy, cx = place.uniform(-5, 45), place.uniform(-15, 60)
        for t in range(7):
            frames[t] += np.exp(-((y - cy) ** 2 + (x - cx - pixels_per_frame * (t - 3)) ** 2) / 2 / 3.0**2)
    return torch.from_numpy(frames).float()[None]


def test_the_velocity_is_that_of_the_frames_around() -> None:
    found = velocity(drifting(0.8))[0, :, 8:-8, 8:-8]
    assert abs(float(found[0].mean()) - 0.8) < 0.1
    assert abs(float(found[1].mean())) < 0.1


def test_fused_features_are_those_around_brought_to_the_centre() -> None:
    network, frames = small(fusion=True), drifting(0.8)
    assert network.guided is not None
    torch.nn.init.zeros_(network.guided.residual.weight)
    torch.nn.init.zeros_(network.guided.residual.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        features, weights = network.each(frames), torch.ones(7)
        fused = network.guided(features, velocity(frames), weights)[:, 9:12]
        still = network.guided(features, torch.zeros(1, 2, 40, 48), weights)[:, 9:12]
    centre, inner = features[:, 9:12], (..., slice(8, -8), slice(8, -8))
    assert (fused - centre)[inner].square().mean() < 0.2 * (still - centre)[inner].square().mean()


def test_fusion_never_sees_its_own_frame_and_is_rebuilt_by_its_facts() -> None:
    network, x = small(fusion=True), torch.randn(2, 7, 33, 20)
    again = STSUVD.network(**network.facts).eval()
    again.load_state_dict(network.state_dict())
    flash = x.clone()
    flash[:, 3] += 5
    with torch.no_grad():
        assert torch.equal(network(flash), network(x))
        assert torch.equal(again(x), network(x))
        assert network(x[..., :16, :16]).shape == (2, 1, 16, 16)


def test_fusion_learns_and_reaches_every_weight() -> None:
    network = small(fusion=True)
    torch.autograd.backward(StsUvdTask(network).loss(network, batch(0.9)).total)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_fusion_with_its_flow_is_exported_for_any_size(tmp_path: Path) -> None:
    network = small(fusion=True)
    _, report = export_bundle(STSUVD, network, tmp_path / "fused", BundleFacts("fused", Normalization(0.0, 1.0)))
    assert {gap.shape for gap in report.gaps} == {(128, 160), (61, 83)}
    assert max(gap.worst for gap in report.gaps) < 1e-2
