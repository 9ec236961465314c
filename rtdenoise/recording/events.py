"""What happened during a recorded run: one JSON object per line, on disk when the call returns."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rtdenoise.errors import FileFormatError, RecordingError
from rtdenoise.recording.layout import EVENTS
from rtdenoise.settings import RecordSettings


def append(folder: Path, event: Mapping[str, Any]) -> None:
    """Add one event to a recording; `utc_s` (seconds since 1970) is put in unless it is there. Any process may call it.

    Raises RecordingError when it cannot be written.
    """
    line = json.dumps({"utc_s": time.time(), **event}) + "\n"
    try:
        with (folder / EVENTS).open("ab", buffering=0) as file:
            file.write(line.encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise RecordingError(f"{folder / EVENTS}: the event was not recorded: {error.strerror or error}") from error


def note_calibration(asked: RecordSettings | None, key: tuple[int, int], values: tuple[float, float]) -> None:
    """Keep what a stream was calibrated to, where the run is recorded. A full disk leaves it out; the status says it too."""
    if asked is not None:
        with suppress(RecordingError):
            channel, plane = key
            offset, scale = values
            append(
                asked.folder,
                {"event": "calibrated", "channel": channel, "plane": plane, "offset": offset, "scale": scale},
            )


def read(folder: Path) -> list[dict[str, Any]]:
    """Every whole event of a recording, in order of writing. Raises FileFormatError."""
    path = folder / EVENTS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: cannot be read: {error}") from error
