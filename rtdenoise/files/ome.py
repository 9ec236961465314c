"""OME-XML of an OME-TIFF: sizes, order of the planes, and which file of a set holds which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import FileFormatError

UM_PER_UNIT = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
}
UM_PER_UNIT |= {"mm": 1e3, "millimeter": 1e3, "cm": 1e4, "m": 1e6, "meter": 1e6}
SECONDS_PER_UNIT = {
    "s": 1.0,
    "second": 1.0,
    "ms": 1e-3,
    "millisecond": 1e-3,
    "µs": 1e-6,
    "microsecond": 1e-6,
    "min": 60.0,
    "minute": 60.0,
}
NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


@dataclass(slots=True, frozen=True)
class Run:
    """`n_planes` consecutive planes, in the order of the image, that begin at a page of a file ('' = this one)."""

    file: str
    first_page: int
    plane: tuple[int, int, int]
    n_planes: int


@dataclass(slots=True, frozen=True)
class Pixels:
    """One image of the XML. sizes: (time, plane, channel); order: fastest first, 'CZT'."""

    sizes: tuple[int, int, int]
    order: str
    runs: Sequence[Run]
    frame_interval_s: float | None
    um_per_px: float | None

    @property
    def n_images(self) -> int:
        """Planes of all times, depths and channels."""
        return self.sizes[0] * self.sizes[1] * self.sizes[2]


@dataclass(slots=True, frozen=True)
class Places:
    """Files of a set, and (n_images, 2) file and page of every image in acquisition order, -1 where there is none."""

    files: Sequence[Path]
    table: NDArray[np.int64]


def read_pixels(path: Path, xml: str) -> Pixels:
    """The first image of the XML. Raises FileFormatError."""
    try:
        root = ElementTree.fromstring(xml.strip("\0 \r\n"))
    except ElementTree.ParseError as error:
        raise FileFormatError(f"{path}: its OME-XML is damaged: {error}") from error
    images = root.findall("{*}Image")
    own = [image for image in images if _names_file(image, path.name)] or images
    pixels = own[0].find("{*}Pixels") if own else None
    if pixels is None:
        raise FileFormatError(f"{path}: its OME-XML describes no image; open the first file of the set")
    sizes = (int(pixels.get("SizeT", 1)), int(pixels.get("SizeZ", 1)), int(pixels.get("SizeC", 1)))
    order = pixels.get("DimensionOrder", "XYCZT")[2:]
    runs = [_run(element) for element in pixels.findall("{*}TiffData")]
    if sizes[0] == 1 and sizes[1] > 1:
        sizes, order = (sizes[1], 1, sizes[2]), order.translate(str.maketrans("TZ", "ZT"))
        runs = [Run(r.file, r.first_page, (r.plane[1], r.plane[0], r.plane[2]), r.n_planes) for r in runs]
    return Pixels(sizes, order, runs, _interval_s(pixels), _um_per_px(pixels))


def strides(pixels: Pixels) -> tuple[int, int, int]:
    """(time, plane, channel) steps in planes of the image's own order."""
    step, steps = 1, {}
    for axis in pixels.order:
        steps[axis] = step
        step *= pixels.sizes["TZC".index(axis)]
    return steps["T"], steps["Z"], steps["C"]


def places(path: Path, pixels: Pixels) -> Places | None:
    """Where each image is; None when all of them follow each other in this file from its first page on."""
    runs = pixels.runs
    if not runs or (
        len(runs) == 1 and runs[0].first_page == 0 and runs[0].file in ("", path.name) and runs[0].plane == (0, 0, 0)
    ):
        return None
    names = list(dict.fromkeys(run.file or path.name for run in runs))
    table = np.full((pixels.n_images, 2), -1, dtype=np.int64)
    steps, rank = strides(pixels), _acquisition_rank(pixels)
    for run in runs:
        begin = sum(i * step for i, step in zip(run.plane, steps, strict=True))
        n_planes = min(run.n_planes or pixels.n_images, pixels.n_images - begin)
        rows = rank[begin : begin + n_planes]
        table[rows, 0] = names.index(run.file or path.name)
        table[rows, 1] = run.first_page + np.arange(len(rows))
    return Places([path.parent / name for name in names], table)


def _acquisition_rank(pixels: Pixels) -> NDArray[np.int64]:
    """For each plane in the image's own order, its number in acquisition order."""
    n_times, n_planes, n_channels = pixels.sizes
    t, z, c = np.meshgrid(np.arange(n_times), np.arange(n_planes), np.arange(n_channels), indexing="ij")
    steps = strides(pixels)
    own = (t * steps[0] + z * steps[1] + c * steps[2]).ravel()
    rank = np.empty(pixels.n_images, dtype=np.int64)
    rank[own] = np.arange(pixels.n_images)
    return rank


def _run(element: ElementTree.Element) -> Run:
    uuid = element.find("{*}UUID")
    first_page, n_planes = element.get("IFD"), element.get("PlaneCount")
    plane = (int(element.get("FirstT", 0)), int(element.get("FirstZ", 0)), int(element.get("FirstC", 0)))
    # OME model, TiffData: one plane when only the page is given, all planes when neither is
    count = int(n_planes) if n_planes else (1 if first_page else 0)
    return Run(uuid.get("FileName", "") if uuid is not None else "", int(first_page or 0), plane, count)


def _names_file(image: ElementTree.Element, name: str) -> bool:
    return any(uuid.get("FileName") == name for uuid in image.iterfind("{*}Pixels/{*}TiffData/{*}UUID"))


def _interval_s(pixels: ElementTree.Element) -> float | None:
    if "TimeIncrement" in pixels.attrib:
        return float(pixels.attrib["TimeIncrement"]) * SECONDS_PER_UNIT.get(pixels.get("TimeIncrementUnit", "s"), 1.0)
    planes = [
        p for p in pixels.findall("{*}Plane") if p.get("TheC") == "0" and p.get("TheZ") == "0" and p.get("DeltaT")
    ]
    if len(planes) < 2:
        return None
    (t0, s0), (t1, s1) = ((int(p.get("TheT", 0)), float(p.get("DeltaT", 0))) for p in (planes[0], planes[-1]))
    unit = SECONDS_PER_UNIT.get(planes[0].get("DeltaTUnit", "s"), 1.0)
    return (s1 - s0) / (t1 - t0) * unit if t1 > t0 and s1 > s0 else None


def _um_per_px(pixels: ElementTree.Element) -> float | None:
    factor = UM_PER_UNIT.get(pixels.get("PhysicalSizeXUnit", "µm"))
    size = float(pixels.get("PhysicalSizeX", 0))
    return size * factor if factor and size else None
