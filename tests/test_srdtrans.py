"""SRDTrans against numbers made with the authors' network, and what its own options do."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from rtdenoise.methods.srdtrans import SrdTransNetwork, SrdTransTask, from_upstream
from rtdenoise.methods.srdtrans.task import TRIPLES, sampled
from rtdenoise.methods.srdtrans.upstream import upstream_name
from rtdenoise.methods.ted.swin import relative_index
from tests import golden_rule

SRDTRANS = base.load("srdtrans")
CASES = golden_rule.names("srdtrans_")
SMALLEST = "srdtrans_T16_odd_17x23"
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 2e-5
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2
INDEX = "layers.0.spaceTrans.transformer.blocks.0.attn.relative_position_index"


def network_input(case: golden_rule.Case) -> Tensor:
    return torch.from_numpy(golden_rule.frames(tuple(case.meta["input_shape"][0])))[0]


def narrow(**changes: Any) -> SrdTransNetwork:
    torch.manual_seed(0)
    network = SRDTRANS.network(**{**SRDTRANS.narrow, **changes})
    assert isinstance(network, SrdTransNetwork)
    return network.eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    network, x = from_upstream(case.state_dict()), network_input(case)
    assert sum(p.numel() for p in network.parameters()) == case.meta["params_total"]
    np.testing.assert_allclose(x.flatten()[:8], case.arrays["in_first"][0], rtol=1e-6)
    with torch.no_grad():
        output = network(x).numpy()
    assert np.abs(output - case.arrays["out"][0]).max() / case.arrays["out"].std() < FP32


@pytest.mark.parametrize("name", [name for name in CASES if "T128" not in name])  # it would take 5 s
def test_every_output_depends_on_the_voxels_it_should(name: str) -> None:
    """In float64: in float32 leaky ReLUs near zero take the other slope."""
    case = golden_rule.case(name)
    x = network_input(case).double().requires_grad_()
    frame, row, column = (side // 2 for side in x.shape[1:])
    (gradient,) = torch.autograd.grad(from_upstream(case.state_dict()).double()(x)[0, frame, row, column], x)
    near = functional.pad(gradient[0], [4] * 4)[:, row : row + 9, column : column + 9].numpy()
    wanted = case.arrays["jac0"][0]
    assert np.abs(near - wanted).max() <= 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(gradient[0].abs().sum((1, 2)), case.arrays["frame_grad0"][0], rtol=1e-4)


def test_half_precision_stays_close_to_the_authors_output() -> None:
    case = golden_rule.case(SMALLEST)
    with torch.no_grad():
        output = from_upstream(case.state_dict()).half()(network_input(case).half()).float().numpy()
    gap, spread = output - case.arrays["out"][0], case.arrays["out"].std()
    assert np.abs(gap).max() / spread < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / spread < FP16_RMS


def test_weights_trained_on_counts_serve_frames_over_a_scale() -> None:
    case = golden_rule.case(SMALLEST)
    counts = 30 * network_input(case)
    with torch.no_grad():
        wanted = from_upstream(case.state_dict())(counts)
        over_scale = 50 * from_upstream(case.state_dict(), scale=50.0)(counts / 50)
    assert (over_scale - wanted).abs().max() / wanted.std() < FP32


def test_the_network_of_the_paper_keeps_the_central_half_of_its_blocks() -> None:
    network = SRDTRANS.network()
    assert network.window == WindowSpec(128, range(128), hop=64)
    assert sum(p.numel() for p in network.parameters()) == 1_801_061


def test_two_blocks_at_once_come_out_as_they_do_alone() -> None:
    network, x = narrow(), noise(2, 32, 15, 20)
    with torch.no_grad():
        torch.testing.assert_close(network(x), torch.cat([network(x[:1]), network(x[1:])]), rtol=0, atol=1e-5)


def test_a_frame_smaller_than_an_attention_window_comes_out() -> None:
    with torch.no_grad():
        output = narrow()(noise(1, 32, 3, 1))
    assert output.shape == (1, 32, 3, 1)
    assert torch.isfinite(output).all()


def test_without_a_last_activation_what_is_dark_is_not_shrunk() -> None:
    published, plain = narrow(final="leaky"), narrow(final="linear")
    plain.load_state_dict(published.state_dict())
    x = noise(1, 32, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(published(x), functional.leaky_relu(plain(x), 0.1))
        assert plain(x).min() < 0


def test_sampler_takes_the_authors_pixels() -> None:
    case = golden_rule.case("sampler_srdtrans")
    volume = torch.from_numpy(golden_rule.frames(tuple(case.meta["shape"])))[0]
    _, n_frames, height, width = volume.shape
    drawn = torch.from_numpy(case.arrays["triple_index"].astype(np.int64))
    assert [list(triple) for triple in TRIPLES] == case.meta["triples"]
    made = sampled(volume, drawn.reshape(1, n_frames, height // 2, width // 2))
    for view, name in zip(made, ("s1", "s2", "s3"), strict=True):
        assert np.array_equal(view[0].numpy(), case.arrays[name])


def test_the_target_across_the_lines_is_the_neighbour_of_the_same_column() -> None:
    rows = torch.arange(8.0)[:, None].expand(8, 10)
    columns = torch.arange(10.0).expand(8, 10)
    triples = torch.randint(0, 8, (1, 2, 4, 5), generator=torch.Generator().manual_seed(0))
    made = [sampled(place.expand(1, 2, 8, 10), triples, across=True) for place in (rows, columns)]
    (y, beside_y), (x, beside_x) = made
    assert torch.equal(x, beside_x)
    assert torch.equal((y - beside_y).abs(), torch.ones_like(y))


class Same(Network):
    """Gives back its frames times `gain`."""

    window = WindowSpec(8, range(8), hop=4)

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, frames: Tensor) -> Tensor:
        return self.gain * frames


def loss(gain: float, clips: Tensor, **options: Any) -> float:
    batch = Batch(clips, torch.ones(len(clips)), torch.Generator().manual_seed(1))
    return SrdTransTask(Same(gain), **options).loss(Same(gain), batch).total.item()


def test_the_loss_is_half_absolute_half_squared() -> None:
    clips = torch.full((2, 8, 16, 16), 3.0)
    assert loss(1.0, clips) == 0
    assert loss(0.0, clips) == pytest.approx(0.5 * 3 + 0.5 * 9)
    assert loss(0.0, clips, absolute=0.0) == pytest.approx(9)


@pytest.mark.parametrize(("pairs", "wanted"), [("across", 2.0), ("both", 1.5)])
def test_targets_across_the_lines_share_no_noise_of_a_line(pairs: Literal["both", "across"], wanted: float) -> None:
    """Noise of variance 1 that halves run on along X: half of `both` targets share half their noise."""
    white = torch.randn(8, 8, 96, 97, generator=torch.Generator().manual_seed(0))
    clips = (white[..., 1:] + white[..., :-1]) / 2**0.5
    assert loss(1.0, clips, pairs=pairs, absolute=0.0) == pytest.approx(wanted, rel=0.03)


def test_dropout_follows_the_batch_and_leaves_torchs_own_chance_alone() -> None:
    network = narrow(frames=16, drop=0.3).train()
    clips = noise(1, 16, 16, 16)

    def trained(own: int, seed: int) -> float:
        torch.manual_seed(own)
        before = torch.random.get_rng_state()
        batch = Batch(clips, torch.ones(1), torch.Generator().manual_seed(seed))
        value = SrdTransTask(network).loss(network, batch).total.item()
        assert torch.equal(torch.random.get_rng_state(), before)
        return value

    assert trained(1, 5) == trained(2, 5)
    with torch.no_grad():
        assert not torch.equal(network(clips), network(clips))


def test_mixed_precision_gives_nearly_the_gradients_of_full_precision() -> None:
    network = narrow().train()
    clips = 2 + noise(2, 32, 32, 32)
    gradients = []
    for mixed in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            batch = Batch(clips, torch.ones(2), torch.Generator().manual_seed(0))
            losses = SrdTransTask(network).loss(network, batch)
        torch.autograd.backward(losses.total)
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    exact, mixed_ones = gradients
    assert (mixed_ones - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("side", [12, 33])
def test_a_crop_that_cannot_be_sampled_is_refused(side: int) -> None:
    with pytest.raises(ConfigError, match="even crops of at least 14 px"):
        loss(1.0, torch.zeros(1, 8, side, side))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"frames": 40}, "multiple of 16, got 40"),
        ({"frames": 0}, "multiple of 16, got 0"),
        ({"widths": "8 x"}, "widths as positive numbers"),
        ({"widths": ""}, "widths as positive numbers"),
        ({"embed": 30}, "that 4 heads can share, got 30"),
        ({"hidden": 0}, "hidden of at least 1"),
        ({"drop": 1.0}, "drop from 0 to 1"),
        ({"final": "relu"}, "final leaky or linear"),
    ],
    ids=str,
)
def test_facts_of_no_network_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        narrow(**facts)


@pytest.mark.parametrize(
    ("options", "message"), [({"pairs": "along"}, "pairs `both` or `across`"), ({"absolute": 2.0}, "from 0 to 1")]
)
def test_unknown_task_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SRDTRANS.task(Same(1.0), **options)


def test_all_105_tensors_of_a_checkpoint_are_known_and_its_sizes_read_from_them() -> None:
    network = narrow(final="leaky", drop=0.1)
    theirs = {upstream_name(name): tensor for name, tensor in network.state_dict().items()}
    theirs |= {INDEX.replace("blocks.0", f"blocks.{i}"): relative_index(7) for i in (0, 1)}
    assert len(theirs) == 105
    again, x = from_upstream(theirs), noise(1, 32, 15, 20)
    assert again.facts == network.facts
    with torch.no_grad():
        assert torch.equal(again(x), network(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_after_trans.Conv3d.bias": None}, r"missing \['conv_after_trans.Conv3d.bias'\]"),
        ({"layers.0.timeTrans.position_encoding.position_embeddings": None}, "missing.*position_embeddings.*3 axes"),
        ({"final_conv.weight": torch.zeros(1)}, r"unknown \['final_conv.weight'\]"),
        ({"encoders.2.down_sample.weight": torch.zeros(1)}, r"down_sample.weight is \(1,\), SRDTrans needs \(32, 32"),
        ({INDEX: torch.zeros(49, 49, dtype=torch.int64)}, "is not the index of windows of 7 x 7"),
        ({"other.relative_position_index": relative_index(7)}, "unknown.*other"),
    ],
)
def test_another_checkpoint_is_refused_by_the_name_of_the_tensor(
    change: dict[str, Tensor | None], message: str
) -> None:
    state = {**golden_rule.case(SMALLEST).state_dict(), **change}
    with pytest.raises(FileFormatError, match=message):
        from_upstream({name: tensor for name, tensor in state.items() if tensor is not None})
