"""What ThorImage says about the raw file that it writes, in the Experiment.xml beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from rtdenoise.errors import FileFormatError

EXPERIMENT = "Experiment.xml"


@dataclass(slots=True, frozen=True)
class Experiment:
    """shape (Y, X) in pixels, saved channels, planes of a fast z scan with its flyback, frames per second of one plane and channel."""

    shape: tuple[int, int]
    channels: int
    planes: int
    frame_rate_hz: float | None
    um_per_px: float | None


def read_experiment(path: Path) -> Experiment:
    """Raises FileFormatError when it does not say how large a frame is, or is only half written."""
    try:
        root = ElementTree.parse(path).getroot()
        scan = root.find(".//LSM")
        if scan is None:
            raise FileFormatError(f"{path}: no LSM entry; give height and width instead")
        planes = _planes(root)
        averaged = float(scan.get("averageNum", 1)) if scan.get("averageMode") == "1" else 1.0
        rate = float(scan.get("frameRate", 0)) / max(averaged, 1.0) / planes
        return Experiment(
            (int(scan.attrib["pixelY"]), int(scan.attrib["pixelX"])),
            max(1, len(root.findall(".//Wavelengths/Wavelength"))),
            planes,
            rate or None,
            float(scan.get("pixelSizeUM", 0)) or None,
        )
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise FileFormatError(
            f"{path}: cannot be understood ({type(error).__name__}: {error}); give height and width instead"
        ) from None


def _planes(root: ElementTree.Element) -> int:
    streaming, stage = root.find(".//Streaming"), root.find(".//ZStage")
    if streaming is None or stage is None or streaming.get("zFastEnable") != "1":
        return 1
    return max(1, int(stage.get("steps", 1)) + int(streaming.get("flybackFrames", 0)))
