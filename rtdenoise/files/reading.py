"""One door for every movie: looks at what is there, not at its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rtdenoise.errors import FileFormatError, RtDenoiseError
from rtdenoise.files.movie import Movie
from rtdenoise.files.tiff import open_tiff, open_tiff_sequence
from rtdenoise.recording.layout import is_recording

_TIFF_SUFFIXES = (".tif", ".tiff", ".btf")
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_KNOWN = "rtdenoise reads TIFF, OME-TIFF, ScanImage, OME-Zarr, zarr, HDF5 and NWB"


def open_movie(path: str | Path, *, channels: int | None = None, dataset: str | None = None) -> Movie:
    """Open a file, a folder of TIFFs, a zarr folder, the folder of a recorded run, or a pattern such as `run1/*.tif`.

    `channels`: the file's images are interleaved by this many channels (TIFF only).  `dataset`: which array of an HDF5 or zarr,
    which series of a recorded run.
    Pixels come as they are stored (uint8, uint16, int16, float32); float64 is delivered as float32.
    Raises FileFormatError, MissingExtraError.
    """
    path = Path(path)
    try:
        if re.search(r"[*?\[]", path.name) and not path.exists():
            return _sequence(path, path.parent.glob(path.name), channels)
        if not path.exists():
            raise FileFormatError(f"{path}: no such file or folder")
        return _folder(path, channels, dataset) if path.is_dir() else _file(path, channels, dataset)
    except RtDenoiseError:
        raise
    except Exception as error:  # tifffile, h5py, zarr and XML meet damaged metadata with errors of every kind
        why = " ".join(str(error).split())
        raise FileFormatError(
            f"{path}: cannot be opened, its metadata are damaged ({type(error).__name__}: {why})"
        ) from error


def _file(path: Path, channels: int | None, dataset: str | None) -> Movie:
    try:
        with path.open("rb") as file:
            magic = file.read(8)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not magic:
        raise FileFormatError(f"{path}: is empty")
    if magic[:2] in (b"II", b"MM"):
        _refuse(path, "dataset", dataset, "an HDF5 or zarr movie")
        return open_tiff(path, channels=channels)
    if magic == _HDF5_MAGIC:
        from rtdenoise.files.hdf5_movie import open_hdf5

        _refuse(path, "channels", channels, "a TIFF")
        return open_hdf5(path, dataset=dataset)
    raise FileFormatError(f"{path}: not a movie; {_KNOWN}")


def _folder(path: Path, channels: int | None, dataset: str | None) -> Movie:
    if any((path / mark).exists() for mark in _ZARR_MARKS):
        from rtdenoise.files.zarr_movie import open_zarr

        _refuse(path, "channels", channels, "a TIFF")
        return open_zarr(path, dataset=dataset)
    if is_recording(path):
        from rtdenoise.files.recorded import open_recording

        _refuse(path, "channels", channels, "a TIFF")
        return open_recording(path, series=dataset)
    _refuse(path, "dataset", dataset, "an HDF5 or zarr movie")
    return _sequence(path, path.iterdir(), channels)


def _sequence(path: Path, files: Iterable[Path], channels: int | None) -> Movie:
    tiffs = sorted((f for f in files if f.suffix.lower() in _TIFF_SUFFIXES and f.is_file()), key=_natural)
    if not tiffs:
        raise FileFormatError(f"{path}: no TIFF files there; {_KNOWN}")
    return open_tiff_sequence(path, tiffs, channels=channels)


def _natural(path: Path) -> list[tuple[int, str]]:
    """frame2 comes before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", path.name)]


def _refuse(path: Path, option: str, value: object, meant_for: str) -> None:
    if value is not None:
        raise FileFormatError(f"{path}: the option {option}={value} is for {meant_for}; leave it out")
