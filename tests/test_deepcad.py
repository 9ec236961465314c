"""DeepCAD and DeepCAD-RT against numbers made with the authors' networks, and with checkpoints that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdenoise import bundle as bundles
from rtdenoise import checkpoints
from rtdenoise.bundle import Bundle
from rtdenoise.engine.backends import open_runtime
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.importing import Counts, import_checkpoint
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from rtdenoise.methods.view_pairs import VIEWS, turned
from rtdenoise.metrics.noise import noise_sd, photon_transfer, residual_checks
from rtdenoise.normalize import Normalization
from tests import golden_rule, real_movies

CASES = golden_rule.names("deepcad_") + golden_rule.names("deepcadrt_")
RULE = "deepcadrt_f16_16x40x48"
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 5e-6
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2
PUBLISHED, USERS = "deepcadrt_E_10_Iter_3500.pth", "deepcad_lelouch_E_20_Iter_6000.pth"
SCALE = 64.0  # counts per unit


def imported(case: golden_rule.Case, **facts: Any) -> Network:
    loader = base.load(case.meta["method"]).from_upstream
    assert loader is not None
    frames = case.meta["input_shape"][0][2]
    return loader(case.state_dict(), **{"frames": frames, "fit": "resize" if frames % 8 else "pad", **facts})


def movie(case: golden_rule.Case, raw: bool = False) -> Tensor:
    return torch.from_numpy(golden_rule.frames(case.meta["input_shape"][0], case.meta["phase"], raw=raw))[:, 0]


def error(mine: Tensor, wanted: NDArray[np.float32]) -> float:
    return float(np.abs(mine.detach().numpy() - wanted).max() / wanted.std())


@pytest.mark.parametrize("name", CASES)
def test_imported_weights_give_the_authors_output(name: str) -> None:
    case = golden_rule.case(name)
    network, x = imported(case), movie(case)
    np.testing.assert_allclose(x.flatten()[:8], case.arrays["in_first"][0], rtol=1e-6)
    assert sum(p.numel() for p in network.parameters()) == case.meta["params_total"]
    with torch.no_grad():
        assert error(network(x), case.arrays["out"][:, 0]) < FP32


@pytest.mark.parametrize("name", CASES)
def test_every_output_depends_on_the_voxels_it_should(name: str) -> None:
    case = golden_rule.case(name)
    depth, height, width = case.meta["output_shape"][2:]
    row, column, wanted = height // 2, width // 2, case.arrays["jac0"][0]
    x = (
        movie(case).double().requires_grad_()
    )  # in float32 a ReLU at 3e-7 may turn the other way and change a derivative
    (gradient,) = torch.autograd.grad(imported(case).double()(x)[0, depth // 2, row, column], x)
    near = gradient[0, :, row - 4 : row + 5, column - 4 : column + 5].numpy()
    assert np.abs(near - wanted).max() <= 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(gradient[0].abs().sum((1, 2)), case.arrays["frame_grad0"][0], rtol=2e-3)


def test_half_precision_stays_close_to_the_authors_output() -> None:
    case = golden_rule.case("deepcadrt_f16_b2_8x16x24")
    with torch.no_grad():
        out = imported(case).half()(movie(case).half()).float().numpy()
    gap, spread = out - case.arrays["out"][:, 0], case.arrays["out"].std()
    assert np.abs(gap).max() / spread < FP16_WORST
    assert np.sqrt(np.square(gap).mean()) / spread < FP16_RMS


def test_weights_trained_on_counts_serve_frames_over_a_scale_exactly() -> None:
    case = golden_rule.case(RULE)
    x = movie(case, raw=True)
    with torch.no_grad():
        in_counts, over_scale = imported(case)(x), imported(case, scale=SCALE)(x / SCALE)
    torch.testing.assert_close(over_scale * SCALE, in_counts, rtol=0, atol=0)  # a power of two: no rounding at all


def test_both_ways_to_fit_frames_agree_where_nothing_needs_fitting() -> None:
    case = golden_rule.case(RULE)
    with torch.no_grad():
        assert torch.equal(imported(case)(movie(case)), imported(case, fit="resize")(movie(case)))


def test_frames_of_other_sizes_continue_with_their_last_pixels() -> None:
    network, x = base.load("deepcadrt").network(width=2).eval(), torch.rand(1, 32, 13, 22)
    with torch.no_grad():
        whole = network(nn.functional.pad(x, (0, 2, 0, 3), mode="replicate"))
        assert torch.equal(network(x), whole[..., :13, :22])


def stored(name: str) -> Path:
    path = real_movies.FOLDER / "checkpoints" / name
    if not path.is_file():
        pytest.skip(f"the checkpoint {name} is not in {path.parent}")
    return path


@pytest.mark.parametrize("name", [PUBLISHED, USERS])
@pytest.mark.parametrize("method", ["deepcad", "deepcadrt"])
def test_the_checkpoints_that_exist_load_under_both_names_of_the_family(method: str, name: str) -> None:
    loader = base.load(method).from_upstream
    assert loader is not None
    assert loader(checkpoints.read(stored(name)).tensors).facts["width"] == 16


def test_the_published_checkpoint_gives_what_it_gave_its_authors() -> None:
    loader = base.load("deepcadrt").from_upstream
    assert loader is not None
    with np.load(stored("deepcadrt_fixture.npz")) as fixture:
        given, wanted = torch.from_numpy(fixture["x"])[:, 0], fixture["y"][:, 0]
    network = loader(checkpoints.read(stored(PUBLISHED)).tensors, scale=SCALE, frames=16)
    with torch.no_grad():
        assert error(network(given / SCALE) * SCALE, wanted) < FP32


WRONG: list[tuple[dict[str, Tensor | None], str]] = [
    ({"Generator.encoders.2.basic_module.SingleConv1.conv.bias": None}, "missing.*encoders.2.first.bias"),
    ({"Generator.encoders.0.basic_module.SingleConv2.conv.weight": None}, "no encoders.0.basic_module.SingleConv2"),
    ({"Generator.norm.weight": torch.zeros(8)}, "unknown.*norm.weight"),
    ({"decoders.0.basic_module.SingleConv1.conv.bias": torch.zeros(64)}, "unknown.*decoders.0.*names like Generator"),
    ({"Generator.final_conv.weight": torch.zeros(1, 8, 1, 1, 1)}, r"final.weight is \(1, 8, .*needs \(1, 16, "),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_another_checkpoint_is_refused_by_the_name_of_the_tensor(
    change: dict[str, Tensor | None], message: str
) -> None:
    loader = base.load("deepcadrt").from_upstream
    assert loader is not None
    state = {**golden_rule.case(RULE).state_dict(), **change}
    with pytest.raises(FileFormatError, match=message):
        loader({name: tensor for name, tensor in state.items() if tensor is not None})


@pytest.mark.parametrize("method", ["deepcad", "deepcadrt", "deepbid"])
def test_a_support_checkpoint_of_as_many_tensors_is_refused(method: str) -> None:
    loader, state = base.load(method).from_upstream, golden_rule.case("support_61f_bp_32x40").state_dict()
    assert loader is not None
    assert len(state) == 30
    with pytest.raises(FileFormatError, match="not a Deep"):
        loader(state)


@pytest.mark.parametrize(
    "facts", [{"frames": 12}, {"frames": 4, "fit": "resize"}, {"fit": "crop"}, {"width": 0}, {"hop": 33}], ids=str
)
def test_facts_that_make_no_network_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="3-D U-Net"):
        base.load("deepcad").network(**facts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "rows"}, "no views 'rows'"),
        ({"frames": 12}, "multiple of 8"),
        ({"absolute": 1.5}, "share from 0 to 1"),
    ],
)
def test_options_that_make_no_task_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        base.load("deepcadrt").task(base.load("deepcadrt").network(width=1), **options)


@pytest.mark.parametrize("views", ["frame", "line", "biscan"])
def test_views_are_split_as_published(views: str) -> None:
    case = golden_rule.case("split_deepcad_deepbid")
    given, wanted = VIEWS[views](torch.from_numpy(golden_rule.frames(tuple(case.meta["shape"]), case.meta["phase"])))
    assert np.array_equal(given, case.arrays[f"{views}_in"])
    assert np.array_equal(wanted, case.arrays[f"{views}_tg"])


class Remembers(nn.Module):
    """Gives back what it is given, and keeps it."""

    def forward(self, frames: Tensor) -> Tensor:
        self.given = frames
        return frames


def test_deepcad_learns_odd_frames_from_even_ones_without_turning_them() -> None:
    method, stub = base.load("deepcad"), Remembers()
    task = method.task(method.network(width=1, frames=8))
    clips = torch.randn(2, task.clip_frames, 32, 32, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([2.0, 5.0])
    losses = task.loss(stub, Batch(clips, scale, torch.Generator()))
    assert task.clip_frames == 16
    assert torch.equal(stub.given, clips[:, 0::2])
    in_counts = (clips[:, 0::2] - clips[:, 1::2]) * scale[:, None, None, None]
    published = 0.5 * in_counts.abs().mean((1, 2, 3)) + 0.5 * in_counts.square().mean((1, 2, 3))
    assert losses.total.item() == pytest.approx(float((published / scale.square()).mean()), rel=1e-5)


def test_deepcad_rt_exchanges_both_views_and_turns_them_together() -> None:
    method, stub, chance = base.load("deepcadrt"), Remembers(), torch.Generator().manual_seed(0)
    task = method.task(method.network(width=1, frames=8), absolute=0.0)
    first = torch.arange(32 * 32.0).reshape(32, 32).expand(1, 8, 32, 32)
    clips = torch.stack([first, -first], 2).flatten(1, 2)  # odd frames are the even ones times -1
    seen = set()
    for _ in range(100):
        losses = task.loss(stub, Batch(clips, torch.ones(1), chance))
        assert losses.total.item() == pytest.approx(float((2 * first).square().mean()), rel=1e-5)
        seen.add(tuple(stub.given[0, 0, [0, 0, -1], [0, -1, 0]].tolist()))
    assert len(seen) == 16


def test_oblong_views_can_be_transposed() -> None:
    pairs, chance = torch.zeros(2, 3, 8, 16, 32), torch.Generator().manual_seed(0)
    assert {turned(pairs, chance).shape[-2:] for _ in range(20)} == {(16, 32), (32, 16)}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The network that DeepCAD-RT's authors published, for movies above their minimum, in units of 256 counts."""
    folder = tmp_path_factory.mktemp("released") / "deepcadrt-published"
    path, counts = stored(PUBLISHED), real_counts()
    said = import_checkpoint(path, "deepcadrt", folder, Counts(offset=float(counts.min()), scale=256.0))
    assert "GPL-3.0" in said
    return bundles.read(folder)


