"""One zip that a stranger can diagnose from: what works here, versions, the last runs with their logs and settings. Scrubbed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from rtdenoise import logbook, machine
from rtdenoise.doctor import facts
from rtdenoise.doctor.check import Check, judge
from rtdenoise.doctor.scrub import Scrubber
from rtdenoise.errors import ConfigError

MAX_RUNS = 10
MAX_FILE_BYTES = 256 * 1024
MAX_BYTES = 4 * 1024 * 1024
"""Most that is put in, before it is compressed: whoever gets the report by mail must be able to. Engineering choice."""
CONFIG_FILES = (".cfg", ".toml", ".json", ".ini", ".yaml", ".yml")
README = """Report of rtdenoise doctor, to be read from the top:

doctor.txt       what works on this computer and what does not, with the line that repairs it; doctor.json: the same for programs
computer.json    system, processor, memory, cards, clock, environment
packages.json    every installed Python package
registered.json  methods, sources, engines and models, whether each can be imported and is whole
runs/            the newest runs: log (UTC), what processes said last (.err), settings and end (.json)
config/          the text files that the newest run's settings name

Home folders, names of user and computer, keys, tokens and passwords were taken out before anything was written.
"""


def default_name() -> Path:
    """A new file in the current folder."""
    return Path(f"rtdenoise-report-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip")


def write(out: Path, checks: Sequence[Check], shown: Callable[[Console], None], folder: Path | None = None) -> int:
    """Write the report and return its size. shown: prints the findings for a person.  folder: where the logs are; default: this user's.

    Raises ConfigError when it cannot be written.
    """
    folder = logbook.default_folder() if folder is None else folder
    scrub, room = Scrubber.of_this_user(), MAX_BYTES
    part = out.with_name(out.name + ".part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in _contents(checks, shown, folder):
                clean = scrub(text).encode("utf-8", "backslashreplace")[: max(0, room)]
                room -= len(clean)
                archive.writestr(scrub(name), clean)
        part.replace(out)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written ({error.strerror}); give another place after --report") from None
    return out.stat().st_size


def _contents(checks: Sequence[Check], shown: Callable[[Console], None], folder: Path) -> Iterator[tuple[str, str]]:
    """Name and text of each file, the most telling first."""
    yield "README.txt", README
    verdict = {"versions": machine.versions(), "checks": [asdict(c) for c in checks], "verdict": asdict(judge(checks))}
    yield "doctor.txt", _printed(shown)
    yield "doctor.json", _json(lambda: verdict)
    yield "computer.json", _json(facts.computer)
    yield "packages.json", _json(facts.packages)
    yield "registered.json", _json(facts.registered)
    runs = logbook.runs(folder)[:MAX_RUNS]
    for path in _config_files(folder, runs):
        yield f"config/{path.name}", _tail(path)
    for run in runs:
        for file in logbook.files_of(folder, run):
            yield f"runs/{file.name}", _tail(file)


def _printed(shown: Callable[[Console], None]) -> str:
    page = io.StringIO()
    shown(Console(file=page, width=140, force_terminal=False, color_system=None))
    return page.getvalue()


def _json(found: Callable[[], Mapping[str, Any]]) -> str:
    """What cannot be found out is part of the report, never the end of it."""
    try:
        return json.dumps(found(), indent=2, default=str) + "\n"
    except Exception as error:  # whatever is broken on this computer is why the report is made
        return json.dumps({"could not be found out": f"{type(error).__name__}: {error}"}) + "\n"


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-MAX_FILE_BYTES:].decode("utf-8", "replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}\n"


def _config_files(folder: Path, runs: Sequence[str]) -> list[Path]:
    """Text files that the settings of the newest run name."""
    for run in runs:
        try:
            settings = json.loads((folder / f"{run}.json").read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # this run left none; an older one may have
        named = (Path(text) for text in _texts(settings) if text.lower().endswith(CONFIG_FILES))
        return [path for path in dict.fromkeys(named) if path.is_file()]
    return []


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
