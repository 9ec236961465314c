"""`rtdenoise import`: a published checkpoint becomes a bundle that runs, or one line says why not."""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rtdenoise import bundle as bundles
from rtdenoise import cli, registry
from rtdenoise.bundle import Bundle
from rtdenoise.methods import base
from rtdenoise.simulate import preset, simulate
from tests import golden_rule
from tests.real_movies import MESOSCOPE, real_movie

tifffile = pytest.importorskip("tifffile", reason="tifffile is part of the train extra")

CASE = "fast_c2_33x30"
DEEPINTERPOLATION = "checkpoints/deepinterp_2p_20210731_0125.h5"
FP32 = 2e-4  # of the output's sd, as for the golden cases

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`rtdenoise words...` -> exit code, stdout, stderr."""

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rtdenoise", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return command


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"state_dict": golden_rule.case(CASE).state_dict()}, tmp_path / "movies_Epoch_100.pth")
    return tmp_path / "movies_Epoch_100.pth"


def run_graph(bundle: Bundle, frames: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(bundle.graph("window"), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"frames": frames})[0])


@pytest.mark.parametrize("given", ["numbers", "movie"])
def test_an_authors_checkpoint_becomes_a_bundle(run: Run, checkpoint: Path, tmp_path: Path, given: str) -> None:
    counts = np.random.default_rng(0).normal(300, 40, (6, 32, 32)).round().astype(np.uint16)
    tifffile.imwrite(tmp_path / "movie.tif", counts, photometric="minisblack")
    numbers = ("--offset", counts.mean(), "--scale", counts.std())
    words = numbers if given == "numbers" else ("--movie", tmp_path / "movie.tif")
    imported = tmp_path / "imported"
    code, said, complaint = run(
        "import", checkpoint, "--method", "fast", "--out", imported, "--set", "frames=2", *words
    )
    assert code == 0, complaint
    assert len(said.splitlines()) == 1
    assert "worst error against PyTorch" in said
    bundle = bundles.read(imported)
    normalization, made = bundle.manifest.normalization, bundle.manifest.provenance
    assert normalization.rule == "mean-sd"
    assert normalization.offset == pytest.approx(counts.mean())
    assert normalization.scale == pytest.approx(counts.std())
    assert made["imported"] == checkpoint.name
    assert made["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert made["facts"] == {"frames": 2, "scale": normalization.scale}
    case = golden_rule.case(CASE)  # in counts, where the authors' weights live
    output = run_graph(bundle, golden_rule.frames((1, 2, 33, 30)) / np.float32(normalization.scale))
    assert np.abs(output * normalization.scale - case.arrays["out"]).max() / case.arrays["out"].std() < FP32


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("fast", [], "give --scale"),
        ("fast", ["--scale", "0"], "positive scale"),
        ("fast", ["--scale", "30", "--set", "frames=8"], "movies_Epoch_100.pth: the FAST checkpoint was trained on 2"),
        ("fast", ["--scale", "30", "--set", "frames=many"], "--set: frames: Input should be a valid integer"),
        ("fast", ["--scale", "30", "--set", "depth=3"], "--set: unknown depth; known: frames"),
        ("fast", ["--scale", "30", "--set", "frames"], "--set frames: write it as key=value"),
        ("fast", ["--movie", "nowhere.tif"], "nowhere.tif: "),
        ("fast", ["--movie", "nowhere.tif", "--scale", "3"], "not both"),
        ("umvd", ["--movie", "nowhere.tif"], "fixed factor"),
        ("support", [], "movies_Epoch_100.pth: "),
        ("nobody", [], "unknown method 'nobody'; registered: "),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_line(
    run: Run, checkpoint: Path, tmp_path: Path, method: str, words: list[str], message: str
) -> None:
    code, _, complaint = run("import", checkpoint, "--method", method, "--out", tmp_path / "imported", *words)
    assert code == 1
    assert message in complaint
    assert len(complaint.strip().splitlines()) == 1
    assert not (tmp_path / "imported").exists()


METHODS = [name for name in registry.names(registry.METHODS) if base.load(name).from_upstream is not None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["fast", "keras"])
def test_another_methods_checkpoint_is_refused(
    run: Run, checkpoint: Path, tmp_path: Path, method: str, name: str
) -> None:
    if (name, method) in (("fast", "fast"), ("keras", "deepinterpolation")):
        pytest.skip(f"the {name} checkpoint is {method}'s own")
    path = checkpoint if name == "fast" else real_movie(DEEPINTERPOLATION)
    code, _, complaint = run("import", path, "--method", method, "--out", tmp_path / "imported", "--scale", 1)
    assert code == 1
    assert complaint.startswith(f"rtdenoise: {path}: ")
    assert len(complaint.strip().splitlines()) == 1


def test_code_in_a_checkpoint_is_not_executed(run: Run, tmp_path: Path) -> None:
    torch.save({"state_dict": tmp_path}, tmp_path / "bad.pth")  # a path is an object that must be built by code
    code, _, complaint = run("import", tmp_path / "bad.pth", "--method", "fast", "--out", tmp_path / "o", "--scale", 1)
    assert code == 1
    assert "executed, which no weights need" in complaint


class Denoiser(nn.Module):
    """Pickles like the authors' network: tensors in nested modules, the filter an ordinary attribute (sheet A 5.7)."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name in dict.fromkeys(key.split(".")[0] for key in state):
            inner = {key.removeprefix(f"{name}."): t for key, t in state.items() if key.startswith(f"{name}.")}
            if list(inner) == ["weight"]:
                self.register_module(name, Denoiser({}))
                self.get_submodule(name).weight = nn.Parameter(inner["weight"])
            else:
                self.register_module(name, Denoiser(inner))


