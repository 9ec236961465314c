"""The log of a run: one line per event, of bounded size, and never the reason why a run ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rtdenoise import lastwords, logbook
from rtdenoise.logbook import BURST, KEPT_RUNS, MAX_BYTES, Logbook, files_of, runs
from rtdenoise.session import Session
from tests.runs import free_port, settings

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


def text_of(log: Logbook) -> str:
    assert log.path is not None
    return log.path.read_text(encoding="utf-8")


def test_a_line_carries_the_time_in_utc_and_stays_one_line(tmp_path: Path) -> None:
    log = Logbook(tmp_path)
    log.write("first\nof two")
    log.write("Grüße, 1 µm")
    first, second = text_of(log).splitlines()
    assert STAMP.match(first)
    assert first.endswith("Z first | of two")
    assert second.endswith("Grüße, 1 µm")


def test_a_log_never_grows_beyond_two_files_of_fixed_size(tmp_path: Path) -> None:
    log = Logbook(tmp_path)
    for i in range(50):
        log.write(f"{i} " + "x" * 60_000)
    files = sorted(tmp_path.glob("*.log*"))
    assert len(files) == 2
    assert all(file.stat().st_size <= MAX_BYTES for file in files)
    assert text_of(log).splitlines()[-1][25:28] == "49 "


def test_what_is_said_every_second_does_not_push_the_rest_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, seconds = Logbook(tmp_path), iter(range(1000))
    monkeypatch.setattr(logbook.time, "monotonic", lambda: float(next(seconds)))
    log.news("the denoise process died; restart 1")
    for n in range(120):
        log.news(f"the disk is too slow; {n} frames are missing")
    lines = text_of(log).splitlines()
    assert len(lines) == 1 + 2 * BURST
    assert lines[BURST + 1].endswith("(55 like it were left out)")
    assert lines[BURST + 1].partition("; ")[2].startswith("60 frames")


def test_only_the_newest_runs_are_kept(tmp_path: Path) -> None:
    for i in range(KEPT_RUNS + 5):
        log = Logbook(tmp_path)
        log.write(f"run {i}")
    assert len(runs(tmp_path)) == KEPT_RUNS
    (newest,) = files_of(tmp_path, runs(tmp_path)[0])[:1]
    assert newest.with_suffix(".log").read_text(encoding="utf-8").endswith(f"run {KEPT_RUNS + 4}\n")


def test_what_cannot_be_written_is_counted_and_said_once_it_can(tmp_path: Path) -> None:
    log = Logbook(tmp_path)
    assert log.path is not None
    log.path.mkdir()  # stands for a disk that takes nothing
    log.write("lost")
    log.write("lost too")
    assert log.lost == 2
    assert "--log-dir" in log.trouble
    log.path.rmdir()
    log.write("the disk is back")
    assert text_of(log).rstrip().endswith("(2 lines before this could not be written) the disk is back")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a device that is always full")
def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    log = Logbook(tmp_path)
    assert log.path is not None
    log.path.symlink_to("/dev/full")
    log.write("lost")
    assert log.lost == 1
    assert "No space left" in log.trouble


def test_a_folder_that_cannot_be_made_takes_no_run_down_and_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    options = {"mode": "counter", "shape": [32, 48], "fps": None, "live": False, "n_frames": 20}
    asked = settings("synthetic", options, engine={"model": "identity"}, log_dir=tmp_path / "file" / "logs")
    with Session(asked) as session:
        summary = session.run()
        assert "--log-dir" in session.log.trouble
    assert summary.delivered == 20


def test_without_a_folder_nothing_is_kept() -> None:
    log = Logbook(None, {"settings": {}})
    log.write("into the wind")
    assert log.path is None
    assert log.words_of("denoise") is None
    assert log.lost == 0


def test_facts_are_added_to_one_json_file(tmp_path: Path) -> None:
    log = Logbook(tmp_path, {"settings": {"port": 1}})
    log.note_facts({"end": {"count": 3}})
    (file,) = tmp_path.glob("*.json")
    assert json.loads(file.read_text(encoding="utf-8")) == {"settings": {"port": 1}, "end": {"count": 3}}


def test_a_run_that_cannot_start_says_why_in_its_log(tmp_path: Path) -> None:
    asked = settings("replay", {"path": "missing.tif"}, log_dir=tmp_path)
    with pytest.raises(Exception, match=r"missing\.tif"), Session(asked):
        pass
    (file,) = tmp_path.glob("*.log")
    assert "not started: FileFormatError: " in file.read_text(encoding="utf-8")


CRASH = """
from pathlib import Path
from rtdenoise import lastwords
def main(kind):
    import faulthandler, os, sys
    os.write(2, b"a native library speaks\\n")
    if kind == "crash":
        faulthandler._sigsegv()
    if kind == "chatter":
        for _ in range(5000):
            os.write(2, b"x" * 99 + b"\\n")
    raise ValueError("the shutter is on fire")
