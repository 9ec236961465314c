"""One engine on one case: what it gives, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np
from bench_fast import Stream
from bench_forms import (
    COMPARED,
    Case,
    deployed_stages,
    deployed_step,
    emits_of,
    graph_path,
    network_of,
    output_shape,
    probe,
    roles,
    shapes_of,
)
from benching import EAGER, TorchGraph, serve
from published import OURS, published

from rtdenoise import machine
from rtdenoise.bundle import StepFacts
from rtdenoise.engine.backends import open_runtime
from rtdenoise.engine.base import EngineInfo
from rtdenoise.engine.graph import Array, Graph
from rtdenoise.engine.merged import BlockGraphs
from rtdenoise.engine.staged import StagedEngine, StageGraphs
from rtdenoise.engine.stepped import SteppedEngine
from rtdenoise.frame import WindowSpec

BUDGET_MS = 400.0
"""Short runs are repeated for so long in every round. Engineering choice: 20 runs of 20 ms, one of a second."""
SLOW_MS = 1000.0
"""Runs from here on are not preceded by one that wakes threads and caches: what that costs is lost in them."""
NOWHERE = EngineInfo("", "", "", "", 0)


class Runner(Protocol):
    """One engine on one case. outputs: form -> what it makes of the probe frames.  measure: form -> ms per run or per frame."""

    outputs: dict[str, Array]

    def measure(self) -> dict[str, float]:
        """One round."""
        ...


class Opened:
    """A case's graphs on one engine; eager is the network itself."""

    def __init__(self, engine: str, case: Case, folder: Path, threads: int) -> None:
        self.eager, self.shape, self.folder = engine in (EAGER, OURS), case.shape, folder
        self._engine = engine
        if self.eager:
            import torch

            torch.set_num_threads(threads)
            network = network_of(case)
            self._torch = TorchGraph(published(network) if engine == EAGER else network)
        else:
            self._runtime = open_runtime(engine, threads)

    def graph(self, role: str, shape: tuple[int, int] | None = None) -> Graph:
        """Compiled for the case's size, or another."""
        if self.eager:
            return self._torch
        shapes = shapes_of(self.folder, role, shape or self.shape)
        return self._runtime.compile(graph_path(self.folder, role, self._engine), shapes)

    def probe(self) -> Array:
        """(1, T, Y, X), the same for every engine."""
        frames: Array = np.load(probe(self.folder, "window", self.shape[0]))
        return frames

    def out(self) -> Array:
        """Room for an output."""
        return np.empty(output_shape(self.folder, self.shape), np.float32)


class WindowRunner:
    """All frames of the window in each run."""

    def __init__(self, opened: Opened) -> None:
        self._graph, self._frames, self._out = opened.graph("window"), opened.probe(), opened.out()
        self.run()
        self.outputs = {"window": self._out.copy()}

    def run(self) -> None:
        """Once."""
        self._graph.run((self._frames,), self._out)

    def measure(self) -> dict[str, float]:
        """ms per run."""
        return {"window": timed(self.run)}


class MergedRunner:
    """A block network in the stream, at hop 1; eager runs the whole network on every block, as its authors do."""

    def __init__(self, opened: Opened) -> None:
        whole, frames, out = opened.graph("window"), opened.probe(), opened.out()
        graphs = BlockGraphs(whole)
        if opened.eager or "newest" not in roles(opened.folder):
            whole.run((frames,), out)
        else:
            older, newest = opened.graph("older"), opened.graph("newest")
            n = shapes_of(opened.folder, "newest", opened.shape)[0][1]
            older.run((np.ascontiguousarray(frames[:, :-n]),), partial := opened.out())
            newest.run((np.ascontiguousarray(frames[:, -n:]), partial), out)
            graphs = BlockGraphs(whole, older, newest, n)
        self.outputs = {"hop 1": out}
        self._stream = Stream(graphs, frames.shape[1], 1, opened.shape)

    def measure(self) -> dict[str, float]:
        """ms per frame."""
        return {"hop 1": timed(self._stream.run)}


