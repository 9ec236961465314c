"""A denoise process that warms up beside the running one, to take over from it at a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rtdenoise.background import Brake
from rtdenoise.child import Child, rebuilt
from rtdenoise.denoise import Place, Ready
from rtdenoise.settings import RunSettings
from rtdenoise.streams import Calibrations

LEAVE_TIMEOUT_S = 15.0
"""Longest that a process may take to finish what it has under way when another one takes over. Engineering choice."""
Answer = Callable[[bool, str], None]
"""Told once: whether the other one has taken over, and a line that says so, or why not."""


@dataclass(slots=True)
class Handover:
    """What is known of the process that warms up.

    says: what was asked for.  settings, rule, known: with which it runs, how its streams are calibrated, and their calibrations.
    brake: holds it back while the one at work is behind.
    before, rule_before: of the process at work.  deadline: when we stop waiting for the next step.
    ready: set once it can take over.
    """

    child: Child
    settings: RunSettings
    before: RunSettings
    place: Place
    says: str
    rule: str
    rule_before: str
    known: Calibrations
    answer: Answer
    deadline: float
    brake: Brake
    trying: str = ""
    ready: Ready | None = None

    def hear(self) -> str:
        """Take in what the process says until it is ready; what went wrong with it, empty when nothing did.

        What it says after that it says as the one at work, maybe before we know that the other one has left.
        """
        trouble = ""
        while self.ready is None and (message := self.child.hear()):
            if message[0] == "trying":
                self.trying = message[1]
            elif message[0] == "calibrated":
                key, values = message[1]
                self.known[key] = values
            elif message[0] == "ready":
                self.ready = message[1]
            elif message[0] == "error":
                trouble = str(rebuilt(message[1], message[2]))
        if not trouble and self.ready is None and self.child.is_gone:
            return f"its process died ({self.child.ending})"
        return trouble
