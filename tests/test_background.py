"""A process that prepares itself beside a live run: it steps back, it is held back, and it always gets on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from rtdenoise.background import LONGEST_PAUSE_S, Brake

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has priority classes instead")


@pytest.fixture
def worker() -> Iterator[psutil.Process]:
    """A process that works without end."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def seconds_until(brake: Brake, worker: psutil.Process, stopped: bool, *, back: bool) -> float:
    """How long the brake takes until the process has stopped, or goes on."""
    began = time.monotonic()
    while (worker.status() == psutil.STATUS_STOPPED) != stopped:
        brake.hold(back=back)
        assert time.monotonic() - began < 10
    return time.monotonic() - began


def test_a_process_is_held_back_never_for_long_and_let_go_at_once(worker: psutil.Process) -> None:
    brake = Brake(worker.pid)
    seconds_until(brake, worker, stopped=True, back=True)
    assert seconds_until(brake, worker, stopped=False, back=True) > 0.5 * LONGEST_PAUSE_S
    seconds_until(brake, worker, stopped=True, back=True)
    brake.hold(back=False)
    seconds_until(brake, worker, stopped=False, back=False)


def test_a_process_that_has_gone_is_no_trouble() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    brake = Brake(process.pid)
    brake.hold(back=True)
    brake.hold(back=False)


@pytest.mark.skipif(sys.platform != "linux", reason="SCHED_BATCH is of Linux")
def test_every_thread_of_a_process_steps_back_and_comes_forward_again() -> None:
    code = (
        "import os, threading; from rtdenoise import background\n"
        "over = threading.Event()\n"
        "def rules(): return sorted({os.sched_getscheduler(int(t)) for t in os.listdir('/proc/self/task')})\n"
        "with background.priority():\n"
        "    threading.Thread(target=over.wait).start(); print(rules())\n"
        "print(rules()); over.set()\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[:2] == [f"[{os.SCHED_BATCH}]", f"[{os.SCHED_OTHER}]"]
