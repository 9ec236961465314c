"""Every engine on the shipped model: they agree, they say what they are, and they refuse in one line."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdenoise import bundle as bundles
from rtdenoise.bundle import DEMO
from rtdenoise.engine import backends, load
from rtdenoise.engine.backends import BACKENDS, Backend, open_runtime, taking
from rtdenoise.engine.base import Engine
from rtdenoise.engine.dial import Latency
from rtdenoise.engine.filters import FILTERS
from rtdenoise.engine.graph import Runtime
from rtdenoise.engine.load import EngineChoice, EngineFactory, open_engine
from rtdenoise.errors import ConfigError, EngineError, MissingExtraError, WindowError

Frames = NDArray[np.float32]
SHAPES = [(64, 64), (48, 96), (33, 47), (8, 9)]
EXACT = 1e-4
"""Two fp32 runtimes: largest difference in sd of the input."""
BF16_RMS, BF16_WORST = 0.005, 0.1
"""In sd of the input. bf16 has 8 bits, 0.4 % of a value; measured 0.001 and 0.005 here, one pixel in 10^5 about 0.05 off."""
THREADS = 1


def movie(n_frames: int, shape: tuple[int, int], seed: int = 0) -> Frames:
    """Normalised: noise of sd 1, and a bright cell."""
    frames = np.random.default_rng(seed).standard_normal((n_frames, *shape), np.float32)
    frames[:, shape[0] // 2, shape[1] // 2] += 10
    return frames


def opened(backend: str, shape: tuple[int, int], hop: int = 1, latency: Latency = "full") -> Engine:
    """The shipped model, or a skip where this machine cannot run the backend."""
    try:
        return open_engine(DEMO, shape=shape, backend=backend, hop=hop, latency=latency, threads=THREADS)
    except (MissingExtraError, EngineError) as error:
        pytest.skip(f"{backend} cannot run here: {error}")


def denoised(engine: Engine, frames: Frames, first: int = 0) -> Frames:
    """The first full window's output."""
    size, target = engine.window.size, engine.window.emits[0]
    return engine.run(frames[:size], first, first + target, engine.window.hop).copy()


