"""What the first page of a TIFF says about the rest: axes, order of the pages, timing, scale."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import FileFormatError
from rtdenoise.files import ome, scanimage
from rtdenoise.files.ifd import PageTable
from rtdenoise.files.movie import need


@dataclass(slots=True, frozen=True)
class TiffFacts:
    """How the pages of a file (or of an OME set) make a movie.

    sizes, strides: (time, plane, channel), the number of each and the step in pages from one to the next; the time size is 0 when
    the pages decide.  packed: images lie back to back from the first page on, whether or not each has a directory.
    places: (n_images, 2) file and page of every image in acquisition order, instead of strides; -1 where the set has none.
    """

    format: str
    sizes: tuple[int, int, int] = (0, 1, 1)
    strides: tuple[int, int, int] = (1, 1, 1)
    packed: bool = False
    frame_interval_s: float | None = None
    um_per_px: float | None = None
    scan: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    places: NDArray[np.int64] | None = None


@dataclass(slots=True, frozen=True)
class FirstPage:
    """The pixels of the first page: stored type, shape (Y, X), and their number of bytes if they lie in the file as they are."""

    dtype: np.dtype[Any]
    shape: tuple[int, int]
    plain_bytes: int | None


def describe(path: Path, table: PageTable, channels: int | None) -> tuple[FirstPage, TiffFacts]:
    """Read the facts. Raises FileFormatError for colour images and axes that are no movie's, MissingExtraError."""
    tifffile = need("tifffile")
    try:
        with _quiet(tifffile), tifffile.TiffFile(path) as tif:
            page = _first_page(path, tif.pages.first)
            facts = _facts(path, tif, table)
    except tifffile.TiffFileError as error:
        raise FileFormatError(f"{path}: not a TIFF rtdenoise can read: {error}") from error
    return page, _interleaved(facts, channels) if channels else facts


