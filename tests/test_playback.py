"""What becomes of a recording: converted bit for bit, played again through the live path, denoised afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from rtdenoise.cli import app
from rtdenoise.errors import FileFormatError
from rtdenoise.files import open_movie
from rtdenoise.files.convert import convert_movie
from rtdenoise.recording import events
from rtdenoise.session import Session
from rtdenoise.sources.synthetic import counted
from rtdenoise.wire import Message
from tests.recorder_bench import SHAPE, record_in_this_process
from tests.runs import free_port, run_lossless, settings


def test_a_recording_becomes_an_ome_tiff_and_an_ome_zarr_bit_for_bit(tmp_path: Path) -> None:
    ring, _ = record_in_this_process(tmp_path / "run", n_frames=80, channels=2, planes=2)
    out = tmp_path / "movie.ome.tif"
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "run"), str(out)])
    assert result.exit_code == 0, result.output
    assert "80 frames" in result.output
    stack = tifffile.imread(out)
    assert stack.shape == (20, 2, 2, *SHAPE)
    with tifffile.TiffFile(out) as file:
        assert file.is_bigtiff
        assert file.series[0].axes == "TZCYX"
    assert convert_movie(out, tmp_path / "back.ome.zarr") == 80
    with open_movie(tmp_path / "run") as recorded, open_movie(tmp_path / "back.ome.zarr") as back:
        places = {back.frame_stamp(i): i for i in range(80)}
        for i in range(80):
            frame = ring.frame(i)
            assert frame is not None
            channel, plane, number = recorded.frame_stamp(i)
            np.testing.assert_array_equal(stack[number, plane, channel], frame.pixels)
            place = places[channel, plane, number]
            np.testing.assert_array_equal(back.read(place, place + 1)[0], frame.pixels)
    assert (tmp_path / "movie.ome.tif.stamps.csv").read_text() == (tmp_path / "run" / "raw-000.stamps.csv").read_text()


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    record_in_this_process(tmp_path / "run", n_frames=3)
    with pytest.raises(FileFormatError, match="no series raw-007; there: raw-000"):
        convert_movie(tmp_path / "run", tmp_path / "out.ome.tif", series="raw-007")
    result = CliRunner().invoke(app, ["replay", str(tmp_path / "nowhere")])
    assert isinstance(result.exception, FileFormatError)
    assert "no such file or folder" in str(result.exception)


def whole(message: Message) -> tuple[int, int, int, int, bytes]:
    stamp = message.frame.stamp
    return stamp.channel, stamp.plane, stamp.src_frame, stamp.t_src, message.frame.pixels.tobytes()


def test_a_replay_publishes_what_was_recorded_and_books_its_holes(tmp_path: Path) -> None:
    record_in_this_process(tmp_path / "run", n_frames=60, channels=2, missing=lambda k: 4 if k == 30 else 0)
    asked = settings("replay", {"path": str(tmp_path / "run"), "rate": "max"}, engine={"model": "identity"})
    summary, raw, _ = run_lossless(asked, whole)
    with open_movie(tmp_path / "run") as movie:
        assert movie.stamps is not None
        t_src = movie.stamps["t_src"].tolist()
        assert raw == [(*movie.frame_stamp(i), t_src[i], movie.read(i, i + 1).tobytes()) for i in range(60)]
    assert (summary.acquired, summary.delivered) == (64, 60)
    assert summary.dropped == {"source: lost in the camera buffer": 4}
    assert summary.balanced


def test_a_run_records_raw_and_denoised_and_both_can_be_played_again(tmp_path: Path) -> None:
    run, report, port = tmp_path / "run", tmp_path / "report.json", free_port()
    options = {"mode": "counter", "shape": [32, 48], "fps": 100.0, "n_frames": 120}
    asked = settings("synthetic", options, engine={"model": "identity"}, record={"folder": str(run), "denoised": "raw"})
    notes: list[str] = []
    with Session(asked, notes.append) as session:
        summary = session.run()
    assert summary.balanced
    assert any("recording to" in note for note in notes)
    (calibrated,) = events.read(run)
    assert (calibrated["event"], calibrated["channel"], calibrated["plane"]) == ("calibrated", 0, 0)
    with open_movie(run) as raw, open_movie(run, dataset="denoised-000") as denoised:
        assert [counted(raw.read(i, i + 1)[0]) for i in range(raw.info.n_images)] == list(range(120))
        assert denoised.info.dtype == "uint16"
        assert denoised.stamps is not None
        lost = sum(int(line.split(",")[2]) for line in (run / "denoised.dropped.csv").read_text().splitlines()[1:])
        assert denoised.info.n_images + lost == 120
        for i, number in enumerate(denoised.stamps["src_frame"].tolist()):
            np.testing.assert_array_equal(denoised.read(i, i + 1), raw.read(number, number + 1))
    command = ["replay", str(run), "--raw", "--fps", "max", "--port", str(port), "--json", str(report)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert json.loads(report.read_text(encoding="utf-8"))["delivered"] == 120


def test_recording_is_off_unless_asked(tmp_path: Path) -> None:
    assert settings("synthetic", {}).record is None
    result = CliRunner().invoke(app, ["run", "-s", "synthetic", "--record-denoised", "raw"])
    assert "--record FOLDER" in str(result.exception)
