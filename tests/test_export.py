"""Bundles as graphs: the same numbers as PyTorch, at sizes they were not traced at, or no bundle at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle, GraphKind
from rtdenoise.errors import BundleError, ConfigError, EngineError
from rtdenoise.export import BundleFacts, Target, export_bundle, load_network, run_export
from rtdenoise.export.report import Report
from rtdenoise.export.target import FOLDERS, Tolerances, find
from rtdenoise.export.to_onnx import OPSET_BF16, HalfInside, to_onnx
from rtdenoise.methods import base
from rtdenoise.normalize import Normalization
from tests import golden_rule

FAST = base.load("fast")
FACTS = BundleFacts("golden", Normalization(100.0, 30.0), frame_rate_hz=30.0)
CASE = "fast_c4_odd_41x47"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Report]:
    assert FAST.from_upstream is not None
    network = FAST.from_upstream(golden_rule.case(CASE).state_dict())
    return export_bundle(FAST, network, tmp_path_factory.mktemp("out") / "golden", FACTS)


@pytest.fixture(scope="module")
def halved(exported: tuple[Bundle, Report], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half")
    limits = "worst = 0.06\nmean = 0.012\nbright = 0.06\npsnr_db = 45\n"
    target = (
        f'name = "half"\nprecision = "fp16"\ngraphs = "fp16"\n[deploy]\ngroups_per_branch = 4\n[tolerance]\n{limits}'
    )
    (folder / "half.toml").write_text(target, encoding="utf-8")
    run_export(exported[0].path, str(folder / "half.toml"), folder / "golden-half")
    return folder / "golden-half"


def run_graph(bundle: Bundle, role: str, kind: GraphKind = "fp32", **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(bundle.graph(role, kind), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def test_the_exported_window_gives_the_authors_output(exported: tuple[Bundle, Report]) -> None:
    case = golden_rule.case(CASE)
    output = run_graph(exported[0], "window", frames=golden_rule.frames((1, 4, 41, 47)))
    assert np.abs(output - case.arrays["out"]).max() / case.arrays["out"].std() < 2e-4


def test_older_and_newest_add_up_to_the_window(exported: tuple[Bundle, Report]) -> None:
    frames = golden_rule.frames((1, 4, 23, 70), phase=1.0)
    partial = run_graph(exported[0], "older", frames=frames[:, :2])
    together = run_graph(exported[0], "newest", frames=frames[:, 2:], partial=partial)
    np.testing.assert_allclose(together, run_graph(exported[0], "window", frames=frames), atol=1e-5)


def test_the_graphs_are_plain_and_say_nothing_about_where_they_were_made(exported: tuple[Bundle, Report]) -> None:
    for role in ("window", "older", "newest"):
        path = exported[0].graph(role)
        model = onnx.load(path)
        kinds = {node.op_type for node in model.graph.node}
        assert "BatchNormalization" not in kinds
        assert model.opset_import[0].version == 20
        assert b"/rtdenoise/" not in path.read_bytes()


def test_the_report_covers_both_forms_at_an_odd_and_an_even_size(exported: tuple[Bundle, Report]) -> None:
    places = {(gap.form, gap.shape) for gap in exported[1].gaps}
    assert places == {(form, shape) for form in ("window", "older + newest") for shape in ((128, 160), (61, 83))}
    assert all(0 < gap.mean < gap.worst < 1e-4 for gap in exported[1].gaps)
    assert all(gap.psnr_db > 90 and gap.bright <= gap.worst for gap in exported[1].gaps)


def test_the_weights_travel_with_the_bundle(exported: tuple[Bundle, Report]) -> None:
    method, network = load_network(bundles.read(exported[0].path))
    assert method.name == "fast"
    case = golden_rule.case(CASE)
    with torch.no_grad():
        output = network(torch.from_numpy(golden_rule.frames((1, 4, 41, 47)))).numpy()
    assert np.abs(output - case.arrays["out"]).max() / case.arrays["out"].std() < 2e-4


def test_half_precision_keeps_float_inputs_and_outputs(exported: tuple[Bundle, Report], halved: Path) -> None:
    bundle = bundles.read(halved)
    assert bundle.manifest.frame_rate_hz == 30.0
    frames = golden_rule.frames((1, 4, 33, 50))
    half, full = (run_graph(bundle, "window", kind, frames=frames) for kind in ("fp16", "fp32"))
    assert half.dtype == np.float32
    assert 1e-5 < np.abs(half - full).max() / full.std() < 6e-2
    weights = [t for t in onnx.load(bundle.graph("window", "fp16")).graph.initializer if len(t.dims) == 4]
    assert {t.data_type for t in weights} == {onnx.TensorProto.FLOAT16}


def test_another_form_leaves_the_fp32_graphs_as_they_were(exported: tuple[Bundle, Report], halved: Path) -> None:
    bundle, source = bundles.read(halved), exported[0]
    assert (bundle.manifest.precision, bundle.hash) == ("fp32", source.hash)
    assert bundle.manifest.variants == {
        "fp16": {"window": "model-fp16.onnx", "older": "older-fp16.onnx", "newest": "newest-fp16.onnx"}
    }
    assert not source.manifest.variants


def test_the_report_lies_beside_the_output(halved: Path) -> None:
    report = json.loads(halved.with_name(halved.name + ".report.json").read_text(encoding="utf-8"))
    assert report["target"]["name"] == "half"
    assert report["target"]["deploy"] == {"groups_per_branch": 4}
    assert len(report["gaps"]) == 4
    assert set(report["bytes"]) == {"model-fp16.onnx", "older-fp16.onnx", "newest-fp16.onnx"}


def test_a_graph_outside_the_tolerance_is_refused_and_not_written(
    exported: tuple[Bundle, Report], tmp_path: Path
) -> None:
    assert FAST.from_upstream is not None
    network = FAST.from_upstream(golden_rule.case("fast_c2_33x30").state_dict())
    strict = Target(name="strict", precision="fp16", graphs="fp16", shape=(24, 32), tolerance=Tolerances())
    with pytest.raises(EngineError, match=r"golden: window at 24 x 32: worst error .* target strict allows 0.0001"):
        export_bundle(FAST, network, tmp_path / "out", FACTS, strict)
    assert not (tmp_path / "out").exists()


def test_every_committed_target_can_be_read() -> None:
    files = sorted(FOLDERS[1].glob("*.toml"))
    assert files
    assert [find(file.stem).name for file in files] == [file.stem for file in files]


def test_an_unknown_target_is_refused_with_the_known_ones(exported: tuple[Bundle, Report], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no target 'nothing'.*cpu-fp32"):
        run_export(exported[0].path, "nothing", tmp_path / "out")


def test_a_bundle_is_never_exported_onto_itself(exported: tuple[Bundle, Report]) -> None:
    with pytest.raises(BundleError, match="onto itself"):
        run_export(exported[0].path, None, exported[0].path)


def test_a_bundle_without_weights_cannot_be_exported_again(exported: tuple[Bundle, Report], tmp_path: Path) -> None:
    source = exported[0]
    graphs = {name: (source.path / name).read_bytes() for name in source.manifest.graphs.values()}
    bundles.write(tmp_path / "bare", source.manifest, graphs)
    with pytest.raises(BundleError, match=r"ships no weights\.npz"):
        run_export(tmp_path / "bare", None, tmp_path / "out")


def test_the_committed_sums_are_those_of_the_shipped_demo_bundle() -> None:
    folder = Path(__file__).parents[1] / "models" / bundles.DEMO
    lines = (folder / "bundle.sha256").read_text(encoding="utf-8").splitlines()
    committed = {name: digest for digest, name in (line.split() for line in lines)}
    shipped = {
        file.name: file.read_bytes()
        for file in (bundles.BUILTIN / bundles.DEMO).iterdir()
        if file.name != bundles.MANIFEST
    }
    assert committed == {name: hashlib.sha256(content).hexdigest() for name, content in shipped.items()}


def test_the_demo_bundle_is_whole_and_still_the_network_it_claims() -> None:
    demo = bundles.read(bundles.DEMO)
    _, network = load_network(demo)
    frames = golden_rule.frames((1, network.window.size, 37, 50))
    with torch.no_grad():
        wanted = network(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(run_graph(demo, "window", frames=frames), wanted, atol=1e-4)


class KernelInBuffer(nn.Module):
    """A convolution whose kernel is no parameter, as folded networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(1, 3, 3, 3))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(frames, self.kernel, padding=1)


def test_bfloat16_is_exported_in_an_opset_that_has_it_wherever_the_weights_are() -> None:
    graph = onnx.load_model_from_string(
        to_onnx(HalfInside(KernelInBuffer(), torch.bfloat16), {"frames": 3}, "denoised")
    )
    assert graph.opset_import[0].version == OPSET_BF16
    assert any(stored.data_type == onnx.TensorProto.BFLOAT16 for stored in graph.graph.initializer)
