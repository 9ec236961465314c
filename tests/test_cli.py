"""The command line as a person meets it: what works prints its figures, what cannot work is one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runs import free_port

tifffile = pytest.importorskip("tifffile", reason="tifffile is part of the live extra")


def cli(*words: object, without: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `rtdenoise words...`; `without` names a package that is not installed."""
    program = f"import sys; sys.modules.update({{k: None for k in {without.split()!r}}}); "
    program += "from rtdenoise.cli import main; main()"
    command = [sys.executable, "-c", program, *map(str, words)]
    kept = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    kept["COLUMNS"] = "200"
    return subprocess.run(command, capture_output=True, text=True, env=kept | environment, timeout=120, check=False)


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("denoising ")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def write_movie(path: Path, n: int = 12, side: int = 40) -> Path:
    rng = np.random.default_rng(5)
    tifffile.imwrite(path, rng.poisson(30, (n, side, side)).astype(np.uint16), photometric="minisblack")
    return path


def test_info_lists_what_is_registered_without_loading_torch() -> None:
    facts = json.loads(cli("info", "--json", without="torch openvino onnxruntime pycromanager").stdout)
    assert "fast" in facts["methods"]
    assert set(facts["sources"]) >= {"micromanager", "replay", "synthetic"}
    assert "openvino-bf16" in facts["engines"]
    assert "fast-simulated" in facts["bundles"]


def test_denoise_writes_the_movie_and_says_how_many_frames(tmp_path: Path) -> None:
    done = cli("denoise", write_movie(tmp_path / "in.tif"), tmp_path / "out.ome.tif", "--engine", "openvino-fp32")
    assert done.returncode == 0, done.stderr
    assert "12 frames" in done.stdout
    assert tifffile.imread(tmp_path / "out.ome.tif").shape == (12, 40, 40)


def test_run_prints_the_balance_and_writes_the_figures(tmp_path: Path) -> None:
    movie, report = write_movie(tmp_path / "in.tif"), tmp_path / "run.json"
    done = cli("run", "-s", "replay", "--path", movie, "--fps", "max", "--port", free_port(), "--json", report)
    assert done.returncode == 0, done.stderr
    assert "12 acquired = 12 delivered" in done.stdout
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["balanced"]
    assert set(figures["latency_ms"]) == {"copy", "queue", "denoise", "publish", "age"}


def test_demo_without_a_display_writes_a_picture_and_the_figures(tmp_path: Path) -> None:
    done = cli("demo", "--seconds", 3, "--port", free_port(), "--png", tmp_path / "demo.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "balanced" in done.stdout


def test_a_missing_movie_is_one_line(tmp_path: Path) -> None:
    assert_one_line(cli("denoise", tmp_path / "none.tif", tmp_path / "o.ome.tif"), "none.tif")


def test_a_truncated_movie_is_one_line_that_names_the_frame_and_keeps_what_was_read(tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "in.tif")
    movie.write_bytes(movie.read_bytes()[:-9000])
    done = cli("denoise", movie, tmp_path / "o.ome.tif", "-m", "identity")
    assert_one_line(done, "in.tif")
    kept = [path for path in tmp_path.iterdir() if path.name.startswith("o.ome.tif")]
    assert kept
    assert tifffile.imread(kept[0]).shape[0] >= 8


def test_a_truncated_movie_played_live_delivers_what_can_be_read(tmp_path: Path) -> None:
    movie = write_movie(tmp_path / "in.tif")
    movie.write_bytes(movie.read_bytes()[:-9000])
    done = cli("run", "-s", "replay", "--path", movie, "--fps", "max", "-m", "identity", "--port", free_port())
    assert_one_line(done, "in.tif")
    assert "9 acquired = 9 delivered" in done.stdout


def test_another_frame_shape_in_the_middle_is_one_line_and_what_came_before_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "movie"
    folder.mkdir()
    write_movie(folder / "a1.tif", 7)
    write_movie(folder / "a2.tif", 7, side=32)
    done = cli("run", "-s", "replay", "--path", folder, "--fps", "max", "-m", "identity", "--port", free_port())
    assert_one_line(done, "a2.tif")
    assert "7 delivered" in done.stdout


def test_an_unknown_recipe_key_is_one_line_with_the_known_ones(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs the train extra")
    (tmp_path / "recipe.toml").write_text('name = "x"\nmethod = "fast"\n[train]\nlr = 1\n', encoding="utf-8")
    assert_one_line(cli("train", tmp_path), "recipe.toml", "unknown lr", "learning_rate")


def test_a_busy_port_is_one_line(tmp_path: Path) -> None:
    import zmq

    port = free_port()
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.bind(f"tcp://127.0.0.1:{port}")
        done = cli("run", "-s", "synthetic", "-o", "mode=counter", "-m", "identity", "--port", port)
    assert_one_line(done, str(port), "in use")


def test_no_camera_is_one_line() -> None:
    done = cli(
        "run", "-s", "micromanager", "-o", "backend=java", "-o", "port=1", "-m", "identity", "--port", free_port()
    )
    assert_one_line(done, "Micro-Manager")


@pytest.mark.skipif(sys.platform != "linux", reason="Windows and macOS always have a display")
def test_no_display_is_one_line() -> None:
    assert_one_line(cli("view"), "no display")


@pytest.mark.parametrize(
    ("words", "without", "extra"),
    [
        (["denoise", "in.tif", "o.ome.tif", "-m", "identity"], "tifffile", "rtdenoise[live]"),
        (["denoise", "in.tif", "o.ome.tif", "-e", "openvino-fp32"], "openvino", "rtdenoise[live]"),
        (["denoise", "in.tif", "o.ome.tif", "-e", "onnxruntime-cpu"], "onnxruntime", "rtdenoise[cpu]"),
        (["train", "nowhere"], "torch", "rtdenoise[train]"),
        (["view"], "pyqtgraph PySide6", "rtdenoise[live]"),
    ],
)
def test_an_absent_extra_is_one_line_with_the_install_command(
    tmp_path: Path, words: list[str], without: str, extra: str
) -> None:
    write_movie(tmp_path / "in.tif")
    words = [str(tmp_path / word) if word.endswith(".tif") else word for word in words]
    assert_one_line(cli(*words, without=without, QT_QPA_PLATFORM="offscreen"), extra, "pip install")


@pytest.mark.parametrize("words", [["run", "--hop", "0"], ["run", "-o", "nonsense"], ["run", "--latency", "soon"]])
def test_a_wrong_option_is_one_line(words: list[str]) -> None:
    done = cli(*words, "-s", "synthetic", "-m", "identity")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
