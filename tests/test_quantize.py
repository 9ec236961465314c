"""int8: of a shipped model within tolerance at sizes it was not calibrated at, in a form that every engine takes."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle
from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.export.clips import Clip, Clips, clips_of
from rtdenoise.export.edges import Layer, first_and_last
from rtdenoise.export.fidelity import Outputs, reference
from rtdenoise.export.int8 import to_int8
from rtdenoise.export.prove import extended
from rtdenoise.export.qdq import to_qdq
from rtdenoise.export.report import Report
from rtdenoise.export.target import find
from rtdenoise.export.variants import samples_of
from rtdenoise.normalize import Normalization

pytest.importorskip("nncf", reason="nncf is not installed: pip install 'rtdenoise[quantize]'")

NEVER_CALIBRATED = {(72, 104), (49, 69)}


def smaller(clip: Clip) -> Clip:
    assert clip.clean is not None
    return replace(clip, counts=clip.counts[:24, :72, :104].copy(), clean=clip.clean[:24, :72, :104].copy())


@pytest.fixture(scope="module")
def clips() -> Clips:
    made = clips_of(bundles.read(bundles.DEMO))
    return Clips(made.calibration, tuple(smaller(clip) for clip in made.judged))


@pytest.fixture(scope="module")
def wanted(clips: Clips) -> Outputs:
    return reference(bundles.read(bundles.DEMO), clips.judged, threads=1)


@pytest.fixture(scope="module", params=["cpu-int8", "gpu-int8"])
def made(
    request: pytest.FixtureRequest, clips: Clips, wanted: Outputs, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Report]:
    folder = tmp_path_factory.mktemp(request.param) / "bundle"
    demo = bundles.read(bundles.DEMO)
    return extended(demo, find(request.param), folder, clips=clips, wanted=wanted, threads=1)


def test_int8_of_a_shipped_model_is_within_tolerance_at_sizes_it_was_not_calibrated_at(
    made: tuple[Bundle, Report],
) -> None:
    _, report = made
    assert report.refused == ""
    rows = [row for fidelity in report.fidelity for row in fidelity.rows]
    assert {row.shape for row in rows} == NEVER_CALIBRATED
    assert all(row.worst > 1e-3 for row in rows), "not one pixel differs: these are not int8 graphs"


def test_the_files_name_no_folder_of_the_machine_they_were_made_on(made: tuple[Bundle, Report]) -> None:
    bundle, report = made
    for file in report.bytes:
        content = (bundle.path / file).read_bytes()
        assert all(trace not in content for trace in (b"/tmp", b"/home", b"\\Users", str(Path.cwd()).encode()))


def test_graphs_with_quantise_nodes_build_as_tensorrt_rtx_plans(made: tuple[Bundle, Report]) -> None:
    bundle, report = made
    if report.target.graphs != "qdq":
        assert not bundle.has_graphs("qdq")
        return
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: it has no wheel for this system")
    from rtdenoise.engine.trt_build import build_plan

    shapes = {
        "window": ((1, 4, 64, 88),),
        "older": ((1, 2, 64, 88),),
        "newest": ((1, 2, 64, 88), (1, 4, 64, 88)),
    }
    for role, of_inputs in shapes.items():
        assert len(build_plan("tensorrt_rtx", bundle.graph(role, "qdq"), of_inputs, "8.6")) > 1000


def test_a_network_that_carries_states_is_quantised_with_states_of_its_own_stream(tmp_path: Path) -> None:
    bundle = bundles.read("deepcad-calcium")
    assert bundle.manifest.step is not None
    counts = np.random.default_rng(0).poisson(40, (30, 24, 32)).astype(np.uint16)
    samples = samples_of(bundle, [Clip("noise", counts, Normalization(40.0, 6.0))], threads=1)
    assert samples.keys() == bundle.manifest.graphs.keys()
    assert any(state.any() for state in samples["step"][-1][len(bundle.manifest.step.inputs) :])
    text, weights = to_int8(bundle.graph("step").read_bytes(), samples["step"])
    (tmp_path / "step.xml").write_bytes(text)
    (tmp_path / "step.bin").write_bytes(weights)
    model = openvino.Core().read_model(tmp_path / "step.xml")
    assert sum(op.get_type_name() == "FakeQuantize" for op in model.get_ops()) > 3
    found = openvino.compile_model(model, "CPU")(list(samples["step"][-1]))
    assert len(found) == 1 + len(bundle.manifest.step.states)


def test_what_stays_in_float_stands_first_and_last() -> None:
    names = ["in", "conv_1", "relu", "conv_2", "conv_3", "conv_4", "out"]
    layers = {name: Layer(name.startswith("conv")) for name in names}
    for one, after in itertools.pairwise(names):
        layers[one].after.append(after)
        layers[after].before.append(one)
    assert first_and_last(layers, ["in"], "out", 1, 2) == ["conv_1", "conv_3", "conv_4"]
    assert first_and_last(layers, ["in"], "out", 2, 1) == ["conv_1", "conv_2", "conv_4"]
    layers["in"].after.append("conv_3")  # a short cut
    layers["conv_3"].before.append("in")
    assert first_and_last(layers, ["in"], "out", 1, 1) == ["conv_1", "conv_4"]


def test_without_nncf_the_extra_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"nncf is not installed; run: pip install 'rtdenoise\[quantize\]'"):
        to_int8(b"", [])


def test_samples_of_another_graph_are_refused_in_one_line() -> None:
    graph = bundles.read(bundles.DEMO).graph("window").read_bytes()
    with pytest.raises(EngineError, match="cannot quantise the graph") as caught:
        to_qdq(graph, [(np.zeros((1, 9, 32, 32), np.float32),)])
    assert "\n" not in str(caught.value)
