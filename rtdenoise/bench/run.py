"""A real run with a subscriber in another process, measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console

from rtdenoise import config
from rtdenoise.bench.listener import Heard, Listener, free_endpoints
from rtdenoise.bench.report import FLAT_OUT_STAGES, MEANINGS, BenchReport, Machine, Stage
from rtdenoise.config import Settings
from rtdenoise.errors import RtDenoiseError
from rtdenoise.latency import percentiles_ms
from rtdenoise.session import Session
from rtdenoise.settings import EngineSettings, RunSettings
from rtdenoise.shared import STAGES
from rtdenoise.succession import POLL_S
from rtdenoise.summary import Summary

N_WARMUP = 32
"""Denoised frames left out of latencies and rate: calibration, first windows and cold caches. Engineering choice."""
FLAT_OUT_RING_S = 0.5
"""A full ring is emptied after the last frame was taken: at the usual 4 s a slow model would need a quarter of a minute for it."""
Counts = dict[str, NDArray[np.int64]]


class BenchSettings(Settings):
    """What to measure. fps None: as fast as nothing is lost.  movie: played from memory, over and over; else a moving spot in noise.

    frames: stop after so many, None for `seconds`.
    """

    engine: EngineSettings = EngineSettings()
    shape: tuple[int, int] = (512, 512)
    fps: float | None = Field(default=30.0, gt=0)
    seconds: float = Field(default=10.0, gt=0)
    frames: int | None = Field(default=None, gt=2 * N_WARMUP)
    movie: Path | None = None


def run_bench(settings: BenchSettings, on_news: Callable[[str], None] = lambda _: None) -> BenchReport:
    """Run once and measure. Raises what the run raises; RtDenoiseError when it ended early."""
    machine = Machine(cores=os.cpu_count() or 1)
    run = run_settings(settings)
    with Listener(run.endpoints, N_WARMUP) as listener:
        with Session(run, on_news) as session:
            before, facts = _watch(session), _facts(session)
            summary, after = session.summary(), _counts(session)
        heard = listener.finish()
    if summary.error:
        raise RtDenoiseError(summary.error)
    stages = _stages(settings, heard, {stage: _warm(before[stage], after[stage]) for stage in STAGES})
    return _report(settings, machine, facts, summary, heard, stages)


def command(
    console: Console,
    engine: EngineSettings,
    *,
    size: int,
    fps: float | None,
    seconds: float,
    json_path: Path | None,
) -> None:
    """`rtdenoise bench`: run, print, and write the JSON where it is wanted."""
    settings = BenchSettings(engine=engine, shape=(size, size), fps=fps, seconds=seconds)
    report = run_bench(settings, lambda line: console.print(line, markup=False, highlight=False))
    report.show(console)
    if json_path is not None:
        json_path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


def run_settings(settings: BenchSettings) -> RunSettings:
    """The session that measures this. Raises ConfigError for a setting that no run can have."""
    values: dict[str, object] = {
        "source": _source(settings),
        "engine": settings.engine,
        "endpoints": free_endpoints(),
        "policy": "lossless" if settings.fps is None else "latest",
        "wait_for": {"raw": 1, "denoised": 1},
        "duration_s": None if settings.frames else settings.seconds,
    }
    if settings.fps is None:
        values["ring_s"] = FLAT_OUT_RING_S
    return config.build(RunSettings, values, "bench")


def _source(settings: BenchSettings) -> dict[str, object]:
    options: dict[str, object] = {"live": settings.fps is not None, "n_frames": settings.frames}
    if settings.movie is None:
        options |= {"mode": "blob", "shape": settings.shape, "fps": settings.fps}
        return {"name": "synthetic", "options": options}
    options |= {"path": settings.movie, "rate": settings.fps or "max", "loop": True, "preload": True}
    return {"name": "replay", "options": options}


def _watch(session: Session) -> Counts:
    """Follow a run to its end; the latency counts as they were after the warm-up."""
    before = None
    while session.poll():
        if before is None and session.summary().delivered >= N_WARMUP:
            before = _counts(session)
        time.sleep(POLL_S)
    return before or _counts(session)


def _counts(session: Session) -> Counts:
    ring = session.ring
    if ring is None:
        raise RtDenoiseError("the run ended before it began; run rtdenoise doctor")
    return {stage: ring.latency[stage].counts.copy() for stage in STAGES}


def _warm(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.int64]:
    """What was counted since the warm-up; everything, where a stage was done by the time we looked."""
    since = after - before
    return since if since.any() else after


def _facts(session: Session) -> Mapping[str, Any]:
    """(Any: shape, text and seconds.)"""
    info = session.ring.info if session.ring else None
    return {} if info is None else {"source": info.name, "shape": info.shape, "dtype": info.dtype}


def _stages(settings: BenchSettings, heard: Heard, counts: Counts) -> dict[str, Stage]:
    found = {stage: percentiles_ms(counts[stage], 50, 95, 99) for stage in STAGES}
    found |= {"transport": heard.transport_ms, "total": heard.total_ms}
    wanted = MEANINGS if settings.fps else FLAT_OUT_STAGES
    return {name: Stage(p50_ms=p[0], p95_ms=p[1], p99_ms=p[2]) for name in wanted if (p := found[name]) is not None}


def _report(
    settings: BenchSettings,
    machine: Machine,
    facts: Mapping[str, Any],
    summary: Summary,
    heard: Heard,
    stages: dict[str, Stage],
) -> BenchReport:
    ready = summary.ready
    return BenchReport(
        machine=machine,
        **facts,
        model=ready.model,
        engine=ready.backend,
        mode=ready.mode,
        reason=ready.reason,
        latency=settings.engine.latency,
        hop=ready.hop,
        lookahead_frames=ready.latency_frames,
        lookahead_ms=1e3 * ready.latency_frames / settings.fps if settings.fps else None,
        asked_fps=settings.fps,
        seconds=summary.seconds,
        fps=heard.fps,
        ms_per_frame=ready.ms_per_frame,
        acquired=summary.acquired,
        delivered=summary.delivered,
        dropped=summary.dropped,
        received=heard.received,
        lost=heard.missed,
        pull_cpu=summary.pull_cpu,
        stages=stages,
    )
