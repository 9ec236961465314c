"""The streaming denoiser: every frame once, in order, from the frames it says it used."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdenoise.engine.base import Engine, EngineInfo, Window
from rtdenoise.engine.merged import BlockGraphs, MergedEngine
from rtdenoise.errors import GeometryChanged, WindowError
from rtdenoise.frame import Frame, WindowSpec
from rtdenoise.normalize import Normalization
from rtdenoise.stream import StreamingDenoiser
from tests.movies import counting_frames

INFO = EngineInfo("numpy", "cpu", "test", "fp32", 1)
UNIT = Normalization(0.0, 1.0)
SHAPE = (6, 5)


class EchoEngine:
    """Emits the positions it was asked for, unchanged, and remembers every window it saw."""

    def __init__(self, spec: WindowSpec) -> None:
        self.window = spec
        self.seen: list[tuple[int, list[float]]] = []

    def run(self, window: Window, first: int, target: int, n_out: int) -> Window:
        self.seen.append((first, window[:, 0, 0].tolist()))
        return window[target - first : target - first + n_out]

    def prepare(self, window: Window, first: int) -> None: ...
    def reset(self) -> None: ...
    def describe(self) -> EngineInfo:
        return INFO

    def close(self) -> None: ...
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...


class BlockSum:
    """A stand-in block network: channel k of the block that starts at frame j is 100 j + k, whatever the cut."""

    def __init__(self, block: int, part: str) -> None:
        self.block, self.part, self.runs = block, part, 0

    def run(self, inputs: tuple[np.ndarray, ...], out: np.ndarray) -> None:
        self.runs += 1
        start = inputs[0][0, 0, 0, 0] - (self.block - inputs[0].shape[1] if self.part == "newest" else 0)
        for k in range(self.block):
            out[0, k] = 100 * start + k
        if self.part == "newest":
            np.testing.assert_array_equal(inputs[1], out)


def merged(block: int, hop: int, latency: str, *, split: bool = True) -> MergedEngine:
    graphs = BlockGraphs(BlockSum(block, "window"))
    if split:
        graphs = BlockGraphs(graphs.whole, BlockSum(block, "older"), BlockSum(block, "newest"), 2)
    return MergedEngine(graphs, block, hop, latency, SHAPE, INFO)  # type: ignore[arg-type]


def stream(engine: object, frames: list[Frame]) -> list[tuple[int, float, Frame]]:
    """(frame number, first pixel, frame) of everything that comes out, in order; the pixel is read at once."""
    denoiser = StreamingDenoiser(engine, UNIT, SHAPE)  # type: ignore[arg-type]
    out = [(f.stamp.frame, float(f.pixels[0, 0]), f) for frame in frames for f in denoiser.push(frame)]
    out += [(f.stamp.frame, float(f.pixels[0, 0]), f) for f in denoiser.flush()]
    assert denoiser.pending == 0
    return out


@st.composite
def specs(draw: st.DrawFn) -> WindowSpec:
    size = draw(st.integers(1, 61))
    hop = draw(st.integers(1, min(size, 8)))
    first = draw(st.integers(0, size - hop))
    return WindowSpec(size, range(first, first + hop), hop)


@settings(max_examples=300, deadline=None)
@given(specs(), st.integers(0, 80), st.sets(st.integers(1, 79), max_size=4))
def test_every_frame_comes_out_once_in_order_for_any_window_and_any_gaps(
    spec: WindowSpec, n: int, lost: set[int]
) -> None:
    out = stream(EchoEngine(spec), list(counting_frames(n, SHAPE, lost_before=lost)))
    assert [frame for frame, _, _ in out] == list(range(n))
    assert [pixel for _, pixel, _ in out] == list(range(n))


@settings(max_examples=200, deadline=None)
@given(specs(), st.integers(1, 80), st.sets(st.integers(1, 79), max_size=4))
def test_no_output_spans_a_gap_and_each_names_the_frames_it_used(spec: WindowSpec, n: int, lost: set[int]) -> None:
    frames = list(counting_frames(n, SHAPE, lost_before=lost))
    holes = [f.stamp.src_frame for f in frames if f.stamp.dropped]
    for _, _, frame in stream(EchoEngine(spec), frames):
        assert frame.window is not None
        first, last = frame.window
        assert first <= frame.stamp.src_frame <= last
        assert not any(first < hole <= last for hole in holes)
        assert last - first + 1 == spec.size or not frame.complete


@settings(max_examples=100, deadline=None)
@given(specs(), st.integers(1, 80))
def test_no_frame_waits_longer_than_the_spec_says(spec: WindowSpec, n: int) -> None:
    denoiser = StreamingDenoiser(EchoEngine(spec), UNIT, SHAPE)
    for k, frame in enumerate(counting_frames(n, SHAPE)):
        assert all(k - out.stamp.frame <= spec.latency_frames for out in denoiser.push(frame))
        assert denoiser.pending <= spec.latency_frames


def test_missing_neighbours_at_the_edges_are_mirrored() -> None:
    engine = EchoEngine(WindowSpec(5, (2,)))
    stream(engine, list(counting_frames(4, SHAPE)))
    assert [w for _, w in engine.seen] == [[2, 1, 0, 1, 2], [1, 0, 1, 2, 3], [0, 1, 2, 3, 2], [1, 2, 3, 2, 1]]


def test_a_new_series_never_sees_frames_of_the_one_before() -> None:
    engine = EchoEngine(WindowSpec(3, (1,)))
    frames = [*counting_frames(5, SHAPE, series="a"), *counting_frames(5, SHAPE, series="b")]
    assert [f for f, _, _ in stream(engine, frames)] == [*range(5), *range(5)]
    assert all(max(w) - min(w) <= 2 for _, w in engine.seen)


def test_counts_survive_normalisation_with_negative_values() -> None:
    denoiser = StreamingDenoiser(EchoEngine(WindowSpec(1)), Normalization(-264.0, 417.0), SHAPE)
    frame = next(counting_frames(1, SHAPE)).pixels - 300
    stamp = next(counting_frames(1, SHAPE)).stamp
    (out,) = denoiser.push(Frame(frame.astype(np.int16), stamp))
    np.testing.assert_allclose(out.pixels, frame, atol=1e-3)


def test_a_frame_of_another_shape_is_refused_and_what_came_before_is_kept() -> None:
    denoiser = StreamingDenoiser(EchoEngine(WindowSpec(3, (1,))), UNIT, SHAPE)
    frames = list(counting_frames(4, SHAPE))
    out = [f.stamp.frame for frame in frames for f in denoiser.push(frame)]
    with pytest.raises(GeometryChanged, match=r"\(2, 2\)"):
        list(denoiser.push(next(counting_frames(1, (2, 2)))))
    assert out + [f.stamp.frame for f in denoiser.flush()] == [0, 1, 2, 3]


def test_a_stream_needs_as_many_outputs_per_run_as_new_frames() -> None:
    with pytest.raises(WindowError, match="hop 2"):
        StreamingDenoiser(EchoEngine(WindowSpec(4, (1,), hop=2)), UNIT, SHAPE)


def expected_merge(n: int, block: int, hop: int, frame: int) -> float:
    """The published rule: oldest block first, each newer one averaged half and half.

    Blocks start on the hop grid; one more ends with the last frame, for the frames that had not come out by then.
    """
    starts = list(range(0, n - block + 1, hop))
    if frame >= starts[-1] + hop and starts[-1] != n - block:
        starts.append(n - block)
    value = None
    for start in (s for s in starts if s <= frame < s + block):
        prediction = 100 * start + frame - start
        value = prediction if value is None else 0.5 * (value + prediction)
    assert value is not None
    return value


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(("block", "hop"), [(4, 1), (4, 2), (4, 4), (4, 3), (8, 1), (8, 2), (8, 4)])
@pytest.mark.parametrize("n", [8, 9, 10, 11, 37])
def test_overlapping_blocks_are_merged_by_the_published_rule_at_every_hop(
    block: int, hop: int, n: int, split: bool
) -> None:
    out = stream(merged(block, hop, "full", split=split), list(counting_frames(n, SHAPE)))
    assert [f for f, _, _ in out] == list(range(n))
    for frame, pixel, _ in out:
        assert pixel == pytest.approx(expected_merge(n, block, hop, frame), abs=1e-3)


@pytest.mark.parametrize("hop", [1, 2, 4])
def test_the_causal_preview_takes_each_frame_from_the_first_block_that_holds_it(hop: int) -> None:
    n, block = 21, 4
    starts = sorted({*range(0, n - block + 1, hop), n - block})
    for frame, pixel, _ in stream(merged(block, hop, "causal"), list(counting_frames(n, SHAPE))):
        first = next(s for s in starts if s <= frame < s + block)
        assert pixel == 100 * first + frame - first


@pytest.mark.parametrize(
    ("latency", "hop", "lookahead"), [("full", 1, 7), ("full", 2, 6), ("full", 4, 4), ("causal", 1, 0)]
)
def test_the_stated_lookahead_is_what_a_frame_waits(latency: str, hop: int, lookahead: int) -> None:
    engine = merged(8, hop, latency)
    assert engine.window.lookahead == lookahead
    denoiser = StreamingDenoiser(engine, UNIT, SHAPE)
    waits = [
        k - out.stamp.frame
        for k, frame in enumerate(counting_frames(40, SHAPE))
        for out in denoiser.push(frame)
        if k > 20
    ]
    assert max(waits) == engine.window.latency_frames
    assert min(waits) == lookahead


def test_the_older_part_of_a_block_runs_before_its_newest_frame_arrives() -> None:
    engine = merged(4, 1, "causal")
    stream(engine, list(counting_frames(12, SHAPE)))
    whole, newest = engine._graphs.whole, engine._graphs.newest
    assert isinstance(whole, BlockSum)
    assert isinstance(newest, BlockSum)
    assert (whole.runs, newest.runs) == (0, 9)


def test_a_movie_shorter_than_a_block_is_mirrored_at_its_end() -> None:
    out = stream(merged(4, 1, "full", split=False), list(counting_frames(2, SHAPE)))
    assert [f for f, _, _ in out] == [0, 1]
    assert all(not frame.complete for _, _, frame in out)


class FillGraph:
    def run(self, inputs: tuple[np.ndarray, ...], out: np.ndarray) -> None:
        out[...] = inputs[0][0, 0, 0, 0]


def quiet_merged(shape: tuple[int, int]) -> MergedEngine:
    graphs = BlockGraphs(FillGraph(), FillGraph(), FillGraph(), 2)
    return MergedEngine(graphs, 8, 2, "full", shape, INFO)


@pytest.mark.parametrize("make", [lambda _: EchoEngine(WindowSpec(7, (3,))), quiet_merged], ids=["window", "merged"])
def test_nothing_of_a_frames_size_is_allocated_per_frame(make: Callable[[tuple[int, int]], Engine]) -> None:
    shape = (128, 128)
    denoiser = StreamingDenoiser(make(shape), UNIT, shape)
    frames = list(counting_frames(60, shape))
    n_out = sum(1 for frame in frames[:30] for _ in denoiser.push(frame))
    tracemalloc.start()
    n_out += sum(1 for frame in frames[30:] for _ in denoiser.push(frame))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_out >= 50
    assert peak < 128 * 128 * 4
