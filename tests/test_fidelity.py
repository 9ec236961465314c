"""Engines judged on a bundle's clips: what means hide is caught, and what is caught is not written."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle
from rtdenoise.errors import ConfigError, EngineError
from rtdenoise.export import run_export
from rtdenoise.export.clips import FILE, Clips, clips_of, stored
from rtdenoise.export.fidelity import Outputs, judge, reference, refuse
from rtdenoise.export.target import find
from rtdenoise.export.variants import files_of, with_form
from rtdenoise.files import MovieInfo, create_movie

TABLE = Path(__file__).parents[1] / "tools" / "report_table.py"


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return bundles.read(bundles.DEMO)


@pytest.fixture(scope="module")
def clips(demo: Bundle) -> Clips:
    return clips_of(demo)


@pytest.fixture(scope="module")
def wanted(demo: Bundle, clips: Clips) -> Outputs:
    return reference(demo, clips.judged[1:], threads=1)


def clipped(graph: bytes, highest: float) -> bytes:
    """The graph with its output cut at a value, as saturated integers do."""
    model = onnx.load_model_from_string(graph)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["whole" if name == output else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(highest), "highest"))
    model.graph.node.append(onnx.helper.make_node("Min", ["whole", "highest"], [output]))
    return bytes(model.SerializeToString())


def without_provenance(bundle: Bundle, out: Path, files: dict[str, bytes]) -> Bundle:
    """The bundle as if trained on recorded movies."""
    own = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.checksums}
    return bundles.write(out, bundle.manifest.model_copy(update={"provenance": {}}), own | files)


def test_the_fp32_graphs_lose_nothing_at_either_size(demo: Bundle, clips: Clips, wanted: Outputs) -> None:
    found = judge(demo, "onnxruntime-cpu", clips.judged[1:], wanted, threads=1)
    assert [row.shape for row in found.rows] == [(96, 128), (65, 85)]
    assert found.loss_db is not None
    assert abs(found.loss_db) < 1e-5
    assert found.bright_percent < 1e-2
    assert found.trace_r > 0.99999
    refuse(found, find("cpu-fp32"), demo.name)


def test_clipped_transients_pass_by_psnr_and_are_refused_by_the_brightest_pixels(
    demo: Bundle, clips: Clips, wanted: Outputs, tmp_path: Path
) -> None:
    clip = clips.judged[1]
    output = (wanted["window", clip.name, clip.shape] - clip.normalization.offset) / clip.normalization.scale
    highest = float(np.quantile(output, 0.9995))
    graphs = {role: demo.graph(role).read_bytes() for role in ("window", "newest", "older")}
    graphs |= {role: clipped(graphs[role], highest) for role in ("window", "newest")}
    cut = with_form(demo, "fp16", files_of("fp16", graphs), tmp_path / "cut")
    found = judge(cut, "onnxruntime-cpu", clips.judged[1:], wanted, kind="fp16", threads=1)
    assert found.loss_db is not None
    assert found.loss_db < 0.05
    with pytest.raises(EngineError, match=r"fast-simulated: onnxruntime-cpu on fp16 graphs, .* % on bright pixels"):
        refuse(found, find("gpu-fp16"), demo.name)


def test_beyond_tolerance_nothing_is_written(demo: Bundle, tmp_path: Path) -> None:
    limits = 'name = "strict"\nprecision = "bf16"\n[tolerance]\nbright_percent = 1e-9\n'
    (tmp_path / "strict.toml").write_text(limits, encoding="utf-8")
    with pytest.raises(EngineError, match="target strict allows 1e-09; export for another target"):
        run_export(demo.path, str(tmp_path / "strict.toml"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["strict.toml"]


def test_no_clip_is_both_calibrated_on_and_judged(clips: Clips) -> None:
    assert len(clips.calibration) == 4
    assert not {clip.name for clip in clips.calibration} & {clip.name for clip in clips.judged}
    assert all(clip.clean is not None for clip in clips.judged)


def test_int8_of_a_bundle_without_clips_asks_for_a_movie(demo: Bundle, tmp_path: Path) -> None:
    bare = without_provenance(demo, tmp_path / "bare", {})
    with pytest.raises(ConfigError, match=r"fast-simulated: .* give one of yours with --movie"):
        run_export(bare.path, "cpu-int8", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_clips_of_recorded_movies_travel_with_the_bundle(demo: Bundle, tmp_path: Path) -> None:
    movie = np.random.default_rng(0).poisson(50, (200, 256, 300)).astype(np.uint16)
    movie[:, 200:210, 250:260] += 500
    files = stored([movie], 4)
    assert len(files[FILE]) < 1 << 20
    found = clips_of(without_provenance(demo, tmp_path / "own", files))
    for clip in (*found.calibration, *found.judged):
        assert clip.counts.max() > 500, "the cell is not in the clip"
        assert clip.clean is None
    assert not np.array_equal(found.calibration[0].counts, found.judged[0].counts)


def test_movies_too_short_for_clips_leave_no_file() -> None:
    assert stored([np.zeros((50, 64, 64), np.uint16)], 4) == {}


def test_a_movie_of_yours_takes_the_place_of_the_bundles_clips(demo: Bundle, tmp_path: Path) -> None:
    path, counts = tmp_path / "mine.tif", np.random.default_rng(1).poisson(50, (100, 40, 50)).astype(np.uint16)
    with create_movie(path, MovieInfo(path, "tiff", (40, 50), "uint16", 100), dtype=None) as writer:
        for image in counts:
            writer.append(image)
    found = clips_of(demo, [path])
    np.testing.assert_array_equal(found.calibration[0].counts, counts[:44])
    np.testing.assert_array_equal(found.judged[0].counts, counts[-44:])
    with pytest.raises(ConfigError, match=r"mine\.tif: 100 frames; .* needs"):
        clips_of(bundles.read("deepcad-calcium"), [path])


def test_the_committed_tables_are_those_of_the_targets_and_reports() -> None:
    spec = importlib.util.spec_from_file_location("report_table", TABLE)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = tool.README.read_text(encoding="utf-8")
    assert tool.with_tables(text) == text, "run: python tools/report_table.py"
