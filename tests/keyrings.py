"""Keys of a server that lets one client in, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rtdenoise import keyring
from rtdenoise.keyring import ClientKeys
from rtdenoise.settings import Remote


@dataclass(frozen=True)
class Rig:
    """Keys of a server that lets `office` in."""

    folder: Path
    files: Path
    office: ClientKeys

    @property
    def remote(self) -> Remote:
        return Remote(bind="0.0.0.0", keys_folder=self.folder)

    def client(self, name: str) -> ClientKeys:
        return keyring.add(self.folder, name, self.files / f"{name}.json")

    def stranger(self) -> ClientKeys:
        """Of another server's list."""
        keyring.make(self.files / "other")
        return keyring.add(self.files / "other", "stranger", self.files / "stranger.json")


def make_rig(folder: Path) -> Rig:
    """Fresh keys, all in `folder`."""
    keyring.make(folder / "keys")
    return Rig(folder / "keys", folder, keyring.add(folder / "keys", "office", folder / "office.json"))
