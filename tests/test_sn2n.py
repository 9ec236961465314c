"""SN2N against numbers made with the authors' network; and what a movie needs of it: intensity that stays."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdenoise import bundle as bundles
from rtdenoise import checkpoints
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.evaluate.streaming import streamed
from rtdenoise.export import BundleFacts, export_bundle
from rtdenoise.importing import import_checkpoint
from rtdenoise.methods import base
from rtdenoise.methods.base import Batch, Network
from rtdenoise.methods.sn2n.task import diagonals, fourier_doubled, lines
from rtdenoise.normalize import Normalization
from rtdenoise.settings import EngineSettings
from rtdenoise.simulate import preset, simulate
from tests import golden_rule

SN2N, SN2N_3D = base.load("sn2n"), base.load("sn2n3d")
CASES = golden_rule.names("sn2n")
FP32 = 2e-4  # of the output's sd; the authors' own float32 differs from float64 by up to 3e-5
FP16_WORST, FP16_RMS = 6e-2, 1.2e-2
SMALL = (4, 6, 8, 8, 8)
Counts = NDArray[Any]


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


@pytest.mark.parametrize("name", ["sn2n2d_batchstat_40x48", "sn2n2d_running_40x48"])
def test_half_precision_stays_close(name: str) -> None:
    case = golden_rule.case(name)
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
    return method.network(**{"width": " ".join(map(str, SMALL)), "dims": dims} | facts).eval()


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


# Checkpoints are whole networks, pickled. These stand-ins live in a module of the authors' name while one is written.


class Double(nn.Module):
    def __init__(self, dims: int, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        layers = [conv(inputs, middle, 3, padding=1), norm(middle), nn.LeakyReLU(0.02, inplace=True)]
        layers += [conv(middle, outputs, 3, padding=1), norm(outputs), nn.LeakyReLU(0.02, inplace=True)]
        self.double_conv = nn.Sequential(*layers)


class Down(nn.Module):
    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        pool = nn.MaxPool2d(2) if dims == 2 else nn.MaxPool3d(2)
        self.maxpool_conv = nn.Sequential(pool, Double(dims, inputs, outputs, outputs))


class Up(nn.Module):
    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        mode = "bilinear" if dims == 2 else "trilinear"
        self.up = nn.Upsample(scale_factor=2, mode=mode, align_corners=True)
        self.conv = Double(dims, inputs, inputs // 2, outputs)


class Out(nn.Module):
    def __init__(self, dims: int, inputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 1, 1) if dims == 2 else nn.Conv3d(inputs, 1, 1)


class Unet(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        a, b, c, d, e = SMALL
        self.n_channels, self.bilinear = 1, True
        self.inc = Double(dims, 1, a, a)
        for i, (inputs, outputs) in enumerate([(a, b), (b, c), (c, d), (d, e)]):
            self.add_module(f"down{i + 1}", Down(dims, inputs, outputs))
        for i, (inputs, outputs) in enumerate([(d + e, c), (2 * c, b), (2 * b, a), (2 * a, a)]):
            self.add_module(f"up{i + 1}", Up(dims, inputs, outputs))
        self.outc = Out(dims, a)


@pytest.fixture
def their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a network as the authors do, then their module is gone. `extra`: an attribute more."""

    def write(dims: int, **extra: object) -> tuple[Path, dict[str, Tensor]]:
        module = types.ModuleType("SN2N.models")
        with monkeypatch.context() as patch:
            names = {Unet: "Unet", Double: "DoubleConv", Down: "Down", Up: "Up", Out: "OutConv"}
            for each, name in names.items():
                patch.setattr(each, "__module__", "SN2N.models")
                patch.setattr(each, "__qualname__", f"{name}_{dims}d")
                setattr(module, f"{name}_{dims}d", each)
            patch.setitem(sys.modules, "SN2N", types.ModuleType("SN2N"))
            patch.setitem(sys.modules, "SN2N.models", module)
            torch.manual_seed(4)
            network = Unet(dims)
            for name, value in extra.items():
                setattr(network, name, value)
            torch.save(network, tmp_path / "model.pth")
        return tmp_path / "model.pth", network.state_dict()

    return write


@pytest.mark.parametrize("dims", [2, 3])
def test_their_pickled_network_is_read_without_their_program(their_file: Any, dims: int) -> None:
    path, wanted = their_file(dims)
    found = checkpoints.read(path).tensors
    assert "SN2N.models" not in sys.modules
    assert found.keys() == wanted.keys()
    assert len(found) == 128
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


