"""The acquire and denoise parts of a run in one process, one of them moving at a time, as a schedule says.

Both are the real ones. What is replaced is what they wait for: the camera, the semaphore, the sockets.
A kill is an exception that nothing in them catches, raised at any line of the bookkeeping.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rtdenoise import acquire, ledger, loop, outlets, shared, streams
from rtdenoise.ringfile import default_folder

TRACED = frozenset(str(module.__file__) for module in (ledger, loop, outlets, shared, streams))
PATIENCE_S = 20.0


class Killed(BaseException):
    """The denoise process is gone, as after SIGKILL: nothing in it may handle this."""


class Stuck(Exception):
    """The parts of a run wait for each other."""


class Baton:
    """Who may move: 'acquire' or 'denoise'. Each gives the baton away where it would wait."""

    def __init__(self) -> None:
        self._turn = {"acquire": threading.Semaphore(0), "denoise": threading.Semaphore(0)}
        self.gone: set[str] = set()

    def hand_to(self, other: str, mine: str) -> None:
        """Let the other move, until it hands back. Raises Stuck when that never happens."""
        if other in self.gone:
            return
        self._turn[other].release()
        if not self._turn[mine].acquire(timeout=PATIENCE_S):
            raise Stuck(f"{other} never gave the baton back to {mine}")

    def leave(self, mine: str, other: str) -> None:
        """This part has ended; the other one moves on alone."""
        self.gone.add(mine)
        self._turn[other].release()

    def wait_for_turn(self, mine: str) -> None:
        """At the very beginning."""
        if not self._turn[mine].acquire(timeout=PATIENCE_S):
            raise Stuck(f"{mine} was never asked to begin")


class Ears:
    """What a part says to its supervisor."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def send(self, message: tuple[Any, ...]) -> None:
        """Keep it."""
        self.said.append(message)


class Wake:
    """The semaphore of a run: where nothing is to be done, the baton goes on."""

    def __init__(self, idle: Callable[[], None]) -> None:
        self._idle = idle

    def release(self) -> None:
        """Somebody will look anyway."""

    def acquire(self, timeout: float = 0.0) -> bool:
        """Nothing to do."""
        self._idle()
        return True


@contextmanager
def replaced(publisher: Callable[..., Any], nap: Callable[[float], None]) -> Iterator[None]:
    """Within it, the sockets of a run are made by `publisher`, and where acquisition naps it calls `nap`."""
    clock = types.SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if not name.startswith("_")})
    clock.sleep = nap
    stand_ins: tuple[tuple[types.ModuleType, str, object], ...] = (
        (outlets, "Publisher", publisher),
        (acquire, "time", clock),
    )
    real = [getattr(module, name) for module, name, _ in stand_ins]
    for module, name, stand_in in stand_ins:
        setattr(module, name, stand_in)
    try:
        yield
    finally:
        for (module, name, _), was in zip(stand_ins, real, strict=True):
            setattr(module, name, was)


def kill_after_lines(n_lines: int) -> None:
    """From now on in this thread, Killed is raised at the n-th line of the bookkeeping."""
    left = n_lines

    def in_line(frame: types.FrameType, event: str, _: object) -> Any:
        nonlocal left
        left -= event == "line"
        if left <= 0:
            sys.settrace(None)
            raise Killed
        return in_line

    def in_call(frame: types.FrameType, event: str, _: object) -> Any:
        return in_line if frame.f_code.co_filename in TRACED else None

    sys.settrace(in_call)


def trace_no_more() -> None:
    """Whoever was to be killed is safe, or gone."""
    sys.settrace(None)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    """Acquisition: it has no say in signals, so it may live in a thread."""
    thread = threading.Thread(target=work, name="acquire", daemon=True)
    thread.start()
    return thread


def ring_path() -> Path:
    """Where a ring goes that nobody else knows; the next run deletes what could not be deleted in time."""
    return default_folder(1 << 20) / f"rtdenoise-{os.getpid()}-{uuid.uuid4().hex[:12]}.ring"


def removed(path: Path) -> None:
    """Delete a ring; Windows keeps one that is still mapped."""
    with suppress(OSError):
        path.unlink()
