"""Work beside a live run that must not hold it up: how a process steps back while it prepares itself, and is held back."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LONGEST_PAUSE_S = 0.4
LEAST_WORK_S = 0.1
"""A process that is held back still gets a fifth of the time: it may be wanted because the running one is too slow. Engineering choice."""
_BELOW_NORMAL, _NORMAL = 0x4000, 0x20
"""Priority classes of Windows (SetPriorityClass)."""


@contextlib.contextmanager
def priority() -> Iterator[None]:
    """Let other processes go first while the block runs, threads that it starts included; back to normal afterwards.

    Windows: a lower class. Linux: SCHED_BATCH, which never takes a core from a thread that wakes up; niceness would be stronger,
    but without privileges nobody gets it back. Elsewhere nothing.
    """
    _set(background=True)
    try:
        yield
    finally:
        _set(background=False)


if sys.platform == "win32":

    def _set(*, background: bool) -> None:
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), _BELOW_NORMAL if background else _NORMAL)

elif sys.platform == "linux":

    def _set(*, background: bool) -> None:
        rule = os.SCHED_BATCH if background else os.SCHED_OTHER
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended, or a rule of the machine
                os.sched_setscheduler(int(task.name), rule, os.sched_param(0))

else:

    def _set(*, background: bool) -> None:
        """No way back up is known here."""


class Brake:
    """Stops a process and lets it go on, from outside. Where a process cannot be stopped its lower priority has to do (Windows)."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._is_on = False
        self._since = 0.0

    def hold(self, *, back: bool) -> None:
        """Stop the process while `back`, though never for long; call it often."""
        now = time.monotonic()
        if self._is_on and (not back or now - self._since > LONGEST_PAUSE_S):
            self._signal(go_on=True)
        elif back and not self._is_on and now - self._since > LEAST_WORK_S:
            self._signal(go_on=False)

    def _signal(self, *, go_on: bool) -> None:
        self._is_on, self._since = not go_on, time.monotonic()
        if sys.platform != "win32" and self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGCONT if go_on else signal.SIGSTOP)
