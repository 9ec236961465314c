"""The small graphs between camera counts and normalised frames on a card: exact for every count, and TensorRT takes them."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdenoise.engine.card import GRAPHS, RAW, raw_shape
from rtdenoise.engine.merged import Merging
from rtdenoise.engine.resident_forms import halving_weights, merge_depth
from rtdenoise.engine.trt_build import build_plan
from rtdenoise.frame import FRAME_DTYPES
from rtdenoise.normalize import Normalization

TOOL = Path(__file__).parents[1] / "tools" / "make_device_graphs.py"
EDGES = [-32768, -32767, -257, -256, -255, -129, -128, -1, 0, 1, 127, 128, 255, 256, 257, 32767, 32768, 65279, 65535]
"""Where bytes and signs turn."""
NORM = Normalization(-17.3, 233.7)

Floats = NDArray[np.float32]
Run = Callable[..., Floats]


@pytest.fixture(scope="module")
def run() -> Run:
    """Runs one of the graphs by name with ONNX Runtime."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the graphs are run by the cpu extra")

    def computed(name: str, *inputs: NDArray[np.generic]) -> Floats:
        session = onnxruntime.InferenceSession(str(GRAPHS / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        names = [port.name for port in session.get_inputs()]
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    return computed


def number(value: float) -> Floats:
    return np.array([value], np.float32)


def counts_of(dtype: str) -> NDArray[np.generic]:
    """(Y, X) odd frame with every edge of the type in it."""
    if dtype == "float32":
        return np.array([*EDGES, 0.25, 1e-3, -3.7], np.float32)[:21].reshape(3, 7)
    limits = np.iinfo(dtype)
    edges = [limits.min, limits.max, *(e for e in EDGES if limits.min <= e <= limits.max)]
    return np.resize(np.array(edges, dtype), (5, 7))


def raw(counts: NDArray[np.generic]) -> NDArray[np.generic]:
    """As the frame is uploaded: its own bytes."""
    dtype = counts.dtype.name
    return counts.reshape(-1).view(RAW[dtype][0]).reshape(raw_shape(dtype, counts.shape))  # type: ignore[arg-type]


def test_the_committed_graphs_are_those_that_the_tool_makes() -> None:
    pytest.importorskip("onnx", reason="onnx is part of the train extra")
    made = runpy.run_path(str(TOOL))["graphs"]()
    assert {path.name: path.read_bytes() for path in GRAPHS.glob("*.onnx")} == made
    assert {f"ingest-{dtype}.onnx" for dtype in FRAME_DTYPES} <= set(made)


@pytest.mark.parametrize("dtype", FRAME_DTYPES)
def test_every_count_survives_the_way_in_to_the_last_bit(run: Run, dtype: str) -> None:
    counts = counts_of(dtype)
    given = run(f"ingest-{dtype}", raw(counts), number(0.0), number(1.0))
    assert given.shape == (1, 1, *counts.shape)
    np.testing.assert_array_equal(given[0, 0], counts.astype(np.float32))


@pytest.mark.parametrize("value", [-32768, -1, 0, 32767])
def test_signed_counts_keep_their_sign(run: Run, value: int) -> None:
    given = run("ingest-int16", raw(np.full((1, 3), value, np.int16)), number(0.0), number(1.0))
    assert given.ravel().tolist() == [value] * 3


@pytest.mark.parametrize("value", [0, 32767, 32768, 65535])
def test_unsigned_counts_keep_their_highest_bit(run: Run, value: int) -> None:
    given = run("ingest-uint16", raw(np.full((3, 1), value, np.uint16)), number(0.0), number(1.0))
    assert given.ravel().tolist() == [value] * 3


@pytest.mark.parametrize("dtype", FRAME_DTYPES)
def test_frames_are_normalised_as_the_host_does(run: Run, dtype: str) -> None:
    counts = counts_of(dtype)
    wanted = np.empty(counts.shape, np.float32)
    NORM.apply(counts, wanted)
    given = run(f"ingest-{dtype}", raw(counts), number(NORM.offset), number(1.0 / NORM.scale))
    np.testing.assert_array_equal(given[0, 0], wanted)


def test_denoised_frames_become_counts_as_on_the_host(run: Run) -> None:
    normalised = np.random.default_rng(0).standard_normal((1, 3, 5, 7)).astype(np.float32)
    wanted = np.empty_like(normalised)
    NORM.invert(normalised, wanted)
    given = run("finish", normalised, number(NORM.scale), number(NORM.offset))
    np.testing.assert_allclose(given, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
def test_predictions_are_merged_half_and_half_oldest_first(run: Run, n: int) -> None:
    predictions = np.random.default_rng(n).standard_normal((2, n, 5, 3)).astype(np.float32)
    wanted = predictions[:, 0]
    for newer in range(1, n):
        wanted = (wanted + predictions[:, newer]) / 2
    weights = np.array(halving_weights(n), np.float32).reshape(1, n, 1, 1)
    given = run("merge", predictions, weights, number(2.0), number(10.0))
    np.testing.assert_allclose(given, 2 * wanted + 10, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_older", [1, 2, 3])
def test_the_oldest_prediction_may_stand_for_those_that_are_missing(run: Run, n_older: int) -> None:
    predictions = np.random.default_rng(5).standard_normal((1, 2, 4, 4)).astype(np.float32)
    filled = np.concatenate([predictions[:, :1]] * n_older + [predictions], axis=1)
    merged = [
        run(
            "merge", p, np.array(halving_weights(p.shape[1]), np.float32)[None, :, None, None], number(1.0), number(0.0)
        )
        for p in (predictions, filled)
    ]
    np.testing.assert_allclose(merged[1], merged[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("block", "hop", "latency", "depth"),
    [(4, 1, "full", 4), (4, 2, "full", 3), (4, 4, "full", 2), (8, 3, "full", 4), (4, 1, "causal", 1)],
)
def test_no_frame_has_more_predictions_than_there_is_room_for(
    block: int, hop: int, latency: Merging, depth: int
) -> None:
    assert merge_depth(block, hop, latency) == depth


@pytest.mark.parametrize("shape", [(512, 512), (61, 83)], ids=str)
def test_tensorrt_builds_every_graph(shape: tuple[int, int]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="plans are built by tensorrt-rtx, which has no wheel for this platform")
    one = (1,)
    shapes = {f"ingest-{dtype}": (raw_shape(dtype, shape), one, one) for dtype in FRAME_DTYPES}
    shapes |= {"finish": ((1, 3, *shape), one, one), "merge": ((2, 4, *shape), (1, 4, 1, 1), one, one)}
    assert {path.stem for path in GRAPHS.glob("*.onnx")} == set(shapes)
    for name, inputs in shapes.items():
        assert len(build_plan("tensorrt_rtx", GRAPHS / f"{name}.onnx", inputs)) > 1000
