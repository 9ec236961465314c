"""Writes the same small counting movie in every format that rtdenoise reads, with other libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import tifffile
import zarr

from rtdenoise.files import open_movie

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
