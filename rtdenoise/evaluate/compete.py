"""All contestants on the same simulated movies, scored on the same frames."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine import load
from rtdenoise.errors import ConfigError
from rtdenoise.evaluate.contestants import RAW, Contestant
from rtdenoise.evaluate.streaming import factory, streamed
from rtdenoise.metrics import Scores, data_range, evaluate_against_truth
from rtdenoise.settings import EngineSettings
from rtdenoise.simulate import SimParams, Simulated, preset, simulate

Span = tuple[int, int]
"""First frame that is scored, and the first that is not any more."""

FEWEST_SCORED = 10
MOVIES_KEPT = 4
"""Simulated movies that a process remembers: the seeds of one input SNR."""
CROP_PX, TRACE_FRAMES = 96, 240
"""What a person is shown of a movie. Engineering choices."""


@dataclass(slots=True, frozen=True)
class MovieChoice:
    """One simulated movie; what is None is as the preset has it. change: further parameters, as (name, value)."""

    preset: str
    seed: int
    snr_db: float | None = None
    shape: tuple[int, int] | None = None
    n_frames: int | None = None
    change: tuple[tuple[str, Any], ...] = ()

    @property
    def params(self) -> SimParams:
        """Raises ConfigError for an unknown preset or a value out of range."""
        asked = {"snr_db": self.snr_db, "shape": self.shape, "n_frames": self.n_frames}
        given = {name: value for name, value in asked.items() if value is not None}
        return preset(self.preset, seed=self.seed, **given, **dict(self.change))


@dataclass(slots=True, frozen=True)
class Glimpse:
    """What a person looks at. crop: (y, x) of one frame where much happens.

    trace: mean of the most active cell around that time, empty without cells.
    """

    crop: NDArray[np.float32]
    trace: NDArray[np.float64]


@dataclass(slots=True, frozen=True)
class Result:
    """One contestant on one movie. ms_per_frame: processor time of one thread, frames of `shape`.

    clean_f1: F1 of the clean movie itself, the most that can be hoped for; with the raw movie's result only.
    """

    contestant: Contestant
    choice: MovieChoice
    span: Span
    scores: Scores
    snr_in_db: float
    frame_rate_hz: float
    shape: tuple[int, int]
    ms_per_frame: float
    engine: str
    glimpse: Glimpse | None = None
    clean_f1: float | None = None


@dataclass(slots=True, frozen=True)
class Task:
    """What one process does at a time: one contestant, the movies of one input SNR."""

    contestant: Contestant
    choices: tuple[MovieChoice, ...]
    span: Span
    backend: str = "auto"


def common_span(contestants: Sequence[Contestant], choices: Sequence[MovieChoice]) -> Span:
    """Frames that every contestant can give from a full window: the longest one decides for all.

    Raises ConfigError when too few are left, or a contestant needs larger frames.
    """
    before = max(contestant.before for contestant in contestants)
    after = max(contestant.lookahead for contestant in contestants)
    n_frames = min(choice.params.n_frames for choice in choices)
    if n_frames - before - after < FEWEST_SCORED:
        needed = before + after + FEWEST_SCORED
        raise ConfigError(
            f"movies of {n_frames} frames are too short for the longest window; give --frames {needed} or more"
        )
    side = min(min(choice.params.shape) for choice in choices)
    for contestant in contestants:
        if contestant.min_side > side:
            raise ConfigError(f"{contestant.label} needs frames of at least {contestant.min_side} px; raise --size")
    return before, n_frames - after


def compete(
    contestants: Sequence[Contestant],
    choices: Sequence[MovieChoice],
    *,
    backend: str = "auto",
    processes: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
    """Every contestant on every movie; the scores do not depend on `processes`. Each engine has one thread.

    progress: called with (done, total) as results come in. Raises what a bundle, an engine or a simulation can raise.
    """
    span = common_span(contestants, choices)
    for contestant in contestants:  # says at once what is missing
        load.check(EngineSettings(model=contestant.model, backend=backend))
    tasks = list(_tasks(contestants, choices, span, backend))
    total, done = sum(len(task.choices) for task in tasks), 0
    found: dict[int, list[Result]] = {}
    for i, results in _run_all(tasks, processes):
        found[i] = results
        done += len(results)
        progress(done, total)
    return [result for i in range(len(tasks)) for result in found[i]]


def run_task(task: Task) -> list[Result]:
    """One contestant on its movies, in this process."""
    who = task.contestant
    asked = EngineSettings(model=who.model, backend=task.backend, latency=who.latency, hop=who.window.hop, threads=1)
    results, maker = list[Result](), None
    for choice in task.choices:
        movie = simulated(choice)
        maker = maker or factory(asked, movie.noisy)
        results.append(_score(task, choice, movie, streamed(movie.noisy, asked, maker)))
    return results


@functools.lru_cache(maxsize=MOVIES_KEPT)
def simulated(choice: MovieChoice) -> Simulated:
    """The movie; the last few are remembered."""
    return simulate(choice.params)


@functools.lru_cache(maxsize=MOVIES_KEPT)
def _peak(choice: MovieChoice, span: Span) -> float:
    return data_range(simulated(choice).clean[slice(*span)])


def _score(task: Task, choice: MovieChoice, movie: Simulated, output: Any) -> Result:
    start, stop = task.span
    frames = output.frames[start:stop]
    scores = evaluate_against_truth(
        movie.clean[start:stop], frames, movie, first_frame=start, peak=_peak(choice, task.span)
    )
    return Result(
        contestant=task.contestant,
        choice=choice,
        span=task.span,
        scores=scores,
        snr_in_db=movie.snr_in_db,
        frame_rate_hz=movie.frame_rate_hz,
        shape=movie.params.shape,
        ms_per_frame=output.ms_per_frame,
        engine=output.engine.backend,
        glimpse=glimpse(movie, frames, task.span) if choice == task.choices[0] else None,
        clean_f1=_clean_f1(movie, task.span) if task.contestant.model == RAW else None,
    )


def _clean_f1(movie: Simulated, span: Span) -> float | None:
    clean = movie.clean[slice(*span)]
    return evaluate_against_truth(clean, clean, movie, first_frame=span[0]).f1


def glimpse(movie: Simulated, frames: NDArray[np.float32], span: Span) -> Glimpse:
    """What shows best how well changes survive: the frame and place of the most active cell, chosen in the clean movie."""
    clean = movie.clean[slice(*span)]
    rows, cols = _liveliest(movie, clean)
    traces = clean[:, rows, cols].mean(axis=1) if len(rows) else clean.reshape(len(clean), -1).std(axis=1)
    at = int(np.argmax(traces))
    window = tuple(
        _around(int(np.mean(c)) if len(c) else n // 2, n) for c, n in zip((rows, cols), clean.shape[1:], strict=True)
    )
    part = slice(max(at - TRACE_FRAMES // 2, 0), at + TRACE_FRAMES // 2)
    trace = frames[part, rows, cols].mean(axis=1, dtype=np.float64) if len(rows) else np.empty(0)
    return Glimpse(frames[at][window].copy(), trace)


def glimpse_of_truth(choice: MovieChoice, span: Span) -> Glimpse:
    """The same of the clean movie."""
    movie = simulated(choice)
    return glimpse(movie, movie.clean[slice(*span)], span)


def _liveliest(movie: Simulated, clean: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the cell whose brightness changes most; empty without cells."""
    cells = [(rows.astype(np.intp), cols.astype(np.intp)) for rows, cols in movie.masks if len(rows) >= 20]
    if not cells:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    return max(cells, key=lambda cell: float(clean[:, cell[0], cell[1]].mean(axis=1).std()))


def _around(centre: int, n: int) -> slice:
    start = min(max(centre - CROP_PX // 2, 0), max(n - CROP_PX, 0))
    return slice(start, min(start + CROP_PX, n))


def _tasks(
    contestants: Sequence[Contestant], choices: Sequence[MovieChoice], span: Span, backend: str
) -> Iterator[Task]:
    """Movie groups one after the other, so that a process simulates each once; networks first, as they take longest."""
    for group in dict.fromkeys(replace(choice, seed=0) for choice in choices):
        same = tuple(choice for choice in choices if replace(choice, seed=0) == group)
        for contestant in sorted(contestants, key=lambda contestant: not contestant.trained):
            yield Task(contestant, same, span, backend)


def _run_all(tasks: Sequence[Task], processes: int) -> Iterator[tuple[int, list[Result]]]:
    if processes <= 1:
        yield from ((i, run_task(task)) for i, task in enumerate(tasks))
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Future[list[Result]], int] = {pool.submit(run_task, task): i for i, task in enumerate(tasks)}
        try:
            yield from ((waiting[future], future.result()) for future in as_completed(waiting))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
