"""Plans kept on disk: building one takes seconds to minutes, reading it back a blink. Nothing that was read is trusted unchecked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rtdenoise.errors import EngineError, MissingExtraError

FOLDER_VARIABLE = "RTDENOISE_CACHE"
MOST_BYTES = 4 << 30
"""Size of the folder beyond which the plans that were not used for longest go. Engineering choice: some hundred plans."""
LONGEST_WAIT_S = 1800.0
"""For another process that builds the same plan. Engineering choice: TensorRT's slowest builds take minutes."""
_LONGEST_HEADER = 1 << 16


@dataclass(slots=True, frozen=True)
class PlanKey:
    """All that a plan depends on. graph: SHA-256 of the ONNX file.  driver: CUDA version that it serves.  shapes: of the inputs."""

    graph: str
    shapes: tuple[tuple[int, ...], ...]
    precision: str
    backend: str
    version: str
    gpu: str
    compute_capability: str
    driver: int
    system: str = platform.system()

    @property
    def parts(self) -> dict[str, Any]:
        """The key as it stands in a header. (Any: whatever JSON holds.)"""
        return asdict(self) | {"shapes": [list(shape) for shape in self.shapes]}

    @property
    def digest(self) -> str:
        """Names the files of this key."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()


@dataclass(slots=True, frozen=True)
class Plan:
    """A plan's bytes. note: empty when it was read, else why it had to be built, in one line."""

    content: bytes
    note: str = ""


class _Refused(Exception):
    """Why a file is not what it should be."""


