"""Makes the resident engine of a bundle on a runtime that works in a card's memory.

Two-stage networks run whole there: what cached features would save on a card has not been measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rtdenoise.bundle import Bundle
from rtdenoise.engine import dial
from rtdenoise.engine.base import EngineInfo
from rtdenoise.engine.card import GRAPHS, RAW, Constants, Memory, Shape, raw_shape
from rtdenoise.engine.device import Device, DeviceGraph
from rtdenoise.engine.dial import Latency
from rtdenoise.engine.resident import Residence, ResidentEngine
from rtdenoise.engine.resident_forms import Form, MergedForm, SteppedForm, WindowForm, merge_depth
from rtdenoise.engine.stepped import graph_shapes, padded
from rtdenoise.frame import WindowSpec

Shapes = tuple[tuple[int, ...], ...]
Compile = Callable[[Path, Shapes], DeviceGraph]
ModelGraph = Callable[[str, Shapes], DeviceGraph]
ONE = (1,)


def resident_engine(
    bundle: Bundle,
    shape: Shape,
    latency: Latency,
    hop: int,
    card: Device,
    compiled: Compile,
    network: ModelGraph,
    info: EngineInfo,
) -> ResidentEngine:
    """The bundle's engine for frames of `shape`. compiled: a graph of ours by path.  network: one of the bundle's by role.

    Raises EngineError for a graph that cannot be built, ConfigError for a look-ahead or a hop that there is not.
    """
    spec = dial.window_of(bundle, latency, hop)
    side = shape
    if bundle.manifest.merge == "halving":
        form = _merged(bundle, shape, latency, spec, compiled, network)
    elif dial.runs_stepped(bundle, latency):
        form, side = _stepped(bundle, shape, compiled, network)
    else:
        form = _window(bundle, shape, spec, compiled, network)
    ingests = {dtype: compiled(GRAPHS / f"ingest-{dtype}.onnx", (raw_shape(dtype, side), ONE, ONE)) for dtype in RAW}
    # What waits when a segment that is not mirrored ends comes out of one run.
    n_rows = max(spec.hop, spec.latency_frames, spec.min_size) if spec.edge == "trim" else spec.hop
    return ResidentEngine(Residence(card, spec, shape, side, n_rows, ingests, form, info))


def _window(
    bundle: Bundle, shape: Shape, spec: WindowSpec, compiled: Compile, network: ModelGraph
) -> Callable[[Memory, Constants], Form]:
    facts = bundle.manifest.window
    graph = network("window", ((1, facts.size, *shape),))
    finish = _finish(compiled, spec.hop, shape)
    return lambda memory, constants: WindowForm(memory, constants, graph, finish, facts.emits, spec, shape)


def _merged(
    bundle: Bundle, shape: Shape, latency: Latency, spec: WindowSpec, compiled: Compile, network: ModelGraph
) -> Callable[[Memory, Constants], Form]:
    block, merging = bundle.manifest.window.size, dial.merging(bundle, latency)
    graph, depth = network("window", ((1, block, *shape),)), merge_depth(block, spec.hop, merging)
    merge = compiled(GRAPHS / "merge.onnx", ((spec.hop, depth, *shape), (1, depth, 1, 1), ONE, ONE))
    return lambda memory, constants: MergedForm(memory, constants, graph, merge, block, spec.hop, merging, shape)


def _stepped(
    bundle: Bundle, shape: Shape, compiled: Compile, network: ModelGraph
) -> tuple[Callable[[Memory, Constants], Form], Shape]:
    facts = bundle.manifest.step
    assert facts is not None
    graph, side = network("step", graph_shapes(facts, shape)), padded(facts, shape)
    finish = _finish(compiled, len(facts.emits), side)
    return lambda memory, constants: SteppedForm(memory, constants, graph, finish, facts, shape), side


def _finish(compiled: Compile, n_frames: int, shape: Shape) -> DeviceGraph:
    return compiled(GRAPHS / "finish.onnx", ((1, n_frames, *shape), ONE, ONE))
