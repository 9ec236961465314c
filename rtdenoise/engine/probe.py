"""Does an engine really run here? Each one is tried in its own process: a native library that crashes takes its process along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdenoise import machine
from rtdenoise.bundle import DEMO
from rtdenoise.engine.backends import BACKENDS
from rtdenoise.engine.cuda import require_driver
from rtdenoise.engine.load import open_engine
from rtdenoise.errors import EngineError, RtDenoiseError

PROBE_SHAPE = (256, 256)
TIMEOUT_S = 60.0
_MARK = "rtdenoise-answer:"
_N_TIMED = 5


@dataclass(slots=True, frozen=True)
class Probe:
    """What came of trying one engine. ms: one network run of the demo bundle at 256 x 256, None when it does not run."""

    name: str
    usable: bool
    why_not: str = ""
    version: str = ""
    device: str = ""
    ms: float | None = None


def probe(name: str, timeout_s: float = TIMEOUT_S) -> Probe:
    """Open engine `name` on the demo bundle in another process and run it. Never raises for what that process does."""
    try:
        if BACKENDS[name].gpu:
            require_driver()
        found = isolated("rtdenoise.engine.probe", name, timeout_s=timeout_s)
    except EngineError as error:
        return Probe(name, usable=False, why_not=str(error), version=_version(name))
    return Probe(name, **found)


def probe_all() -> list[Probe]:
    """Every engine, fastest first, one after the other: together they would slow each other down."""
    return [probe(name) for name in BACKENDS]


def isolated(module: str, *arguments: str, timeout_s: float, **environment: str) -> Mapping[str, Any]:
    """What `python -m module arguments` answers (see `answer`). (Any: each module answers in its own words.)

    Raises EngineError when it crashes, hangs or answers nothing.
    """
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | environment,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"gave no answer within {timeout_s:.0f} s") from None
    for line in reversed(done.stdout.decode(errors="replace").splitlines()):
        if line.startswith(_MARK):
            values: Mapping[str, Any] = json.loads(line[len(_MARK) :])
            return values
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise EngineError(f"the process that tried it {_ending(done.returncode)}: {last[0]}")


def answer(values: Mapping[str, object]) -> None:
    """What a child of `isolated` has to say, past everything that libraries print."""
    sys.stdout.write(f"\n{_MARK}{json.dumps(values)}\n")
    sys.stdout.flush()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"crashed ({signal.Signals(-code).name})"
    except ValueError:
        return f"crashed (signal {-code})"


def _try(name: str) -> dict[str, object]:
    """In the child: what becomes the fields of a Probe."""
    try:
        with open_engine(DEMO, shape=PROBE_SHAPE, backend=name) as engine:
            size, target = engine.window.size, engine.window.emits[0]
            frames = np.random.default_rng(0).standard_normal((size + _N_TIMED, *PROBE_SHAPE), np.float32)
            costs = []
            for first in range(_N_TIMED + 1):
                start = time.perf_counter_ns()
                denoised = engine.run(frames[first : first + size], first, first + target, 1)
                costs.append((time.perf_counter_ns() - start) / 1e6)
            if not np.isfinite(denoised).all():
                return {
                    "usable": False,
                    "why_not": "it computes values that are not numbers",
                    "version": _version(name),
                }
            facts = engine.describe()
    except RtDenoiseError as error:
        return {"usable": False, "why_not": str(error), "version": _version(name)}
    ms = float(np.median(costs[1:]))  # the first run fills the cache of blocks
    return {"usable": True, "version": _version(name), "device": facts.device, "ms": ms}


def _version(name: str) -> str:
    package = name.rpartition("-")[0]
    return machine.version_of(package) or machine.version_of(f"{package}-gpu") or ""


if __name__ == "__main__":
    answer(_try(sys.argv[1]))
