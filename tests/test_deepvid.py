"""DeepVID against numbers made with the authors' network, and how it learns."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from tests import golden_rule

DEEPVID = base.load("deepvid")
CASES = golden_rule.names("deepvid_")
FP32 = 2e-4  # of the output's sd
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2
CHANNELS = [0, 1, 2, 4, 5, 6, 3]  # the authors': neighbours, then the centre frame


def keras_weights(case: golden_rule.Case, first: int = 0) -> dict[str, Tensor]:
    """As in the authors' file; `first` is the number of the first layer of each kind."""
    stored = {}
    for key, tensor in case.state_dict().items():
        match = re.fullmatch(r"(\w+)\[(\d+)\]\.(\w+)", key)
        assert match is not None
        number = int(match[2]) + first
        layer = f"{match[1]}_{number}" if number else match[1]
        forms = {"kernel": lambda t: t.permute(2, 3, 1, 0), "alpha": lambda t: t.reshape(1, 1, -1)}
        stored[f"{layer}/{match[3]}:0"] = forms.get(match[3], lambda t: t)(tensor)
    return stored


def imported(weights: dict[str, Tensor]) -> Network:
    assert DEEPVID.from_upstream is not None
    return DEEPVID.from_upstream(weights)


def ascending(case: golden_rule.Case) -> Tensor:
    """The input of a case, its frames in the order of time."""
    channels = golden_rule.frames(tuple(case.meta["input_shape"][0]), case.meta["phase"])
    return torch.from_numpy(channels)[:, np.argsort(CHANNELS).tolist()]


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    with torch.no_grad():
        mine = imported(keras_weights(case))(ascending(case)).numpy()
    assert np.abs(mine - case.arrays["out"]).max() / case.arrays["out"].std() < FP32


