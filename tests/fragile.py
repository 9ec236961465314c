"""A model that one engine fails to run and another runs, and whether this machine has these engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle, GraphKind, Manifest, NormalizationFacts, WindowFacts
from rtdenoise.engine.backends import open_runtime
from rtdenoise.errors import EngineError, MissingExtraError

ENGINES = ("onnxruntime-cpu", "openvino-fp32")
LIMIT = 100.0
"""Normalised counts from which on the graph below cannot be run by ONNX Runtime."""


def graph(limit: float = LIMIT) -> bytes:
    """A graph that gives its frame back, and looks beyond the end of a table when a pixel is above `limit`.

    ONNX Runtime refuses that while it runs, OpenVINO takes 0: a real failure of one engine, in the middle of a run.
    """
    onnx = pytest.importorskip("onnx", reason="writes the graph of this test; part of the train extra")
    helper, floats, free = onnx.helper, onnx.TensorProto.FLOAT, [1, 1, "Y", "X"]
    nodes = [
        helper.make_node("ReduceMax", ["frames"], ["brightest"], keepdims=0),
        helper.make_node("Greater", ["brightest", "limit"], ["above"]),
        helper.make_node("Cast", ["above"], ["row"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["nothing"]),
        helper.make_node("Add", ["frames", "nothing"], ["denoised"]),
    ]
    constants = [helper.make_tensor("limit", floats, (), [limit]), helper.make_tensor("table", floats, (1,), [0.0])]
    ends = [[helper.make_tensor_value_info(name, floats, free)] for name in ("frames", "denoised")]
    model = helper.make_model(
        helper.make_graph(nodes, "fragile", *ends, constants),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    return bytes(model.SerializeToString())


def bundle(
    folder: Path, content: bytes, engine: str = "", variants: dict[GraphKind, dict[str, str]] | None = None
) -> Bundle:
    """A model of one frame. engine: the one that is tried first."""
    manifest = Manifest(
        name="fragile",
        method="none",
        window=WindowFacts(size=1, emits=(0,)),
        graphs={"window": "model.onnx"},
        variants=variants or {},
        engine=engine,
        normalization=NormalizationFacts(offset=0.0, scale=1.0),
    )
    files = {"model.onnx": content} | {file: b"<net" for roles in (variants or {}).values() for file in roles.values()}
    return bundles.write(folder, manifest, files)


def usable(*names: str) -> None:
    """A skip where this machine does not have one of these engines."""
    for name in names:
        try:
            open_runtime(name, 1)
        except (MissingExtraError, EngineError) as error:
            pytest.skip(f"{name} cannot run here: {error}")
