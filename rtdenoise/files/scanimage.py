"""What a ScanImage header says: `SI.*` lines (2016 on, Software tag), `scanimage.SI*` (4 and 5) and `state.*` (3), in the description."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

MAX_CHANNELS = 8
"""Engineering choice: ScanImage saves up to 4, and a header page that repeats one frame number for ever is no channel count."""


def is_scanimage(header: str) -> bool:
    """True for the Software tag plus description of a page that ScanImage wrote."""
    return header.startswith(("SI.", "state.")) or "\nstate." in header or "scanimage.SI" in header


def channels(header: str, descriptions: Sequence[str]) -> int:
    """Interleaved channels. `descriptions` are those of the first pages of the file.

    The pages are asked first: those of one time point carry the same `frameNumbers`, while `channelSave` is what was ticked in
    the window, and files exist that hold more channels than it lists.
    """
    numbers = [_find(text, r"frameNumbers?") for text in descriptions]
    same = list(itertools.takewhile(lambda number: number is not None and number == numbers[0], numbers))
    if 0 < len(same) <= MAX_CHANNELS:
        return len(same)
    saved = _find(header, r"state\.acq\.numberOfChannelsSave")
    listed = _find(header, r"channels?Save")
    return int(saved) if saved else max(len(re.findall(r"\d+", listed or "1")), 1)


def planes(header: str) -> int:
    """Planes of one volume of a fast z scan, fly-back frames included because they are saved too; 1 for everything else.

    A slow stack records many frames at one depth before it moves on, which is a movie of one plane after the other.
    """
    fast = _find(header, r"hFastZ\.enable") in ("true", "1") or _find(header, r"hStackManager\.stackMode") == "'fast'"
    if not fast or _find(header, r"hStackManager\.enable") in ("false", "0"):
        return 1
    per_volume = _number(header, r"hStackManager\.numFramesPerVolumeWithFlyback")
    return max(int(per_volume or _number(header, r"hStackManager\.(?:actualN|n)umSlices") or 1), 1)


def frame_interval_s(header: str, n_planes: int) -> float | None:
    """Seconds between frames of one channel and plane."""
    volume_rate = _number(header, r"hRoiManager\.scanVolumeRate") if n_planes > 1 else None
    frame_rate = _number(header, r"hRoiManager\.scanFrameRate") or _number(
        header, r"(?:state\.acq\.f|SI[45]\.scanF)rameRate"
    )
    if volume_rate:
        return 1.0 / volume_rate
    return n_planes / frame_rate if frame_rate else None


def um_per_px(header: str) -> float | None:
    """Micrometres along X, from the corners of the field of view."""
    corners = _find(header, r"hRoiManager\.imagingFovUm")
    n_pixels = _number(header, r"hRoiManager\.pixelsPerLine")
    xs = [float(x) for x in re.findall(r"[\[;]\s*(-?[\d.eE+-]+)", corners or "")]
    return (max(xs) - min(xs)) / n_pixels if xs and n_pixels else None


def scan(header: str) -> dict[str, Any]:
    """The scan in the words of StreamInfo: bidirectional, line_time_s, zoom; only what the header gives."""
    line_ms = _number(header, r"state\.acq\.msPerLine")
    found = {
        "bidirectional": {"true": True, "1": True, "false": False, "0": False}.get(
            _find(header, r"hScan2D\.bidirectional") or _find(header, r"state\.acq\.bidirectionalScan") or ""
        ),
        "line_time_s": line_ms / 1000 if line_ms else _number(header, r"hRoiManager\.linePeriod"),
        "zoom": _number(header, r"hRoiManager\.scanZoomFactor") or _number(header, r"state\.acq\.zoomFactor"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _find(text: str, name: str) -> str | None:
    found = re.search(rf"(?:^|[.\r\n]){name}[ \t]*=[ \t]*([^\r\n]+)", text)
    return found.group(1).strip() if found else None


def _number(text: str, name: str) -> float | None:
    try:
        return float(_find(text, name) or "")
    except ValueError:
        return None
