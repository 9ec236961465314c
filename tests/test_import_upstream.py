"""The importer of authors' checkpoints, as a developer calls it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import typer
from typer.testing import CliRunner

from rtdenoise import bundle as bundles
from tests import golden_rule

TOOL = Path(__file__).parents[1] / "tools" / "import_upstream.py"
CASE = "fast_c2_33x30"


@pytest.fixture(scope="module")
def tool() -> typer.Typer:
    spec = importlib.util.spec_from_file_location("import_upstream", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app = typer.Typer()
    app.command()(module.main)
    return app


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"state_dict": golden_rule.case(CASE).state_dict()}, tmp_path / "movies_Epoch_100.pth")
    (tmp_path / "config.json").write_text(json.dumps({"miniBatch_size": 2}), encoding="utf-8")
    return tmp_path / "movies_Epoch_100.pth"


def test_an_authors_checkpoint_becomes_a_bundle(tool: typer.Typer, checkpoint: Path, tmp_path: Path) -> None:
    config = ["--config", str(tmp_path / "config.json"), "--offset", "200", "--scale", "1"]
    done = CliRunner().invoke(tool, ["fast", str(checkpoint), str(tmp_path / "imported"), *config])
    assert done.exit_code == 0, done.output
    bundle = bundles.read(tmp_path / "imported")
    assert bundle.manifest.normalization.offset == 200
    session = onnxruntime.InferenceSession(bundle.graph("window"), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"frames": golden_rule.frames((1, 2, 33, 30))})
    wanted = golden_rule.case(CASE).arrays["out"]
    assert np.abs(np.asarray(output) - wanted).max() / wanted.std() < 2e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --scale"),
        (["--scale", "30", "--config", "config.json"], "trained on 2 frames, not 8"),
        (["--movie", "nowhere.tif"], "nowhere.tif: cannot be read"),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_line(
    tool: typer.Typer, checkpoint: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"miniBatch_size": 8}), encoding="utf-8")
    here = [str(tmp_path / a) if a.endswith((".json", ".tif")) else a for a in arguments]
    done = CliRunner().invoke(tool, ["fast", str(checkpoint), str(tmp_path / "imported"), *here])
    assert done.exit_code == 1
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not (tmp_path / "imported").exists()


def test_code_in_a_checkpoint_is_not_executed(tool: typer.Typer, tmp_path: Path) -> None:
    torch.save({"state_dict": tmp_path}, tmp_path / "bad.pth")  # a path is an object that must be built by code
    done = CliRunner().invoke(tool, ["fast", str(tmp_path / "bad.pth"), str(tmp_path / "out"), "--scale", "1"])
    assert done.exit_code == 1
    assert "not a PyTorch checkpoint of plain tensors" in done.output
