"""What a soak was asked to do, and the promise that each of the twelve tests keeps."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from soaks.report import Row
    from soaks.state import Part, State

GIB = 1 << 30
MAX_DISK_BYTES = 5 * GIB
"""Most that a soak may hold on disk at any time: a limit of the project, so that a rig's disk is not filled by its own test."""
WORK = Path(tempfile.gettempdir()) / "rtdenoise-soak"


@dataclass(slots=True, frozen=True)
class Asked:
    """seconds: how long.  model: '' for the one of the load.  shape: (0, 0) for that of the load.  record: raw to disk meanwhile.

    speed: shortens every phase within a test (stalls, freezes, warm-up), for the miniature forms; 1 for the real ones.
    """

    seconds: float
    work: Path = WORK
    model: str = ""
    shape: tuple[int, int] = (0, 0)
    loads: tuple[str, ...] = ()
    record: bool = False
    speed: float = 1.0
    seed: int = 0


class SoakTest(Protocol):
    """One of the twelve. when: CI, nightly or release.  minutes: how long it runs where nobody says.

    What `run` finds is kept in `state` after every part, so that it can be interrupted; `judge` looks there only.
    """

    @property
    def number(self) -> int:
        """Of the specification."""

    @property
    def title(self) -> str:
        """In a few words."""

    @property
    def when(self) -> str:
        """How often it is run."""

    @property
    def minutes(self) -> float:
        """By default."""

    def run(self, asked: Asked, state: State) -> None:
        """Soak until the time is over."""

    def judge(self, asked: Asked, parts: list[Part]) -> list[Row]:
        """Limits, figures, verdicts."""
