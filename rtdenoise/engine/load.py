"""From a name to a running engine: which runtime, which form, how many threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle, StageFacts
from rtdenoise.engine import backends, dial, filters
from rtdenoise.engine.backends import AUTO, BACKENDS, open_runtime
from rtdenoise.engine.base import Engine, EngineInfo
from rtdenoise.engine.device import DeviceGraph, DeviceRuntime
from rtdenoise.engine.dial import Latency
from rtdenoise.engine.graph import Graph, Runtime, one_line
from rtdenoise.engine.merged import BlockGraphs, MergedEngine
from rtdenoise.engine.residing import resident_engine
from rtdenoise.engine.staged import StagedEngine, StageGraphs, encode_shape, fuse_shape
from rtdenoise.engine.stepped import SteppedEngine, graph_shapes
from rtdenoise.engine.window import WindowEngine
from rtdenoise.errors import ConfigError, EngineError, MissingExtraError
from rtdenoise.settings import EngineSettings

Shapes = tuple[tuple[int, ...], ...]


@dataclass(slots=True, frozen=True)
class EngineChoice:
    """What to open. model: bundle name or folder, or an untrained filter. threads 0: all cores.

    without: engines that `auto` shall not take, because they failed in this run.
    """

    model: str
    backend: str = AUTO
    latency: Latency = "full"
    hop: int = 1
    threads: int = 0
    without: tuple[str, ...] = ()


@dataclass(slots=True)
class _Opened:
    """What factories of one choice share. left: engines that `auto` has not tried yet, None before the first.

    tries: is told the name of every engine before it is opened.
    """

    tries: Callable[[str], None] = lambda _: None
    refused: list[str] = field(default_factory=list)
    bundle: Bundle | None = None
    left: list[str] | None = None
    backend: str = ""
    runtime: Runtime | None = None
    graphs: dict[str, Graph] = field(default_factory=dict)
    on_card: dict[tuple[Path, Shapes], DeviceGraph] = field(default_factory=dict)


@dataclass(slots=True)
class EngineFactory:
    """Makes engines of one choice for one frame shape; their graphs are compiled once and shared, their caches are not."""

    choice: EngineChoice
    shape: tuple[int, int]
    _opened: _Opened = field(default_factory=_Opened)

    @property
    def refused(self) -> list[str]:
        """Why faster engines than the one that was opened could not be."""
        return self._opened.refused

    @property
    def notes(self) -> list[str]:
        """What the engine that was opened had to do first, such as build a plan anew, and why."""
        return list(getattr(self._opened.runtime, "notes", ()))

    def make(self) -> Engine:
        """A new engine; with `auto` the first of the chain that opens and takes the model at this size.

        Raises BundleError, EngineError, MissingExtraError or ConfigError.
        """
        if self.choice.model in filters.FILTERS:
            return filters.create(self.choice.model, self.shape)
        bundle = self._bundle()
        if min(self.shape) < bundle.manifest.min_side:
            side = bundle.manifest.min_side
            raise ConfigError(f"{bundle.name} needs frames of at least {side} x {side} px, these are {self.shape}")
        while True:
            try:
                return self._formed(bundle)
            except EngineError as error:  # a plan that cannot be built, a layer it does not have
                self.give_up(error)
            except MemoryError as error:
                y, x = self.shape
                self.give_up(EngineError(f"{bundle.name} with {self._opened.backend} at {y} x {x}: {one_line(error)}"))

    def give_up(self, error: EngineError) -> None:
        """Leave the engine that is open: with `auto` the next one made is of the next that opens.

        Raises `error` where the engine was named, or none was open.
        """
        opened = self._opened
        if self.choice.backend != AUTO or opened.runtime is None:
            raise error
        opened.refused.append(f"{opened.backend}: {error}")
        opened.runtime = None
        opened.graphs.clear()
        opened.on_card.clear()

    def pinned(self) -> EngineFactory:
        """The same choice with the engine that is open now, and no other."""
        choice = replace(self.choice, backend=self._opened.backend or self.choice.backend)
        return EngineFactory(choice, self.shape, self._opened)

    def over(self, runtime: Runtime) -> EngineFactory:
        """The same choice on a runtime that is already open and that is given the fp32 graphs."""
        opened = _Opened(bundle=self._opened.bundle, left=[], backend="onnxruntime-cpu", runtime=runtime)
        return EngineFactory(self.choice, self.shape, opened)

    def with_hop(self, hop: int) -> EngineFactory:
        """The same choice at another hop, sharing what is compiled."""
        return EngineFactory(replace(self.choice, hop=hop), self.shape, self._opened)

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

    def _formed(self, bundle: Bundle) -> Engine:
        if isinstance(runtime := self._runtime(), DeviceRuntime):
            return self._resident(bundle, runtime)
        if bundle.manifest.merge == "halving":
            return self._merged(bundle)
        if dial.runs_stepped(bundle, self.choice.latency):
            return self._stepped(bundle)
        if bundle.manifest.stages is not None and self._has(bundle, "encode", "fuse"):
            return self._staged(bundle, bundle.manifest.stages)
        return self._window(bundle)

    def _resident(self, bundle: Bundle, runtime: DeviceRuntime) -> Engine:
        graphs, kind = self._opened.on_card, BACKENDS[self._opened.backend].graphs

        def compiled(path: Path, shapes: Shapes) -> DeviceGraph:
            if (path, shapes) not in graphs:
                graphs[path, shapes] = runtime.compile_on_device(path, shapes)
            return graphs[path, shapes]

        def network(role: str, shapes: Shapes) -> DeviceGraph:
            return compiled(bundle.graph(role, kind), shapes)

        latency, hop, info = self.choice.latency, self.choice.hop, self._info(bundle)
        return resident_engine(bundle, self.shape, latency, hop, runtime.card, compiled, network, info)

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

    def _staged(self, bundle: Bundle, stages: StageFacts) -> StagedEngine:
        facts, spec = bundle.manifest.window, dial.window_of(bundle, self.choice.latency, self.choice.hop)
        encode = self._graph(bundle, "encode", (encode_shape(stages, self.shape),))
        fuse = self._graph(bundle, "fuse", (fuse_shape(stages, facts.size, self.shape),))
        graphs = StageGraphs(encode, fuse, stages, facts.size, facts.emits)
        return StagedEngine(graphs, spec, self.shape, self._info(bundle))

    def _has(self, bundle: Bundle, *roles: str) -> bool:
        """Whether the bundle has these graphs in the form that the engine takes."""
        self._runtime()
        return all(role in bundle.roles(BACKENDS[self._opened.backend].graphs) for role in roles)

    def _bundle(self) -> Bundle:
        opened = self._opened
        if opened.bundle is None:
            opened.bundle = bundles.read(self.choice.model)
        return opened.bundle

    def _runtime(self) -> Runtime:
        """The named runtime, or the next of the chain that opens."""
        opened = self._opened
        if opened.left is None:
            opened.left = self._to_try()
        while opened.runtime is None and opened.left:
            opened.backend = opened.left.pop(0)
            opened.tries(opened.backend)
            try:
                opened.runtime = open_runtime(opened.backend, self.choice.threads)
            except (MissingExtraError, EngineError) as error:
                if self.choice.backend != AUTO:
                    raise
                opened.refused.append(f"{opened.backend}: {error}")
        if opened.runtime is None:
            raise EngineError(f"no engine can run here: {'; '.join(opened.refused) or 'none is left'}")
        return opened.runtime

    def _to_try(self) -> list[str]:
        if self.choice.backend != AUTO:
            return [self.choice.backend]
        without = self.choice.without
        self._opened.refused += [f"{name}: it failed in this run" for name in without]
        return [name for name in backends.chain(self._bundle()) if name not in without]

    def _graph(self, bundle: Bundle, role: str, shapes: tuple[tuple[int, ...], ...]) -> Graph:
        graphs, runtime = self._opened.graphs, self._runtime()
        if role not in graphs:
            kind = BACKENDS[self._opened.backend].graphs
            graphs[role] = runtime.compile(bundle.graph(role, kind), shapes)
        return graphs[role]

    def _info(self, bundle: Bundle) -> EngineInfo:
        runtime = self._runtime()
        model = f"{bundle.name}@{bundle.hash}"
        return EngineInfo(runtime.backend, runtime.device, model, runtime.precision, runtime.threads)


def factory_for(
    asked: EngineSettings,
    shape: tuple[int, int],
    without: tuple[str, ...] = (),
    tries: Callable[[str], None] = lambda _: None,
) -> EngineFactory:
    """The factory of what a run or a file is to be denoised with; without a hop it begins at 1.

    without: engines that `auto` shall not take.  tries: is told the name of every engine before it is opened.
    """
    choice = EngineChoice(asked.model, asked.backend, asked.latency, asked.hop or 1, asked.threads, without)
    return EngineFactory(choice, shape, _Opened(tries))


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


def check(asked: EngineSettings) -> None:
    """Raise BundleError, ConfigError, EngineError or MissingExtraError for an engine that can never start here.

    Opens no card: what only the process that denoises can know, it says before its first frame.
    """
    if asked.model in filters.FILTERS:
        return
    bundle = bundles.read(asked.model)
    names = backends.chain(bundle) if asked.backend == AUTO else [asked.backend]
    if any(name in BACKENDS and BACKENDS[name].gpu for name in names):
        return
    reasons = []
    for name in names:
        try:
            open_runtime(name, 1)
        except (MissingExtraError, EngineError) as error:
            if asked.backend != AUTO:
                raise
            reasons.append(f"{name}: {error}")
        else:
            return
    raise EngineError(f"no engine can run here: {'; '.join(reasons)}")
