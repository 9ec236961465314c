"""TeD against numbers made with the authors' network, and with their weights where these are at hand."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from rtdenoise.methods.ted.gradient import temporal_gradient
from rtdenoise.methods.ted.network import TedNetwork
from rtdenoise.methods.ted.task import TedTask, Weights, loss_terms, numbered, pixel_pairs, turned
from rtdenoise.methods.ted.upstream import from_upstream, upstream_name
from rtdenoise.nn.sampling import view
from rtdenoise.simulate import preset, simulate
from tests import golden_rule
from tests.real_movies import FOLDER

TED = base.load("ted")
PIPELINE, NETWORK = "ted_pipeline_40x48", "ted_net_b2_16x24"
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 9e-6
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2
CENTRE = 20


def pipeline_input() -> tuple[Tensor, Tensor, float]:
    """The pipeline case's movie in counts, the same normalised, and mean / sd."""
    counts = torch.from_numpy(golden_rule.frames((1, 41, 40, 48), raw=True))
    mean, sd = counts.mean(), counts.std()
    return counts, (counts - mean) / sd, float(mean / sd)


def network_input(case: golden_rule.Case) -> tuple[Tensor, Tensor]:
    shape = tuple(case.meta["input_shape"][0])
    frames = torch.from_numpy(golden_rule.frames(shape))
    return frames, torch.from_numpy(1 - np.float32(0.1) * golden_rule.frames(shape, k0=3))


def narrow(**changes: float) -> TedNetwork:
    torch.manual_seed(0)
    network = TED.network(**{**TED.narrow, **changes})
    assert isinstance(network, TedNetwork)
    return network.eval()


def test_imported_weights_give_the_authors_output() -> None:
    case = golden_rule.case(PIPELINE)
    _, frames, level = pipeline_input()
    np.testing.assert_allclose(frames.flatten()[:8], case.arrays["in_first"][0], rtol=1e-4)
    with torch.no_grad():
        output = from_upstream(case.state_dict(), level=level)(frames).numpy()
    assert np.abs(output - case.arrays["out"]).max() / case.arrays["out"].std() < FP32


def test_output_and_what_it_depends_on_are_the_authors_for_two_windows_at_once() -> None:
    case = golden_rule.case(NETWORK)
    frames, trust = (x.requires_grad_() for x in network_input(case))
    output = from_upstream(case.state_dict())(frames, trust)
    assert np.abs(output.detach().numpy() - case.arrays["out"]).max() / case.arrays["out"].std() < FP32
    row, column = frames.shape[2] // 2, frames.shape[3] // 2
    gradients = torch.autograd.grad(output[0, 0, row, column], (frames, trust))
    for i, gradient in enumerate(gradients):
        wanted = case.arrays[f"jac{i}"][0]
        near = functional.pad(gradient[0], [4] * 4)[:, row : row + 9, column : column + 9].numpy()
        assert np.abs(near - wanted).max() <= 1e-4 * np.abs(wanted).max()
        totals = gradient[0].abs().sum((1, 2)).numpy()
        np.testing.assert_allclose(totals, case.arrays[f"frame_grad{i}"][0], rtol=1e-4)


def test_half_precision_stays_close() -> None:
    case = golden_rule.case(NETWORK)
    frames, trust = network_input(case)
    with torch.no_grad():
        output = from_upstream(case.state_dict()).half()(frames.half(), trust.half()).float().numpy()
    gap, spread = output - case.arrays["out"], case.arrays["out"].std()
    assert np.abs(gap).max() / spread < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / spread < FP16_RMS


def test_trust_in_half_precision_stays_close() -> None:
    wanted = golden_rule.case(PIPELINE).arrays["rtg"]
    _, normalised, level = pipeline_input()
    np.testing.assert_allclose(temporal_gradient(normalised.half(), level).numpy(), wanted, atol=2e-3)


