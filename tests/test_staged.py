"""Two-stage networks in the stream: what each frame gave is remembered, and nothing of it shows in what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rtdenoise import bundle as bundles
from rtdenoise import catalogue
from rtdenoise.engine.backends import BACKENDS, Backend, open_runtime, taking
from rtdenoise.engine.base import Engine
from rtdenoise.engine.graph import Array, Graph, Runtime
from rtdenoise.engine.load import open_engine
from rtdenoise.engine.staged import StagedEngine
from rtdenoise.engine.window import WindowEngine
from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.normalize import Normalization
from rtdenoise.stream import StreamingDenoiser

MODELS = [name for name in catalogue.registered()["bundles"] if bundles.read(name).manifest.stages]
ON_CPU = [name for name in taking("fp32") if not BACKENDS[name].gpu]
"""On a card frames stay with the engine, and the whole network runs."""
SEGMENTS = (13, 1, 2, 8, 3)
"""Frames between gaps: long ones, and shorter ones than any window."""
EXACT_FP32, RMS_BF16 = 1e-6, 3e-2
"""Of the output's sd: the same arithmetic in the same order; bf16 may round elsewhere where the network is cut."""
OFFLINE = 1e-4
"""Of the output's sd: another library's arithmetic."""
SHAPE, ODD = (24, 32), (25, 39)


