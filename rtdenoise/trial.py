"""One engine measured as a live run would use it, in a process of its own: `python -m rtdenoise.trial QUESTION`

A library that crashes or takes all memory takes only that process along, and thread pools of two runtimes do not disturb each other.
"""

from __future__ import annotations

import sys

import numpy as np
from pydantic import Field

from rtdenoise import machine, pace
from rtdenoise.config import Settings
from rtdenoise.engine.load import EngineChoice, EngineFactory
from rtdenoise.engine.probe import answer, isolated
from rtdenoise.errors import EngineError, RtDenoiseError

N_RUNS, MOST_S = 200, 4.0
"""Network runs behind p50 and p99, and how long they may take together. Engineering choice."""
TIMEOUT_S = 300.0


class Question(Settings):
    """What to measure: a bundle with one engine at one frame size, at the smallest hop that keeps up with `fps`."""

    model: str
    backend: str
    shape: tuple[int, int]
    fps: float | None = Field(default=None, gt=0)
    threads: int = Field(default=0, ge=0)


class Trial(Settings):
    """What came of it. ms: per frame of the stream at that hop.  memory_mb: most that the process held.  real_time: p50 within
    the share of a frame interval that a live run allows; None without a frame rate.
    """

    usable: bool
    why_not: str = ""
    device: str = ""
    hop: int = 0
    latency_frames: int = 0
    ms_p50: float = 0.0
    ms_p99: float = 0.0
    memory_mb: float | None = None
    real_time: bool | None = None


def trial(question: Question, timeout_s: float = TIMEOUT_S) -> Trial:
    """Measure in another process. Never raises for what that process does."""
    try:
        found = isolated("rtdenoise.trial", question.model_dump_json(), timeout_s=timeout_s)
    except EngineError as error:
        return Trial(usable=False, why_not=str(error))
    return Trial.model_validate(found)


def _measured(question: Question) -> Trial:
    factory = EngineFactory(EngineChoice(question.model, question.backend, threads=question.threads), question.shape)
    interval_s = 1 / question.fps if question.fps else None
    found = pace.decide(factory, interval_s, 1, fixed_hop=False)
    hop = found.hop or factory.hops()[0]
    with factory.with_hop(hop).make() as engine:
        costs = pace.costs_ms(engine, question.shape, N_RUNS, MOST_S)
        facts, latency_frames = engine.describe(), engine.window.latency_frames
    p50, p99 = np.percentile(costs, [50, 99])
    return Trial(
        usable=True,
        device=facts.device,
        hop=hop,
        latency_frames=latency_frames,
        ms_p50=float(p50),
        ms_p99=float(p99),
        memory_mb=machine.peak_memory_mb(),
        real_time=None if interval_s is None else bool(p50 <= 1e3 * pace.HEADROOM * interval_s),
    )


def _answered(question: Question) -> Trial:
    try:
        return _measured(question)
    except (RtDenoiseError, MemoryError) as error:
        return Trial(usable=False, why_not=str(error) or "out of memory")


if __name__ == "__main__":
    answer(_answered(Question.model_validate_json(sys.argv[1])).model_dump())
