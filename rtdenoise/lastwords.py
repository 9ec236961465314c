"""What a process of a run writes to its error output, kept for the time when it is gone: a dead process explains itself nowhere else."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path

MAX_BYTES = 256 * 1024
"""More than this of one process is never kept. Engineering choice: a crash's traceback is a few KiB."""
SHOWN_LINES = 60
_STDERR = 2
_CRASHES = ("Fatal Python error", "Windows fatal exception")


def recorded(path: Path | None, main: Callable[..., None], *args: object, **named: object) -> None:
    """Entry point of a process: run `main` with everything that goes to the error output in `path`, a crash's traceback too."""
    if path is not None:
        _redirect(path)
    main(*args, **named)


def _redirect(path: Path) -> None:
    """By descriptor, so that native libraries are heard as well. Appending: whoever shortens the file leaves no hole."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return  # a log folder that cannot be written is no reason not to run
    os.dup2(file, _STDERR)
    os.close(file)
    if sys.stderr is None:  # a Windows program without a console
        sys.stderr = os.fdopen(_STDERR, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    faulthandler.enable(file=_STDERR)


class LastWords:
    """The supervisor's side: `write` gets the lines when the process is gone."""

    def __init__(self, path: Path, name: str, write: Callable[[str], None]) -> None:
        self.path, self._name, self._write = path, name, write
        self.closed = False

    def lines(self) -> list[str]:
        """The last lines that were written, none when there are none."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-SHOWN_LINES:]

    def gist(self) -> str:
        """The one line that says most about why a process is gone: of a crash its first, of an exception its last."""
        lines = self.lines()
        crash = next((line for line in lines if line.startswith(_CRASHES)), "")
        return crash or next((line for line in reversed(lines) if not line.startswith(" ")), "")

    def keep_small(self) -> None:
        """Begin anew where a library talks without end."""
        try:
            if self.path.stat().st_size > MAX_BYTES:
                os.truncate(self.path, 0)
        except OSError:
            return  # nothing was said yet, or the file is gone

    def close(self) -> None:
        """Move what was said to the log, once."""
        if self.closed:
            return
        self.closed = True
        for line in self.lines():
            self._write(f"{self._name} said: {line}")
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return  # Windows keeps it while a process still holds it; the next run tidies up
