"""The doctor's report: one zip that opens everywhere, tells a stranger what there is, and nothing about who sent it."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from rtdenoise import bundle, doctor
from rtdenoise.cli import app
from rtdenoise.doctor import Check, facts, judge
from rtdenoise.doctor.examine import models
from rtdenoise.doctor.report import MAX_FILE_BYTES
from rtdenoise.doctor.scrub import Scrubber
from rtdenoise.errors import ConfigError
from rtdenoise.logbook import Logbook

FOUND = [
    Check("engine", "openvino-fp32", "ok", "2026.1 on a CPU"),
    Check("camera", "Micro-Manager in process", "ok", "first frame"),
    Check("machine", "frame ring", "ok", "2000 MiB free"),
]
SECRET = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"  # the example key of ZeroMQ's specification of CURVE
PUBLIC = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


@pytest.fixture
def jane(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user with a name and a home folder, on a computer with a name."""
    home = tmp_path / "home" / "janedoe"
    home.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr("getpass.getuser", lambda: "janedoe")
    monkeypatch.setattr("platform.node", lambda: "rig-7-basement")
    monkeypatch.setenv("RTDENOISE_LOG_DIR", str(home / "logs"))
    monkeypatch.setattr(doctor, "diagnose", lambda: FOUND)
    return home


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without importing every source anew."""
    monkeypatch.setattr(facts, "registered", dict)


def past_run(home: Path) -> None:
    """What a run of Jane's left behind."""
    config = home / "scope.cfg"
    config.write_text(f"# made by janedoe\nProperty,Core,AutoShutter,1\napi_key = {SECRET}\n", encoding="utf-8")
    options = {"config": str(config), "mm_path": str(home / "Micro-Manager")}
    log = Logbook(home / "logs", {"settings": {"source": {"name": "micromanager", "options": options}}})
    log.write(f"recording to {home / 'movies' / 'mouse 1'} on rig-7-basement")
    log.write(f'browser: http://127.0.0.1:8080/?token=swordfish&x=1 and secret-key = "{SECRET}"')
    log.write(f"client {PUBLIC} connected from rtsp://camera:hunter2@10.0.0.9/live")
    log.note_facts({"password": "open sesame", "end": {"count": 12, "reason": "ok"}})
    words = log.words_of("denoise")
    assert words is not None
    words.path.write_text("Fatal Python error: Aborted\n", encoding="utf-8")


def texts(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode("utf-8") for name in archive.namelist()}


def test_a_stranger_finds_what_works_versions_logs_settings_and_the_end(jane: Path, tmp_path: Path) -> None:
    past_run(jane)
    done = CliRunner().invoke(app, ["doctor", "--report", str(tmp_path / "out.zip")])
    assert done.exit_code == 0
    found = texts(tmp_path / "out.zip")
    assert "This machine can denoise live" in found["doctor.txt"].replace("\n", " ")
    assert [check["name"] for check in json.loads(found["doctor.json"])["checks"]] == [check.name for check in FOUND]
    assert json.loads(found["computer.json"])["cores"] == os.cpu_count()
    assert json.loads(found["packages.json"])["numpy"] == np.__version__
    registered = json.loads(found["registered.json"])
    assert registered["bundles"]["fast-simulated"] == "ok"
    assert registered["sources"]["synthetic"] == "ok"
    assert "fast" in registered["methods"]
    assert "AutoShutter" in found["config/scope.cfg"]
    (log,) = (text for name, text in found.items() if name.endswith(".log"))
    assert "recording to ~" in log
    (run,) = (json.loads(text) for name, text in found.items() if name.startswith("runs/") and name.endswith(".json"))
    assert run["end"] == {"count": 12, "reason": "ok"}
    assert any("Fatal Python error" in text for name, text in found.items() if name.endswith(".err"))


