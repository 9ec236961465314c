"""What a soak holds on disk, never more than it may."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from soaks.asked import MAX_DISK_BYTES


class TooMuch(Exception):
    """The soak holds more than it may on disk."""


def disk_bytes(folder: Path) -> int:
    """Everything below a folder; files that go away meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def check_disk(folder: Path, most: int = MAX_DISK_BYTES) -> int:
    """Bytes below a folder. Raises TooMuch above the limit."""
    held = disk_bytes(folder)
    if held > most:
        raise TooMuch(f"{folder} holds {held} bytes, a soak may hold {most}; delete what is not needed there")
    return held
