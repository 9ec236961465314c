"""Untrained baselines: what comes out of the stream is what the textbook formula gives over the whole movie."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from rtdenoise.engine import filters
from rtdenoise.engine.base import Engine
from rtdenoise.errors import ConfigError, WindowError
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.normalize import Normalization
from rtdenoise.stream import StreamingDenoiser

Movie = NDArray[np.float32]
SHAPE = (19, 26)
NAMES = sorted(filters.FILTERS)


def movie(n_frames: int = 40, seed: int = 0) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    return rng.integers(-200, 4000, (n_frames, *SHAPE)).astype(np.int16)


def stream(name: str, counts: NDArray[np.int16], *, lost_before: frozenset[int] = frozenset()) -> Movie:
    """Push a movie through one engine; `lost_before` are frames before which the camera lost one."""
    out: list[Frame] = []
    pixels = np.empty(counts.shape, np.float32)
    denoiser = StreamingDenoiser(filters.create(name, SHAPE), Normalization(500.0, 37.0), SHAPE)
    for k, frame in enumerate(counts):
        stamp = FrameStamp("s", k, k, t_in=k, dropped=int(k in lost_before))
        for done in denoiser.push(Frame(frame, stamp)):
            pixels[len(out)] = done.pixels
            out.append(done)
    for done in denoiser.flush():
        pixels[len(out)] = done.pixels
        out.append(done)
    assert [frame.stamp.frame for frame in out] == list(range(len(counts)))
    return pixels


def running_mean(y: Movie) -> Movie:
    return np.stack([y[max(0, t - 9) : t + 1].mean(axis=0) for t in range(len(y))])


def exponential_mean(y: Movie, alpha: float = 0.2) -> Movie:
    out = [y[0]]
    for frame in y[1:]:
        out.append(out[-1] + alpha * (frame - out[-1]))
    return np.stack(out)


def kalman(y: Movie) -> Movie:
    gain, variance = 0.8, 0.05
    out, predicted = [y[0]], variance
    for frame in y[1:]:
        k = predicted / (predicted + variance)
        out.append(gain * out[-1] + (1 - gain) * frame + k * (frame - out[-1]))
        predicted *= 1 - k
    return np.stack(out)


TEXTBOOK: dict[str, Callable[[Movie], Movie]] = {
    "identity": lambda y: y,
    "running-mean": running_mean,
    "ema": exponential_mean,
    "kalman": kalman,
    "gauss2d": lambda y: ndimage.gaussian_filter(y, (0, 1, 1)),
    "gauss2d-ema": lambda y: exponential_mean(ndimage.gaussian_filter(y, (0, 1, 1)), 0.15),
    "gauss3d": lambda y: ndimage.gaussian_filter(y, (2, 1, 1), mode="nearest", truncate=3),
    "gauss3d-wide": lambda y: ndimage.gaussian_filter(y, (4, 1, 1), mode="nearest", truncate=3),
    "median": lambda y: ndimage.median_filter(y, size=(5, 3, 3), mode="nearest"),
}


@pytest.mark.parametrize("n_frames", [40, 3, 1])
@pytest.mark.parametrize("name", NAMES)
def test_the_stream_gives_the_textbook_filter_of_the_whole_movie_edges_included(name: str, n_frames: int) -> None:
    counts = movie(n_frames)
    expected = TEXTBOOK[name](counts.astype(np.float32))
    np.testing.assert_allclose(stream(name, counts), expected, atol=0.02)  # float32 rounding of counts up to 4000


@pytest.mark.parametrize("name", NAMES)
def test_a_gap_makes_two_movies_that_do_not_know_of_each_other(name: str) -> None:
    counts = movie()
    parts = [TEXTBOOK[name](part.astype(np.float32)) for part in (counts[:17], counts[17:])]
    np.testing.assert_allclose(stream(name, counts, lost_before=frozenset({17})), np.concatenate(parts), atol=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_reset_forgets_everything(name: str) -> None:
    engine = filters.create(name, SHAPE)
    size = engine.window.size
    frames = movie(size + 1).astype(np.float32)
    target = engine.window.emits[0]
    fresh = engine.run(frames[1:], 0, target, 1).copy()
    engine.run(frames[:-1], 0, target, 1)
    engine.reset()
    np.testing.assert_array_equal(engine.run(frames[1:], 0, target, 1), fresh)


@pytest.mark.parametrize(("name", "lookahead"), [("kalman", 0), ("running-mean", 0), ("gauss3d", 6), ("median", 2)])
def test_lookahead_is_what_the_filter_needs(name: str, lookahead: int) -> None:
    assert filters.create(name, SHAPE).window.lookahead == lookahead


def test_identity_hands_out_the_window_itself() -> None:
    window = movie(1).astype(np.float32)
    assert np.shares_memory(filters.create("identity", SHAPE).run(window, 0, 0, 1), window)


@pytest.mark.parametrize("name", NAMES)
def test_running_allocates_no_frame(name: str) -> None:
    shape = (256, 256)
    engine = filters.create(name, shape)
    window = np.random.default_rng(0).random((engine.window.size, *shape), np.float32)
    engine.run(window, 0, engine.window.emits[0], 1)
    tracemalloc.start()
    engine.run(window, 1, 1 + engine.window.emits[0], 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < window[0].nbytes / 2


@pytest.mark.parametrize("name", NAMES)
def test_every_filter_is_an_engine_that_says_what_it_is(name: str) -> None:
    with filters.FILTERS[name](SHAPE) as engine:
        assert isinstance(engine, Engine)
        assert engine.describe().model == name


def test_an_unknown_filter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown filter 'sharpen'; known: identity, running-mean"):
        filters.create("sharpen", SHAPE)


def test_frames_of_another_shape_are_refused() -> None:
    with pytest.raises(WindowError, match="ema was made for frames"):
        filters.create("ema", SHAPE).run(np.zeros((1, 5, 5), np.float32), 0, 0, 1)
