"""An ONNX graph becomes a plan: what `tensorrt_rtx` and `tensorrt` have in common. TensorRT-RTX needs no card for it."""

from __future__ import annotations

import importlib
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from rtdenoise import machine
from rtdenoise.engine.cuda import require_driver
from rtdenoise.errors import EngineError, MissingExtraError

Module = Literal["tensorrt_rtx", "tensorrt"]
Shapes = tuple[tuple[int, ...], ...]
_N_MESSAGES = 20


@dataclass(slots=True)
class Timings:
    """What TensorRT measured while it built: a second build with it is faster. Read before a build, replaced after it."""

    content: bytes = b""


def build_plan(
    module: Module,
    graph: Path | bytes,
    shapes: Shapes,
    compute_capability: str | None = None,
    *,
    tf32: bool = False,
    timings: Timings | None = None,
) -> bytes:
    """A plan of `graph` for inputs of exactly these shapes, in the precision that the graph itself is written in.

    compute_capability: of the card, as "8.6"; TensorRT-RTX without one makes a plan for any card since Ampere, TensorRT always
    builds for the card here.  tf32: whether float32 layers may round their factors to 10 bits.
    Raises EngineError for a graph that cannot be read or built, MissingExtraError without the library.
    """
    name = str(graph) if isinstance(graph, Path) else "graph"
    trt, log = library(module), journal(module)
    if module == "tensorrt":
        require_driver()  # it times its kernels on the card
    log.errors.clear()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, log, network, graph, name)
    settings = builder.create_builder_config()
    settings.add_optimization_profile(_profile(builder, network, shapes, name))
    if not tf32:
        settings.clear_flag(trt.BuilderFlag.TF32)
    if compute_capability and module == "tensorrt_rtx":
        _aim(trt, settings, compute_capability)
    if timings:
        settings.set_timing_cache(settings.create_timing_cache(timings.content), False)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise EngineError(f"{name}: {module} cannot build it: {last_error(module)}")
    if timings:
        timings.content = bytes(settings.get_timing_cache().serialize())
    return bytes(plan)


@lru_cache
def library(module: Module) -> Any:
    """The imported module. (Any: it has no types.) Raises MissingExtraError, or EngineError for one that does not load."""
    require_installed(module)
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"{module} is installed and does not load: {error}; install it anew") from None


def require_installed(module: Module) -> None:
    """Raise MissingExtraError or EngineError with the line that installs the module, without loading it."""
    if find_spec(module) is not None:
        return
    if module == "tensorrt_rtx":
        raise MissingExtraError("tensorrt-rtx", "gpu")
    raise EngineError(
        "tensorrt is not installed; run: pip install tensorrt-cu13"
    )  # no extra: NVIDIA serves it, not PyPI


def last_error(module: Module) -> str:
    """The library's own last word on what failed, in one line."""
    errors = journal(module).errors
    return str(errors[-1]) if errors else "it does not say why"


@lru_cache
def journal(module: Module) -> Any:
    """Where the library writes what goes wrong, instead of the terminal; it keeps the first it is given. (Any: its own class.)"""
    trt = library(module)

    class Journal(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps the newest errors. (misc: the library has no types.)"""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_N_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return Journal()


def _parse(trt: Any, log: Any, network: Any, graph: Path | bytes, name: str) -> None:
    parser = trt.OnnxParser(network, log)
    try:
        read = parser.parse(graph.read_bytes(), str(graph)) if isinstance(graph, Path) else parser.parse(graph)
    except OSError as error:
        raise EngineError(f"{name}: cannot be read: {error}") from None
    if not read:
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        why = "; ".join(" ".join(f"{e.node_name()} {e.desc()}".split()) for e in errors[:2]) or "it does not say why"
        raise EngineError(f"{name}: {trt.__name__} cannot read it: {why}")


def _profile(builder: Any, network: Any, shapes: Shapes, name: str) -> Any:
    """Smallest, usual and largest size alike: one size is faster than a range."""
    if network.num_inputs != len(shapes):
        raise EngineError(f"{name}: it takes {network.num_inputs} inputs, shapes were given for {len(shapes)}")
    profile = builder.create_optimization_profile()
    for i, shape in enumerate(shapes):
        entry = network.get_input(i)
        if len(entry.shape) != len(shape) or any(own not in (-1, n) for own, n in zip(entry.shape, shape, strict=True)):
            raise EngineError(f"{name}: input {entry.name} is {tuple(entry.shape)}, which {shape} does not fit")
        profile.set_shape(entry.name, shape, shape, shape)
    return profile


def _aim(trt: Any, settings: Any, compute_capability: str) -> None:
    """For this card alone. One that the library has no name for is asked itself, which takes the card."""
    named = trt.ComputeCapability.__members__.get("SM" + compute_capability.replace(".", ""))
    if named is None and machine.cuda_driver() is None:
        known = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in trt.ComputeCapability.__members__ if n.startswith("SM"))
        raise EngineError(f"{trt.__name__} names no compute capability {compute_capability}, only {known}")
    settings.num_compute_capabilities = 1
    settings.set_compute_capability(named or trt.ComputeCapability.CURRENT, 0)
