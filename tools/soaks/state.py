"""What a soak has found so far, on disk after every part, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Part = dict[str, Any]
"""One part of a soak: a cycle, a minute, a batch; plain values. (Any: every test keeps figures of its own.)"""


class StateError(Exception):
    """The state on disk is not one that this soak can go on from."""


@dataclass(slots=True)
class State:
    """elapsed_s: soaked so far.  life: how often it was resumed; processes of different lives are not compared.

    Parts are lines of a file and not kept in memory: the soak's own memory is judged too.
    """

    path: Path
    elapsed_s: float = 0.0
    life: int = 0
    n_parts: int = 0

    def add(self, part: Part, seconds: float) -> None:
        """Keep a part."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(part | {"life": self.life, "took_s": seconds}) + "\n")
        self.elapsed_s += seconds
        self.n_parts += 1

    @property
    def parts(self) -> list[Part]:
        """All of them, of every life."""
        return _lines(self.path)[1:]


def begin(path: Path, key: dict[str, Any]) -> State:
    """A new soak, in place of whatever was there. key: what it was asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(key) + "\n", encoding="utf-8")
    return State(path)


def resume(path: Path, key: dict[str, Any]) -> State:
    """Go on with the soak in `path`. Raises StateError where there is none, or one that was asked for something else."""
    try:
        found, *parts = _lines(path)
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: nothing to resume ({type(error).__name__}); run it without --resume") from None
    if found != json.loads(json.dumps(key)):
        changed = ", ".join(sorted(k for k in {*found, *key} if found.get(k) != key.get(k)))
        raise StateError(f"{path}: was asked with another {changed}; ask the same, or run it without --resume")
    path.write_text("".join(json.dumps(line) + "\n" for line in (found, *parts)), encoding="utf-8")
    life = max((part["life"] for part in parts), default=0) + 1
    return State(path, sum(part["took_s"] for part in parts), life, len(parts))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line; one that a kill cut off is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
