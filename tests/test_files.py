"""Movies on disk: what is in a file comes out of it, in acquisition order."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from rtdenoise.files import open_movie
from tests.file_makers import (
    HYPERSTACKS,
    MOVIES_OF_ONE_CHANNEL,
    N_CHANNELS,
    N_PLANES,
    N_TIMES,
    SHAPE,
    counting_stack,
    hyperstack,
    ome_set,
    plain_tiff,
    read_all,
)
from tests.real_movies import MOVIES, SCANIMAGE, SCANIMAGE_3, RealMovie, real_movie


@pytest.mark.parametrize("make", HYPERSTACKS.values(), ids=HYPERSTACKS)
def test_channels_and_planes_come_interleaved_whatever_their_order_in_the_file(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    with open_movie(make(tmp_path)) as movie:
        info = movie.info
        stack = movie.read(0, info.n_images)
        assert (info.n_frames, info.planes, info.channels) == (N_TIMES, N_PLANES, N_CHANNELS)
        assert (info.frame_interval_s, info.um_per_px) == (pytest.approx(0.1), pytest.approx(0.5))
        for k in range(info.n_images):
            channel, plane, time = movie.frame_stamp(k)
            expected = hyperstack()[time, plane, channel].astype(info.dtype)
            np.testing.assert_array_equal(stack[k], expected)


@pytest.mark.parametrize("make", MOVIES_OF_ONE_CHANNEL.values(), ids=MOVIES_OF_ONE_CHANNEL)
def test_every_format_gives_back_its_frames_in_any_blocks(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with open_movie(make(tmp_path)) as movie:
        n = movie.info.n_images
        assert (movie.info.shape, movie.info.dtype, movie.info.channels, movie.info.planes) == (SHAPE, "int16", 1, 1)
        np.testing.assert_array_equal(movie.read(0, n + 5), counting_stack(n))
        for start, stop in ((n - 1, n), (2, 6), (0, 1), (3, 3)):
            np.testing.assert_array_equal(movie.read(start, stop), counting_stack(n)[start:stop])


@pytest.mark.parametrize("real", MOVIES, ids=str)
def test_real_movies_open_with_their_shape_type_and_values(real: RealMovie) -> None:
    with open_movie(real_movie(real.name)) as movie:
        info = movie.info
        first, last = movie.read(0, 1)[0], movie.read(info.n_images - 1, info.n_images)[0]
    assert ((info.n_images, *info.shape), info.dtype, info.channels) == (real.shape, real.dtype, real.channels)
    assert info.n_frames == real.shape[0] // real.channels
    assert tuple(first[0, :3]) == real.first_pixels
    assert last.sum(dtype=np.int64) == real.last_sum


def test_scanimage_channels_are_counted_from_the_pages_and_negative_counts_are_kept() -> None:
    """The header of this file lists one saved channel; its pages hold two."""
    with open_movie(real_movie(SCANIMAGE)) as movie:
        info = movie.info
        stack = movie.read(0, 6)
        assert [movie.frame_stamp(k) for k in range(4)] == [(0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1)]
    assert info.format == "scanimage"
    assert info.frame_interval_s == pytest.approx(1 / 29.9786)
    assert info.um_per_px == pytest.approx(168.75 / 512)
    assert info.scan == {"bidirectional": True, "line_time_s": 6.31764e-05, "zoom": 2.0}
    assert stack[0::2].mean() < -500
    assert abs(stack[1::2].mean()) < 1


def test_scanimage_3_says_its_frame_rate() -> None:
    with open_movie(real_movie(SCANIMAGE_3)) as movie:
        assert movie.info.frame_interval_s == pytest.approx(1 / 8.13802083333333)
        assert movie.info.scan["bidirectional"] is True


def test_channels_can_be_told_where_the_file_does_not_say(tmp_path: Path) -> None:
    with open_movie(plain_tiff(tmp_path), channels=2) as movie:
        assert (movie.info.channels, movie.info.n_frames) == (2, 4)
        assert [movie.frame_stamp(k) for k in range(3)] == [(0, 0, 0), (1, 0, 0), (0, 0, 1)]


def test_an_ome_set_brings_its_other_files_and_a_stopped_one_ends_where_it_was_stopped(tmp_path: Path) -> None:
    with open_movie(ome_set(tmp_path, n_recorded=7, n_declared=10)) as movie:
        assert movie.info.frame_interval_s == pytest.approx(0.05)
        np.testing.assert_array_equal(movie.read(0, 99), counting_stack(7))


def test_a_folder_of_stacks_with_one_directory_each_gives_all_of_their_frames(tmp_path: Path) -> None:
    """ImageJ writes stacks of more than 4 GB that way; here the other directories are cut off."""
    for i_file in range(2):
        path = tmp_path / f"{i_file}.tif"
        tifffile.imwrite(
            path, counting_stack(8).view(np.uint16)[4 * i_file : 4 * i_file + 4], imagej=True, metadata={"axes": "TYX"}
        )
        with tifffile.TiffFile(path) as tif:
            end = tif.pages[3].dataoffsets[0] + tif.pages[3].databytecounts[0]
        path.write_bytes(path.read_bytes()[:end])
    with open_movie(tmp_path) as movie:
        assert movie.info.format == "imagej"
        np.testing.assert_array_equal(movie.read(0, 99).view(np.int16), counting_stack(8))


def test_float64_is_read_as_float32(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", counting_stack(dtype="float64") / 3)
    stack = read_all(tmp_path / "m.tif")
    assert stack.dtype == np.float32
    np.testing.assert_allclose(stack, counting_stack() / 3, rtol=1e-6)


def test_reading_takes_no_more_memory_for_a_long_movie(tmp_path: Path) -> None:
    path = tmp_path / "long.tif"
    tifffile.imwrite(path, shape=(400, 512, 512), dtype="uint16", photometric="minisblack")
    tracemalloc.start()
    try:
        with open_movie(path) as movie:
            block = np.empty((8, 512, 512), np.uint16)
            for start in range(0, movie.info.n_images, 8):
                movie.read_into(start, block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 200e6
    assert peak < block.nbytes + 4e6  # page table and file headers