def real_counts() -> NDArray[np.int16]:
    """(64, 96, 96) of a two-photon mesoscope."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is part of the train extra")
    counts: NDArray[np.int16] = tifffile.imread(real_movies.real_movie(real_movies.MESOSCOPE))[:64, 64:160, 64:160]
    return counts


def through(bundle: Bundle, counts: NDArray[np.generic]) -> NDArray[np.float32]:
    """One window of the bundle's own graph and normalisation."""
    facts = bundle.manifest.normalization
    normal = Normalization(facts.offset, facts.scale)
    frames = np.empty((1, *counts.shape), np.float32)
    normal.apply(counts, frames[0])
    out: NDArray[np.float32] = np.empty_like(frames)
    runtime = open_runtime("onnxruntime-cpu", threads=1)
    runtime.compile(bundle.graph("window"), (frames.shape,)).run((frames,), out)
    denoised: NDArray[np.float32] = out[0]
    normal.invert(denoised, denoised)
    return denoised


def test_the_published_checkpoint_denoises_a_real_movie_from_another_microscope(released: Bundle) -> None:
    counts = real_counts()
    seen, unseen = counts[0::2], counts[1::2].astype(np.float32)
    out = through(released, seen)
    noise = noise_sd(counts) ** 2  # of the unseen frames themselves, which nothing predicts
    errors = [float(np.square(frames - unseen).mean()) - noise for frames in (out, seen.astype(np.float32))]
    assert errors[0] < errors[1] / 3  # 4.6 measured
    whole = through(released, counts[:32])
    assert noise_sd(whole) < noise_sd(counts[:32]) / 10  # what is left between frames; 21 measured
    assert whole.mean() == pytest.approx(counts[:32].mean(), rel=0.02)
    # A quarter more than the detector's noise is taken away: fine structure goes too, in movies it was not trained on.
    ratio = residual_checks(counts[:32], whole, photon_transfer(counts[:32])).variance_ratio
    assert ratio == pytest.approx(1.24, abs=0.15)


def test_an_imported_network_keeps_the_counts_it_was_trained_on(released: Bundle) -> None:
    assert released.manifest.normalization.rule == "fixed"
    assert released.manifest.window.size == 32
