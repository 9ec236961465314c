"""The benchmark on a card: without one it says so, and whatever a part does, the rest goes on and the report says why."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


def test_without_a_card_it_is_one_line_and_code_2() -> None:
    command = [sys.executable, str(TOOLS / "bench_gpu.py")]
    no_card = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=no_card)
    assert run.returncode == 2
    assert run.stderr.startswith("error: no NVIDIA driver with a card here: run this where there is one")
    assert len(run.stderr.splitlines()) == 1
    assert run.stdout == ""


@pytest.mark.parametrize(
    ("work", "argument", "limit_s", "why_not"),
    [
        (os._exit, 3, 60.0, "its process ended with code 3"),
        (int, "four", 60.0, "ValueError: invalid literal for int() with base 10: 'four'"),
        (time.sleep, 3600, 0.0, "not done within 0 s"),
    ],
    ids=["crash", "error", "hang"],
)
def test_a_part_that_fails_says_why_and_ends(
    monkeypatch: pytest.MonkeyPatch, work: Callable[..., object], argument: object, limit_s: float, why_not: str
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    from bench_gpu import Child

    with pytest.raises(RuntimeError) as failed:
        Child(work, argument).result(limit_s)
    assert str(failed.value) == why_not


def test_every_network_is_asked_of_every_engine_and_fast_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    from bench_gpu import ENGINES, parts_of

    parts = parts_of(["fast", "umvd"], ["fast-simulated", "umvd-calcium"], ENGINES, 512)
    assert {(part.name, part.engine) for part in parts if part.what == "network"} == {
        (name, engine) for name in ("fast", "umvd") for engine in ENGINES
    }
    n_first = 2 * len(ENGINES)
    assert {(part.engine, part.ahead) for part in parts[:n_first]} == {(e, ahead) for e in ENGINES for ahead in (0, 1)}
    assert {part.name for part in parts[:n_first]} == {"fast-simulated"}
    assert len(set(map(str, parts))) == len(parts)
