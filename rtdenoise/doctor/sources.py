"""Every registered source, those of other packages included: whether its code loads, and what it takes frames from."""

from __future__ import annotations

from rtdenoise.doctor.check import Check
from rtdenoise.engine.probe import isolated
from rtdenoise.errors import EngineError

_OPENING = "rtdenoise.doctor.opening"
_TIMEOUT_S = 60.0


def sources() -> list[Check]:
    """One finding per source. Cameras and running programs are opened elsewhere; here nothing is waited for."""
    try:
        found = isolated(_OPENING, "sources", timeout_s=_TIMEOUT_S)
    except EngineError as error:
        return [Check("source", "sources", "problem", str(error))]
    return [_check(name, facts) for name, facts in found.items()]


def _check(name: str, facts: dict[str, str]) -> Check:
    if facts["problem"]:
        return Check("source", name, "problem", facts["problem"])
    if facts["missing"]:
        return Check("source", name, "missing", f"{facts['title']}: {facts['missing']}", facts["fix"])
    return Check("source", name, "ok", facts["title"])
