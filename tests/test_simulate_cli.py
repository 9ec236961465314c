"""`rtdenoise simulate`: a folder that holds the movie, the truth, and what makes both again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from rtdenoise.cli import app
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.evaluate import folder as folders
from rtdenoise.files import open_movie
from rtdenoise.simulate import PRESETS, preset, simulate

pytest.importorskip("tifffile", reason="tifffile is part of the live extra")
SMALL = ("--size", "32", "--frames", "20")


def made(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "140"}).invoke(app, ["simulate", *map(str, words)])


@pytest.mark.parametrize(("kind", "file_format"), [("calcium", "tiff"), ("voltage", "zarr"), ("flow", "tiff")])
def test_the_folder_holds_the_movie_that_the_simulation_makes_and_its_truth(
    tmp_path: Path, kind: str, file_format: str
) -> None:
    done = made("--preset", kind, "--seed", 4, *SMALL, "--format", file_format, "--out", tmp_path / "sim")
    assert done.exit_code == 0, done.output
    wanted = simulate(preset(kind, seed=4, shape=(32, 32), n_frames=20))
    suffix = folders.SUFFIXES[file_format]
    with open_movie(tmp_path / "sim" / f"noisy{suffix}") as movie:
        assert movie.info.frame_interval_s == pytest.approx(1 / wanted.frame_rate_hz)
        np.testing.assert_array_equal(movie.read(0, 20), wanted.noisy)
    truth = folders.read_truth(tmp_path / "sim")
    np.testing.assert_array_equal(truth.clean, wanted.clean)
    assert truth.clean.dtype == np.float32
    np.testing.assert_array_equal(truth.traces, wanted.traces)
    assert (truth.offset, truth.frame_rate_hz, truth.polarity) == (wanted.offset, wanted.frame_rate_hz, wanted.polarity)
    assert truth.indicator == wanted.indicator
    assert len(truth.spikes) == len(truth.masks) == len(wanted.masks)
    for saved, known in zip(truth.spikes, wanted.spikes, strict=True):
        np.testing.assert_array_equal(saved, known)
    for saved_mask, known_mask in zip(truth.masks, wanted.masks, strict=True):
        np.testing.assert_array_equal(saved_mask, known_mask)


def test_its_parameters_make_the_movie_again(tmp_path: Path) -> None:
    made("--snr-db", 2, "--seed", 9, *SMALL, "-o", "um_per_px=0.7", "--out", tmp_path / "a")
    done = made("--params", tmp_path / "a" / "params.json", "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    facts = json.loads((tmp_path / "b" / "params.json").read_text(encoding="utf-8"))
    assert (facts["params"]["seed"], facts["params"]["um_per_px"], facts["params"]["snr_db"]) == (9, 0.7, 2.0)
    with open_movie(tmp_path / "a" / "noisy.ome.tif") as one, open_movie(tmp_path / "b" / "noisy.ome.tif") as other:
        np.testing.assert_array_equal(one.read(0, 20), other.read(0, 20))


def test_the_list_shows_every_preset() -> None:
    done = made("--list")
    assert all(name in done.output for name in PRESETS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say with --out"),
        (("--preset", "calcum", "--out", "{}"), "unknown simulation preset"),
        (("-o", "snr=1", "--out", "{}"), "unknown snr; known: kind"),
        (("-o", "snr_db", "--out", "{}"), "write it as key=value"),
        (("--format", "avi", "--out", "{}"), "known: tiff, zarr"),
        (("--params", "{}/none.json", "--out", "{}"), "none.json: no such file"),
        (("--params", "{}/none.json", "--preset", "flow", "--out", "{}"), "exclude each other"),
    ],
)
def test_what_cannot_be_simulated_is_said_at_once(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    done = made(*(word.format(tmp_path / "sim") for word in words))
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert not (tmp_path / "sim").exists()


def test_a_folder_that_holds_a_movie_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    made(*SMALL, "--out", tmp_path / "sim")
    again = made(*SMALL, "--seed", 1, "--out", tmp_path / "sim")
    assert isinstance(again.exception, FileFormatError)
    assert "exists already" in str(again.exception)
    assert folders.read_params(tmp_path / "sim").seed == 0
    assert made(*SMALL, "--seed", 1, "--out", tmp_path / "sim", "--overwrite").exit_code == 0
    assert folders.read_params(tmp_path / "sim").seed == 1


def test_a_damaged_truth_is_named(tmp_path: Path) -> None:
    made(*SMALL, "--out", tmp_path)
    (tmp_path / "truth.npz").write_bytes(b"PK not a zip")
    with pytest.raises(FileFormatError, match=r"truth\.npz: cannot be read"):
        folders.read_truth(tmp_path)
