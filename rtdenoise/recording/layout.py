"""What a recording's folder looks like, for whoever writes it and whoever reads it.

run.json                 settings, versions, source, clock; at the end the totals
events.jsonl             what happened, one JSON object per line
raw.dropped.csv          frames that are not here, and why
raw-000.ome.zarr         pixels of the first series, axes t c z y x (denoised-000.ome.zarr: what came out, where asked for)
raw-000.stamps.csv       one line per frame, in the order in which they came
raw-000.index.json       how many frames are good
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdenoise.errors import FileFormatError

RUN, EVENTS = "run.json", "events.jsonl"
FORMAT = "rtdenoise-recording-1"
RAW, DENOISED = "raw", "denoised"


def is_recording(path: Path) -> bool:
    """Whether `path` is the folder of a recorded run."""
    try:
        return bool(json.loads((path / RUN).read_text(encoding="utf-8")).get("format") == FORMAT)
    except (OSError, ValueError, AttributeError):
        return False


def series_name(stream: str, i_series: int) -> str:
    """Name of the `i_series`-th series of a stream; that of its files begins with it."""
    return f"{stream}-{i_series:03d}"


def series_names(folder: Path, stream: str = RAW) -> list[str]:
    """The series of a stream that are there, in order of time."""
    found = (path.name.removesuffix(".index.json") for path in folder.glob(f"{stream}-*.index.json"))
    return sorted(found, key=lambda name: int(name.rpartition("-")[2]))


def losses_file(folder: Path, stream: str) -> Path:
    """What a stream lacks."""
    return folder / f"{stream}.dropped.csv"


def array_folder(folder: Path, series: str) -> Path:
    """The OME-Zarr of a series."""
    return folder / f"{series}.ome.zarr"


def stamps_file(folder: Path, series: str) -> Path:
    """The stamps of a series."""
    return folder / f"{series}.stamps.csv"


def index_file(folder: Path, series: str) -> Path:
    """What is good of a series."""
    return folder / f"{series}.index.json"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises FileFormatError naming the file."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: cannot be read: {error}") from error
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file at one stroke: a reader, or a copy, sees the old or the new one. Raises OSError."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