def test_the_output_depends_on_each_frame_as_the_authors_does() -> None:
    case = golden_rule.case("deepvid_40x48")
    x = ascending(case).requires_grad_()
    (gradient,) = torch.autograd.grad(imported(keras_weights(case))(x)[0, 0, 20, 24], x)
    mine, wanted = gradient[0, CHANNELS], case.arrays["jac0"][0]
    assert np.abs(mine[:, 16:25, 20:29].numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(mine.abs().sum((1, 2)).numpy(), case.arrays["frame_grad0"][0], rtol=2e-3)


def test_half_precision_stays_close() -> None:
    case = golden_rule.case("deepvid_b2_27x33")
    window = imported(keras_weights(case)).deploy().graphs["window"].half()
    wanted = case.arrays["out"][:1]  # half precision is slow on a CPU: one of the two is enough
    with torch.no_grad():
        gap = window(ascending(case)[:1].half()).float().numpy() - wanted
    assert np.abs(gap).max() / wanted.std() < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / wanted.std() < FP16_RMS


def test_layers_may_be_numbered_from_anywhere() -> None:
    case = golden_rule.case("deepvid_b2_27x33")
    first, later = imported(keras_weights(case)), imported(keras_weights(case, first=36))
    for a, b in zip(first.state_dict().values(), later.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv2d_3/bias:0": None}, r"conv2d_3/bias:0 is missing"),
        ({"p_re_lu_17/alpha:0": None}, "ask for 18 p_re_lu layers, not 17"),
        ({"dense/kernel:0": torch.zeros(2)}, "unknown tensor dense/kernel:0"),
        ({"batch_normalization_5/gamma:0": torch.zeros(3)}, r"batch_normalization_5/gamma:0 is \(3,\), .* \(64,\)"),
        ({"conv2d_2/kernel:0": torch.zeros(64, 64, 3, 3)}, r"conv2d_2/kernel:0 is .* \(3, 3, 64, 64\)"),
        ({"conv2d/kernel:0": torch.zeros(3, 3, 8, 64)}, "odd frames"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_tensor(change: dict[str, Tensor | None], message: str) -> None:
    weights = keras_weights(golden_rule.case("deepvid_40x48")) | change
    with pytest.raises(FileFormatError, match=message):
        imported({name: tensor for name, tensor in weights.items() if tensor is not None})


class Recorder(Network):
    """Keeps what it was given; answers with the frame as it is told to it."""

    def __init__(self, like: Network, answer: Tensor) -> None:
        super().__init__()
        self.window, self.answer, self.seen = like.window, answer, torch.empty(0)

    def forward(self, frames: Tensor) -> Tensor:
        self.seen = frames
        return self.answer


def one_loss(ratio: float, clips: Tensor, answer: Tensor) -> tuple[Tensor, float]:
    """What the network saw, and the error."""
    network = DEEPVID.network(features=4, blocks=1)
    task, recorder = DEEPVID.task(network, ratio=ratio, penalty=0.0), Recorder(network, answer)
    extra = torch.nn.Module()  # a stand-in has no weights to penalise
    extra.conv = torch.nn.Conv2d(1, 1, 1)
    recorder.inner = extra
    losses = task.loss(recorder, Batch(clips, torch.ones(len(clips)), torch.Generator().manual_seed(0)))
    return recorder.seen, losses.terms["error"]


def test_a_tenth_of_the_centre_frame_is_overwritten_by_its_own_pixels() -> None:
    clips = torch.arange(2 * 7 * 20 * 30.0).reshape(2, 7, 20, 30)  # every pixel is another number
    seen, _ = one_loss(0.1, clips, torch.zeros(2, 1, 20, 30))
    assert torch.equal(seen[:, CHANNELS[:-1]], clips[:, CHANNELS[:-1]])
    for before, after in zip(clips[:, 3], seen[:, 3], strict=True):
        changed = (before != after).sum().item()
        assert 57 <= changed <= 60  # 60 are drawn; a few may be drawn as their own replacement
        assert set(after.flatten().tolist()) <= set(before.flatten().tolist())
        assert max(Counter(after.flatten().tolist()).values()) <= 2  # each origin is used once


def test_only_overwritten_pixels_count_and_against_their_true_values() -> None:
    clips = torch.randn(1, 7, 20, 20, generator=torch.Generator().manual_seed(0))
    _, right = one_loss(0.1, clips, clips[:, 3:4])
    assert right == 0
    seen, _ = one_loss(0.1, clips, torch.zeros(1, 1, 20, 20))
    hidden = seen[0, 3] != clips[0, 3]
    assert hidden.sum() == 40
    answer = torch.where(hidden, clips[0, 3] + 2, 1e6)  # wrong by 2 where it counts, by a million elsewhere
    _, wrong = one_loss(0.1, clips, answer[None, None])
    assert wrong == pytest.approx(4, rel=1e-5)


def test_the_penalty_is_the_published_sum_over_all_convolutions_but_the_last() -> None:
    network = DEEPVID.network(features=4, blocks=1)
    clips = torch.randn(1, 7, 16, 16, generator=torch.Generator().manual_seed(0))
    losses = DEEPVID.task(network).loss(network, Batch(clips, torch.ones(1), torch.Generator().manual_seed(1)))
    convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][:-1]
    numbers = torch.cat([p.flatten() for conv in convs for p in conv.parameters()])
    wanted = 0.01 * (numbers.abs().sum() + numbers.square().sum()).item()
    assert losses.terms["penalty"] == pytest.approx(wanted, rel=1e-5)
    assert losses.total.item() == pytest.approx(wanted + losses.terms["error"], rel=1e-5)


def test_what_cannot_be_built_or_learned_is_refused() -> None:
    with pytest.raises(ConfigError, match="odd number of frames, got 6"):
        DEEPVID.network(frames=6)
    with pytest.raises(ConfigError, match=r"ratio in 0\.\.1"):
        DEEPVID.task(DEEPVID.network(features=4, blocks=1), ratio=0.0)