class PlanCache:
    """A folder of plans that any number of processes share. Each file begins with one line of JSON: its key, length and SHA-256.

    folder: `RTDENOISE_CACHE` or the system's folder for caches by default. Raises MissingExtraError without filelock.
    """

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        try:
            import filelock
        except ImportError:
            raise MissingExtraError("filelock", "gpu") from None
        self._locks = filelock
        self.folder = folder or default_folder()
        self._most_bytes = most_bytes

    def path(self, key: PlanKey, suffix: str = "plan") -> Path:
        """Where what belongs to `key` lies."""
        return self.folder / f"{key.digest}.{suffix}"

    def fetch(self, key: PlanKey, build: Callable[[], bytes]) -> Plan:
        """The plan of `key`, built if there is none that can be used. While one process builds it, others wait and then read it.

        Where nothing can be kept (a full disk, a folder without write access) it is built all the same. Raises what `build` raises.
        """
        with contextlib.suppress(_Refused, FileNotFoundError):
            return Plan(self._read(key, "plan"))
        unkept = ""
        with contextlib.ExitStack() as locked:
            try:
                locked.enter_context(self._lock(key))
            except OSError as error:
                unkept = f"; it cannot be kept: {error}"
            try:
                return Plan(self._read(key, "plan"))
            except (_Refused, FileNotFoundError) as why:
                reason = str(why) if isinstance(why, _Refused) else self._missing(key)
            content = build()
            unkept = unkept or self._kept_or_why(key, "plan", content)
        return Plan(content, f"{reason}; built anew{unkept}")

    def discard(self, key: PlanKey, suffix: str = "plan") -> None:
        """Forget what was kept for `key`, because the library refused it."""
        with contextlib.suppress(OSError):  # Windows: another process reads it and will refuse it as well
            self.path(key, suffix).unlink(missing_ok=True)

    def read(self, key: PlanKey, suffix: str) -> bytes:
        """What `write` kept beside the plans; empty when there is nothing that can be used."""
        with contextlib.suppress(_Refused, OSError):
            return self._read(key, suffix)
        return b""

    def write(self, key: PlanKey, suffix: str, content: bytes) -> None:
        """Keep something that saves time and can be made again (a timing or runtime cache); the last writer wins."""
        with contextlib.suppress(OSError), self._lock(key):
            self._kept_or_why(key, suffix, content)

    def _lock(self, key: PlanKey) -> contextlib.AbstractContextManager[Any]:
        """Held by the operating system, so it goes with the process that holds it. (Any: what filelock hands out.)"""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return self._locks.FileLock(self.path(key, "lock")).acquire(timeout=LONGEST_WAIT_S)
        except self._locks.Timeout:
            lock = self.path(key, "lock")
            raise EngineError(f"{lock}: another process has been building this plan for half an hour; end it") from None

    def _read(self, key: PlanKey, suffix: str) -> bytes:
        path = self.path(key, suffix)
        try:
            with path.open("rb") as file:
                header = _header(file.readline(_LONGEST_HEADER), path)
                content = file.read()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _Refused(f"{path.name}: cannot be read: {error}") from None
        if different := _difference(header["key"], key):
            raise _Refused(f"{path.name}: {different}")
        if len(content) != header["bytes"]:
            how = "truncated" if len(content) < header["bytes"] else "too long"
            raise _Refused(f"{path.name}: {how}, {len(content)} of {header['bytes']} bytes")
        if hashlib.sha256(content).hexdigest() != header["sha256"]:
            raise _Refused(f"{path.name}: damaged, its checksum does not fit")
        with contextlib.suppress(OSError):
            os.utime(path)  # the plans not used for longest go first
        return content

    def _kept_or_why(self, key: PlanKey, suffix: str, content: bytes) -> str:
        """Only whoever holds the lock writes, so what a killed writer left is written over."""
        path = self.path(key, suffix)
        header = {"key": key.parts, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        part = path.with_name(path.name + ".part")
        try:
            part.write_bytes(json.dumps(header).encode() + b"\n" + content)
            part.replace(path)
        except OSError as error:
            _remove(part)
            return f"; it cannot be kept: {error}"
        with contextlib.suppress(OSError):  # another process removes the same files
            self._trim(path)
        return ""

    def _trim(self, newest: Path) -> None:
        """Remove what killed writers left, then what was not used for longest until the rest fits."""
        sizes = {path: path.stat() for path in self.folder.iterdir() if path.is_file() and path != newest}
        for path in [path for path, facts in sizes.items() if path.suffix == ".part" and _is_left(facts)]:
            del sizes[path]
            _remove(path)
        room = self._most_bytes - newest.stat().st_size - sum(facts.st_size for facts in sizes.values())
        for path, facts in sorted(sizes.items(), key=lambda entry: entry[1].st_mtime_ns):
            if room < 0 and path.suffix not in (".lock", ".part"):
                room += facts.st_size
                _remove(path)

    def _missing(self, key: PlanKey) -> str:
        """Why there is none: the nearest plan of this graph and these shapes says what has changed."""
        for parts in self._headers():
            if all(parts.get(name) == key.parts[name] for name in ("graph", "shapes", "precision", "backend")):
                return f"the plan that is kept was {_difference(parts, key)}"
        return f"no {key.backend} plan for {' + '.join('x'.join(map(str, s)) for s in key.shapes)} yet"

    def _headers(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.folder.glob("*.plan")):
            with contextlib.suppress(_Refused, OSError), path.open("rb") as file:
                yield _header(file.readline(_LONGEST_HEADER), path)["key"]


def default_folder() -> Path:
    """`plans` in `RTDENOISE_CACHE`, or in the folder where this system keeps what can be made again."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named) / "plans"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rtdenoise" / "plans"


def graph_hash(path: Path) -> str:
    """SHA-256 of an ONNX file and of the weights beside it, which exporters name after the file (`model.onnx.data`)."""
    beside = sorted(other for other in path.parent.glob(f"{path.name}?*data*") if other.is_file())
    found = hashlib.sha256()
    for file in (path, *beside):
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _header(line: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if isinstance(header, dict) and header.keys() == {"key", "bytes", "sha256"} and isinstance(header["key"], dict):
        return header
    raise _Refused(f"{path.name}: not a plan that rtdenoise wrote")


def _difference(parts: dict[str, Any], key: PlanKey) -> str:
    """`made for driver 13000, not 13010`, or nothing."""
    for name in (field.name for field in fields(PlanKey)):
        if parts.get(name) != (mine := key.parts[name]):
            return f"made for {name.replace('_', ' ')} {_short(parts.get(name))}, not {_short(mine)}"
    return ""


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def _is_left(part: os.stat_result) -> bool:
    """Whether a half-written file grows no more: writing takes seconds, so an hour is long. Engineering choice."""
    return time.time() - part.st_mtime > 3600


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows: somebody reads it just now; it goes the next time
        path.unlink(missing_ok=True)