def test_trust_of_counts_and_of_normalised_frames_is_the_authors_map() -> None:
    wanted = golden_rule.case(PIPELINE).arrays["rtg"]
    counts, normalised, level = pipeline_input()
    np.testing.assert_allclose(temporal_gradient(counts).numpy(), wanted, atol=1e-6)
    np.testing.assert_allclose(temporal_gradient(normalised, level).numpy(), wanted, atol=1e-6)


def test_frames_beyond_a_brightening_are_trusted_less_and_the_centre_frame_fully() -> None:
    frames = torch.full((1, 41, 12, 12), 50.0)
    frames[:, 30:] = 100.0
    trust = temporal_gradient(frames)[0, :, 5, 5]
    torch.testing.assert_close(trust[:30], torch.ones(30))
    torch.testing.assert_close(trust[30:], torch.full((11,), 0.5))


def test_every_frame_of_a_window_without_light_is_trusted() -> None:
    frames = torch.randn(1, 41, 12, 12, generator=torch.Generator().manual_seed(0)) - 50
    assert torch.equal(temporal_gradient(frames), torch.ones_like(frames))


@pytest.mark.parametrize(("height", "width"), [(24, 40), (21, 34)])
def test_a_frame_of_any_size_is_mirrored_to_whole_attention_windows(height: int, width: int) -> None:
    network = narrow()
    x = torch.randn(1, 41, height, width, generator=torch.Generator().manual_seed(1))
    margins = (0, -width % 8, 0, -height % 8)
    with torch.no_grad():
        trust = temporal_gradient(x, network.level)
        wanted = network(functional.pad(x, margins, mode="reflect"), functional.pad(trust, margins, mode="reflect"))
        torch.testing.assert_close(network(x), wanted[..., :height, :width], rtol=0, atol=1e-6)


def test_a_frame_smaller_than_an_attention_window_comes_out() -> None:
    with torch.no_grad():
        output = narrow()(torch.randn(1, 41, 3, 1, generator=torch.Generator().manual_seed(1)))
    assert output.shape == (1, 1, 3, 1)
    assert torch.isfinite(output).all()


