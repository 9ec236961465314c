"""1: random schedules, and at every step every frame is accounted for."""

from __future__ import annotations

import random
import time

from soaks.asked import Asked
from soaks.books import Violation
from soaks.lockstep import Stuck
from soaks.report import Row, none_of, told
from soaks.schedules import MODELS, Op, What, run_schedule
from soaks.state import Part, State

number, title, when, minutes = 1, "accounting identity", "CI", 1.0

BATCH, N_LEAST = 200, 2000
NUMBERS: dict[What, tuple[int, ...]] = {
    "burst": (1, 3, 8, 30, 70, 130),
    "denoise": (1, 2, 5, 30, 100),
    "lose": (1, 2, 3),
    "skip": (1, 2),
    "kill": tuple(range(1, 300)),
    "series": (1,),
    "stall": (1,),
    "wake": (1,),
    "replace": (1,),
    "stop": (1,),
}
OFTEN: tuple[What, ...] = ("burst", "burst", "burst", "denoise", "denoise", "denoise", *NUMBERS)


def run(asked: Asked, state: State) -> None:
    """2,000 schedules, and more while there is time; the same ones for the same seed."""
    least = max(1, round(N_LEAST / asked.speed))
    while state.elapsed_s < asked.seconds or BATCH * state.n_parts < least:
        began, first = time.monotonic(), BATCH * state.n_parts
        part: Part = {"n": 0, "kills": 0, "checks": 0, "violations": []}
        for n in range(first, first + BATCH):
            _one(random.Random(f"{asked.seed}-{n}"), n, part)
        state.add(part, time.monotonic() - began)


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """0 violations."""
    total = {name: sum(part[name] for part in parts) for name in ("n", "kills", "checks")}
    found = [line for part in parts for line in part["violations"]]
    return [
        none_of("schedules that broke the identity", len(found), total["n"], "schedules"),
        *(told("violation", line) for line in found[:5]),
        told("times that the books were looked at", str(total["checks"])),
        told("processes killed at a random line", str(total["kills"])),
    ]


def _one(draw: random.Random, n: int, part: Part) -> None:
    ops = [_op(draw) for _ in range(draw.randrange(1, 14))]
    how = {"model": draw.choice(MODELS), "lossless": draw.random() < 0.3, "patient": draw.random() < 0.5}
    part["n"] += 1
    try:
        done = run_schedule(ops, **how)  # type: ignore[arg-type]
        part["kills"] += done.n_kills
        part["checks"] += done.n_checks
    except (Violation, Stuck) as broken:
        part["violations"].append(f"schedule {n} {how} {ops}: {broken}")


def _op(draw: random.Random) -> Op:
    what = draw.choice(OFTEN)
    return what, draw.choice(NUMBERS[what])
