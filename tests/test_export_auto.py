"""`rtdenoise export --auto`: every engine of this machine is tried, and the fastest that is still right is what a run takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rtdenoise import bundle as bundles
from rtdenoise import machine
from rtdenoise.cli import app
from rtdenoise.engine.backends import BACKENDS, Backend
from rtdenoise.engine.graph import Runtime
from rtdenoise.engine.load import EngineChoice, EngineFactory
from rtdenoise.errors import EngineError
from rtdenoise.export.auto import AutoReport
from rtdenoise.export.target import LIMITS
from rtdenoise.trial import Question, trial

MODEL = "sn2n-calcium"
"""One frame at a time: the quickest to judge."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AutoReport, str]:
    out = tmp_path_factory.mktemp("auto") / "mine"
    said = CliRunner().invoke(
        app, ["export", MODEL, "--auto", "--size", "48x64", "--fps", "5", "--threads", "1", "--out", str(out)]
    )
    assert said.exit_code == 0, said.output
    written = out.with_name("mine.report.json").read_text(encoding="utf-8")
    return out, AutoReport.model_validate_json(written), said.output


def test_every_engine_is_in_the_report_with_its_figures_or_the_reason(exported: tuple[Path, AutoReport, str]) -> None:
    _, report, said = exported
    assert [candidate.engine for candidate in report.candidates] == list(BACKENDS)
    for candidate in report.candidates:
        assert candidate.why_not or (candidate.trial and candidate.fidelity)
        assert candidate.engine in said.replace("\n", "")
        if candidate.trial:
            assert 0 < candidate.trial.ms_p50 <= candidate.trial.ms_p99
            assert candidate.trial.real_time == (candidate.trial.ms_p50 <= 160)  # four fifths of 200 ms
        if BACKENDS[candidate.engine].gpu and machine.cuda_driver() is None:
            assert "no NVIDIA driver" in candidate.why_not


def test_the_chosen_engine_is_the_fastest_of_those_within_tolerance(exported: tuple[Path, AutoReport, str]) -> None:
    _, report, _ = exported
    right = {c.engine: c for c in report.candidates if not c.why_not}
    assert report.chosen == min(right, key=lambda engine: right[engine].trial.ms_p50)  # type: ignore[union-attr]
    for engine, candidate in right.items():
        limits = LIMITS[engine.rpartition("-")[2] if engine[-2:] == "16" or engine.endswith("int8") else "fp32"]
        assert candidate.fidelity is not None
        assert candidate.fidelity.bright_percent <= limits.bright_percent
        assert (candidate.fidelity.loss_db or 0.0) <= limits.loss_db


def test_a_run_with_the_new_bundle_takes_the_chosen_engine_at_any_size(exported: tuple[Path, AutoReport, str]) -> None:
    out, report, _ = exported
    bundle = bundles.read(out)
    assert bundle.manifest.engine == report.chosen
    assert set(bundle.manifest.variants) <= {BACKENDS[report.chosen].graphs}
    assert bundle.manifest.checksums.keys() == {p.name for p in out.iterdir()} - {bundles.MANIFEST}
    for shape in ((33, 47), (64, 40)):
        with EngineFactory(EngineChoice(str(out), threads=1), shape).make() as engine:
            assert engine.describe().backend == report.chosen


def test_on_a_machine_without_that_engine_the_next_one_runs_and_the_reason_is_said(
    exported: tuple[Path, AutoReport, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(threads: int) -> Runtime:
        raise EngineError("not on this machine")

    out, report, _ = exported
    monkeypatch.setitem(BACKENDS, report.chosen, Backend(absent, BACKENDS[report.chosen].graphs))
    factory = EngineFactory(EngineChoice(str(out), threads=1), (32, 32))
    with factory.make() as engine:
        assert engine.describe().backend != report.chosen
    assert f"{report.chosen}: not on this machine" in factory.refused


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--auto", "--target", "cpu-fp32"], "leave --target out"),
        (["--fps", "30"], "are for --auto"),
        (["--auto", "--size", "512 by 512"], "as 512x256"),
    ],
)
def test_options_that_contradict_each_other_are_one_line(options: list[str], complaint: str) -> None:
    said = CliRunner().invoke(app, ["export", MODEL, *options])
    assert said.exit_code != 0
    assert complaint in str(said.exception)


def test_an_engine_that_crashes_its_process_is_a_reason_and_not_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text("import os\nos.abort()\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = trial(Question(model=MODEL, backend="openvino-fp32", shape=(32, 32)))
    assert not found.usable
    assert "the process that tried it" in found.why_not
