"""The latency dial as a person reads it: what each shorter wait costs, stored in the bundle and said before a run starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Manifest, NormalizationFacts, StateFacts, StepFacts, WindowFacts
from rtdenoise.cli import app
from rtdenoise.engine.load import open_engine
from rtdenoise.errors import RtDenoiseError
from rtdenoise.evaluate import contestants
from rtdenoise.frame import WindowSpec
from tests.runs import free_port
from tests.test_cli import cli

T, HOP = 16, 4
BLOCK = "deepsemi-calcium"


def evaluate(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "140"}).invoke(app, ["evaluate", *map(str, words)])


def averaging_block(folder: Path) -> Path:
    """A network whose every output is the mean of the frames at most four away: those at the end of its block see fewer."""
    onnx = pytest.importorskip("onnx", reason="onnx is part of the train extra")
    near = np.abs(np.subtract.outer(np.arange(T), np.arange(T))) <= 4
    weights = (near / near.sum(1, keepdims=True)).astype(np.float32)[:, :, None, None]
    sizes = {"frames": (1, T, "Y", "X"), "denoised": (1, T, "Y", "X")}
    (taken, given) = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in sizes.items())
    node = onnx.helper.make_node("Conv", ["frames", "mean"], ["denoised"])
    graph = onnx.helper.make_graph([node], "block", [taken], [given], [onnx.numpy_helper.from_array(weights, "mean")])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])
    manifest = Manifest(
        name="block",
        method="averaging",
        window=WindowFacts(size=T, emits=tuple(range(T)), hop=HOP),
        graphs={"window": "model.onnx"},
        normalization=NormalizationFacts(offset=0.0, scale=1.0),
    )
    return bundles.write(folder, manifest, {"model.onnx": model.SerializeToString()}).path


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The bundle after its sweep with --annotate, the figures, what was printed."""
    folder = tmp_path_factory.mktemp("swept")
    path = averaging_block(folder / "block")
    words = ("--size", 48, "--frames", 60, "--snr-db", 0, "--json", folder / "sweep.json", "--annotate")
    done = evaluate("-m", path, "--latency-sweep", *words, "--processes", 1)
    assert done.exit_code == 0, done.output
    return path, json.loads((folder / "sweep.json").read_text("utf-8")), done.output


def notches(report: dict[str, Any]) -> list[dict[str, Any]]:
    (dial,) = report["dials"]
    found: list[dict[str, Any]] = dial["notches"]
    return found


def test_every_look_ahead_is_measured_on_the_same_frames(swept: tuple[Path, dict[str, Any], str]) -> None:
    report = swept[1]
    assert [row["lookahead_frames"] for row in notches(report)][:4] == [0, 1, 2, 4]
    assert [row["latency"] for row in notches(report)][-1] == "full"
    assert len({(row["first_frame"], row["n_frames"], row["seed"]) for row in report["results"]}) == 1


def test_frames_that_see_less_of_the_future_cost_more(swept: tuple[Path, dict[str, Any], str]) -> None:
    first, second, third, fourth = notches(swept[1])[:4]
    assert first["loss_db"] > second["loss_db"] > third["loss_db"] > fourth["loss_db"]
    assert first["loss_db"] > 0.5
    assert abs(fourth["loss_db"]) < 0.2, "from four frames on the mean is whole"
    full = notches(swept[1])[-1]
    assert full["loss_db"] == 0
    assert first["loss_db"] == pytest.approx(full["psnr"] - first["psnr"], abs=1e-5)
    assert full["late_ms"] == pytest.approx(full["late_frames"] / 30 * 1e3, abs=1e-3)


def test_the_table_shows_each_look_ahead_and_its_loss(swept: tuple[Path, dict[str, Any], str]) -> None:
    rows = [line.split() for line in swept[2].splitlines() if line.strip()]
    for notch in notches(swept[1])[:-1]:
        (row,) = [cells for cells in rows if cells[0] == str(notch["lookahead_frames"])]
        assert f"{notch['loss_db']:.2f}" in row
    assert any(cells[1:2] == ["(full)"] for cells in rows)


