"""What a run leaves for whoever asks later: a log of bounded size, one line per event, and its settings and end in one JSON file."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rtdenoise.lastwords import LastWords

MAX_BYTES = 1024 * 1024
"""Length at which a log goes on in a new file; the one before is kept. Engineering choice: at a line a minute, a fortnight."""
KEPT_RUNS = 20
BURST = 5
"""Lines of one kind that go to the log within a minute: every restart, not every second of a disk that is too slow. Engineering choice."""


def default_folder() -> Path:
    """Where logs of this user go: RTDENOISE_LOG_DIR, else what the system is used to."""
    if asked := os.environ.get("RTDENOISE_LOG_DIR"):
        return Path(asked)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "rtdenoise" / "logs"
    if sys.platform == "darwin":
        return home / "Library" / "Logs" / "rtdenoise"
    return Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state") / "rtdenoise" / "logs"


def runs(folder: Path) -> list[str]:
    """Names of the runs that left something in `folder`, newest first."""
    try:
        return sorted({path.name.partition(".")[0] for path in folder.glob("run-*")}, reverse=True)
    except OSError:
        return []


def files_of(folder: Path, run: str) -> list[Path]:
    """What one run left, its last words included when nobody could move them to the log."""
    return sorted(folder.glob(f"{run}.*"))


class Logbook:
    """The log of one run in `folder`, and a JSON file that begins with `facts`; keeps nothing when that is None.

    Each line is written and closed, so nothing is lost when the process dies. A folder that is full or cannot be written costs
    lines, which are counted (`lost`), and never the run.
    """

    def __init__(self, folder: Path | None, facts: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.lost = 0
        self.trouble = ""
        self._run = f"run-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{os.getpid()}"
        self._facts: dict[str, Any] = {}
        self._words: list[LastWords] = []
        self._n_processes = 0
        self._similar: dict[str, tuple[float, int]] = {}
        if folder is not None:
            self._make_room(folder)
        self.note_facts(facts or {})

    @property
    def path(self) -> Path | None:
        """The log's file."""
        return self._file(".log")

    def write(self, line: str) -> None:
        """Add a line, with the time in UTC. Never raises."""
        if self.folder is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lost = f"({self.lost} lines before this could not be written) " if self.lost else ""
        text = f"{now} {lost}{' | '.join(line.splitlines())}\n".encode("utf-8", "backslashreplace")
        try:
            self._append(self._file(".log"), text)
        except OSError as error:
            self._count_loss(error)
        else:
            self.lost = 0

    def news(self, line: str) -> None:
        """As `write`; of lines that differ in their numbers only, no more than a few a minute."""
        kind, now = re.sub(r"\d+", "", line), time.monotonic()
        began, n = self._similar.get(kind, (now, 0))
        if now - began >= 60.0:
            left_out = n - BURST
            began, n, line = now, 0, f"{line} ({left_out} like it were left out)" if left_out > 0 else line
        self._similar[kind] = (began, n + 1)
        if n < BURST:
            self.write(line)

    def note_facts(self, facts: Mapping[str, Any]) -> None:
        """Add to the JSON file of the run, which is written anew. Never raises."""
        self._facts |= facts
        file = self._file(".json")
        if file is None:
            return
        part = file.with_name(file.name + ".part")
        try:
            part.write_text(json.dumps(self._facts, indent=2, default=str) + "\n", encoding="utf-8")
            part.replace(file)
        except OSError as error:
            self._count_loss(error)

    def words_of(self, process: str) -> LastWords | None:
        """What a process that is about to start will say on its error output; None where nothing is kept."""
        self._n_processes += 1
        file = self._file(f".{process}-{self._n_processes}.err")
        if file is None:
            return None
        words = LastWords(file, process, self.write)
        self._words.append(words)
        return words

    def keep_small(self) -> None:
        """Shorten what a process says without end. Call it now and then."""
        self._words = [words for words in self._words if not words.closed]
        for words in self._words:
            words.keep_small()

    def _file(self, ending: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{self._run}{ending}"

    def _append(self, file: Path | None, text: bytes) -> None:
        if file is None:
            return
        if file.is_file() and file.stat().st_size + len(text) > MAX_BYTES:
            file.replace(file.with_name(file.name + ".1"))
        with file.open("ab", buffering=0) as log:
            log.write(text)

    def _count_loss(self, error: OSError) -> None:
        self.lost += 1
        self.trouble = f"{self.folder}: no log can be written ({error.strerror}); give another folder with --log-dir"

    def _make_room(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for run in runs(folder)[KEPT_RUNS - 1 :]:
                for file in files_of(folder, run):
                    file.unlink(missing_ok=True)
        except OSError as error:
            self._count_loss(error)
