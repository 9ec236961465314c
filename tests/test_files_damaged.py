"""Movies on disk that are cut, damaged or no movies: the frames before the damage, and one clear line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from rtdenoise.errors import FileFormatError, GeometryChanged, MissingExtraError
from rtdenoise.files import open_movie
from tests.file_makers import (
    counting_stack,
    folder_of_tiffs,
    hdf5,
    imagej,
    page_by_page,
    plain_tiff,
    plain_zarr,
    read_all,
)

TRUNCATED: dict[str, Callable[[Path], Path]] = {
    "tiff": plain_tiff,
    "tiff, zlib": lambda folder: plain_tiff(folder, compression="zlib"),
    "tiff, page by page": page_by_page,
    "imagej": imagej,
}


@pytest.mark.parametrize("make", TRUNCATED.values(), ids=TRUNCATED)
def test_a_truncated_tiff_names_the_first_frame_that_is_lost_and_gives_those_before_it(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    whole = read_all(path)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[4]
        cut = page.dataoffsets[0] + page.databytecounts[0] // 2
    path.write_bytes(path.read_bytes()[:cut])
    with open_movie(path) as movie:
        np.testing.assert_array_equal(movie.read(0, 4), whole[:4])
        with pytest.raises(FileFormatError, match=r"m\.tif: truncated: frame 4 cannot be read"):
            movie.read(2, 6)


def test_a_damaged_chunk_names_the_frames_it_takes_with_it(tmp_path: Path) -> None:
    path = hdf5(tmp_path)
    with h5py.File(path) as file:
        place = file["data"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    path.write_bytes(content)
    with open_movie(path) as movie:
        np.testing.assert_array_equal(movie.read(0, 4), counting_stack()[:4])
        with pytest.raises(FileFormatError, match=r"m\.h5: frame 4 cannot be read"):
            movie.read(4, 5)


def test_a_file_of_another_shape_in_a_folder_is_a_geometry_change_at_its_first_frame(tmp_path: Path) -> None:
    folder_of_tiffs(tmp_path)
    tifffile.imwrite(tmp_path / "frame5.tif", np.zeros((8, 8), np.int16))
    with open_movie(tmp_path) as movie:
        assert movie.info.n_images == 12
        np.testing.assert_array_equal(movie.read(0, 5), counting_stack(12)[:5])
        with pytest.raises(
            GeometryChanged, match=r"frame5\.tif: frame 5 is 8 x 8, 16 bit; the movie began with 6 x 5 int16"
        ):
            movie.read(3, 7)


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((4, 6, 5), np.uint32), "pixels are uint32; rtdenoise reads uint8, uint16, int16, float32: convert"),
        (np.zeros((4, 6, 5, 3), np.uint8), "save it as grey frames"),
        (np.zeros((2, 2, 2, 2, 6, 5), np.uint8), "are not a movie's"),
    ],
    ids=["uint32", "RGB", "six axes"],
)
def test_what_is_no_movie_of_counts_is_refused_when_it_is_opened(
    tmp_path: Path, image: np.ndarray, complaint: str
) -> None:
    tifffile.imwrite(tmp_path / "m.tif", image, photometric="rgb" if image.shape[-1] == 3 else "minisblack")
    with pytest.raises(FileFormatError, match=complaint):
        open_movie(tmp_path / "m.tif")


def test_what_cannot_be_opened_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("hello, this is not a movie")
    (tmp_path / "cut.tif").write_bytes(b"II*\x00")
    (tmp_path / "bare").mkdir()
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"] = np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.uint8)
    for name, complaint in {
        "gone.tif": "gone.tif: no such file or folder",
        "empty.tif": "empty.tif: is empty",
        "text.tif": "text.tif: not a movie; rtdenoise reads TIFF",
        "cut.tif": "cut.tif: not a TIFF file, or cut off in its first 4 bytes",
        "bare": "bare: no TIFF files there",
        "run*.tif": "no TIFF files there",
        "two.h5": "two.h5: 2 movies; give dataset=..., one of: a, b",
    }.items():
        with pytest.raises(FileFormatError) as caught:
            open_movie(tmp_path / name)
        assert complaint in str(caught.value)
        assert "\n" not in str(caught.value)
    assert read_all(tmp_path / "two.h5", dataset="b").shape == (2, 3, 4)
    with pytest.raises(FileFormatError, match="no dataset c; datasets there: a, b"):
        open_movie(tmp_path / "two.h5", dataset="c")


@pytest.mark.parametrize(("make", "package"), [(plain_tiff, "tifffile"), (hdf5, "h5py"), (plain_zarr, "zarr")])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], package: str
) -> None:
    path = make(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed; run: pip install 'rtdenoise\[live\]'"):
        open_movie(path)
