"""OME-TIFF: one page per frame, each complete before the next begins, so that a file that was cut short still opens."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from rtdenoise.files.movie import need
from rtdenoise.files.ome import NAMESPACE
from rtdenoise.frame import Pixels

if TYPE_CHECKING:
    from rtdenoise.files.writing import MovieFacts

_PIXEL_TYPES = {"uint8": "uint8", "uint16": "uint16", "int16": "int16", "float32": "float"}
"""OME model, PixelType."""
_DESCRIPTION_BYTES = 4096
"""Room for the final OME-XML in the first page. Engineering choice: fits 20 channels; a longer one goes to the end of the file."""
_UM_PER_CM = 1e4


class TiffSink:
    """Pages in the order in which images come; the OME-XML, written last, says which is which."""

    def __init__(self, path: Path, name: str, facts: MovieFacts, dtype: str) -> None:
        self._tifffile = need("tifffile")
        self._path, self._name, self._facts, self._dtype = path, name, facts, dtype
        self._uuid = f"urn:uuid:{uuid.uuid4()}"
        self._runs: list[list[int]] = []
        self._n_pages = 0
        self._n_times = 1
        self._file = path.open("w+b")
        self._tiff = self._tifffile.TiffWriter(self._file, bigtiff=True)

    def put(self, image: Pixels, time: int, channel: int, plane: int) -> None:
        """Append a page."""
        self._tiff.write(
            image,
            photometric="minisblack",
            rowsperstrip=image.shape[0],
            description=self._xml().ljust(_DESCRIPTION_BYTES) if self._n_pages == 0 else None,
            metadata=None,
            contiguous=False,
            **self._resolution(),
        )
        self._file.flush()
        self._note((time * self._facts.planes + plane) * self._facts.channels + channel)
        self._n_times = max(self._n_times, time + 1)

    def finish(self) -> None:
        """Close the file, then put the number of frames into its description."""
        self._tiff.close()
        self._file.close()
        if self._n_pages:
            self._tifffile.tiffcomment(self._path, self._xml())

    def _note(self, plane_number: int) -> None:
        """Remember where this page belongs, as runs of [first page, first plane number, how many]."""
        if self._runs and plane_number == self._runs[-1][1] + self._runs[-1][2]:
            self._runs[-1][2] += 1
        else:
            self._runs.append([self._n_pages, plane_number, 1])
        self._n_pages += 1

    def _resolution(self) -> dict[str, Any]:
        scale = self._facts.um_per_px
        return {"resolution": (_UM_PER_CM / scale, _UM_PER_CM / scale), "resolutionunit": "CENTIMETER"} if scale else {}

    def _xml(self) -> str:
        """OME-XML 2016-06, ASCII: lengths in um and times in s are its defaults and need no unit."""
        facts = self._facts
        schema = {
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": f"{NAMESPACE} {NAMESPACE}/ome.xsd",
        }
        root = ElementTree.Element("OME", {"xmlns": NAMESPACE, **schema, "UUID": self._uuid, "Creator": "rtdenoise"})
        image = ElementTree.SubElement(root, "Image", {"ID": "Image:0", "Name": self._name})
        pixels = ElementTree.SubElement(image, "Pixels", {"ID": "Pixels:0", "DimensionOrder": "XYCZT"})
        pixels.set("Type", _PIXEL_TYPES[self._dtype])
        for axis, n in zip("XYCZT", (*facts.shape[::-1], facts.channels, facts.planes, self._n_times), strict=True):
            pixels.set(f"Size{axis}", str(n))
        if facts.um_per_px:
            pixels.attrib |= {f"PhysicalSize{axis}": repr(float(facts.um_per_px)) for axis in "XY"}
        if facts.frame_interval_s:
            pixels.set("TimeIncrement", repr(float(facts.frame_interval_s)))
        for channel in range(facts.channels):
            ElementTree.SubElement(pixels, "Channel", {"ID": f"Channel:0:{channel}", "SamplesPerPixel": "1"})
        for first_page, plane_number, n_planes in self._runs or [[0, 0, 1]]:
            ElementTree.SubElement(pixels, "TiffData", self._tiff_data(first_page, plane_number, n_planes))
        body: bytes = ElementTree.tostring(root, encoding="us-ascii")
        return body.decode("ascii")

    def _tiff_data(self, first_page: int, plane_number: int, n_planes: int) -> dict[str, str]:
        rest, channel = divmod(plane_number, self._facts.channels)
        time, plane = divmod(rest, self._facts.planes)
        numbers = {"IFD": first_page, "FirstT": time, "FirstZ": plane, "FirstC": channel, "PlaneCount": n_planes}
        return {name: str(number) for name, number in numbers.items()}