def test_sampler_takes_the_authors_pixels() -> None:
    case = golden_rule.case("sampler_ted")
    shape = tuple(case.meta["shape"])
    clip = torch.from_numpy(golden_rule.frames(shape))
    drawn = torch.from_numpy(case.arrays["pair_index"].astype(np.int64))
    pairs = numbered(drawn.reshape(1, 1, shape[2] // 2, shape[3] // 2))
    assert np.array_equal(view(clip, pairs, 0)[0].numpy(), case.arrays["sub1"])
    assert np.array_equal(view(clip[:, CENTRE : CENTRE + 1], pairs, 1)[0, 0].numpy(), case.arrays["sub2_centre"])


def test_all_pairs_are_drawn_equally_often() -> None:
    pairs = pixel_pairs(4, (64, 64), torch.Generator().manual_seed(0))
    counts = torch.bincount(pairs.flatten(), minlength=8)
    assert ((counts - 2048).abs() < 200).all()  # 4.7 sd of a binomial


def test_clips_are_turned_and_flipped_in_all_eight_ways() -> None:
    clip = torch.arange(4.0).reshape(1, 1, 2, 2)
    made = turned(clip.expand(64, 1, 2, 2), torch.Generator().manual_seed(0))
    assert len({tuple(c.flatten().tolist()) for c in made}) == 8


class CentreFrame(Network):
    """Gives back the centre frame times `gain`."""

    window = WindowSpec(41, (CENTRE,))

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, frames: Tensor, trust: Tensor | None = None) -> Tensor:
        return self.gain * frames[:, CENTRE : CENTRE + 1]


def test_the_loss_is_half_absolute_half_squared_and_its_regulariser_compares_both_views() -> None:
    clips = torch.randn(2, 41, 16, 16, generator=torch.Generator().manual_seed(0))
    pairs = pixel_pairs(2, (8, 8), torch.Generator().manual_seed(1))
    first, second = (view(clips[:, CENTRE], pairs, i) for i in (0, 1))
    gap = 0.5 * first - second
    wanted = 0.5 * gap.abs().mean() + 0.5 * gap.square().mean()
    rest = gap - 0.5 * (first - second)
    regulariser = 1e-3 * (0.5 * rest.abs().mean() + 0.5 * rest.square().mean())
    losses = loss_terms(CentreFrame(0.5), clips, None, pairs, Weights())
    assert losses.terms["noise2noise"] == pytest.approx(float(wanted), rel=1e-5)
    assert losses.terms["consistency"] == pytest.approx(float(regulariser), rel=1e-5)
    assert losses.total.item() == pytest.approx(float(wanted + regulariser), rel=1e-5)


def squared_gap(pairs: Literal["any", "across"]) -> float:
    """Mean squared difference of input and target pixels, for noise of variance 1 that halves run on along X."""
    noise = torch.randn(8, 41, 96, 97, generator=torch.Generator().manual_seed(0))
    clips = (noise[..., 1:] + noise[..., :-1]) / 2**0.5
    task = TedTask(narrow(), absolute=0, pairs=pairs)
    batch = Batch(clips, torch.ones(8), torch.Generator().manual_seed(1))
    return task.loss(CentreFrame(1.0), batch).terms["noise2noise"]


def test_pairs_across_the_lines_share_no_noise_of_a_line() -> None:
    assert squared_gap("across") == pytest.approx(2.0, rel=0.06)
    assert squared_gap("any") == pytest.approx(1.5, rel=0.06)  # half of the pairs share half their noise


def consistency(task: TedTask, seed: int) -> float:
    clips = torch.randn(1, 41, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch(clips, torch.ones(1), torch.Generator().manual_seed(seed))
    return task.loss(CentreFrame(0.5), batch).terms.get("consistency", 0.0)


def test_a_regulariser_that_is_rarely_worked_out_weighs_as_much_on_average() -> None:
    network = narrow()
    always = np.mean([consistency(TedTask(network), seed) for seed in range(20)])
    rarely = [consistency(TedTask(network, consistency_every=4), seed) for seed in range(100)]
    assert sum(value > 0 for value in rarely) == pytest.approx(25, abs=13)  # 3 sd
    assert np.mean(rarely) == pytest.approx(always, rel=0.55)


def test_dropout_follows_the_batch_and_leaves_torchs_own_chance_alone() -> None:
    network = narrow(drop=0.1).train()
    clips = torch.randn(1, 41, 16, 16, generator=torch.Generator().manual_seed(0))

    def loss(own: int, seed: int) -> float:
        torch.manual_seed(own)
        before = torch.random.get_rng_state()
        batch = Batch(clips, torch.ones(1), torch.Generator().manual_seed(seed))
        value = TedTask(network).loss(network, batch).total.item()
        assert torch.equal(torch.random.get_rng_state(), before)
        return value

    assert loss(1, 5) == loss(2, 5)
    with torch.no_grad():
        x = torch.randn(1, 41, 16, 16)
        assert not torch.equal(network(x), network(x))


def test_mixed_precision_learns_without_breaking() -> None:
    network = narrow().train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    clips = torch.randn(1, 41, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        losses = TedTask(network).loss(network, Batch(clips, torch.ones(1), torch.Generator().manual_seed(0)))
    torch.autograd.backward(losses.total)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("side", [14, 33])
def test_a_crop_that_cannot_be_sampled_is_refused(side: int) -> None:
    network = narrow()
    batch = Batch(torch.zeros(1, 41, side, side), torch.ones(1), torch.Generator())
    with pytest.raises(ConfigError, match="even crops of at least 16 px"):
        TedTask(network).loss(network, batch)


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"frames": 40}, "odd number of frames"), ({"embed": 20}, "6 heads"), ({"side": 7}, "side must be even")],
)
def test_facts_of_no_network_are_refused(facts: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TED.network(**facts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trust": "pixel"}, "trust `frame` or `input`, not 'any' and 'pixel'"),
        ({"pairs": "diagonal"}, "pairs `any` or `across`"),
        ({"absolute": 1.5}, "absolute from 0 to 1"),
        ({"consistency_every": 0}, "consistency_every of at least 1"),
    ],
)
def test_unknown_task_options_are_refused(options: dict[str, str | float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TED.task(narrow(), **options)


def test_another_methods_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="TeD's network, got CentreFrame"):
        TedTask(CentreFrame(1.0))


def test_widths_and_depths_of_a_checkpoint_are_read_from_its_tensors() -> None:
    network = narrow(frames=5, groups=1, depth=4, side=4)
    theirs = {upstream_name(name): tensor for name, tensor in network.state_dict().items()}
    theirs["layers.0.residual_group.blocks.1.attn_mask"] = torch.zeros(4, 64, 64)
    again = from_upstream(theirs, level=0.25)
    assert again.facts == {**network.facts, "level": 0.25, "drop": 0.1}
    x = torch.randn(1, 5, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(x), from_upstream(theirs, level=0.25)(x))


def test_a_foreign_checkpoint_is_refused_by_name() -> None:
    good = golden_rule.case(NETWORK).state_dict()
    with pytest.raises(FileFormatError, match=r"missing.*'ConvAfterBody"):
        from_upstream({k: v for k, v in good.items() if not k.startswith("ConvAfterBody")})
    with pytest.raises(FileFormatError, match=r"unknown.*extra"):
        from_upstream({**good, "extra": torch.zeros(1)})
    with pytest.raises(FileFormatError, match=r"norm.bias is \(3,\), TeD needs \(60,\)"):
        from_upstream({**good, "norm.bias": torch.zeros(3)})
    with pytest.raises(FileFormatError, match=r"not a TeD checkpoint: missing \['ShallowFeature"):
        from_upstream({"conv.weight": torch.zeros(1)})


def gain_of_authors_weights(name: str, noisy: NDArray[np.float32], clean: NDArray[np.float32]) -> float:
    """dB that the middle frame of 41 gains over raw."""
    path = FOLDER / "checkpoints" / name
    if not path.is_file():
        pytest.skip(f"the authors' checkpoint {name} is not in {path.parent}")
    stored = torch.load(path, weights_only=True, map_location="cpu")
    mean, sd = noisy.mean(), noisy.std()
    tensors = {key.removeprefix("module."): tensor for key, tensor in stored.items()}
    network = from_upstream(tensors, level=float(mean / sd))
    with torch.no_grad():
        output = network(torch.from_numpy((noisy - mean) / sd)[None])[0, 0].numpy() * sd + mean
    before, after = (np.square(image - clean[CENTRE]).mean() for image in (noisy[CENTRE], output))
    return float(10 * np.log10(before / after))


def test_the_authors_weights_for_static_scenes_denoise_static_blobs() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96]
    blobs = [(rng.uniform(0, 96), rng.uniform(0, 96), rng.uniform(20, 80)) for _ in range(20)]
    image = 10 + sum(a * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 30) for cy, cx, a in blobs)
    clean = np.repeat(image[None], 41, axis=0).astype(np.float32)
    noisy = rng.poisson(clean).astype(np.float32)
    assert gain_of_authors_weights("ted_naomi.pth", noisy, clean) > 8


def test_the_authors_weights_for_living_tissue_denoise_a_simulated_calcium_movie() -> None:
    made = simulate(preset("calcium", seed=901, snr_db=4.0, shape=(96, 96), n_frames=41))
    noisy = made.noisy.astype(np.float32) - made.offset
    assert gain_of_authors_weights("ted_2p_intravital.pth", noisy, made.clean - made.offset) > 4
