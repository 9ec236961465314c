"""What a physiologist sees live is what the analysis gets from the file: on every real recording."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from rtdenoise import offline
from rtdenoise.errors import FileFormatError
from rtdenoise.files import open_movie
from rtdenoise.settings import EngineSettings
from tests.real_movies import MOVIES, RealMovie, real_movie
from tests.runs import copied, run_lossless, settings

ENGINE = {"backend": "openvino-fp32"}
Key = tuple[int, int]


def by_stream(frames: list[tuple[Key, int, np.ndarray]]) -> dict[Key, list[tuple[int, np.ndarray]]]:
    streams = defaultdict(list)
    for key, number, pixels in frames:
        streams[key].append((number, pixels))
    return dict(streams)


def offline_frames(path: Path, engine: EngineSettings) -> list[tuple[Key, int, np.ndarray]]:
    with open_movie(path) as movie:
        return [(f.stamp.key, f.stamp.src_frame, f.pixels.copy()) for f in offline.denoised(movie, engine)]


@pytest.mark.parametrize("movie", MOVIES, ids=str)
def test_a_subscriber_gets_every_frame_of_a_real_recording_once_in_order_and_equal_to_the_file(
    movie: RealMovie,
) -> None:
    path = real_movie(movie.name)
    asked = settings("replay", {"path": str(path), "rate": "max"}, engine=ENGINE)
    summary, raw, denoised = run_lossless(asked, copied)
    assert summary.error == ""
    assert summary.balanced
    live, file = by_stream(denoised), by_stream(offline_frames(path, asked.engine))
    assert len(live) == movie.channels
    n_each = movie.shape[0] // movie.channels
    for key, frames in by_stream(raw).items():
        spread = max(float(np.ptp(pixels)) for _, pixels in frames)
        assert [number for number, _ in frames] == [number for number, _ in live[key]] == list(range(n_each))
        for (_, from_live), (_, from_file) in zip(live[key], file[key], strict=True):
            assert np.abs(from_live - from_file).max() <= 1e-6 * spread


@pytest.mark.parametrize("name", ["out.ome.tif", "out.ome.zarr"])
def test_the_offline_verb_writes_every_frame_with_its_physical_size(tmp_path: Path, name: str) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is part of the live extra")
    rng = np.random.default_rng(3)
    movie = (rng.poisson(40, (12, 2, 40, 56)) - 30).astype(np.int16)
    source = tmp_path / "in.ome.tif"
    facts = {"axes": "TCYX", "PhysicalSizeX": 0.8, "PhysicalSizeY": 0.8, "TimeIncrement": 0.05}
    tifffile.imwrite(source, movie, ome=True, photometric="minisblack", metadata=facts)
    engine = EngineSettings(backend="openvino-fp32")
    done: list[tuple[int, int]] = []
    n = offline.denoise_movie(source, tmp_path / name, engine, progress=lambda *at: done.append(at))
    assert n == 24
    assert done[-1] == (24, 24)
    with open_movie(tmp_path / name) as written:
        assert (written.info.channels, written.info.n_frames, written.info.dtype) == (2, 12, "float32")
        assert written.info.um_per_px == pytest.approx(0.8)
        wanted = {(key, number): pixels for key, number, pixels in offline_frames(source, engine)}
        for i in range(24):
            channel, plane, number = written.frame_stamp(i)
            np.testing.assert_allclose(written.read(i, i + 1)[0], wanted[(channel, plane), number], rtol=0, atol=1e-3)


def test_the_offline_verb_never_replaces_a_file_unasked(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is part of the live extra")
    source, taken = tmp_path / "in.tif", tmp_path / "out.ome.tif"
    tifffile.imwrite(source, np.zeros((3, 16, 16), np.uint16), photometric="minisblack")
    taken.write_bytes(b"precious")
    with pytest.raises(FileFormatError, match="exists"):
        offline.denoise_movie(source, taken, EngineSettings(model="identity"))
    assert taken.read_bytes() == b"precious"