class Counted:
    """A runtime that says how often each graph ran."""

    def __init__(self, inner: Runtime, runs: dict[str, int]) -> None:
        self._inner, self._runs = inner, runs
        self.backend, self.device, self.precision = inner.backend, inner.device, inner.precision
        self.threads = inner.threads

    def compile(self, path: Path, shapes: tuple[tuple[int, ...], ...]) -> Graph:
        graph, runs = self._inner.compile(path, shapes), self._runs
        runs[path.stem] = 0

        class Counting:
            def run(self, inputs: tuple[Array, ...], *outs: Array) -> None:
                runs[path.stem] += 1
                graph.run(inputs, *outs)

        return Counting()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each graph of the engine `counted` ran."""
    counts: dict[str, int] = {}
    usable("onnxruntime-cpu")
    monkeypatch.setitem(
        BACKENDS, "counted", Backend(lambda threads: Counted(open_runtime("onnxruntime-cpu", threads), counts))
    )
    return counts


def usable(backend: str) -> str:
    """The name, or a skip where this machine does not have it."""
    try:
        open_runtime(backend, 1)
    except (MissingExtraError, EngineError) as error:
        pytest.skip(f"{backend} cannot run here: {error}")
    return backend


opened = partial(open_engine, threads=1)


def in_one(model: str, folder: Path) -> Path:
    """The same bundle without its two stages."""
    whole = bundles.read(model)
    files = {"model.onnx": whole.graph("window").read_bytes()}
    manifest = whole.manifest.model_copy(update={"graphs": {"window": "model.onnx"}, "stages": None})
    return bundles.write(folder / model, manifest, files).path


def movie(n_frames: int, shape: tuple[int, int] = SHAPE, seed: int = 0) -> Array:
    """Normalised noise and one cell that flickers."""
    rng = np.random.default_rng(seed)
    frames = rng.standard_normal((n_frames, *shape), np.float32)
    frames[:, 8:13, 9:14] += rng.uniform(2, 10, (n_frames, 1, 1)).astype(np.float32)
    return frames


def pushed(frames: Array) -> Iterator[Frame]:
    """Segments that a gap or a new series ends, in turn."""
    starts = dict.fromkeys(np.cumsum(SEGMENTS).tolist()[:-1])
    new_series = list(starts)[1::2]
    for k, pixels in enumerate(frames):
        series = f"s{sum(k >= start for start in new_series)}"
        yield Frame(pixels, FrameStamp(series, k, k, 0, dropped=2 if k in starts and k not in new_series else 0))


def streamed(engine: Engine, frames: Array) -> tuple[list[int], Array]:
    """(source frames, pixels) of everything that comes out, in order."""
    stream = StreamingDenoiser(engine, Normalization(0.0, 1.0), (frames.shape[1], frames.shape[2]))
    numbers, images = [], []
    for frame in pushed(frames):
        for out in stream.push(frame):
            numbers.append(out.stamp.src_frame)
            images.append(out.pixels.copy())
    for out in stream.flush():
        numbers.append(out.stamp.src_frame)
        images.append(out.pixels.copy())
    return numbers, np.array(images)


def test_there_are_two_stage_models_to_test() -> None:
    assert {"umvd-calcium", "stsuvd-calcium", "udvd-calcium"} <= set(MODELS)


@pytest.mark.parametrize("backend", ON_CPU)
def test_gaps_new_series_and_short_segments_come_out_as_from_the_whole_network(
    model: str, backend: str, tmp_path: Path
) -> None:
    frames = movie(sum(SEGMENTS), ODD)
    with (
        opened(model, shape=ODD, backend=usable(backend)) as staged,
        opened(in_one(model, tmp_path), shape=ODD, backend=backend) as whole,
    ):
        assert isinstance(staged, StagedEngine)
        assert isinstance(whole, WindowEngine)
        assert staged.window == whole.window
        (numbers, out), (wanted_numbers, wanted) = streamed(staged, frames), streamed(whole, frames)
    assert numbers == wanted_numbers == list(range(sum(SEGMENTS)))
    error = out - wanted
    if "bf16" in backend:
        assert np.sqrt(np.square(error).mean()) <= RMS_BF16 * wanted.std()
    else:
        assert np.abs(error).max() <= EXACT_FP32 * wanted.std()


def test_what_comes_out_is_what_pytorch_gives_for_the_same_window(model: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference; it is part of the train extra")
    from rtdenoise.export.pack import load_network

    _, network = load_network(bundles.read(model))
    with opened(model, shape=ODD, backend=usable("onnxruntime-cpu")) as engine:
        size, target = engine.window.size, engine.window.emits[0]
        frames = movie(size + 4, ODD)
        for first in range(5):
            window = frames[first : first + size]
            with torch.no_grad():
                wanted = network(torch.from_numpy(window[None])).numpy()[0]
            out = engine.run(window, first, first + target, 1)
            np.testing.assert_allclose(out, wanted, rtol=0, atol=OFFLINE * wanted.std())


def test_the_first_stage_runs_once_per_new_frame_and_ahead_of_the_first_window(
    model: str, runs: dict[str, int]
) -> None:
    with opened(model, shape=SHAPE, backend="counted") as engine:
        stages, size = bundles.read(model).manifest.stages, engine.window.size
        assert stages is not None
        frames = movie(size + 5)
        engine.prepare(frames[: size - 1], 0)
        n_ahead = size - stages.span
        assert runs == {"encode": n_ahead, "fuse": 0}
        for first in range(6):
            engine.run(frames[first : first + size], first, first + engine.window.emits[0], 1)
    assert runs == {"encode": n_ahead + 6, "fuse": 6}


def test_work_done_ahead_changes_nothing(model: str) -> None:
    backend = usable("onnxruntime-cpu")
    with (
        opened(model, shape=SHAPE, backend=backend) as ahead,
        opened(model, shape=SHAPE, backend=backend) as plain,
    ):
        size, target = ahead.window.size, ahead.window.emits[0]
        frames = movie(size + 4)
        for first in range(4):
            for n_here in range(1, size):
                ahead.prepare(frames[first : first + n_here], first)
            window = frames[first : first + size]
            wanted = plain.run(window, first, first + target, 1)
            np.testing.assert_array_equal(ahead.run(window, first, first + target, 1), wanted)


def test_a_window_that_does_not_follow_the_last_one_is_computed_from_its_own_frames(model: str) -> None:
    with opened(model, shape=SHAPE, backend=usable("onnxruntime-cpu")) as engine:
        size, target = engine.window.size, engine.window.emits[0]
        frames = movie(3 * size)
        along = [engine.run(frames[k : k + size], k, k + target, 1).copy() for k in range(2 * size)]
        for k in (2 * size - 1, 0, size, 3, 2):
            np.testing.assert_array_equal(engine.run(frames[k : k + size], k, k + target, 1), along[k])


def test_after_a_reset_the_same_frame_numbers_are_other_frames(model: str) -> None:
    backend = usable("onnxruntime-cpu")
    with opened(model, shape=SHAPE, backend=backend) as used, opened(model, shape=SHAPE, backend=backend) as fresh:
        size, target = used.window.size, used.window.emits[0]
        used.run(movie(size, seed=1), 0, target, 1)
        used.reset()
        again = movie(size, seed=2)
        np.testing.assert_array_equal(used.run(again, 0, target, 1), fresh.run(again, 0, target, 1))


def test_mirrored_frames_before_the_first_are_never_taken_for_those_of_an_earlier_window(model: str) -> None:
    backend = usable("onnxruntime-cpu")
    with opened(model, shape=SHAPE, backend=backend) as used, opened(model, shape=SHAPE, backend=backend) as fresh:
        size, target = used.window.size, used.window.emits[0]
        frames = movie(size)
        used.run(frames, -target, 0, 1)
        other = frames.copy()
        other[:target] = movie(target, seed=3)  # what is mirrored there depends on how many frames had come
        np.testing.assert_array_equal(used.run(other, -target, 0, 1), fresh.run(other, -target, 0, 1))