class Calls:
    """Pickles as a call of `os.mkdir`."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (self._folder,)


def test_code_hidden_in_their_network_is_refused_and_not_run(their_file: Any, tmp_path: Path) -> None:
    path, _ = their_file(2, note=Calls(tmp_path / "made"))
    with pytest.raises(FileFormatError, match="mkdir executed, which no weights need"):
        checkpoints.read(path)
    assert not (tmp_path / "made").exists()


def test_another_class_of_their_module_is_refused_by_name(their_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = type("Trainer", (), {"__module__": "SN2N.trainer"})
    trainer = types.ModuleType("SN2N.trainer")
    trainer.Trainer = foreign  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "SN2N.trainer", trainer)
    path, _ = their_file(2, trainer=foreign())
    with pytest.raises(FileFormatError, match=r"wants SN2N\.trainer\.Trainer executed"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up2.conv.double_conv.4.running_var": None}, r"missing \['up2.conv.double_conv.4.running_var'\]"),
        ({"extra.weight": torch.zeros(1)}, r"unknown \['extra.weight'\]"),
        ({"outc.conv.bias": torch.zeros(3)}, r"outc.conv.bias is \(3,\), SN2N-2D needs \(1,\)"),
        ({"inc.double_conv.3.weight": torch.zeros(4)}, "no 4-dimensional inc.double_conv.3.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: dict[str, Tensor | None], message: str) -> None:
    state = {k: v for k, v in ({**small().state_dict(), **change}).items() if v is not None}
    assert SN2N.from_upstream is not None
    with pytest.raises(FileFormatError, match=message):
        SN2N.from_upstream(state)


def test_counters_of_the_norms_need_not_be_there() -> None:
    state = {k: v for k, v in small().state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(state) == 110
    assert SN2N.from_upstream is not None
    SN2N.from_upstream(state)


def test_a_network_for_frames_is_not_one_for_blocks(their_file: Any, tmp_path: Path) -> None:
    path, _ = their_file(2)
    with pytest.raises(FileFormatError, match=r"model\.pth: not a checkpoint of SN2N-3D"):
        import_checkpoint(path, "sn2n3d", tmp_path / "bundle")


# Movies: what was calibrated stays, whatever the frames do.


def movie(brightness: float = 1.0) -> Counts:
    """(T, Y, X) counts; from frame 10 on all that is above the camera's offset is `brightness` times as bright."""
    made = simulate(preset("calcium", seed=7, snr_db=3.0, shape=(64, 64), n_frames=20))
    offset, clean = 100.0, made.clean[:1] - made.clean.min() + 50.0  # nothing blinks: only the camera's noise is left
    factor = np.where(np.arange(20) < 10, 1.0, brightness)[:, None, None]
    rng = np.random.default_rng(1)
    return (offset + rng.normal(factor * clean, 30.0)).clip(0).astype(np.uint16)


def trained(folder: Path) -> str:
    """A narrow network of our own form after a short training, as a bundle."""
    torch.manual_seed(0)
    network = SN2N.network(**SN2N.narrow)
    task = SN2N.task(network, error="mse", upsampling="none")
    normal = torch.from_numpy(movie()[:10].astype(np.float32))
    normal = ((normal - normal.mean()) / normal.std()).unsqueeze(1)
    optimizer, chance = task.optimizer(network, 2e-3, 1.0), torch.Generator().manual_seed(0)
    for i in range(80):
        network.train(i < 60)  # the last steps with the statistics that it lives with
        loss = task.loss(network, Batch(normal[i % 5 :: 5], torch.ones(2), chance)).total
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    export_bundle(SN2N, network.eval(), folder, BundleFacts("own", Normalization(0.0, 1.0)))
    return str(folder)


@pytest.fixture(params=["imported", "own"])
def model(request: pytest.FixtureRequest, tmp_path: Path, their_file: Any) -> str:
    if request.param == "own":
        return trained(tmp_path / "own")
    import_checkpoint(their_file(2)[0], "sn2n", tmp_path / "imported")
    assert bundles.read(tmp_path / "imported").manifest.normalization.rule == "min-max"
    return str(tmp_path / "imported")


def denoised(model: str, counts: Counts) -> Counts:
    return streamed(counts, EngineSettings(model=model, backend="onnxruntime-cpu", threads=1)).frames


def test_a_movie_that_doubles_its_brightness_after_calibration_keeps_it(model: str) -> None:
    counts = movie(brightness=2.0)
    given, out = counts.mean((1, 2)) - 100, denoised(model, counts).mean((1, 2)) - 100
    assert given[10:].mean() > 1.9 * given[:10].mean()
    np.testing.assert_allclose(out, given, rtol=0.1)


def test_the_mean_of_a_steady_movie_flickers_no_more_than_before(model: str) -> None:
    counts = movie()
    out = denoised(model, counts)
    assert out.mean((1, 2)).std() <= 1.1 * counts.mean((1, 2)).std()
    assert out.std(0).mean() < counts.std(0).mean()
