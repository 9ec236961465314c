"""The doctor opens what it reports on, survives what crashes, and names the line that repairs it."""

from __future__ import annotations

import io
import json
import socket
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from rtdenoise import doctor, machine, registry
from rtdenoise.doctor import Check, diagnose, judge
from rtdenoise.doctor.examine import SERVER_PORT, cameras, computer
from rtdenoise.engine.backends import BACKENDS
from rtdenoise.engine.cuda import NO_DRIVER
from rtdenoise.engine.probe import isolated, probe
from rtdenoise.errors import EngineError
from rtdenoise.settings import DENOISED_PORT

ENGINE = Check("engine", "openvino-fp32", "ok", "2026.1 on a CPU")
CAMERA = Check("camera", "Micro-Manager in process", "ok", "first frame")
NO_ENGINE = Check("engine", "openvino-fp32", "missing", "openvino is not installed", "pip install 'rtdenoise[live]'")
NO_CAMERA = Check("camera", "Micro-Manager in process", "problem", "no Micro-Manager found", "pip install x")


REPORTS = Path(__file__).parents[1] / "export" / "reports"


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    """The real thing, once."""
    return diagnose()


@pytest.fixture
def fake_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that stands before the real one in every child process; fill it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "openvino.py"


@pytest.mark.parametrize("name", BACKENDS)
def test_an_engine_is_really_run_in_a_process_of_its_own(name: str) -> None:
    if find_spec(name.rpartition("-")[0].replace("-", "_")) is None:
        pytest.skip(f"{name} is not installed")
    found = probe(name)
    if not found.usable and ("bf16" in found.why_not or NO_DRIVER in found.why_not):
        pytest.skip(found.why_not)
    assert (found.name, found.usable, found.why_not) == (name, True, "")
    assert found.version
    assert found.device
    assert found.ms is not None
    assert 0 < found.ms < 60_000


def test_a_runtime_that_crashes_does_not_take_us_with_it(fake_openvino: Path) -> None:
    fake_openvino.write_text("import os\nos.abort()\n", encoding="utf-8")
    found = probe("openvino-fp32")
    assert not found.usable
    assert found.why_not.startswith(("the process that tried it crashed (SIGABRT)", "the process that tried it ended"))


def test_a_runtime_that_hangs_is_given_up(fake_openvino: Path) -> None:
    fake_openvino.write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    began = time.monotonic()
    assert probe("openvino-fp32", timeout_s=2.0).why_not == "gave no answer within 2 s"
    assert time.monotonic() - began < 30


def test_a_runtime_that_is_missing_comes_with_its_install_line(fake_openvino: Path) -> None:
    fake_openvino.write_text("raise ImportError\n", encoding="utf-8")
    why = probe("openvino-fp32").why_not
    assert why == "openvino is not installed; run: pip install 'rtdenoise[live]'"


def test_a_runtime_that_prints_nonsense_is_still_understood(fake_openvino: Path) -> None:
    fake_openvino.write_text("print('{\"usable\": true}')\nraise ImportError\n", encoding="utf-8")
    assert not probe("openvino-fp32").usable


def test_a_child_that_answers_nothing_is_named_with_its_last_words() -> None:
    with pytest.raises(EngineError, match=r"ended with code 1: .*No module named rtdenoise\.nothing"):
        isolated("rtdenoise.nothing", timeout_s=60.0)


def test_every_engine_camera_library_and_port_is_examined(checks: list[Check]) -> None:
    assert {check.group for check in checks} == {"engine", "models", "camera", "source", "files", "viewer", "machine"}
    assert {check.name for check in checks if check.group == "engine"} >= set(BACKENDS)
    assert [check.name for check in checks if check.group == "source"] == registry.names(registry.SOURCES)
    assert all(check.detail for check in checks)
    assert all(check.fix.startswith("pip install") for check in checks if check.state == "missing")


def test_an_engine_that_no_card_has_run_is_called_untested_until_a_report_is_there(checks: list[Check]) -> None:
    if machine.cuda_driver() is not None:
        pytest.skip("a card is here: its engines are run, not labelled")
    found = {check.name: check for check in checks if check.group == "engine"}
    for name, backend in BACKENDS.items():
        if backend.gpu:
            assert (found[name].state == "untested") == (not backend.report)
        if backend.report:
            assert name in (REPORTS / backend.report).read_text(encoding="utf-8")


def test_the_demo_camera_is_opened_and_gives_a_frame(checks: list[Check]) -> None:
    if find_spec("mm_test_adapters") is None or find_spec("pycromanager") is None:
        pytest.skip("no demo camera: mm-test-adapters or pycromanager is not installed")
    (camera,) = (check for check in checks if check.name == "Micro-Manager in process")
    assert camera.state == "ok"
    assert "first frame (64, 64) uint16" in camera.detail


def test_the_viewer_s_libraries_are_loaded_with_a_platform_plugin(checks: list[Check]) -> None:
    if find_spec("PySide6") is None or find_spec("pyqtgraph") is None:
        pytest.skip("the viewer's libraries are not installed")
    viewer = next(check for check in checks if check.group == "viewer")
    assert viewer.state == "ok", viewer.detail
    assert "platform" in viewer.detail


def test_a_taken_port_is_a_problem_with_a_way_out() -> None:
    with socket.socket() as door:
        try:
            door.bind(("127.0.0.1", DENOISED_PORT))
            door.listen()
        except OSError:
            pass  # somebody else has it: as good
        (ports,) = (check for check in computer() if check.name == "ports")
    assert ports.state == "problem"
    assert str(DENOISED_PORT) in ports.detail
    assert "--port" in ports.fix


def test_a_running_micro_manager_is_found_and_its_camera_named() -> None:
    if find_spec("mm_test_adapters") is None or find_spec("pycromanager") is None:
        pytest.skip("no stand-in for Micro-Manager: mm-test-adapters or pycromanager is not installed")
    from tests.mm_rig import StandIn

    with socket.socket() as door:
        if door.connect_ex(("127.0.0.1", SERVER_PORT)) == 0:
            pytest.skip(f"port {SERVER_PORT} is in use")
    with StandIn(width=80, height=64, port=SERVER_PORT):
        server = cameras()[-1]
    assert server.state == "ok", server.detail
    assert "64 x 80 uint16" in server.detail


def test_with_an_engine_and_a_camera_the_main_job_runs() -> None:
    verdict = judge([NO_ENGINE, ENGINE, CAMERA])
    assert verdict.healthy
    assert "openvino-fp32" in verdict.line


def test_without_an_engine_or_a_camera_the_verdict_says_what_to_install() -> None:
    verdict = judge([NO_ENGINE, NO_CAMERA])
    assert not verdict.healthy
    assert "no engine works here, run: pip install 'rtdenoise[live]'" in verdict.line
    assert "no camera works here, run: pip install x" in verdict.line


@pytest.mark.parametrize(("found", "code"), [([ENGINE, CAMERA], 0), ([ENGINE, NO_CAMERA], 1), ([CAMERA], 1)])
def test_the_exit_code_says_whether_the_main_job_runs(
    found: list[Check], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda: found)
    assert doctor.command(Console(), as_json=True) == code
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"]["healthy"] == (code == 0)
    assert [check["name"] for check in printed["checks"]] == [check.name for check in found]


def test_the_table_shows_every_finding_and_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda: [NO_ENGINE, CAMERA])
    printed = io.StringIO()
    assert doctor.command(Console(file=printed, width=120), as_json=False) == 1
    for text in ("openvino is not installed", "pip install 'rtdenoise[live]'", "first frame", "cannot denoise live"):
        assert text in printed.getvalue()