class StagedRunner:
    """The first stage on the newest frame only and the second on all features, per frame; beside it the window as a whole.

    Eager runs the window in both.
    """

    def __init__(self, opened: Opened) -> None:
        self._window, self._engine = WindowRunner(opened), None
        self.outputs = {"window": self._window.outputs["window"], "two-stage": self._window.outputs["window"]}
        facts = deployed_stages(opened.folder)
        if opened.eager or facts is None:
            return
        self._frames, emits = opened.probe()[0], emits_of(opened.folder)
        graphs = StageGraphs(opened.graph("encode"), opened.graph("fuse"), facts, len(self._frames), emits)
        self._engine = StagedEngine(graphs, WindowSpec(len(self._frames), emits), opened.shape, NOWHERE)
        self._first = 0
        self.outputs["two-stage"] = self._step()[None].copy()

    def _step(self) -> Array:
        """Windows that follow each other: all frames of the first are new, then one."""
        assert self._engine is not None
        window = self._engine.window
        out = self._engine.run(self._frames, self._first, self._first + window.emits[0], len(window.emits))
        self._first += window.hop
        return out

    def measure(self) -> dict[str, float]:
        """ms per run, which is per frame."""
        window = timed(self._window.run)
        return {"window": window, "two-stage": window if self._engine is None else timed(self._step)}


class StepRunner:
    """The step that carries states, beside the block that computes everything anew: both in ms per frame.

    Eager is the block in both, each frame in one block only.
    """

    def __init__(self, opened: Opened) -> None:
        self._block, self._block_frames = WindowRunner(opened), opened.probe().shape[1]
        self._engine = None
        block = self._block.outputs["window"]
        if opened.eager:
            self.outputs = {"step": np.load(probe(opened.folder, "wanted", COMPARED)), "block": block}
            return
        facts = deployed_step(opened.folder)
        assert facts is not None
        self._engine = SteppedEngine(opened.graph("step"), facts, opened.shape, NOWHERE)
        self._window, self._first = np.resize(opened.probe()[0], (facts.size, *opened.shape)), 0
        self.outputs = {"step": _first_step(opened, facts), "block": block}
        self._step()  # the first runs through the whole window

    def _step(self) -> Array:
        """Windows that follow each other."""
        assert self._engine is not None
        window = self._engine.window
        out = self._engine.run(self._window, self._first, self._first + window.emits[0], window.hop)
        self._first += window.hop
        return out

    def measure(self) -> dict[str, float]:
        """ms per frame."""
        block = timed(self._block.run) / self._block_frames
        if self._engine is None:
            return {"step": block, "block": block}
        return {"step": timed(self._step) / self._engine.window.hop, "block": block}


def _first_step(opened: Opened, facts: StepFacts) -> Array:
    """What comes out of the window that was compared with PyTorch."""
    frames = np.load(probe(opened.folder, "step", COMPARED))[0]
    shape = (COMPARED, COMPARED)
    engine = SteppedEngine(opened.graph("step", shape), facts, shape, NOWHERE)
    return engine.run(frames, 0, facts.emits[0], len(facts.emits)).copy()


def runner(engine: str, case: Case, folder: Path, threads: int) -> Runner:
    """The form that the case's network is run in."""
    opened, there = Opened(engine, case, folder, threads), roles(folder)
    if "step" in there:
        return StepRunner(opened)
    if "fuse" in there:
        return StagedRunner(opened)
    return MergedRunner(opened) if "newest" in there else WindowRunner(opened)


def work(engine: str, case: Case, folder: Path, threads: int, pipe: Connection) -> None:
    """In the engine's own process: first its outputs, then ms and the most memory it held, for every word from the pipe."""
    running = runner(engine, case, folder, threads)
    serve(pipe, running.outputs, lambda: (running.measure(), machine.peak_memory_mb() or 0.0))


def timed(run: Callable[[], object]) -> float:
    """ms: the median of as many runs as fit into `BUDGET_MS`, after one that is not counted unless it was slow."""
    if (first := _ms(run)) > SLOW_MS:
        return first
    costs = [_ms(run)]
    while sum(costs) < BUDGET_MS:
        costs.append(_ms(run))
    return float(np.median(costs))


def _ms(run: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6
