"""The consumers in `examples/` are programs that run: on real runs with known truth, and on the same recorded bytes in other languages."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rtdenoise import wire
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher
from rtdenoise.session import Session
from rtdenoise.settings import RunSettings
from rtdenoise.summary import Summary
from tests.runs import settings

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RECORDED = EXAMPLES / "recorded_stream.bin"
FILTER = {"model": "gauss2d-ema", "threads": 1}
COUNTER = {"mode": "counter", "shape": [32, 48], "fps": None, "live": False}


def beside(asked: RunSettings, program: str, *arguments: str) -> tuple[Summary, str]:
    """Run a session that waits for its subscriber, with an example as that subscriber: the figures, and what it printed."""
    command = [sys.executable, "-u", str(EXAMPLES / program), *arguments]
    consumer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        with Session(asked) as session:
            summary = session.run()
        said, _ = consumer.communicate(timeout=30)
    finally:
        consumer.kill()
        consumer.wait(10)
    assert consumer.returncode == 0, said
    return summary, said


def lossless(source: str, options: dict[str, object], engine: dict[str, object]) -> RunSettings:
    return settings(source, options, engine=engine, policy="lossless", wait_for={"denoised": 1})


def test_plain_pyzmq_prints_every_frame_of_a_run_and_knows_nothing_of_rtdenoise() -> None:
    assert "import rtdenoise" not in (EXAMPLES / "plain_pyzmq.py").read_text("utf-8")
    assert "from rtdenoise" not in (EXAMPLES / "plain_pyzmq.py").read_text("utf-8")
    asked = lossless("synthetic", {**COUNTER, "n_frames": 50}, {"model": "identity"})
    _, said = beside(asked, "plain_pyzmq.py", asked.endpoints.denoised, "--frames", "50")
    lines = [line.split() for line in said.splitlines()]
    assert [(int(line[0]), int(line[1])) for line in lines] == [(k, k) for k in range(50)]
    assert all(line[2:4] == ["(32,", "48)"] and line[-1] == "0" for line in lines)
    assert [float(line[4]) for line in lines] == pytest.approx([k - k / (32 * 48) for k in range(50)], abs=0.01)


@dataclass(frozen=True)
class Field:
    """A simulated field of view as a file, and what its cells really did."""

    path: Path
    labels: Path
    traces: np.ndarray
    cells: list[int]
    depths_um: list[float]
    masks: list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    pytest.importorskip("scipy", reason="the simulator is part of the live extra")
    tifffile = pytest.importorskip("tifffile", reason="tifffile is part of the live extra")
    from rtdenoise.simulate import preset, simulate

    made = simulate(preset("calcium", shape=(96, 96), n_frames=600, seed=3, snr_db=3.0))
    folder = tmp_path_factory.mktemp("field")
    tifffile.imwrite(folder / "movie.tif", made.noisy, photometric="minisblack")
    large = [i for i, mask in enumerate(made.masks) if len(mask[0]) > 80]
    labels = np.zeros((96, 96), np.uint16)
    for number, i in enumerate(large, start=1):
        labels[made.masks[i]] = number
    kept = [k for k in range(1, len(large) + 1) if (labels == k).any()]
    assert kept == list(range(1, len(large) + 1))
    np.save(folder / "labels.npy", labels)
    return Field(folder / "movie.tif", folder / "labels.npy", made.traces, large, made.depths_um, made.masks)


def test_online_dff_follows_the_true_activity_of_the_cells_it_is_given(field: Field, tmp_path: Path) -> None:
    asked = lossless("replay", {"path": str(field.path), "rate": "max"}, FILTER)
    out = tmp_path / "traces.csv"
    words = ("--endpoint", asked.endpoints.denoised, "--rois", str(field.labels), "--offset", "100", "--frames", "600")
    beside(asked, "online_dff.py", *words, "--out", str(out))
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["frame"]), int(row["src_frame"]), int(row["missed"])) for row in rows] == [
        (k, k, 0) for k in range(600)
    ]
    traces = np.array([[float(row[f"roi{k}"]) for row in rows] for k in range(1, len(field.cells) + 1)])
    in_focus = [j for j, i in enumerate(field.cells) if abs(field.depths_um[i]) < 5]
    active = [j for j in in_focus if field.traces[field.cells[j]].max() > 1.5]
    follow = [np.corrcoef(traces[j, 100:], field.traces[field.cells[j], 100:])[0, 1] for j in active]
    assert len(active) >= 4
    assert np.median(follow) > 0.7


def test_online_dff_finds_cells_by_itself_and_most_of_them_are_cells(field: Field, tmp_path: Path) -> None:
    asked = lossless("replay", {"path": str(field.path), "rate": "max"}, FILTER)
    out, rois = tmp_path / "traces.jsonl", tmp_path / "rois.npy"
    words = ("--endpoint", asked.endpoints.denoised, "--offset", "100", "--find-frames", "300", "--frames", "300")
    beside(asked, "online_dff.py", *words, "--out", str(out), "--save-rois", str(rois))
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [row["frame"] for row in rows] == list(range(300, 600))
    labels, traces = np.load(rois), np.array([row["dff"] for row in rows]).T
    assert labels.max() == len(traces) >= 2
    true = [_is_a_cell(field, labels == k + 1, trace) for k, trace in enumerate(traces)]
    assert np.mean(true) > 0.5


def _is_a_cell(field: Field, region: np.ndarray, trace: np.ndarray) -> bool:
    """It covers a good part of a cell, and does what this cell does."""
    inside = [i for i, mask in enumerate(field.masks) if len(mask[0]) > 20 and region[mask].mean() > 0.3]
    return any(np.corrcoef(trace, field.traces[i, 300:])[0, 1] > 0.4 for i in inside)


TRANSIENTS = (80, 150, 240, 310)
SMALL, AFTER = 200, 245


@pytest.fixture(scope="module")
def blinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell at (20, 30) that brightens by 150 % at known frames, once by a fifth of that, and once right after another time."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is part of the live extra")
    rng = np.random.default_rng(4)
    rows, columns = np.ogrid[:48, :64]
    cell = (rows - 20) ** 2 + (columns - 30) ** 2 <= 25
    dff = np.zeros(360)
    for start, size in (*((k, 1.5) for k in TRANSIENTS), (SMALL, 0.3), (AFTER, 0.8)):
        dff[start:] += size * np.exp(-np.arange(360 - start) / 8)
    photons = 20.0 * (1 + cell * dff[:, None, None])
    path = tmp_path_factory.mktemp("blinking") / "blinking.tif"
    tifffile.imwrite(path, (100 + 10 * rng.poisson(photons)).astype(np.uint16), photometric="minisblack")
    return path


def test_closed_loop_fires_once_per_true_transient_and_says_how_late(blinking: Path) -> None:
    asked = lossless("replay", {"path": str(blinking), "rate": 200.0}, FILTER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind(("127.0.0.1", 0))
        device.settimeout(5)
        words = ("--endpoint", asked.endpoints.denoised, "--status", asked.endpoints.status, "--roi", "20", "30", "4")
        words += ("--offset", "100", "--high", "0.5", "--low", "0.2", "--refractory", "0.1", "--idle", "1")
        _, said = beside(asked, "closed_loop.py", *words, "--udp", f"127.0.0.1:{device.getsockname()[1]}")
        lines = [device.recv(1000).decode() for _ in TRANSIENTS]
    assert [line.strip() for line in said.splitlines() if line.startswith("TRIGGER")] == [
        line.strip() for line in lines
    ]
    fired = [int(line.split()[3]) for line in lines]
    assert all(0 <= frame - true <= 4 for frame, true in zip(fired, TRANSIENTS, strict=True)), fired
    known = [word for line in lines if (word := line.split()[7]) != "-"]
    assert known
    assert all(0 < float(ms) < 2000 for ms in known)
    assert "4 triggers, 0 frames never arrived" in said
    assert "latency p50" in said.splitlines()[-2]


def test_closed_loop_names_a_region_that_is_not_in_the_frame() -> None:
    publisher = Publisher("tcp://127.0.0.1:*", wire.StreamFacts("denoised"), frame_bytes=4 * 48 * 64)
    command = [sys.executable, str(EXAMPLES / "closed_loop.py"), "--endpoint", publisher.endpoint]
    consumer = subprocess.Popen([*command, "--roi", "500", "30", "4"], stderr=subprocess.PIPE, text=True)
    assert publisher.wait_for_subscribers(1, timeout_s=30)
    publisher.publish(Frame(np.zeros((48, 64), np.float32), FrameStamp("a", 0, 0, t_in=0)), wire.Drops())
    _, said = consumer.communicate(timeout=30)
    publisher.close()
    assert consumer.returncode == 1
    assert said.strip() == "closed_loop: --roi 500 30 4 is outside of frames of 48 x 64"


def test_napari_shows_both_streams_live(tmp_path: Path) -> None:
    pytest.importorskip("napari", reason="napari is not installed; it is no part of rtdenoise")
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("napari draws with OpenGL and needs a display; try xvfb-run")
    asked = settings("synthetic", {"mode": "blob", "shape": [64, 80], "fps": 30.0}, engine=FILTER)
    port = asked.endpoints.denoised.rpartition(":")[2]
    command = [sys.executable, str(EXAMPLES / "napari_live.py"), "--port", port, "--seconds", "6"]
    shot = tmp_path / "napari.png"
    window = subprocess.Popen([*command, "--screenshot", str(shot)], stdout=subprocess.PIPE, text=True)
    with Session(asked) as session:
        while window.poll() is None:
            assert session.poll()
    said, _ = window.communicate()
    assert window.returncode == 0
    n_raw, n_denoised = (int(said.split()[i]) for i in (0, 3))
    assert min(n_raw, n_denoised) > 10
    assert shot.stat().st_size > 10_000


def recorded() -> Iterator[wire.Message]:
    """What is in the file of recorded bytes, decoded by rtdenoise itself."""
    rest = RECORDED.read_bytes()
    while rest:
        parts = []
        for _ in range(2):
            (length,) = struct.unpack_from("<I", rest)
            parts.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
        yield wire.decode(parts)


def test_the_recorded_bytes_are_small_and_hold_what_decoders_get_wrong() -> None:
    messages = list(recorded())
    assert RECORDED.stat().st_size <= 200_000
    kinds = {(message.facts.stream, message.frame.pixels.dtype.name) for message in messages}
    assert kinds == {("raw", "int16"), ("denoised", "float32")}
    assert {message.frame.pixels.shape for message in messages} == {(40, 56)}
    assert min(message.frame.pixels.min() for message in messages) < 0


DECODERS = {
    "octave": (["octave-cli"], ["octave-cli", "--no-gui", "--quiet", "--eval", "read_recorded('recorded_stream.bin')"]),
    "julia": (["julia"], ["julia", "--startup-file=no", "read_stream.jl", "recorded_stream.bin"]),
    "c-sharp": (["mcs", "mono"], ["mono", "{built}", "recorded_stream.bin"]),
}


@pytest.mark.parametrize("language", DECODERS)
def test_the_same_recorded_bytes_are_the_same_frames_in_other_languages(language: str, tmp_path: Path) -> None:
    programs, command = DECODERS[language]
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed here")
    built = str(tmp_path / "decoder.exe")
    if language == "c-sharp":
        sources = ["StreamFrame.cs", "ReadRecorded.cs"]
        build = ["mcs", f"-out:{built}", "-r:System.Runtime.Serialization.dll", *sources]
        subprocess.run(build, cwd=EXAMPLES, check=True, timeout=60)
    words = [word.format(built=built) for word in command]
    done = subprocess.run(words, cwd=EXAMPLES, capture_output=True, text=True, timeout=60, check=False)
    if language == "julia" and "Package JSON3 not found" in done.stderr:
        pytest.skip("julia is here but its package JSON3 is not")
    assert done.returncode == 0, done.stderr
    got = [line.split() for line in done.stdout.splitlines()]
    expected = list(recorded())
    assert len(got) == len(expected) > 0
    for (stream, frame, rows, columns, mean, pixel), message in zip(got, expected, strict=True):
        pixels = message.frame.pixels
        assert (stream, int(frame)) == (message.facts.stream, message.frame.stamp.frame)
        assert (int(rows), int(columns)) == pixels.shape
        assert float(mean) == pytest.approx(pixels.mean(dtype=np.float64), abs=2e-4)
        assert float(pixel) == pytest.approx(float(pixels[2, 5]), abs=2e-4)
