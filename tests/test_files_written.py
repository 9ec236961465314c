"""Movies that are written: complete under their name, readable at any moment before, valid for others."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from rtdenoise.errors import FileFormatError, GeometryChanged
from rtdenoise.files import create_movie, open_movie
from rtdenoise.frame import StreamInfo
from tests.file_makers import (
    N_CHANNELS,
    N_PLANES,
    N_TIMES,
    SHAPE,
    counting_stack,
    hyperstack,
    read_all,
)

FACTS = StreamInfo("camera", SHAPE, "int16", channels=N_CHANNELS, planes=N_PLANES, frame_interval_s=0.25, um_per_px=0.4)
WRITTEN = ["m.ome.tif", "m.ome.zarr"]


def write_hyperstack(path: Path, **options: object) -> None:
    """Channel 1 is two frames late and catches up at the end, as after a denoiser's flush."""
    with create_movie(path, FACTS, **options) as writer:  # type: ignore[arg-type]
        for time in range(N_TIMES + 2):
            for plane in range(N_PLANES):
                if time < N_TIMES:
                    writer.append(hyperstack()[time, plane, 0], 0, plane)
                if time >= 2:
                    writer.append(hyperstack()[time - 2, plane, 1], 1, plane)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_read_back_with_its_channels_planes_and_scale(tmp_path: Path, name: str) -> None:
    write_hyperstack(tmp_path / name)
    with open_movie(tmp_path / name) as movie:
        info = movie.info
        assert (info.channels, info.planes, info.frame_interval_s, info.um_per_px) == (N_CHANNELS, N_PLANES, 0.25, 0.4)
        np.testing.assert_array_equal(movie.read(0, info.n_images), hyperstack().reshape(-1, *SHAPE))
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_the_ome_tiff_is_one_for_tifffile(tmp_path: Path) -> None:
    write_hyperstack(tmp_path / "m.ome.tif")
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tif:
        assert tif.is_ome
        assert tif.is_bigtiff
        assert (tif.series[0].axes, tif.series[0].shape) == ("TZCYX", (N_TIMES, N_PLANES, N_CHANNELS, *SHAPE))
        np.testing.assert_array_equal(tif.series[0].asarray(), hyperstack())


def test_the_ome_zarr_is_valid_for_another_library(tmp_path: Path) -> None:
    yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs, a validator of OME-Zarr, is not installed")
    write_hyperstack(tmp_path / "m.ome.zarr")
    yaozarrs.validate_zarr_store(str(tmp_path / "m.ome.zarr"))
    array = zarr.open_group(str(tmp_path / "m.ome.zarr"), mode="r")["0"]
    assert array.chunks[0] * FACTS.frame_interval_s <= 1.0


@pytest.mark.parametrize("name", WRITTEN)
def test_float_frames_are_rounded_and_clipped_to_an_integer_file_and_kept_in_a_float_file(
    tmp_path: Path, name: str
) -> None:
    frame = np.full(SHAPE, 2.6, np.float32)
    frame[0, :4] = (-0.4, -7.0, 300.2, 254.5)
    facts = StreamInfo("camera", SHAPE, "uint8")
    for dtype, expected in (("uint8", [0, 0, 255, 254]), ("float32", frame[0, :4])):
        with create_movie(tmp_path / name, facts, dtype=dtype, overwrite=True) as writer:
            writer.append(frame)
        stored = read_all(tmp_path / name)[0]
        assert stored.dtype == dtype
        np.testing.assert_array_equal(stored[0, :4], expected)


@pytest.mark.parametrize("name", WRITTEN)
def test_an_existing_movie_is_replaced_only_when_asked_and_only_by_a_complete_one(tmp_path: Path, name: str) -> None:
    path, facts = tmp_path / name, StreamInfo("camera", SHAPE, "int16")
    with create_movie(path, facts) as writer:
        writer.append(counting_stack()[0])
    with pytest.raises(FileFormatError, match="exists already"):
        create_movie(path, facts)
    writer = create_movie(path, facts, overwrite=True)
    for image in counting_stack():
        writer.append(image)
    assert len(read_all(path)) == 1
    writer.close()
    np.testing.assert_array_equal(read_all(path), counting_stack())


@pytest.mark.parametrize("name", WRITTEN)
def test_an_interrupted_write_leaves_its_frames_under_a_part_name(tmp_path: Path, name: str) -> None:
    path, part = tmp_path / name, tmp_path / f"{name}.part"

    def interrupted() -> None:
        with create_movie(path, StreamInfo("camera", SHAPE, "int16")) as writer:
            for image in counting_stack():
                writer.append(image)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()
    np.testing.assert_array_equal(read_all(part), counting_stack())
    with pytest.raises(FileFormatError, match=r"\.part: exists already"):
        create_movie(path, StreamInfo("camera", SHAPE, "int16"))


@pytest.mark.parametrize(("name", "n_kept"), [("m.ome.tif", 7), ("m.ome.zarr", 6)])
def test_a_killed_writer_loses_a_second_of_frames_at_most(tmp_path: Path, name: str, n_kept: int) -> None:
    """What other processes see while the writer is open is what a kill would leave."""
    writer = create_movie(tmp_path / name, StreamInfo("camera", SHAPE, "int16", frame_interval_s=0.5))
    for image in counting_stack():
        writer.append(image)
    np.testing.assert_array_equal(read_all(tmp_path / f"{name}.part"), counting_stack(n_kept))
    writer.abandon()


@pytest.mark.parametrize("name", WRITTEN)
def test_writing_takes_no_more_memory_for_a_long_movie(tmp_path: Path, name: str) -> None:
    frame, peaks = np.zeros((128, 128), np.float32), []
    for n_frames in (60, 600):
        tracemalloc.start()
        try:
            with create_movie(tmp_path / name, StreamInfo("camera", (128, 128), "float32"), overwrite=True) as writer:
                for _ in range(n_frames):
                    writer.append(frame)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 5 * frame.nbytes  # 540 frames more would be 35 MB


def test_writing_refuses_what_does_not_fit(tmp_path: Path) -> None:
    facts = StreamInfo("camera", SHAPE, "int16")
    for name, complaint in {
        "m.avi": "end the name with .ome.tif or .ome.zarr",
        "gone/m.ome.tif": "cannot be created",
    }.items():
        with pytest.raises(FileFormatError, match=complaint):
            create_movie(tmp_path / name, facts)
    with pytest.raises(FileFormatError, match="cannot be written as uint32"):
        create_movie(tmp_path / "m.ome.tif", facts, dtype="uint32")
    writer = create_movie(tmp_path / "m.ome.tif", facts)
    for frame, channel in ((np.zeros((5, 6), np.int16), 0), (np.zeros(SHAPE, np.int16), 1)):
        with pytest.raises(GeometryChanged, match="the movie was begun with"):
            writer.append(frame, channel)
    with pytest.raises(FileFormatError, match="no frame was appended"):
        writer.close()
    assert list(tmp_path.iterdir()) == []
