"""From a name to a running engine: which runtime, which form, how many threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle
from rtdenoise.engine import dial, filters
from rtdenoise.engine.base import Engine, EngineInfo
from rtdenoise.engine.dial import Latency
from rtdenoise.engine.graph import Graph, Runtime
from rtdenoise.engine.merged import BlockGraphs, MergedEngine
from rtdenoise.engine.ort import OrtRuntime
from rtdenoise.engine.ov import OpenVinoRuntime
from rtdenoise.engine.stepped import SteppedEngine, graph_shapes
from rtdenoise.engine.window import WindowEngine
from rtdenoise.errors import ConfigError, EngineError, MissingExtraError
from rtdenoise.settings import EngineSettings

BACKENDS: dict[str, Callable[[int], Runtime]] = {
    "openvino-bf16": lambda threads: OpenVinoRuntime(threads, "bf16"),
    "openvino-fp32": lambda threads: OpenVinoRuntime(threads, "fp32"),
    "onnxruntime-cpu": OrtRuntime,
}
"""Fastest first: `auto` takes the first one that this machine can open."""
AUTO = "auto"


@dataclass(slots=True, frozen=True)
class EngineChoice:
    """What to open. model: bundle name or folder, or an untrained filter. threads 0: all cores."""

    model: str
    backend: str = AUTO
    latency: Latency = "full"
    hop: int = 1
    threads: int = 0


@dataclass(slots=True)
class _Opened:
    """What factories of one choice share."""

    refused: list[str] = field(default_factory=list)
    bundle: Bundle | None = None
    runtime: Runtime | None = None
    graphs: dict[str, Graph] = field(default_factory=dict)


@dataclass(slots=True)
class EngineFactory:
    """Makes engines of one choice for one frame shape; their graphs are compiled once and shared, their caches are not."""

    choice: EngineChoice
    shape: tuple[int, int]
    _opened: _Opened = field(default_factory=_Opened)

    @property
    def refused(self) -> list[str]:
        """Why faster runtimes than the one that was opened could not be."""
        return self._opened.refused

    def make(self) -> Engine:
        """A new engine. Raises BundleError, EngineError, MissingExtraError or ConfigError."""
        if self.choice.model in filters.FILTERS:
            return filters.create(self.choice.model, self.shape)
        bundle = self._bundle()
        if min(self.shape) < bundle.manifest.min_side:
            side = bundle.manifest.min_side
            raise ConfigError(f"{bundle.name} needs frames of at least {side} x {side} px, these are {self.shape}")
        if bundle.manifest.merge == "halving":
            return self._merged(bundle)
        if dial.runs_stepped(bundle, self.choice.latency):
            return self._stepped(bundle)
        return self._window(bundle)

    def with_hop(self, hop: int) -> EngineFactory:
        """The same choice at another hop, sharing what is compiled."""
        choice = EngineChoice(self.choice.model, self.choice.backend, self.choice.latency, hop, self.choice.threads)
        return EngineFactory(choice, self.shape, self._opened)

    def hops(self) -> list[int]:
        """Hops this model can run at, smallest first, beginning with the chosen one."""
        if self.choice.model in filters.FILTERS:
            return [self.choice.hop]
        return dial.hops_of(self._bundle(), self.choice.latency, self.choice.hop)

    def latencies(self) -> list[int]:
        """Look-aheads in frames that this model can run at as it is, ascending; the last is the full output's."""
        if self.choice.model in filters.FILTERS:
            return [filters.create(self.choice.model, self.shape).window.lookahead]
        return dial.lookaheads_of(self._bundle())

    def _merged(self, bundle: Bundle) -> MergedEngine:
        size, n_newest = bundle.manifest.window.size, bundle.manifest.newest_frames
        latency = dial.merging(bundle, self.choice.latency)
        whole = self._graph(bundle, "window", ((1, size, *self.shape),))
        graphs = BlockGraphs(whole)
        if n_newest:
            partial = (1, len(bundle.manifest.window.emits), *self.shape)
            older = self._graph(bundle, "older", ((1, size - n_newest, *self.shape),))
            newest = self._graph(bundle, "newest", ((1, n_newest, *self.shape), partial))
            graphs = BlockGraphs(whole, older, newest, n_newest)
        return MergedEngine(graphs, size, self.choice.hop, latency, self.shape, self._info(bundle))

    def _window(self, bundle: Bundle) -> WindowEngine:
        facts, spec = bundle.manifest.window, dial.window_of(bundle, self.choice.latency, self.choice.hop)
        graph = self._graph(bundle, "window", ((1, facts.size, *self.shape),))
        return WindowEngine(graph, facts.emits, spec, self.shape, self._info(bundle))

    def _stepped(self, bundle: Bundle) -> SteppedEngine:
        dial.window_of(bundle, self.choice.latency, self.choice.hop)  # refuses another hop
        facts = bundle.manifest.step
        assert facts is not None
        graph = self._graph(bundle, "step", graph_shapes(facts, self.shape))
        return SteppedEngine(graph, facts, self.shape, self._info(bundle))

    def _bundle(self) -> Bundle:
        opened = self._opened
        if opened.bundle is None:
            opened.bundle = bundles.read(self.choice.model)
        return opened.bundle

    def _runtime(self) -> Runtime:
        opened = self._opened
        if opened.runtime is None:
            opened.runtime = open_runtime(self.choice.backend, self.choice.threads, opened.refused)
        return opened.runtime

    def _graph(self, bundle: Bundle, role: str, shapes: tuple[tuple[int, ...], ...]) -> Graph:
        graphs = self._opened.graphs
        if role not in graphs:
            graphs[role] = self._runtime().compile(bundle.graph(role), shapes)
        return graphs[role]

    def _info(self, bundle: Bundle) -> EngineInfo:
        runtime = self._runtime()
        model = f"{bundle.name}@{bundle.hash}"
        return EngineInfo(runtime.backend, runtime.device, model, runtime.precision, runtime.threads)


def factory_for(asked: EngineSettings, shape: tuple[int, int]) -> EngineFactory:
    """The factory of what a run or a file is to be denoised with; without a hop it begins at 1."""
    return EngineFactory(EngineChoice(asked.model, asked.backend, asked.latency, asked.hop or 1, asked.threads), shape)


def open_engine(
    model: str | Path,
    *,
    shape: tuple[int, int],
    backend: str = AUTO,
    latency: Latency = "full",
    hop: int = 1,
    threads: int = 0,
) -> Engine:
    """One engine for frames of `shape` (Y, X). `model` is a bundle's name or folder, or an untrained filter's name.

    Raises BundleError, EngineError, MissingExtraError or ConfigError; never binds another backend than the one named.
    """
    return EngineFactory(EngineChoice(str(model), backend, latency, hop, threads), shape).make()


def open_runtime(backend: str, threads: int = 0, refused: list[str] | None = None) -> Runtime:
    """The named runtime, or with `auto` the fastest that opens here; why faster ones did not is added to `refused`."""
    n_threads = threads or os.cpu_count() or 1
    if backend != AUTO:
        if backend not in BACKENDS:
            raise ConfigError(f"unknown engine {backend!r}; known: {AUTO}, {', '.join(BACKENDS)}")
        return BACKENDS[backend](n_threads)
    reasons = refused if refused is not None else []
    for name, factory in BACKENDS.items():
        try:
            return factory(n_threads)
        except (MissingExtraError, EngineError) as error:
            reasons.append(f"{name}: {error}")
    raise EngineError(f"no engine can run here: {'; '.join(reasons)}")
