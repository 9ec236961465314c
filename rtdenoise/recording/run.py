"""Beginning and ending the folder of a recorded run: is there room, and what will somebody want to know in a year."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from rtdenoise import __version__
from rtdenoise.errors import FileFormatError, RecordingError
from rtdenoise.frame import StreamInfo
from rtdenoise.recording import layout
from rtdenoise.recording.tape import bytes_per_second, in_words
from rtdenoise.settings import RecordSettings, RunSettings

_PACKAGES = ("numpy", "ome-writers", "zarr", "pycromanager", "pymmcore", "openvino", "onnxruntime", "tensorrt-rtx")


def begin(asked: RecordSettings, settings: RunSettings, info: StreamInfo) -> float:
    """Make the folder and its `run.json`; returns for how many seconds there is room.

    Raises RecordingError when the folder is in use, cannot be made, or has less room than `min_seconds`.
    """
    folder = asked.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = next(folder.iterdir(), None)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise RecordingError(f"{folder}: cannot record there: {error.strerror or error}") from error
    if taken is not None:
        raise RecordingError(f"{folder}: cannot record there, it has {taken.name} in it; name a new folder")
    rate = needed_per_second(asked, info)
    if free / rate < asked.min_seconds:
        raise RecordingError(
            f"{folder}: room for {in_words(free / rate)} at {rate / 1e6:.1f} MB/s, {in_words(asked.min_seconds)} are the least; "
            "make room, or record elsewhere"
        )
    try:
        layout.write_json(folder / layout.RUN, _facts(settings, info))
    except OSError as error:
        raise RecordingError(f"{folder}: cannot record there: {error.strerror or error}") from error
    return free / rate


def needed_per_second(asked: RecordSettings, info: StreamInfo) -> float:
    """Bytes that will be written in a second."""
    denoised = {"float32": bytes_per_second(info, "float32"), "raw": bytes_per_second(info, info.dtype), None: 0.0}
    return bytes_per_second(info, info.dtype) + denoised[asked.denoised]


def end(folder: Path, totals: Mapping[str, Any]) -> None:
    """Add the totals to `run.json`. A disk that is full keeps it as it was: the indices of the series say the same."""
    with suppress(OSError, ValueError):
        facts = layout.read_json(folder / layout.RUN)
        layout.write_json(folder / layout.RUN, facts | {"ended_utc_s": time.time(), "totals": dict(totals)})


def outcome(folder: Path) -> str:
    """One line for a person about a recording that is over."""
    try:
        totals = layout.read_json(folder / layout.RUN)["totals"]
    except (FileFormatError, KeyError):
        return f"{folder}: the recording was not completed; what is in its stamps tables is good"
    return f"{totals['recorded']} raw frames recorded, {totals['missing']} missing -> {folder}"


def _facts(settings: RunSettings, info: StreamInfo) -> dict[str, Any]:
    return {
        "format": layout.FORMAT,
        "settings": settings.model_dump(mode="json"),
        "source": asdict(info) | {"scan": dict(info.scan)},
        "clock": {"utc_s": time.time(), "perf_counter_ns": time.perf_counter_ns()},
        "versions": {"rtdenoise": __version__, "python": sys.version.split()[0], **_installed()},
        "computer": {"name": platform.node(), "system": platform.platform()},
    }


def _installed() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
