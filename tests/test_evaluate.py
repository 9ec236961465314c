"""Evaluation as a person meets it: everybody on the same frames, one clear verdict, recordings without truth, other programs' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from rtdenoise import bundle as bundles
from rtdenoise.cli import app
from rtdenoise.engine.filters import FILTERS
from rtdenoise.engine.load import open_engine
from rtdenoise.errors import RtDenoiseError
from rtdenoise.evaluate import compete, contestants
from rtdenoise.evaluate.standings import Interval, Verdict
from tests.real_movies import MESOSCOPE, real_movie
from tests.test_cli import assert_one_line, cli

tifffile = pytest.importorskip("tifffile", reason="tifffile is part of the live extra")
pytest.importorskip("matplotlib", reason="matplotlib is the evaluate extra")
DEMO = "fast-simulated"
SMALL = ("--size", 64, "--frames", 60, "--processes", 1)


def evaluate(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "140"}).invoke(app, ["evaluate", *map(str, words)])


def read(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """The demo model on two small movies: what was printed, and the folder of what was written."""
    folder = tmp_path_factory.mktemp("board")
    (folder / DEMO).mkdir()
    (folder / DEMO / "card.md").write_text("# card\n", encoding="utf-8")
    files = ("--json", folder / "all.json", "--write", folder / "README.md")
    return evaluate("-m", DEMO, "--preset", "calcium", "--snr-db", 6, *SMALL, *files), folder


def results(report: dict[str, Any], model: str) -> list[dict[str, Any]]:
    return [row for row in report["results"] if row["model"] == model]


def test_every_filter_and_every_output_of_the_model_is_scored_on_the_same_frames(board: tuple[Result, Path]) -> None:
    done, folder = board
    assert done.exit_code == 0, done.output
    report = read(folder / "all.json")
    names = {row["model"] for row in report["results"]}
    assert names == {"raw", *FILTERS, DEMO, f"{DEMO} (causal)"} - {"identity"}
    assert {(row["first_frame"], row["n_frames"]) for row in report["results"]} == {(12, 36)}, "gauss3d-wide decides"
    assert {row["seed"] for row in report["results"]} == {101, 102}


def test_the_scores_are_those_of_the_live_stream(board: tuple[Result, Path]) -> None:
    from rtdenoise import metrics
    from rtdenoise.evaluate.streaming import streamed
    from rtdenoise.settings import EngineSettings
    from rtdenoise.simulate import preset, simulate

    movie = simulate(preset("calcium", seed=101, snr_db=6.0, shape=(64, 64), n_frames=60))
    output = streamed(movie.noisy, EngineSettings(model=DEMO, hop=1, threads=1)).frames[12:48]
    (first, _) = results(read(board[1] / "all.json"), DEMO)
    assert first["psnr"] == pytest.approx(metrics.psnr(movie.clean[12:48], output), abs=1e-4)
    assert first["lookahead_frames"] == 3
    assert first["lookahead_ms"] == pytest.approx(100.0)


def test_the_truth_itself_says_how_many_events_can_be_found() -> None:
    movie = compete.MovieChoice("calcium", 101, 0.0, (64, 64), 120)
    (raw,) = compete.compete(contestants.untrained()[:1], [movie])
    assert raw.contestant.label == "raw"
    assert raw.clean_f1 is not None
    assert raw.clean_f1 >= (raw.scores.f1 or 0.0)


def test_the_page_names_its_command_links_the_card_and_says_who_is_to_beat(board: tuple[Result, Path]) -> None:
    folder = board[1]
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "Written by `rtdenoise " in page
    assert f"[{DEMO}]({DEMO}/card.md) (causal) | 0 |" in page
    assert f"[{DEMO}]({DEMO}/card.md) | 3 = 100 ms |" in page
    assert page.count(" \\* |") >= 2
    assert "(leaderboard-calcium.png)" in page
    assert (folder / "leaderboard-calcium.png").read_bytes().startswith(b"\x89PNG")


def test_a_verdict_names_the_gain_over_the_best_filter_that_waits_no_longer(board: tuple[Result, Path]) -> None:
    done, folder = board
    report = read(folder / "all.json")
    (verdict,) = [v for v in report["verdicts"] if v["model"] == DEMO]
    waits_no_longer = [row for row in report["results"] if not row["trained"] and row["lookahead_frames"] <= 3]
    means = {row["model"]: np.mean([r["psnr"] for r in results(report, row["model"])]) for row in waits_no_longer}
    best = max(means, key=lambda name: means[name])
    assert verdict["rivals"]["psnr"] == best
    gain = np.mean([row["psnr"] for row in results(report, DEMO)]) - means[best]
    assert verdict["gains"]["psnr"]["mean"] == pytest.approx(gain, abs=1e-4)
    assert f"PSNR {gain:+.1f} dB over {best}" in done.output
    assert f"{DEMO}: {'yes' if verdict['beats'] else 'no'}, " in done.output


@pytest.mark.parametrize(
    ("psnr", "dynamic_snr", "f1", "beats"),
    [
        (1.0, -1.0, 0.0, True),
        (-1.0, 0.5, 0.02, True),
        (2.0, 2.0, -0.02, False),
        (2.0, 2.0, -0.004, True),
        (-0.1, -0.1, 0.2, False),
        (1.0, float("nan"), float("nan"), True),
    ],
)
def test_a_model_beats_the_filters_only_when_it_keeps_the_events(
    psnr: float, dynamic_snr: float, f1: float, beats: bool
) -> None:
    verdict = Verdict(Interval(psnr, 0.0), Interval(dynamic_snr, 0.0), Interval(f1, 0.0))
    assert verdict.beats is beats


def test_two_processes_give_the_same_scores_as_one() -> None:
    everyone = [who for who in contestants.untrained() if who.model in ("identity", "gauss2d")]
    movies = [compete.MovieChoice("calcium", seed, snr, (32, 32), 30) for snr in (0.0, 9.0) for seed in (101, 102)]
    alone, together = (compete.compete(everyone, movies, processes=n) for n in (1, 2))
    assert [(r.contestant, r.choice) for r in alone] == [(r.contestant, r.choice) for r in together]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_equal(one.scores.as_dict(), other.scores.as_dict())


@pytest.mark.parametrize("path", sorted(bundles.BUILTIN.glob(f"*/{bundles.MANIFEST}")), ids=lambda p: p.parent.name)
def test_a_contestant_waits_as_long_as_its_engine(path: Path) -> None:
    for output in contestants.outputs_of(bundles.read(path.parent)):
        side = max(64, output.min_side)
        asked: dict[str, Any] = {"latency": output.latency, "hop": output.window.hop, "threads": 1}
        with open_engine(path.parent, shape=(side, side), **asked) as engine:
            assert engine.window == output.window
            assert engine.window.latency_frames == output.lookahead


def test_what_a_bundle_is_meant_for_comes_from_what_it_learned_from() -> None:
    demo = bundles.read(DEMO)
    assert contestants.meant_for(demo) == "calcium"
    recipe = {"data": {"simulated": [{"preset": "voltage2p", "seeds": [3]}]}}
    other = bundles.Bundle(demo.path, demo.manifest.model_copy(update={"provenance": {"recipe": recipe}}))
    assert contestants.meant_for(other) == "voltage2p"
    imported = bundles.Bundle(demo.path, demo.manifest.model_copy(update={"provenance": {"weights": "theirs"}}))
    assert contestants.meant_for(imported) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to evaluate"),
        (["-m", DEMO, "--first-seed", 11], "trained on seeds"),
        (["-m", DEMO, "--preset", "calcum"], "unknown simulation preset 'calcum'"),
        (["-m", DEMO, "--frames", 20], "give --frames 34 or more"),
        (["-m", "nowhere"], "nowhere: no bundle here"),
        (["--against", "x.tif"], "need the raw MOVIE"),
        (["x.tif", "--truth", "y"], "goes with --against"),
        (["x.tif", "--all"], "are for simulated movies; leave MOVIE out"),
        (["x.tif", "--against", "y.tif", "-m", DEMO], "leave -m out"),
        (["-m", DEMO, "--json", "nowhere/x.json"], "there is no folder"),
    ],
)
def test_what_cannot_be_evaluated_is_said_at_once(words: list[object], message: str) -> None:
    done = evaluate(*words)
    assert isinstance(done.exception, RtDenoiseError)
    assert message in str(done.exception)


def test_pictures_without_matplotlib_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    done = cli("evaluate", "-m", "gauss2d", "--png", tmp_path / "x.png", without="matplotlib")
    assert_one_line(done, "pip install 'rtdenoise[evaluate]'")
    assert "waits for no frame" not in done.stdout


def test_a_real_recording_is_examined_without_truth(tmp_path: Path) -> None:
    movie = tmp_path / "crop.tif"
    tifffile.imwrite(movie, tifffile.imread(real_movie(MESOSCOPE))[:80, 40:136, 40:136], photometric="minisblack")
    files = ("--json", tmp_path / "seen.json", "--png", tmp_path / "seen.png")
    done = evaluate(movie, "-m", DEMO, "-m", "gauss3d", "--fps", 10, *files)
    assert done.exit_code == 0, done.output
    raw, model, average = read(tmp_path / "seen.json")["outputs"]
    assert [each["model"] for each in (raw, model, average)] == ["raw", DEMO, "gauss3d"]
    assert model["pixel_noise"] < 0.3 * raw["pixel_noise"]
    assert model["nu"] < raw["nu"]
    assert model["pixel_t1"] > raw["pixel_t1"] + 0.3
    assert model["detail_single_px"] < raw["detail_single_px"]
    assert abs(model["residual"]["leak_dynamic"]) < average["residual"]["leak_dynamic"] + 0.1
    assert model["residual"]["variance_ratio"] == pytest.approx(1.0, abs=0.2)
    assert read(tmp_path / "seen.json")["detector"]["gain"] == pytest.approx(56, rel=0.4)
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")


def test_a_recording_too_short_for_the_window_is_one_line(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "short.tif", np.ones((20, 32, 32), np.uint16), photometric="minisblack")
    done = evaluate(tmp_path / "short.tif", "-m", "gauss3d-wide")
    assert "short.tif: 20 frames are too few" in str(done.exception)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    words = ("--preset", "calcium", "--snr-db", "0", "--seed", "7", "--size", "48", "--frames", "60", "--out")
    done = CliRunner().invoke(app, ["simulate", *words, str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def test_a_file_of_another_program_is_scored_against_the_truth(simulated: Path, tmp_path: Path) -> None:
    clean = tifffile.imread(simulated / "clean.ome.tif")
    theirs = 0.5 * clean[10:50] + 7 + np.random.default_rng(0).normal(0, 0.1, (40, 48, 48))
    tifffile.imwrite(tmp_path / "theirs.tif", theirs.astype(np.float32), photometric="minisblack")
    words = ("--truth", simulated, "--first-frame", 10, "--json", tmp_path / "scores.json")
    done = evaluate(simulated / "noisy.ome.tif", "--against", tmp_path / "theirs.tif", *words)
    assert done.exit_code == 0, done.output
    scores = read(tmp_path / "scores.json")["scores"]
    assert scores["theirs.tif"]["psnr"] < 30
    assert scores["theirs.tif"]["psnr_fitted"] > 50, "another scale and offset is forgiven here"
    assert scores["theirs.tif"]["roi_r"] == pytest.approx(1.0, abs=1e-3)
    assert scores["raw"]["psnr_fitted"] < 25


def test_a_file_of_another_program_is_examined_without_truth(simulated: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "theirs.tif", tifffile.imread(simulated / "clean.ome.tif"), photometric="minisblack")
    done = evaluate(simulated / "noisy.ome.tif", "--against", tmp_path / "theirs.tif", "--json", tmp_path / "seen.json")
    assert done.exit_code == 0, done.output
    theirs = read(tmp_path / "seen.json")["outputs"][1]
    assert theirs["residual"]["variance_ratio"] == pytest.approx(1.0, abs=0.15)
    assert abs(theirs["residual"]["leak_dynamic"]) < 0.03


def test_files_that_do_not_fit_together_are_refused(simulated: Path, tmp_path: Path) -> None:
    noisy = simulated / "noisy.ome.tif"
    frames = tifffile.imread(noisy)
    tifffile.imwrite(tmp_path / "fewer.tif", frames[:40], photometric="minisblack")
    tifffile.imwrite(tmp_path / "smaller.tif", frames[:, :40], photometric="minisblack")
    assert "--first-frame" in str(evaluate(noisy, "--against", tmp_path / "fewer.tif").exception)
    late = evaluate(noisy, "--against", tmp_path / "fewer.tif", "--first-frame", 30)
    assert "--first-frame is too large" in str(late.exception)
    assert "40 x 48" in str(evaluate(noisy, "--against", tmp_path / "smaller.tif").exception)
    other = evaluate(tmp_path / "fewer.tif", "--against", tmp_path / "fewer.tif", "--truth", simulated)
    assert "give the folder" in str(other.exception)
