"""What every registered method must do, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdenoise import registry
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Method, Network, Task

METHODS = registry.names(registry.METHODS)
CROP, STEPS, WARM_UP, RATE = 48, 60, 10, 2e-3
"""The first steps of Adam are all of full length: without a warm-up they throw a network without norms onto a plateau, which
it leaves sooner or later depending on how a machine rounds.
"""


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return base.load(request.param)


def fresh(method: Method) -> Network:
    torch.manual_seed(0)
    return method.network(**method.narrow).eval()


def frames(network: Network, *size: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, network.window.size, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(32, 40), (33, 47), (0, 70)])
def test_any_size_comes_out_as_it_went_in(method: Method, size: tuple[int, int]) -> None:
    network = fresh(method)
    size = (max(size[0], network.min_side), size[1])
    with torch.no_grad():
        assert network(frames(network, *size, batch=2)).shape == (2, len(network.window.emits), *size)


def test_the_same_window_gives_the_same_frames(method: Method) -> None:
    network = fresh(method)
    x = frames(network, 33, 40)
    with torch.no_grad():
        assert torch.equal(network(x), network(x))


def test_another_window_changes_nothing(method: Method) -> None:
    network = fresh(method)
    x = frames(network, 32, 32, batch=2)
    other = x.clone()
    other[1] += 5
    with torch.no_grad():
        torch.testing.assert_close(network(x)[0], network(other)[0], rtol=0, atol=1e-6)


def test_the_output_depends_on_all_frames_but_those_it_names(method: Method) -> None:
    network = fresh(method)
    x = frames(network, 24, 24).requires_grad_()
    (seen,) = torch.autograd.grad(network(x).square().sum(), x)
    silent = [i for i, total in enumerate(seen.abs().sum((0, 2, 3)).tolist()) if total == 0]
    assert silent == list(network.unseen)


def test_two_stages_give_what_the_whole_gives(method: Method) -> None:
    network = fresh(method)
    if network.stages is None:
        pytest.skip(f"{method.name} has no stage that is worth keeping from window to window")
    x, span = frames(network, 33, 40, batch=2), network.stages.span
    with torch.no_grad():
        features = [network.encode(x[:, i : i + span]) for i in range(network.window.size - span + 1)]
        assert all(f.shape == (2, network.stages.maps, 33, 40) for f in features)
        torch.testing.assert_close(network.fuse(torch.cat(features, 1)), network(x), rtol=0, atol=1e-5)


def test_a_blind_method_never_sees_the_pixel_it_predicts(method: Method) -> None:
    if not method.blind:
        pytest.skip(f"{method.name} is not a blind-spot method")
    network = fresh(method)
    x = frames(network, 24, 24).requires_grad_()
    for k, frame in enumerate(network.window.emits):
        (seen,) = torch.autograd.grad(network(x)[0, k, 12, 12], x)
        assert seen[0, frame, 12, 12] == 0


def test_its_facts_rebuild_it(method: Method) -> None:
    network = fresh(method)
    again = method.network(**network.facts)
    again.load_state_dict(network.state_dict())
    x = frames(network, 24, 24)
    with torch.no_grad():
        assert torch.equal(network(x), again.eval()(x))


def test_what_is_deployed_is_the_same_function(method: Method) -> None:
    network = fresh(method)
    deployed, x = network.deploy(), frames(network, 33, 40)
    with torch.no_grad():
        wanted = network(x)
        torch.testing.assert_close(deployed.graphs["window"](x), wanted, rtol=0, atol=1e-4)
        if deployed.newest_frames:
            partial = deployed.graphs["older"](x[:, : -deployed.newest_frames])
            parts = deployed.graphs["newest"](x[:, -deployed.newest_frames :], partial)
            torch.testing.assert_close(parts, wanted, rtol=0, atol=1e-4)


def test_an_unknown_deploy_option_is_refused(method: Method) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        fresh(method).deploy(nonsense=1)


def test_its_task_is_a_task(method: Method) -> None:
    assert isinstance(method.task(fresh(method)), Task)


def test_the_same_seed_gives_the_same_loss(method: Method) -> None:
    network = fresh(method)
    clips = noisy_clip(method.task(network).clip_frames)[0]

    def loss(seed: int) -> float:
        chance = torch.Generator().manual_seed(seed)
        return method.task(network).loss(network, Batch(clips, torch.ones(1), chance)).total.item()

    assert loss(3) == loss(3)


def noisy_clip(n_frames: int) -> tuple[Tensor, Tensor]:
    """(1, T, Y, X) two slowly blinking cells under noise of sd 1, and the same without noise."""
    y, x = np.mgrid[:CROP, :CROP]
    t = np.arange(n_frames)[:, None, None]
    clean = 4 * np.exp(-((y - 16) ** 2 + (x - 20) ** 2) / 40) * (1 + 0.3 * np.sin(0.4 * t))
    clean = clean + 3 * np.exp(-((y - 32) ** 2 + (x - 34) ** 2) / 60) * (1 + 0.3 * np.cos(0.3 * t))
    noisy = clean + np.random.default_rng(0).standard_normal(clean.shape)
    return torch.from_numpy(noisy[None]).float(), torch.from_numpy(clean[None]).float()


def test_it_learns_from_noise_alone(method: Method) -> None:
    network, chance = fresh(method), torch.Generator().manual_seed(0)
    task = method.task(network)
    length = 4 * task.clip_frames
    noisy, clean = noisy_clip(length)
    optimizer = task.optimizer(network, RATE, 100.0)
    network.train()
    for i_step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (i_step + 1) / WARM_UP)
        start = int(torch.randint(0, length - task.clip_frames + 1, (), generator=chance))
        clips = noisy[:, start : start + task.clip_frames]
        loss = task.loss(network, Batch(clips, torch.full((1,), 100.0), chance, i_step / STEPS))
        optimizer.zero_grad()
        torch.autograd.backward(loss.total)
        optimizer.step()
    window, emits = network.window.size, list(network.window.emits)
    with torch.no_grad():
        network.eval()
        error = (network(noisy[:, :window]) - clean[:, emits]).square().mean()
    # From 0.1 to 0.6, and for one method between 0.37 and 0.59 by the rounding of the sums alone.
    assert error < 0.7 * (noisy - clean).square().mean()


def test_a_foreign_checkpoint_is_refused(method: Method) -> None:
    if method.from_upstream is None:
        pytest.skip(f"{method.name} has no published checkpoints to import")
    state = fresh(method).state_dict()
    state.popitem()
    with pytest.raises(FileFormatError):
        method.from_upstream(state)
