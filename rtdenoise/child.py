"""A process of a run as its supervisor sees it: what it says, and how it ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from rtdenoise import errors
from rtdenoise.errors import RtDenoiseError, SourceError
from rtdenoise.lastwords import LastWords

START_TIMEOUT_S = 120.0
"""Longest a microscope may take to open or an engine to be built. Engineering choice."""
STOP_TIMEOUT_S = 15.0
"""Longest that a process may take to end by itself. Engineering choice."""


class Died(SourceError):
    """A process ended without a word, or said nothing for too long."""


class Child:
    """A process, or the thread that stands for one, and what it says to us. words: what it writes to its error output."""

    def __init__(
        self, process: BaseProcess | threading.Thread, ears: Connection, words: LastWords | None = None
    ) -> None:
        self.process, self._ears, self._words = process, ears, words
        self._all_heard = False

    def hear(self, timeout_s: float = 0.0) -> tuple[Any, ...] | None:
        """The next message, None when there is none or the process is gone. (Any: each message has its own type.)"""
        try:
            return self._ears.recv() if self._ears.poll(timeout_s) else None
        except (EOFError, OSError):
            self._all_heard = True
            return None

    @property
    def is_gone(self) -> bool:
        """Whether it has ended and everything it said was heard."""
        # A pipe whose other end is closed counts as readable until one has tried.
        if self.process.is_alive() or self._all_heard:
            return not self.process.is_alive()
        try:
            return not self._ears.poll()
        except (EOFError, OSError):
            return True

    @property
    def exitcode(self) -> int | None:
        """How the process ended; None while it runs, and for a thread."""
        return self.process.exitcode if isinstance(self.process, BaseProcess) else None

    @property
    def ending(self) -> str:
        """How it ended, for a person: the code, and what it said last where that was kept."""
        gist = self._words.gist() if self._words else ""
        return f"code {self.exitcode}: {gist}" if gist else f"code {self.exitcode}"

    @property
    def pid(self) -> int | None:
        """Process id; our own for a thread."""
        return self.process.pid if isinstance(self.process, BaseProcess) else os.getpid()

    def kill(self) -> None:
        """Make a process end now; it must be one that has nothing to finish."""
        if isinstance(self.process, BaseProcess):
            self.process.kill()

    def end(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Wait for the process to end by itself, then make it."""
        self.process.join(timeout_s if self.process.is_alive() else 0)
        if isinstance(self.process, BaseProcess) and self.process.is_alive():
            self.process.kill()
            self.process.join(5)
        self._ears.close()
        if self._words is not None:
            self._words.close()


def await_word(
    child: Child,
    wanted: str,
    complaint: str,
    overheard: Callable[[tuple[Any, ...]], None] = lambda _: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Any:
    """The value of the message `wanted`; raises what the child could not do. (Any: each message has its own type.)

    overheard: takes every other message.  meanwhile: what must go on; it may raise.
    Raises Died when the child ends without a word, or says nothing for START_TIMEOUT_S.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        message = child.hear(timeout_s=0.05)
        if message is None and child.is_gone:
            raise Died(f"{complaint}: its process ended with {child.ending}")
        if message and message[0] == wanted:
            return message[1]
        if message and message[0] == "error":
            raise rebuilt(message[1], message[2])
        if message:
            overheard(message)
        meanwhile()
    raise Died(f"{complaint} within {START_TIMEOUT_S:.0f} s")


def rebuilt(name: str, text: str) -> RtDenoiseError:
    """The error that a process had to say, by its type's name."""
    kind = getattr(errors, name, RtDenoiseError)
    if isinstance(kind, type) and issubclass(kind, RtDenoiseError) and kind is not errors.MissingExtraError:
        return kind(text)
    return RtDenoiseError(text)