lastwords.recorded(Path({path!r}), main, {kind!r})
"""


def dies(folder: Path, kind: str) -> tuple[lastwords.LastWords, list[str]]:
    written: list[str] = []
    words = lastwords.LastWords(folder / "denoise.err", "denoise", written.append)
    code = CRASH.format(path=str(words.path), kind=kind)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert done.returncode != 0
    assert done.stderr == b""
    return words, written


def test_an_exception_is_told_by_its_last_line_with_its_traceback_in_the_log(tmp_path: Path) -> None:
    words, written = dies(tmp_path, "exception")
    assert words.gist() == "ValueError: the shutter is on fire"
    words.close()
    assert written[0] == "denoise said: a native library speaks"
    assert "denoise said: Traceback (most recent call last):" in written
    assert not words.path.exists()


def test_a_native_crash_is_told_by_its_first_line(tmp_path: Path) -> None:
    words, _ = dies(tmp_path, "crash")
    assert words.gist().startswith(("Fatal Python error: Segmentation fault", "Windows fatal exception"))


def test_a_library_that_talks_without_end_fills_neither_disk_nor_log(tmp_path: Path) -> None:
    words, written = dies(tmp_path, "chatter")
    assert words.path.stat().st_size > lastwords.MAX_BYTES
    assert words.gist() == "ValueError: the shutter is on fire"
    words.keep_small()
    assert words.path.stat().st_size == 0
    words.close()
    assert len(written) <= lastwords.SHOWN_LINES


def test_logs_go_where_the_system_keeps_them_or_where_the_user_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RTDENOISE_LOG_DIR", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for platform, place in (("linux", ".local/state"), ("darwin", "Library/Logs"), ("win32", "AppData/Local")):
        monkeypatch.setattr(logbook.sys, "platform", platform)
        assert (tmp_path / place / "rtdenoise") in (logbook.default_folder(), *logbook.default_folder().parents)
    monkeypatch.setenv("RTDENOISE_LOG_DIR", str(tmp_path / "mine"))
    assert logbook.default_folder() == tmp_path / "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that asks another process to end")
def test_a_service_manager_ends_a_run_in_order(tmp_path: Path) -> None:
    more = [
        "-o",
        "mode=counter",
        "-o",
        "shape=[32,48]",
        "--fps",
        "50",
        "--model",
        "identity",
        "--port",
        str(free_port()),
    ]
    command = [sys.executable, "-m", "rtdenoise", "run", "-s", "synthetic", *more, "--log-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert any(line.startswith("log ") for line in run.stdout)  # from here on frames flow
        run.send_signal(signal.SIGTERM)
        run.stdout.read()
        assert run.wait(30) == 0
    (log,), (facts,) = tmp_path.glob("*.log"), tmp_path.glob("*.json")
    assert "end: stopped; " in log.read_text(encoding="utf-8")
    assert json.loads(facts.read_text(encoding="utf-8"))["reason"] == "stopped"