def test_nothing_in_it_tells_who_or_where_somebody_is_or_opens_a_door(jane: Path, quick: None, tmp_path: Path) -> None:
    past_run(jane)
    doctor.command(Console(quiet=True), as_json=False, report=tmp_path / "out.zip")
    for name, text in texts(tmp_path / "out.zip").items():
        for private in (str(jane), "janedoe", "rig-7-basement", SECRET, PUBLIC, "swordfish", "hunter2", "open sesame"):
            assert private not in text, f"{name} tells {private}"
            assert private not in name


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (r"C:\Users\janedoe\movie.tif", r"~\movie.tif"),
        (r'{"path": "C:\\Users\\janedoe\\movie.tif"}', r'{"path": "~\\movie.tif"}'),
        ("c:/users/JaneDoe/movie.tif of JANEDOE", "~/movie.tif of <user>"),
        ("/home/somebody/x and /Users/else/y", "~/x and ~/y"),
        ('{"token": "abc", "n": 1}', '{"token": "<removed>", "n": 1}'),
        ("secret-key = 'abc def'", "secret-key = <removed>"),
        ("sha1 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12", "sha1 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"),
        ("the key frame is kept: 7", "the key frame is kept: 7"),
        ("rig-70 is another computer than rig-7", "rig-70 is another computer than <computer>"),
    ],
)
def test_paths_names_and_secrets_go_and_the_rest_stays(text: str, clean: str) -> None:
    assert Scrubber(r"C:\Users\janedoe", "janedoe", "rig-7")(text) == clean


def test_names_that_everybody_has_are_no_names() -> None:
    assert Scrubber("/root", "root", "")("the root of /root/a and /rooted") == "the root of ~/a and /rooted"


def test_it_is_small_enough_to_be_mailed_whatever_the_logs_hold(jane: Path, quick: None, tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    for i in range(12):
        log = Logbook(jane / "logs")
        assert log.path is not None
        for ending in (".log", ".log.1"):
            log.path.with_suffix(ending).write_bytes(noise.bytes(MAX_FILE_BYTES).hex().encode() + b"\nnewest %d" % i)
    doctor.command(Console(quiet=True), as_json=False, report=tmp_path / "out.zip")
    assert (tmp_path / "out.zip").stat().st_size < 5e6
    newest = max(name for name in texts(tmp_path / "out.zip") if name.endswith(".log"))
    assert texts(tmp_path / "out.zip")[newest].endswith("newest 11")


def test_without_any_run_there_is_still_a_report(jane: Path, quick: None, tmp_path: Path) -> None:
    assert doctor.command(Console(quiet=True), as_json=False, report=tmp_path / "out.zip") == 0
    assert {"doctor.txt", "computer.json"} <= set(texts(tmp_path / "out.zip"))


def test_what_cannot_be_found_out_is_part_of_the_report(
    jane: Path, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, str]:
        raise RuntimeError("the registry is gone")

    monkeypatch.setattr(facts, "packages", broken)
    doctor.command(Console(quiet=True), as_json=False, report=tmp_path / "out.zip")
    assert "the registry is gone" in texts(tmp_path / "out.zip")["packages.json"]


def test_a_place_that_cannot_be_written_is_named(jane: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--report"):
        doctor.command(Console(quiet=True), as_json=False, report=tmp_path / "missing" / "out.zip")


def test_a_place_without_the_option_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="add --report"):
        doctor.place_of(Path("out.zip"), wanted=False)
    assert doctor.place_of(None, wanted=False) is None
    assert str(doctor.place_of(None, wanted=True)).startswith("rtdenoise-report-")


def test_a_model_that_is_not_whole_makes_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    shutil.copytree(bundle.find("fast-simulated"), tmp_path / "fast-simulated")
    monkeypatch.setattr(bundle, "BUILTIN", tmp_path)
    assert judge([*FOUND, *models()]).healthy
    with (tmp_path / "fast-simulated" / "model.onnx").open("ab") as file:
        file.write(b"x")
    verdict = judge([*FOUND, *models()])
    assert not verdict.healthy
    assert "does not match its checksum" in verdict.line


def test_a_disk_without_room_for_frames_makes_the_verdict() -> None:
    ring = Check("machine", "frame ring", "problem", "3 MiB free in /tmp", "free some of /tmp")
    verdict = judge([*FOUND[:2], ring])
    assert not verdict.healthy
    assert "3 MiB free in /tmp; free some of /tmp" in verdict.line