@pytest.fixture(params=taking("fp32"))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fp32_engines_agree_at_any_size(shape: tuple[int, int]) -> None:
    frames = movie(7, shape)
    with opened("openvino-fp32", shape) as openvino, opened("onnxruntime-cpu", shape) as onnxruntime:
        np.testing.assert_allclose(denoised(openvino, frames), denoised(onnxruntime, frames), atol=EXACT, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bf16_stays_within_its_precision(shape: tuple[int, int]) -> None:
    frames = movie(7, shape)
    with opened("openvino-bf16", shape) as half, opened("onnxruntime-cpu", shape) as whole:
        error = denoised(half, frames) - denoised(whole, frames)
    assert 0 < np.sqrt(np.mean(error**2)) < BF16_RMS
    assert np.abs(error).max() < BF16_WORST


def test_the_model_removes_noise_on_every_engine(backend: str) -> None:
    with opened(backend, (64, 64)) as engine:
        assert denoised(engine, movie(7, (64, 64))).std() < 0.7


def test_an_engine_says_what_it_bound(backend: str) -> None:
    with opened(backend, (32, 32)) as engine:
        facts = engine.describe()
    assert facts.backend == backend
    assert facts.precision == ("bf16" if backend.endswith("bf16") else "fp32")
    assert facts.model == f"{DEMO}@{bundles.read(DEMO).hash}"
    assert facts.threads == THREADS
    assert facts.device


@pytest.mark.parametrize("hop", [1, 2, 4])
@pytest.mark.parametrize("latency", ["full", "causal"])
def test_the_same_window_gives_the_same_bits(backend: str, hop: int, latency: Latency) -> None:
    frames = movie(8, (40, 56))
    with opened(backend, (40, 56), hop, latency) as engine:
        once = denoised(engine, frames)
        engine.reset()
        np.testing.assert_array_equal(denoised(engine, frames), once)


def test_what_comes_out_depends_on_the_window_alone(backend: str) -> None:
    frames = movie(12, (40, 56))
    with opened(backend, (40, 56)) as engine:
        along = [engine.run(frames[k : k + 7], k, k + 3, 1).copy() for k in range(6)]
        engine.reset()
        np.testing.assert_array_equal(engine.run(frames[5:12], 5, 8, 1), along[5])


def test_work_done_ahead_changes_nothing(backend: str) -> None:
    frames = movie(12, (40, 56))
    with opened(backend, (40, 56)) as ahead, opened(backend, (40, 56)) as plain:
        for k in range(6):
            expected = plain.run(frames[k : k + 7], k, k + 3, 1)
            out = ahead.run(frames[k : k + 7], k, k + 3, 1)
            np.testing.assert_allclose(out, expected, atol=tolerance(backend), rtol=0)
            ahead.prepare(frames[k + 1 : k + 7], k + 1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_older_and_newest_part_together_are_the_whole_network(backend: str, shape: tuple[int, int]) -> None:
    bundle = bundles.read(DEMO)
    size, n_newest = bundle.manifest.window.size, bundle.manifest.newest_frames
    frames, maps = movie(size, shape)[None], (1, len(bundle.manifest.window.emits), *shape)
    runtime = runtime_or_skip(backend)
    whole, partial, summed = (np.empty(maps, np.float32) for _ in range(3))
    runtime.compile(bundle.graph("window"), (frames.shape,)).run((frames,), whole)
    older, newest = (np.ascontiguousarray(part) for part in np.split(frames, [size - n_newest], axis=1))
    runtime.compile(bundle.graph("older"), (older.shape,)).run((older,), partial)
    runtime.compile(bundle.graph("newest"), (newest.shape, maps)).run((newest, partial), summed)
    assert np.abs(partial - whole).max() > 0.01, "the newest frames must matter"
    np.testing.assert_allclose(summed, whole, atol=tolerance(backend), rtol=0)


def test_every_engine_and_every_filter_is_an_engine(backend: str) -> None:
    with opened(backend, (16, 16)) as engine:
        assert isinstance(engine, Engine)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_opens_by_name_like_a_model(name: str) -> None:
    with open_engine(name, shape=(12, 17)) as engine:
        assert isinstance(engine, Engine)
        assert (engine.describe().backend, engine.describe().model) == ("filter", name)
        window = movie(engine.window.size, (12, 17))
        out = engine.run(window, 0, engine.window.emits[0], engine.window.hop)
    assert out.shape == (engine.window.hop, 12, 17)
    assert np.isfinite(out).all()


def test_auto_takes_the_fastest_engine_that_opens_and_names_those_it_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_or_skip("onnxruntime-cpu")
    broken = refusing(EngineError("this processor has no bf16 instructions"))
    absent = refusing(MissingExtraError("openvino", "live"))
    table = {"fast": broken, "good": absent, "onnxruntime-cpu": BACKENDS["onnxruntime-cpu"]}
    replace_table(monkeypatch, table)
    factory = EngineFactory(EngineChoice(DEMO), (16, 16))
    with factory.make() as engine:
        assert engine.describe().backend == "onnxruntime-cpu"
    assert factory.refused == [
        "fast: this processor has no bf16 instructions",
        "good: openvino is not installed; run: pip install 'rtdenoise[live]'",
    ]


def test_when_no_engine_opens_the_error_says_why_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_table(monkeypatch, {"one": refusing(MissingExtraError("openvino", "live"))})
    with pytest.raises(EngineError, match=r"no engine can run here: one: .*pip install 'rtdenoise\[live\]'"):
        open_engine(DEMO, shape=(16, 16))


def test_an_engine_that_was_named_is_never_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "openvino-bf16", refusing(EngineError("no bf16 here")))
    with pytest.raises(EngineError, match="no bf16 here"):
        open_engine(DEMO, shape=(16, 16), backend="openvino-bf16")


def test_an_unknown_engine_is_one_line_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError) as refused:
        open_engine(DEMO, shape=(16, 16), backend="cuda")
    assert str(refused.value) == f"unknown engine 'cuda'; known: auto, {', '.join(BACKENDS)}"


def test_a_hop_longer_than_the_block_is_refused_with_the_range(backend: str) -> None:
    runtime_or_skip(backend)
    with pytest.raises(WindowError, match=r"hop 5 .* use 1\.\.4"):
        open_engine(DEMO, shape=(16, 16), backend=backend, hop=5)


def test_a_factory_offers_every_hop_from_the_chosen_one_up() -> None:
    assert EngineFactory(EngineChoice(DEMO, hop=1), (16, 16)).hops() == [1, 2, 4]
    assert EngineFactory(EngineChoice(DEMO, hop=2), (16, 16)).hops() == [2, 4]


def test_two_engines_of_one_factory_do_not_share_what_they_remember() -> None:
    runtime_or_skip("onnxruntime-cpu")
    factory = EngineFactory(EngineChoice(DEMO, "onnxruntime-cpu", threads=THREADS), (24, 32))
    with factory.make() as one, factory.make() as other:
        mine = denoised(one, movie(7, (24, 32), seed=1))
        theirs = denoised(other, movie(7, (24, 32), seed=2))
        assert not np.allclose(mine, theirs)
        np.testing.assert_array_equal(denoised(one, movie(7, (24, 32), seed=1)), mine)


def tolerance(backend: str) -> float:
    """For the same arithmetic in another order."""
    return BF16_WORST if backend.endswith("bf16") else EXACT


def refusing(error: Exception) -> Backend:
    """An engine that cannot be opened."""

    def factory(threads: int) -> Runtime:
        raise error

    return Backend(factory)


def replace_table(monkeypatch: pytest.MonkeyPatch, table: dict[str, Backend]) -> None:
    """Only these engines, fastest first."""
    monkeypatch.setattr(backends, "BACKENDS", table)
    monkeypatch.setattr(load, "BACKENDS", table)


def runtime_or_skip(backend: str) -> Runtime:
    """The runtime, or a skip where this machine does not have it."""
    try:
        return open_runtime(backend, THREADS)
    except (MissingExtraError, EngineError) as error:
        pytest.skip(f"{backend} cannot run here: {error}")