@contextmanager
def _quiet(tifffile: Any) -> Iterator[None]:
    """tifffile logs what is odd about a damaged file; the user gets one line from us instead."""
    log = tifffile.logger()
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _interleaved(facts: TiffFacts, channels: int) -> TiffFacts:
    """The same pages in the order of the file, with this many channels; ScanImage's planes stay, other axes are forgotten."""
    n_planes = facts.sizes[1] if facts.format == "scanimage" else 1
    n_images = facts.sizes[0] * facts.sizes[1] * facts.sizes[2]
    sizes = (-(-n_images // (n_planes * channels)), n_planes, channels)
    return replace(facts, sizes=sizes, strides=(n_planes * channels, channels, 1), files=(), places=None)


def _first_page(path: Path, page: Any) -> FirstPage:
    if page.dtype is None or len(page.shape) != 2 or not all(page.shape) or page.samplesperpixel != 1:
        raise FileFormatError(
            f"{path}: frame 0 is {page.shape} with {page.samplesperpixel} samples per pixel; save it as grey frames"
        )
    plain = bool(page.is_contiguous) and page.compression == 1 and not page.is_tiled and page.fillorder == 1
    dtype = np.dtype(page.parent.byteorder + page.dtype.char)
    return FirstPage(
        dtype, (page.shape[0], page.shape[1]), page.shape[0] * page.shape[1] * dtype.itemsize if plain else None
    )


def _facts(path: Path, tif: Any, table: PageTable) -> TiffFacts:
    first = tif.pages.first
    header = f"{first.software}\n{first.description}".lstrip()
    if scanimage.is_scanimage(header):
        return _scanimage(tif, header, len(table))
    if tif.is_ome:
        return _ome(path, tif.ome_metadata)
    if tif.is_imagej:
        return _imagej(first, tif.imagej_metadata)
    if tif.is_shaped:
        return _shaped(path, json.loads(first.description))
    return TiffFacts("tiff")


def _scanimage(tif: Any, header: str, n_pages: int) -> TiffFacts:
    descriptions = [tif.pages[i].description for i in range(min(n_pages, scanimage.MAX_CHANNELS + 1))]
    n_channels, n_planes = scanimage.channels(header, descriptions), scanimage.planes(header)
    return TiffFacts(
        "scanimage",
        (0, n_planes, n_channels),
        (n_planes * n_channels, n_channels, 1),
        frame_interval_s=scanimage.frame_interval_s(header, n_planes),
        um_per_px=scanimage.um_per_px(header),
        scan=scanimage.scan(header),
    )


def _ome(path: Path, xml: str) -> TiffFacts:
    pixels = ome.read_pixels(path, xml)
    places = ome.places(path, pixels)
    return TiffFacts(
        "ome-tiff",
        pixels.sizes,
        ome.strides(pixels),
        frame_interval_s=pixels.frame_interval_s,
        um_per_px=pixels.um_per_px,
        files=tuple(places.files) if places else (),
        places=places.table if places else None,
    )


def _imagej(first: Any, facts: Mapping[str, Any]) -> TiffFacts:
    """ImageJ hyperstack: channel fastest, then slice, then frame. A stack without frames counts its slices as time."""
    n_channels, n_planes, n_times = (int(facts.get(name, 1)) for name in ("channels", "slices", "frames"))
    if n_times == 1 and n_planes > 1:
        n_times, n_planes = n_planes, 1
    n_times = max(n_times, int(facts.get("images", 1)) // (n_channels * n_planes))
    fps, interval = float(facts.get("fps") or 0), float(facts.get("finterval") or 0)
    return TiffFacts(
        "imagej",
        (n_times, n_planes, n_channels),
        (n_planes * n_channels, n_channels, 1),
        packed=True,
        frame_interval_s=interval or (1 / fps if fps else None),
        um_per_px=_imagej_scale(first, str(facts.get("unit", ""))),
    )


def _imagej_scale(first: Any, unit: str) -> float | None:
    resolution = first.tags.get("XResolution")
    factor = ome.UM_PER_UNIT.get(unit.encode().decode("unicode_escape") if "\\u" in unit else unit)
    if resolution is None or factor is None or not resolution.value[0]:
        return None
    return float(factor * resolution.value[1] / resolution.value[0])


def _shaped(path: Path, facts: Mapping[str, Any]) -> TiffFacts:
    """tifffile's own JSON: shape, and axes where the writer gave them. One unnamed axis before Y, X is time."""
    shape = [int(n) for n in facts["shape"]]
    axes = str(facts.get("axes") or "YX".rjust(len(shape), "Q")).upper()
    sizes, strides = time_plane_channel(path, axes, shape)
    return TiffFacts("tiff", sizes, strides, packed=True)


def time_plane_channel(path: Path, axes: str, shape: list[int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(time, plane, channel) sizes and steps of images stored in C order along `axes`, which end in 'YX'.

    Without a time axis the only other axis is time: movies saved as stacks call it Z, I or Q.
    Raises FileFormatError when an axis longer than 1 is none of these.
    """
    long = [axis for axis, n in zip(axes[:-2], shape, strict=False) if n > 1]
    others = [axis for axis in long if axis not in "TC"]
    if "T" not in long and len(others) == 1:
        axes = axes.replace("T", "_").replace(others[0], "T")
    elif len(long) > len(set(long)) or any(axis != "Z" for axis in others):
        raise FileFormatError(
            f"{path}: axes {axes} {tuple(shape)} are not a movie's; save it as TYX, TCYX, TZYX or TZCYX"
        )
    if not axes.endswith("YX"):
        raise FileFormatError(f"{path}: axes {axes} do not end in YX; save it as grey frames")
    steps = {axes[i]: int(np.prod(shape[i + 1 : -2], dtype=np.int64)) for i in range(len(axes) - 2)}
    found = {axes[i]: shape[i] for i in range(len(axes) - 2)}
    t, z, c = ((found.get(a, 1), steps.get(a, 1)) for a in "TZC")
    return (t[0], z[0], c[0]), (t[1], z[1], c[1])
