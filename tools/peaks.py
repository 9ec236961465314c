"""This machine's peaks: convolutions by precision, and memory. Each library in a process of its own, best of several rounds."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from benching import in_turn, serve
from rich.console import Console

MAPS, SIDE, CHAIN = 64, 256, 8
"""The dense layer that a peak is taken of: 3x3, 64 maps, 256 x 256 px (engines sheet 2), eight in a row."""
LAYER_GFLOP = 2 * 9 * MAPS * MAPS * SIDE * SIDE / 1e9
MATRIX = 2048
"""Side of the int8 product (engines sheet 2)."""
COPIED_MB = 256
"""Far above every cache."""
ROUNDS = 5
LIBRARIES = ("openvino", "torch")


def peaks(console: Console) -> dict[str, float]:
    """GFLOP/s by precision (`fp32`, `bf16`, `int8`; the better library's) and `memory` in GB/s, read and written."""
    with tempfile.TemporaryDirectory() as folder:
        _, answers = in_turn(_work, LIBRARIES, (Path(folder),), ROUNDS, console)
    best: dict[str, float] = {}
    for figures in (figures for rounds in answers.values() for figures in rounds):
        for name, value in figures.items():
            best[name] = max(value, best.get(name, 0.0))
    return best


def settings(precision: str, threads: int) -> dict[str, Any]:
    """As the engine compiles, with times of every layer. (Any: the library's settings are of every type.)"""
    import openvino

    from rtdenoise.engine.ov import has_bf16

    half = precision == "bf16" or (precision == "int8" and has_bf16(openvino.Core()))
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": True,
    }


def profile(compiled: Any) -> list[tuple[str, str, str, float]]:
    """(name, type, names of the layers fused into it, ms) of everything that the last run executed. (Any: a compiled model.)"""
    found = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        facts = {
            key: str(op.get_rt_info()[key].astype(str)) for key in ("layerType", "originalLayersNames", "execTimeMcs")
        }
        if facts["execTimeMcs"].isdigit() and int(facts["execTimeMcs"]):
            ms = int(facts["execTimeMcs"]) / 1e3
            found.append((op.get_friendly_name(), facts["layerType"], facts["originalLayersNames"], ms))
    return found


def _work(library: str, folder: Path, pipe: Connection) -> None:
    measure = _openvino(folder) if library == "openvino" else _torch
    serve(pipe, library, measure)


def _openvino(folder: Path) -> Callable[[], dict[str, float]]:
    """Peaks as the median layer of a chain has it: the frames' reordering at both ends is not part of them."""
    import openvino

    from rtdenoise.engine.ov import has_bf16

    core, graph = openvino.Core(), _chain()
    (folder / "chain.onnx").write_bytes(graph)
    paths = {"fp32": folder / "chain.onnx"}
    if has_bf16(core):
        paths["bf16"] = paths["fp32"]
    paths |= _quantised(graph, folder)
    compiled = {
        name: core.compile_model(core.read_model(str(path)), "CPU", settings(name, os.cpu_count() or 1))
        for name, path in paths.items()
    }
    frames = np.random.default_rng(0).standard_normal((1, MAPS, SIDE, SIDE), np.float32)

    def measured() -> dict[str, float]:
        figures = {}
        for name, model in compiled.items():
            model([frames])
            convolutions = sorted(ms for _, kind, _, ms in profile(model) if kind == "Convolution")
            # Of a quantised chain three are left in float, the slowest: the median is an int8 one.
            figures[name] = LAYER_GFLOP / convolutions[len(convolutions) // 2] * 1e3
        return figures

    return measured


def _quantised(graph: bytes, folder: Path) -> dict[str, Path]:
    """The chain in int8, where NNCF is installed."""
    from rtdenoise.errors import MissingExtraError
    from rtdenoise.export.int8 import to_int8

    frames = np.random.default_rng(1).standard_normal((1, MAPS, SIDE, SIDE), np.float32)
    try:
        xml, weights = to_int8(graph, [(frames,)])
    except MissingExtraError:
        return {}
    (folder / "int8.xml").write_bytes(xml)
    (folder / "int8.bin").write_bytes(weights)
    return {"int8": folder / "int8.xml"}


def _chain() -> bytes:
    """Convolutions with ReLU that keep the spread of what passes."""
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, constants = np.random.default_rng(0), [], []
    spread = np.sqrt(2 / (9 * MAPS))
    for i in range(CHAIN):
        weight = (rng.standard_normal((MAPS, MAPS, 3, 3)) * spread).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes += [
            helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], name=f"conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"], name=f"relu{i}"),
        ]
    size = [1, MAPS, SIDE, SIDE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in ("x0", f"x{CHAIN}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    )


def _torch() -> dict[str, float]:
    """Convolutions channels-last, an int8 product, and a copy."""
    import torch

    figures = {}
    with torch.inference_mode():
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            conv = torch.nn.Conv2d(MAPS, MAPS, 3, padding=1, bias=False).to(dtype).to(memory_format=torch.channels_last)
            frames = torch.randn(1, MAPS, SIDE, SIDE).to(dtype).to(memory_format=torch.channels_last)
            figures[name] = LAYER_GFLOP / _fastest(lambda conv=conv, frames=frames: conv(frames))
        a, b = (torch.randint(-128, 127, (MATRIX, MATRIX), dtype=torch.int8) for _ in range(2))
        figures["int8"] = 2 * MATRIX**3 / 1e9 / _fastest(lambda: torch._int_mm(a, b))
        source = torch.ones(COPIED_MB * 2**20 // 4)
        target = torch.empty_like(source)
        figures["memory"] = 2 * source.nbytes / 1e9 / _fastest(lambda: target.copy_(source))
    return figures


def _fastest(run: Callable[[], object]) -> float:
    """Seconds, of four."""
    costs = []
    for _ in range(4):
        start = time.perf_counter()
        run()
        costs.append(time.perf_counter() - start)
    return min(costs)
