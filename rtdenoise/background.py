"""Work beside a live run that must not hold it up: how a process steps back while it prepares itself."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

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
