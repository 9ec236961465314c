"""2: windows of any size over any camera numbers, and every output says what it was made of."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from rtdenoise.frame import WindowSpec
from soaks.asked import Asked
from soaks.report import Row, none_of, told
from soaks.state import Part, State
from soaks.windows import STARTS, STEPS, Untrue, check_outputs

number, title, when, minutes = 2, "window integrity", "CI", 1.0

BATCH, N_LEAST = 200, 2000


def run(asked: Asked, state: State) -> None:
    """2,000 series, and more while there is time."""
    least = max(1, round(N_LEAST / asked.speed))
    while state.elapsed_s < asked.seconds or BATCH * state.n_parts < least:
        began, first = time.monotonic(), BATCH * state.n_parts
        part: Part = {"n": BATCH, "outputs": 0, "untrue": []}
        for n in range(first, first + BATCH):
            _one(random.Random(f"{asked.seed}-{n}"), n, part)
        state.add(part, time.monotonic() - began)


def judge(asked: Asked, parts: list[Part]) -> list[Row]:
    """0 violations."""
    found = [line for part in parts for line in part["untrue"]]
    n_outputs = sum(part["outputs"] for part in parts)
    return [
        none_of("series with an output that is not what it says", len(found), sum(p["n"] for p in parts), "series"),
        *(told("violation", line) for line in found[:5]),
        told("outputs looked at", str(n_outputs)),
    ]


def _one(draw: random.Random, n: int, part: Part) -> None:
    size = draw.randint(1, 61)
    hop = draw.randint(1, min(size, 8))
    first = draw.randint(0, size - hop)
    spec = WindowSpec(size, range(first, first + hop), hop)
    if draw.random() < 0.5:
        spec = replace(spec, edge="trim", min_size=draw.randint(1, size))
    numbers = [draw.choice(STARTS)]
    for _ in range(draw.randrange(70)):
        numbers.append(max(0, numbers[-1] + draw.choice(STEPS)))
    try:
        part["outputs"] += check_outputs(spec, numbers)
    except Untrue as untrue:
        part["untrue"].append(f"series {n}: {untrue}")
