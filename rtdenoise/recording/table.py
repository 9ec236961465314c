"""Tables that only grow: lines of whole numbers, on disk within a flush, readable by anything that reads CSV.

pandas.read_csv("run/raw-000.stamps.csv")
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import FileFormatError

STAMPS = ("frame", "t", "src_frame", "t_src", "t_in", "channel", "plane", "dropped")
"""frame: number in the raw stream of its series, lost ones of ours counted.  t: place on the time axis of its channel and plane.
The others as in `FrameStamp`; times in ns since the series started."""
DENOISED_STAMPS = (*STAMPS, "t_out", "complete")
LOSSES = ("series", "before_frame", "n", "reason")
"""n frames that are not here, just before `before_frame` of the series (raw-000: frames as in its stamps)."""


class GrowingTable:
    """A CSV file with a header. `add` is cheap and holds back; `flush` writes what was held back, at once or not at all.

    Goes on behind the last whole line of a file that is there already. Raises OSError.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self._waiting: list[str] = []
        if not path.exists():
            path.write_text(",".join(columns) + "\n", encoding="utf-8", newline="\n")
        self._end = path.stat().st_size

    def add(self, values: Sequence[object]) -> None:
        """One more line."""
        self._waiting.append(",".join(map(str, values)) + "\n")

    def flush(self) -> None:
        """Write the lines that wait; on an OSError they go on waiting, and the file is as it was."""
        if not self._waiting:
            return
        content = "".join(self._waiting).encode()
        with self.path.open("r+b", buffering=0) as file:  # a file that is gone must not be made anew
            file.seek(self._end)
            try:
                written = file.write(content)
                if written < len(content):
                    file.write(content[written:])
            except OSError:
                with suppress(OSError):
                    file.truncate(self._end)
                raise
        self._end += len(content)
        self._waiting.clear()

    def forget(self) -> int:
        """Give up the lines that wait; returns how many."""
        n = len(self._waiting)
        self._waiting.clear()
        return n


def read_stamps(path: Path) -> dict[str, NDArray[np.int64]]:
    """Column name -> (n_frames,) of a stamps table, whole lines only: the last may be half there after a power cut, or in a copy.

    Raises FileFormatError.
    """
    try:
        with path.open(encoding="utf-8") as file:
            columns = file.readline().strip().split(",")
            whole = (line for line in file if line.endswith("\n"))
            first = next(whole, None)
            lines = itertools.chain([first], whole) if first else iter(())
            values = np.loadtxt(lines, dtype=np.int64, delimiter=",", ndmin=2) if first else np.zeros((0, len(columns)))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: cannot be read: {error}") from error
    if not set(STAMPS) <= set(columns) or values.shape[1] != len(columns):
        raise FileFormatError(f"{path}: not a table of stamps; its first line is {','.join(columns)!r}")
    return dict(zip(columns, values.astype(np.int64, copy=False).T, strict=True))


def read_losses(path: Path) -> list[tuple[str, int, int, str]]:
    """(series, before_frame, n, reason) of every loss."""
    rows = (line.split(",", 3) for line in _whole_lines(path)[1:])
    return [(series, int(frame), int(n), reason) for series, frame, n, reason in rows]


def _whole_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    whole = text[: text.rfind("\n") + 1].splitlines()
    if not whole:
        raise FileFormatError(f"{path}: is empty")
    return whole
