"""The verb `rtdenoise keys`: who may watch from another machine. Secrets go into files and are never printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rtdenoise import config, keyring
from rtdenoise.bound import is_this_machine
from rtdenoise.settings import Remote

keys = typer.Typer(name="keys", help="Who may watch from another machine.", no_args_is_help=True)
out = Console()
Folder = Annotated[
    Path | None, typer.Option("--keys-folder", help="Folder of the keys; default: one of this user's settings.")
]
Name = Annotated[str, typer.Argument(help="What to call the client, as office-pc.")]


@keys.command()
def make(
    folder: Folder = None,
    replace: Annotated[bool, typer.Option(help="Replace a pair that is there; every client is locked out.")] = False,
) -> None:
    """Make this computer's own pair of keys, once."""
    where = folder or keyring.default_folder()
    keyring.make(where, replace=replace)
    _say(f"-> {where}; now let somebody in: rtdenoise keys add NAME")


@keys.command()
def add(
    name: Name,
    to: Annotated[Path | None, typer.Option("--out", help="The file to write; default: NAME.key.json here.")] = None,
    folder: Folder = None,
) -> None:
    """Let a client in, and write the file that it needs. Hand that over like a password."""
    path = to or Path(f"{name}.key.json")
    keyring.add(folder or keyring.default_folder(), name, path)
    _say(f"-> {path}; on the other machine: rtdenoise view --host THIS-COMPUTER --keys {path.name}")


@keys.command("list")
def list_(folder: Folder = None) -> None:
    """Who may watch: name, first characters of the public key, since when."""
    clients = keyring.allowed(folder or keyring.default_folder())
    for name, client in sorted(clients.items()):
        _say(f"{name:40} {client.public[:8]}  {client.added}")
    if not clients:
        _say("nobody; run: rtdenoise keys add NAME")


@keys.command()
def remove(name: Name, folder: Folder = None) -> None:
    """Let a client in no longer; where it is connected it is cut off."""
    keyring.remove(folder or keyring.default_folder(), name)
    _say(f"{name} is off the list")


def remote_of(bind: str | None, folder: Path | None) -> Remote | None:
    """Who else may watch a run that binds there; nobody without `bind`. Raises ConfigError with what to do where there are no keys."""
    if bind is None or is_this_machine(bind):
        return None
    where = folder or keyring.default_folder()
    keyring.check(where, bind)
    return config.build(Remote, {"bind": bind, "keys_folder": where}, "command line")


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)
