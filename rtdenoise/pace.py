"""Can the engine keep up? Decided before the first frame, by a stated rule, from what this machine measures."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine.base import Engine
from rtdenoise.engine.load import EngineFactory
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.normalize import Normalization
from rtdenoise.stream import StreamingDenoiser

HEADROOM = 0.8
"""Share of a frame interval that denoising may take; the rest is for acquisition and publishing. Engineering choice."""
N_TIMED_RUNS = 5
N_TIMED_BESIDE, MOST_BESIDE_S = 20, 2.0
"""Runs, and seconds, among which an undisturbed one is looked for beside another engine. Engineering choice."""


@dataclass(slots=True, frozen=True)
class Pace:
    """The decision: which hop, or none (`hop` 0: raw only), and the line that says why."""

    hop: int
    ms_per_frame: float
    latency_frames: int
    reason: str


def decide(
    factory: EngineFactory, interval_s: float | None, n_streams: int, *, fixed_hop: bool, beside: bool = False
) -> Pace:
    """The smallest hop whose measured cost per frame fits the frame interval; raw only when none does.

    interval_s: between frames of one stream, None when frames come as fast as they are taken (then the first hop is right).
    fixed_hop: try no other hop than the chosen one.  beside: see `beside_ms_per_frame`.
    """
    measure = beside_ms_per_frame if beside else measure_ms_per_frame
    hops = factory.hops()[:1] if fixed_hop else factory.hops()
    budget_ms = None if interval_s is None else 1e3 * HEADROOM * interval_s / n_streams
    tried: list[str] = []
    for hop in hops:
        with factory.with_hop(hop).make() as engine:
            ms = measure(engine, factory.shape)
            latency = engine.window.latency_frames
        if budget_ms is None or ms <= budget_ms:
            return Pace(hop, ms, latency, _accepted(hop, ms, latency, budget_ms, tried))
        tried.append(f"hop {hop}: {ms:.1f} ms")
    reason = f"{factory.choice.model} needs {', '.join(tried)} per frame, {budget_ms or 0:.1f} ms are there"
    return Pace(0, 0.0, 0, f"{reason}; use a smaller frame, a faster engine or fewer frames per second")


def measure_ms_per_frame(engine: Engine, shape: tuple[int, int]) -> float:
    """Median ms per frame of the stream in its steady state, on noise."""
    return float(np.median(costs_ms(engine, shape, N_TIMED_RUNS)))


def beside_ms_per_frame(engine: Engine, shape: tuple[int, int]) -> float:
    """The same while another engine denoises the run on the same cores, which is left half of the time to itself.

    The least of the runs, because what disturbs one only adds to it: the cost once this engine has taken over.
    """
    return float(np.min(costs_ms(engine, shape, N_TIMED_BESIDE, MOST_BESIDE_S, rest=1.0)))


def costs_ms(
    engine: Engine, shape: tuple[int, int], n_runs: int, most_s: float = math.inf, rest: float = 0.0
) -> NDArray[np.float64]:
    """ms per frame of the stream in its steady state, on noise, of `n_runs` network runs; fewer when `most_s` is over (three at least).

    rest: pause after a run, as a multiple of what it took.
    """
    spec = engine.window
    denoiser = StreamingDenoiser(engine, Normalization(0.0, 1.0), shape)
    pool = np.random.default_rng(0).standard_normal((4, *shape), np.float32)
    # A mirrored window costs what a whole one does; a trimmed one less.
    n_warm = spec.hop + (spec.size if spec.edge == "trim" else spec.lookahead + spec.hop)
    for k in range(n_warm):
        _push_ms(denoiser, pool, k)
    costs, began = np.zeros(n_runs), time.perf_counter()
    for run in range(n_runs):
        first = n_warm + run * spec.hop
        costs[run] = sum(_push_ms(denoiser, pool, first + i) for i in range(spec.hop)) / spec.hop
        if rest:
            time.sleep(rest * costs[run] * spec.hop / 1e3)
        if run >= 2 and time.perf_counter() - began > most_s:
            costs = costs[: run + 1]
            break
    engine.reset()
    return costs


def _push_ms(denoiser: StreamingDenoiser, pool: NDArray[np.float32], k: int) -> float:
    start = time.perf_counter_ns()
    for _ in denoiser.push(Frame(pool[k % len(pool)], FrameStamp("pace", k, k, 0))):
        pass
    return (time.perf_counter_ns() - start) / 1e6


def _accepted(hop: int, ms: float, latency: int, budget_ms: float | None, tried: list[str]) -> str:
    why = f" ({', '.join(tried)}: too slow)" if tried else ""
    of = "" if budget_ms is None else f" of {budget_ms:.1f}"
    return f"hop {hop}, {ms:.1f}{of} ms per frame, output {latency} frames late{why}"