def test_the_cost_is_stored_in_the_bundle_and_nothing_else_is_changed(
    swept: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    before, after = bundles.read(averaging_block(tmp_path / "again")), bundles.read(swept[0])
    wanted = {row["lookahead_frames"]: round(row["loss_db"], 2) for row in notches(swept[1])[:-1]}
    assert after.manifest.latency_cost_db == wanted
    assert after.hash == before.hash
    same = {"latency_cost_db": {}, "created": ""}
    assert after.manifest.model_copy(update=same) == before.manifest.model_copy(update=same)


def ran(model: Path | str, *words: object) -> list[str]:
    """What a short run of a synthetic camera prints."""
    options = ("-s", "synthetic", "-o", "shape=[32, 32]", "--fps", 30, "--frames", 40, "--port", free_port())
    done = cli("run", "-m", model, "-e", "openvino-fp32", *options, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_run_says_before_it_starts_how_late_it_is_and_what_that_costs(
    swept: tuple[Path, dict[str, Any], str],
) -> None:
    lines = ran(swept[0], "--latency", 2)
    cost = bundles.read(swept[0]).manifest.latency_cost_db[2]
    full = notches(swept[1])[-1]["lookahead_frames"]
    said = f"output 2 frames late (67 ms); look-ahead 2 of {full} costs {cost:.1f} dB"
    assert said in lines
    assert lines.index(said) < next(i for i, line in enumerate(lines) if line.startswith("denoised tcp"))


def test_a_cost_that_nobody_measured_is_not_made_up(tmp_path: Path) -> None:
    lines = ran(averaging_block(tmp_path / "block"), "--latency", "causal")
    assert [line for line in lines if "look-ahead 0 of" in line and "not measured" in line and "--annotate" in line]


def test_a_run_at_full_quality_says_only_how_late_it_is(swept: tuple[Path, dict[str, Any], str]) -> None:
    full = notches(swept[1])[-1]
    lines = ran(swept[0])
    assert f"output {full['late_frames']} frames late ({full['late_ms']:.0f} ms)" in lines


def test_a_block_network_competes_at_its_published_hop_and_every_contestant_has_its_engines_window(
    tmp_path: Path,
) -> None:
    bundle = bundles.read(averaging_block(tmp_path / "block"))
    (full,) = contestants.outputs_of(bundle)
    assert full.window == WindowSpec(T, range(6, 6 + HOP), HOP), "the central ones"
    for contestant in (full, *contestants.dial_of(bundle)):
        asked: dict[str, Any] = {"latency": contestant.latency, "hop": contestant.window.hop, "threads": 1}
        with open_engine(bundle.path, shape=(16, 16), backend="openvino-fp32", **asked) as engine:
            assert engine.window == contestant.window


def test_a_network_that_carries_states_competes_in_its_own_steps(tmp_path: Path) -> None:
    plain = bundles.read(averaging_block(tmp_path / "block"))
    step = StepFacts(size=20, emits=(6, 7, 8, 9), inputs=((16, 20),), states=(StateFacts(maps=1, frames=4, level=0),))
    bundle = bundles.Bundle(plain.path, plain.manifest.model_copy(update={"step": step}))
    own = WindowSpec(20, range(6, 10), 4)
    assert contestants.outputs_of(bundle)[0].window == own
    *shorter, full = contestants.dial_of(bundle)
    assert full.window == own
    assert all(contestant.window.lookahead < own.lookahead for contestant in shorter)


def test_a_shipped_block_network_loses_nothing_it_does_not_say(tmp_path: Path) -> None:
    words = ("--size", 32, "--frames", 60, "--snr-db", 0, "--json", tmp_path / "sweep.json", "--processes", 1)
    done = evaluate("-m", BLOCK, "--latency-sweep", *words)
    assert done.exit_code == 0, done.output
    facts = bundles.read(BLOCK).manifest.window
    rows = notches(json.loads((tmp_path / "sweep.json").read_text("utf-8")))
    assert rows[0]["lookahead_frames"] == facts.size - 1 - facts.emits[-1]
    assert len(rows) > 1
    assert all(row["psnr"] > 15 for row in rows)


def test_the_cost_of_a_bundle_that_changed_on_disk_is_not_stored(tmp_path: Path) -> None:
    path = averaging_block(tmp_path / "block")
    (path / "model.onnx").write_bytes(b"")
    with pytest.raises(RtDenoiseError, match="checksum"):
        bundles.annotate(path, latency_cost_db={0: 1.0})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "deepinterpolation-calcium", "--latency-sweep"], "has a look-ahead to choose"),
        (["-m", BLOCK, "--annotate"], "goes with --latency-sweep"),
        (["-m", BLOCK, "--latency-sweep", "--write", "x.md"], "leave --png, --write and --wide out"),
        (["x.tif", "--latency-sweep"], "are for simulated movies"),
    ],
)
def test_what_cannot_be_swept_is_said_at_once(words: list[object], message: str) -> None:
    done = evaluate(*words)
    assert isinstance(done.exception, RtDenoiseError)
    assert message in str(done.exception)
