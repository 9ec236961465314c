"""Movies on disk: what is in a file comes out of it, in acquisition order, or one clear line says why not."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from rtdenoise.errors import FileFormatError, GeometryChanged, MissingExtraError
from rtdenoise.files import create_movie, open_movie
from rtdenoise.frame import StreamInfo
from tests.real_movies import MOVIES, SCANIMAGE, SCANIMAGE_3, RealMovie, real_movie

N_TIMES, N_PLANES, N_CHANNELS, SHAPE = 7, 3, 2, (6, 5)


def counting_stack(n: int = N_TIMES, dtype: str = "int16") -> np.ndarray:
    """(n, Y, X); image k holds k - 3 in every pixel but the last, which holds 100 + k: negative values and orientation show."""
    stack = np.empty((n, *SHAPE), dtype)
    stack[...] = (np.arange(n) - 3).astype(dtype)[:, None, None]
    stack[:, -1, 0] = 100 + np.arange(n)
    return stack


def hyperstack() -> np.ndarray:
    """(T, Z, C, Y, X) in acquisition order."""
    return counting_stack(N_TIMES * N_PLANES * N_CHANNELS).reshape(N_TIMES, N_PLANES, N_CHANNELS, *SHAPE)


def read_all(path: Path, **options: object) -> np.ndarray:
    with open_movie(path, **options) as movie:  # type: ignore[arg-type]
        return movie.read(0, movie.info.n_images)


def ome_zarr(path: Path, stack: np.ndarray, version: int) -> Path:
    """OME-Zarr 0.4 on zarr 2 or 0.5 on zarr 3, (T, C, Z, Y, X), chunks that do not divide the movie."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    array = group.create_array("full", shape=stack.shape, chunks=(4, 1, 2, *SHAPE), dtype=stack.dtype)
    array[...] = stack
    axes = [
        {"name": "t", "unit": "millisecond"},
        {"name": "c"},
        {"name": "z"},
        {"name": "y"},
        {"name": "x", "unit": "micrometer"},
    ]
    scale = {"type": "scale", "scale": [100.0, 1.0, 1.0, 0.5, 0.5]}
    multiscales = [{"axes": axes, "datasets": [{"path": "full", "coordinateTransformations": [scale]}]}]
    group.attrs.update(
        {"multiscales": multiscales} if version == 2 else {"ome": {"version": "0.5", "multiscales": multiscales}}
    )
    return path


