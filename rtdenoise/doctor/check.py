"""One finding of the doctor, and what all of them together mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "problem", "untested", "note"]


@dataclass(slots=True, frozen=True)
class Check:
    """group: engine, models, camera, source, files, viewer or machine.  detail: what is bound, or why not.
    fix: what to do, empty when nothing.

    ok: it was opened and works.  missing: not installed.  problem: there, but does not work.  untested: for hardware that is
    not here, and that we have no report of.  note: good to know.
    """

    group: str
    name: str
    state: State
    detail: str
    fix: str = ""


@dataclass(slots=True, frozen=True)
class Verdict:
    """Whether this machine can do the main job: take frames from a camera and denoise them live."""

    healthy: bool
    line: str


NEEDED = (("models", "bundles"), ("machine", "frame ring"))
"""Besides an engine and a camera, what no run does without."""


def judge(checks: Sequence[Check]) -> Verdict:
    """One engine, one camera, whole models and room for the ring are needed; everything else is comfort."""
    engine = _first_ok(checks, "engine")
    camera = _first_ok(checks, "camera")
    broken = [check for check in checks if (check.group, check.name) in NEEDED and check.state == "problem"]
    if broken:
        return Verdict(False, f"This machine cannot denoise live: {broken[0].detail}; {broken[0].fix}")
    if engine and camera:
        return Verdict(
            True, f"This machine can denoise live: frames through {camera.name}, denoised with {engine.name}."
        )
    lacking = [_lacking(checks, group) for group, found in (("engine", engine), ("camera", camera)) if not found]
    return Verdict(False, f"This machine cannot denoise live: {'; '.join(lacking)}")


def _lacking(checks: Sequence[Check], group: str) -> str:
    fixes = [c.fix for c in checks if c.group == group and c.fix and c.state in ("missing", "problem")]
    return f"no {group} works here, {f'run: {fixes[0]}' if fixes else 'see above'}"


def _first_ok(checks: Sequence[Check], group: str) -> Check | None:
    return next((check for check in checks if check.group == group and check.state == "ok"), None)
