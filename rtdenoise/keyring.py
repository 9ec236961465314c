"""The keys with which other machines may watch: one pair of the server, one of every client, and the list of who is let in.

A folder of the user's holds `server.json` (the server's pair) and `clients.json` (names and public keys, no secrets). A client gets
a file with its own pair and the server's public key; who has that file can watch, so it is handed over like a password.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import zmq
from pydantic import Field

from rtdenoise import config
from rtdenoise.config import Settings
from rtdenoise.errors import ConfigError

SERVER_FILE, CLIENTS_FILE = "server.json", "clients.json"
MAX_FILE_BYTES = 1024 * 1024
"""Longest key file that is read. Engineering choice: a client takes 150 bytes of the list."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
Key = Annotated[str, Field(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$", repr=False)]
"""32 bytes as 40 characters of Z85 (ZeroMQ RFC 32)."""
M = TypeVar("M", bound=Settings)


class ServerKeys(Settings):
    """The pair of the computer that sends."""

    htype: Literal["rtdenoise-server-key-1.0"] = "rtdenoise-server-key-1.0"
    public: Key
    secret: Key


class ClientKeys(Settings):
    """What a client needs: its own pair and the public key of the one server it trusts."""

    htype: Literal["rtdenoise-client-key-1.0"] = "rtdenoise-client-key-1.0"
    name: str
    server: Key
    public: Key
    secret: Key


class Client(Settings):
    """A line of the list of who may watch."""

    public: Key
    added: str


class AllowList(Settings):
    """Who may watch, by name."""

    htype: Literal["rtdenoise-clients-1.0"] = "rtdenoise-clients-1.0"
    clients: dict[str, Client] = {}


def default_folder() -> Path:
    """Where this user's keys are: beside the settings of other programs, never in a folder that roams to other machines."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return base / "rtdenoise" / "keys"


def make(folder: Path, *, replace: bool = False) -> ServerKeys:
    """A new pair for this computer. Raises ConfigError when there is one already, unless `replace`."""
    path = folder / SERVER_FILE
    if path.exists() and not replace:
        raise ConfigError(
            f"{path}: there is a server key already; with --replace every client file made so far stops working"
        )
    public, secret = _pair()
    keys = ServerKeys(public=public, secret=secret)
    _write(path, keys)
    if replace:
        (folder / CLIENTS_FILE).unlink(missing_ok=True)
    return keys


def server(folder: Path) -> ServerKeys:
    """This computer's pair. Raises ConfigError that says how to make one, or that others can read it."""
    path = folder / SERVER_FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: no server key; run: rtdenoise keys make")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(
            f"{path}: other users of this computer can read it; run: chmod 600 '{path}', or make a new one"
        )
    return _read(ServerKeys, path)


def client(path: Path) -> ClientKeys:
    """The keys in a client file. Raises ConfigError naming the file."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such key file; on the computer that sends, run: rtdenoise keys add NAME")
    return _read(ClientKeys, path)


def allowed(folder: Path) -> Mapping[str, Client]:
    """Who may watch, by name. Raises ConfigError where the list cannot be understood."""
    path = folder / CLIENTS_FILE
    return _read(AllowList, path).clients if path.is_file() else {}


def add(folder: Path, name: str, to: Path) -> ClientKeys:
    """Let `name` in, and write the file that it needs to `to`. Raises ConfigError; nothing is changed then."""
    known = allowed(folder)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:60]}: a client's name is up to 40 letters, digits, - and _, as office-pc")
    if name in known:
        raise ConfigError(f"{name}: is on the list already; run: rtdenoise keys remove {name}")
    if to.exists():
        raise ConfigError(f"{to}: exists already; move it away or choose another place with --out")
    public, secret = _pair()
    keys = ClientKeys(name=name, server=server(folder).public, public=public, secret=secret)
    _write(to, keys, private_folder=False)
    entry = Client(public=public, added=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    _write(folder / CLIENTS_FILE, AllowList(clients={**known, name: entry}))
    return keys


def remove(folder: Path, name: str) -> None:
    """Let `name` in no longer. Raises ConfigError when it is not on the list."""
    known = dict(allowed(folder))
    if known.pop(name, None) is None:
        raise ConfigError(f"{name[:60]}: is not on the list; it has: {', '.join(known) or 'nobody'}")
    _write(folder / CLIENTS_FILE, AllowList(clients=known))


def check(folder: Path, bind: str) -> ServerKeys:
    """The server's pair, for a run bound to `bind`. Raises ConfigError with what to do where other machines could not be kept out."""
    if not (folder / SERVER_FILE).is_file():
        raise ConfigError(
            f"--bind {bind}: other machines may watch only with keys, and there are none in {folder}; "
            "run: rtdenoise keys make, then: rtdenoise keys add NAME"
        )
    if not allowed(folder):
        raise ConfigError(f"--bind {bind}: nobody is on the list of those who may watch; run: rtdenoise keys add NAME")
    return server(folder)


class Allowed:
    """The public keys that are let in, as the list says now: it is read again when it changes. Safe in several threads.

    A list that cannot be read lets nobody in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: tuple[tuple[int, int] | None, frozenset[str]] = (None, frozenset())

    def __contains__(self, public: object) -> bool:
        version = self._version()
        if version is None:
            return False
        if version != self._known[0]:
            self._known = version, self._now()
        return public in self._known[1]

    def _version(self) -> tuple[int, int] | None:
        try:
            seen = (self._folder / CLIENTS_FILE).stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_ino

    def _now(self) -> frozenset[str]:
        try:
            return frozenset(one.public for one in allowed(self._folder).values())
        except (ConfigError, OSError):
            return frozenset()


def _pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode("ascii"), secret.decode("ascii")


def _read(model: type[M], path: Path) -> M:
    """A key file. What is wrong with it is said without what stands in it."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: is no key file, it has {path.stat().st_size} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: is no key file of rtdenoise; make a new one with rtdenoise keys") from None
    if not isinstance(values, dict) or values.get("htype") != model.model_fields["htype"].default:
        raise ConfigError(f"{path}: is not {model.model_fields['htype'].default}; is it the right file?")
    return config.build(model, values, str(path))


def _write(path: Path, keys: Settings, *, private_folder: bool = True) -> None:
    """Readable by this user alone from its first byte on, and whole or not there at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        if private_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o700)
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(keys.model_dump_json(indent=2) + "\n")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