def ome_tiff(axes: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        order = ["TZCYX".index(axis) for axis in axes]
        tifffile.imwrite(
            folder / "m.ome.tif",
            hyperstack().transpose(order),
            metadata={"axes": axes, "TimeIncrement": 0.1, "PhysicalSizeX": 0.5},
        )
        return folder / "m.ome.tif"

    return write


def imagej(folder: Path) -> Path:
    """Big-endian, as ImageJ writes them."""
    facts = {"axes": "TZCYX", "finterval": 0.1, "unit": "um"}
    stack = hyperstack().astype(">i2")
    tifffile.imwrite(
        folder / "m.tif", stack.astype(">u2"), imagej=True, byteorder=">", metadata=facts, resolution=(2, 2)
    )
    return folder / "m.tif"


HYPERSTACKS: dict[str, Callable[[Path], Path]] = {
    **{f"ome-tiff {axes}": ome_tiff(axes) for axes in ("TZCYX", "TCZYX", "ZTCYX", "CZTYX")},
    "ome-zarr 0.4": lambda folder: ome_zarr(folder / "m.ome.zarr", hyperstack().transpose(0, 2, 1, 3, 4), 2),
    "ome-zarr 0.5": lambda folder: ome_zarr(folder / "m.ome.zarr", hyperstack().transpose(0, 2, 1, 3, 4), 3),
    "imagej": imagej,
}


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


def plain_tiff(folder: Path, **options: object) -> Path:
    tifffile.imwrite(folder / "m.tif", counting_stack(), photometric="minisblack", **options)  # type: ignore[arg-type]
    return folder / "m.tif"


def page_by_page(folder: Path) -> Path:
    with tifffile.TiffWriter(folder / "m.tif", bigtiff=True) as writer:
        for image in counting_stack():
            writer.write(image, photometric="minisblack", contiguous=False)
    return folder / "m.tif"


def folder_of_tiffs(folder: Path) -> Path:
    (folder / "notes.txt").write_text("not a frame")
    for k, image in enumerate(counting_stack(12)):
        tifffile.imwrite(folder / f"frame{k}.tif", image)
    return folder


def hdf5(folder: Path) -> Path:
    with h5py.File(folder / "m.h5", "w") as file:
        file.create_dataset("data", data=counting_stack(), chunks=(4, *SHAPE), compression="gzip")
        file["roi"] = np.zeros(5)
    return folder / "m.h5"


def nwb(folder: Path) -> Path:
    """The parts of the NWB schema that matter here: data is (frame, x, y)."""
    with h5py.File(folder / "m.nwb", "w") as file:
        series = file.create_group("acquisition/TwoPhotonSeries")
        series.attrs["neurodata_type"] = "TwoPhotonSeries"
        series["data"] = counting_stack().transpose(0, 2, 1)
        series["starting_time"] = 0.0
        series["starting_time"].attrs["rate"] = 20.0
        file["processing/other"] = np.zeros((2, 3, 4))
    return folder / "m.nwb"


def plain_zarr(folder: Path) -> Path:
    array = zarr.create_array(str(folder / "m.zarr"), shape=(N_TIMES, *SHAPE), chunks=(4, *SHAPE), dtype="int16")
    array[...] = counting_stack()
    return folder / "m.zarr"


MOVIES_OF_ONE_CHANNEL: dict[str, Callable[[Path], Path]] = {
    "tiff": plain_tiff,
    "tiff, zlib": lambda folder: plain_tiff(folder, compression="zlib", predictor=True),
    "tiff, LZW": lambda folder: plain_tiff(folder, compression="lzw"),
    "tiff, tiled": lambda folder: plain_tiff(folder, tile=(16, 16)),
    "tiff, strips of 2 lines": lambda folder: plain_tiff(folder, rowsperstrip=2),
    "bigtiff, big-endian": lambda folder: plain_tiff(folder, bigtiff=True, byteorder=">"),
    "tiff, page by page": page_by_page,
    "folder of tiffs, frame10 after frame9": folder_of_tiffs,
    "pattern": lambda folder: folder_of_tiffs(folder) / "frame*.tif",
    "hdf5": hdf5,
    "nwb": nwb,
    "zarr": plain_zarr,
}


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


def ome_set(folder: Path, n_recorded: int, n_declared: int) -> Path:
    """Two files of an OME-TIFF set with one TiffData per plane, as Micro-Manager writes them; later planes were never recorded."""
    data = planes = ""
    for k in range(n_recorded):
        data += f'<TiffData FirstT="{k}" IFD="{k % 4}"><UUID FileName="part{k // 4}.ome.tif">u</UUID></TiffData>'
        planes += f'<Plane TheT="{k}" TheZ="0" TheC="0" DeltaT="{k * 50}" DeltaTUnit="ms"/>'
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" Type="int16" '
        f'DimensionOrder="XYCZT" SizeX="5" SizeY="6" SizeZ="1" SizeC="1" SizeT="{n_declared}">{data}{planes}</Pixels></Image></OME>'
    )
    stack = counting_stack(n_recorded)
    for i_file in range(2):
        images = stack[4 * i_file : 4 * i_file + 4]
        tifffile.imwrite(
            folder / f"part{i_file}.ome.tif", images, description=xml, metadata=None, photometric="minisblack"
        )
    return folder / "part0.ome.tif"


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


def test_float64_is_read_as_float32(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", counting_stack(dtype="float64") / 3)
    stack = read_all(tmp_path / "m.tif")
    assert stack.dtype == np.float32
    np.testing.assert_allclose(stack, counting_stack() / 3, rtol=1e-6)


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


def test_the_ome_zarr_is_valid_for_two_other_libraries(tmp_path: Path) -> None:
    yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs, a validator of OME-Zarr, is not installed")
    models = pytest.importorskip("ome_zarr_models", reason="ome-zarr-models, a validator of OME-Zarr, is not installed")
    write_hyperstack(tmp_path / "m.ome.zarr")
    yaozarrs.validate_zarr_store(str(tmp_path / "m.ome.zarr"))
    image = models.open_ome_zarr(zarr.open_group(str(tmp_path / "m.ome.zarr"), mode="r"))
    assert image.ome_attributes.version == "0.5"
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