def test_a_whole_network_in_a_file_brings_its_filter_and_fixed_units(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = golden_rule.case("umvd_n5_level1_odd_41x39")
    network = Denoiser(case.state_dict())
    network.n_f, network.weights = 5, torch.tensor([1, 0.5, 0, 0.5, 1])  # type: ignore[assignment]
    gone = types.ModuleType("model")
    monkeypatch.setattr(gone, "Denoiser", Denoiser, raising=False)
    monkeypatch.setattr(Denoiser, "__module__", "model")
    monkeypatch.setitem(sys.modules, "model", gone)
    torch.save([network], tmp_path / "calcium.pt")
    monkeypatch.delitem(sys.modules, "model")
    code, _, complaint = run("import", tmp_path / "calcium.pt", "--method", "umvd", "--out", tmp_path / "imported")
    assert code == 0, complaint
    bundle = bundles.read(tmp_path / "imported")
    recorded = bundle.manifest.normalization
    assert (recorded.rule, recorded.offset, recorded.scale) == ("fixed", 0, 255)
    assert bundle.manifest.provenance["facts"] == {"level": 1}
    gap = run_graph(bundle, golden_rule.frames((5, 1, 41, 39)).swapaxes(0, 1)) - case.arrays["out"]
    assert np.abs(gap).max() / case.arrays["out"].std() < FP32


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The authors' two-photon network of 2021 as a bundle."""
    from rtdenoise.importing import import_checkpoint

    folder = tmp_path_factory.mktemp("released") / "deepinterpolation-2p"
    said = import_checkpoint(real_movie(DEEPINTERPOLATION), "deepinterpolation", folder)
    assert "non-commercial" in said
    return bundles.read(folder)


def test_the_released_deepinterpolation_gives_what_it_gave_its_authors(released: Bundle) -> None:
    with np.load(real_movie("checkpoints/deepinterp_2p_fixture.npz")) as stored:
        neighbours, wanted = stored["x"], stored["y"]
    unseen = np.full_like(neighbours[:, :1], 50)
    output = run_graph(released, np.concatenate([neighbours[:, :30], unseen, neighbours[:, 30:]], 1))
    assert np.abs(output - wanted).max() / wanted.std() < FP32


def test_the_released_deepinterpolation_denoises_a_real_movie(run: Run, released: Bundle, tmp_path: Path) -> None:
    counts = tifffile.imread(real_movie(MESOSCOPE))[:70, 64:160, 64:160]
    tifffile.imwrite(tmp_path / "in.tif", counts, photometric="minisblack")
    words = ("--model", released.path, "--engine", "onnxruntime-cpu", "--threads", 1)
    code, _, complaint = run("denoise", tmp_path / "in.tif", tmp_path / "out.ome.tif", *words)
    assert code == 0, complaint
    output, raw = tifffile.imread(tmp_path / "out.ome.tif")[30:40], counts.astype(np.float32)
    # The frame itself is seen by none of the three guesses: two neighbours, sixty of equal weight, the network.
    two = (raw[29:39] + raw[31:41]) / 2
    sixty = np.stack([(raw[t - 30 : t + 31].sum(0) - raw[t]) / 60 for t in range(30, 40)])
    errors = [float(np.square(guess - raw[30:40]).mean()) for guess in (output, sixty, two)]
    assert errors[0] < 0.99 * errors[1] < errors[2]  # 0.974 measured; almost all of the error is the frame's noise


def test_the_released_deepinterpolation_is_nearer_to_the_truth_than_its_input(released: Bundle) -> None:
    made = simulate(preset("calcium", seed=101, snr_db=0.0, shape=(96, 96), n_frames=64))
    raw = made.noisy.astype(np.float32)
    mean, sd = raw.mean(), raw.std()
    output = run_graph(released, ((raw[None, :61] - mean) / sd)) * sd + mean
    errors = [float(np.square(each - made.clean[30]).mean()) for each in (raw[30], output[0, 0])]
    assert errors[1] < errors[0] / 30  # 15 dB; 18 dB measured
