"""FAST in the stream: the authors' merged movie comes out of the exported graphs, frame by frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtdenoise.engine.load import open_engine
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.normalize import Normalization
from rtdenoise.stream import StreamingDenoiser
from tests import golden_rule

pytest.importorskip("torch", reason="exporting the golden network needs the train extra")
pytest.importorskip("onnxruntime", reason="running it needs the cpu extra")

BACKENDS = ["onnxruntime-cpu", "openvino-fp32"]


@pytest.fixture(scope="module")
def golden_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden four-frame network as a bundle."""
    from rtdenoise.export.pack import BundleFacts, export_bundle
    from rtdenoise.methods.fast import METHOD

    case = golden_rule.case("fast_c4_40x48")
    assert METHOD.from_upstream is not None
    network = METHOD.from_upstream(case.state_dict())
    out = tmp_path_factory.mktemp("bundle") / "golden"
    export_bundle(METHOD, network, out, BundleFacts("golden", Normalization(0.0, 1.0)))
    return out


def streamed(bundle: Path, backend: str, latency: str, hop: int = 1) -> np.ndarray:
    """(N, Y, X) of everything that comes out, in order; checks that every frame comes once."""
    case = golden_rule.case("movie_fast_c4")
    raw = golden_rule.frames((1, case.meta["N"], *case.meta["shape"][1:]), raw=True)[0]
    shape = (raw.shape[1], raw.shape[2])
    normalization = Normalization(float(raw.mean()), 30.0)
    with open_engine(bundle, shape=shape, backend=backend, latency=latency, hop=hop) as engine:  # type: ignore[arg-type]
        stream = StreamingDenoiser(engine, normalization, shape)
        out = [(f.stamp.frame, f.pixels.copy()) for k, p in enumerate(raw) for f in stream.push(framed(k, p))]
        out += [(f.stamp.frame, f.pixels.copy()) for f in stream.flush()]
    assert [number for number, _ in out] == list(range(len(raw)))
    return (np.stack([pixels for _, pixels in out]) - normalization.offset) / normalization.scale


def framed(k: int, pixels: np.ndarray) -> Frame:
    return Frame(pixels, FrameStamp("golden", k, k, k))


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_quality_output_is_the_authors_merged_movie(golden_bundle: Path, backend: str) -> None:
    wanted = golden_rule.case("movie_fast_c4").arrays["merged"]
    error = np.abs(streamed(golden_bundle, backend, "full") - wanted).max() / wanted.std()
    assert error < 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_causal_preview_is_the_newest_channel_of_every_window(golden_bundle: Path, backend: str) -> None:
    wanted = golden_rule.case("movie_fast_c4").arrays["causal"]
    error = np.abs(streamed(golden_bundle, backend, "causal")[3:] - wanted).max() / wanted.std()
    assert error < 1e-4


@pytest.mark.parametrize("hop", [2, 4])
def test_larger_hops_merge_fewer_windows_of_the_same_network(golden_bundle: Path, hop: int) -> None:
    full, hopped = streamed(golden_bundle, BACKENDS[0], "full"), streamed(golden_bundle, BACKENDS[0], "full", hop)
    assert np.abs(full - hopped).max() > 0
    assert np.corrcoef(full.ravel(), hopped.ravel())[0, 1] > 0.5
