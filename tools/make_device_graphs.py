"""Write the small graphs that a card runs before and after every network, into `rtdenoise/engine/graphs`.

They belong to no model: counts -> normalised frames, and back. Made anew they are the same bytes, which a test checks.

    python tools/make_device_graphs.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, checker, helper

OPSET = 20
IR_VERSION = 9
"""The version of the file format that came with opset 19 and 20, so that older runtimes read it too."""
FOLDER = Path(__file__).parents[1] / "rtdenoise" / "engine" / "graphs"

Dims = Sequence[int | str]
FRAME: Dims = (1, 1, "Y", "X")
NORMALISE = {"offset": (1,), "inverse": (1,)}
COUNTS = {"scale": (1,), "offset": (1,)}


def graphs() -> dict[str, bytes]:
    """File name -> content of every graph."""
    made = {
        "ingest-uint8": _ingest({"raw": (1, "Y", "X")}, TensorProto.UINT8, [_cast("raw", "plane"), *_as_frame()]),
        "ingest-uint16": _ingest({"raw": (1, "Y", "X", 2)}, TensorProto.UINT8, [*_bytes(), *_joined("high")]),
        "ingest-int16": _ingest({"raw": (1, "Y", "X", 2)}, TensorProto.UINT8, [*_bytes(), *_signed()]),
        "ingest-float32": _ingest({"raw": (1, "Y", "X")}, TensorProto.FLOAT, _as_frame("raw")),
        "finish": _finish(),
        "merge": _merge(),
    }
    return {f"{name}.onnx": model.SerializeToString() for name, model in made.items()}


def _ingest(raw: Mapping[str, Dims], element: int, nodes: list[NodeProto]) -> ModelProto:
    """Counts -> (1, 1, Y, X) normalised: subtract, then multiply, as `Normalization.apply` does."""
    last = [
        helper.make_node("Sub", ["counts", "offset"], ["above"]),
        helper.make_node("Mul", ["above", "inverse"], ["normalised"]),
    ]
    inputs = [helper.make_tensor_value_info(name, element, list(dims)) for name, dims in raw.items()]
    return _model([*nodes, *last], [*inputs, *_floats(NORMALISE)], _floats({"normalised": FRAME}))


def _finish() -> ModelProto:
    """(1, K, Y, X) normalised -> counts: multiply, then add, as `Normalization.invert` does."""
    dims: Dims = (1, "K", "Y", "X")
    return _model(_counts("denoised"), _floats({"denoised": dims} | COUNTS), _floats({"counts": dims}))


def _merge() -> ModelProto:
    """K frames in N predictions each (K, N, Y, X), weighted by (1, N, 1, 1) -> (K, Y, X) counts."""
    nodes = [
        helper.make_node("Mul", ["predictions", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "over"], ["merged"], keepdims=0),
        *_counts("merged"),
    ]
    inputs = {"predictions": ("K", "N", "Y", "X"), "weights": (1, "N", 1, 1)}
    return _model(nodes, _floats(inputs | COUNTS), _floats({"counts": ("K", "Y", "X")}), over=[1])


def _cast(source: str, to: str) -> NodeProto:
    return helper.make_node("Cast", [source], [to], to=TensorProto.FLOAT)


def _as_frame(plane: str = "plane") -> list[NodeProto]:
    return [helper.make_node("Unsqueeze", [plane, "axis"], ["counts"])]


def _bytes() -> list[NodeProto]:
    """TensorRT has no 16-bit integers (engines sheet 4): a frame comes as its bytes, the low one first."""
    return [_cast("raw", "bytes"), helper.make_node("Split", ["bytes"], ["low_1", "high_1"], axis=3, num_outputs=2)] + [
        helper.make_node("Transpose", [f"{part}_1"], [part], perm=[0, 3, 1, 2]) for part in ("low", "high")
    ]


def _signed() -> list[NodeProto]:
    """A high byte of 128 and more is negative."""
    return [
        helper.make_node("GreaterOrEqual", ["high", "half"], ["is_negative"]),
        _cast("is_negative", "negative"),
        helper.make_node("Mul", ["negative", "base"], ["turn"]),
        helper.make_node("Sub", ["high", "turn"], ["signed"]),
        *_joined("signed"),
    ]


def _joined(high: str) -> list[NodeProto]:
    return [helper.make_node("Mul", [high, "base"], ["upper"]), helper.make_node("Add", ["low", "upper"], ["counts"])]


def _counts(normalised: str) -> list[NodeProto]:
    return [
        helper.make_node("Mul", [normalised, "scale"], ["spread"]),
        helper.make_node("Add", ["spread", "offset"], ["counts"]),
    ]


def _floats(inputs: Mapping[str, Dims]) -> list[object]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims)) for name, dims in inputs.items()]


def _model(nodes: list[NodeProto], inputs: list[object], outputs: list[object], **axes: list[int]) -> ModelProto:
    constants = [
        helper.make_tensor("base", TensorProto.FLOAT, [1], [256.0]),
        helper.make_tensor("half", TensorProto.FLOAT, [1], [128.0]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        *(helper.make_tensor(name, TensorProto.INT64, [len(axis)], axis) for name, axis in axes.items()),
    ]
    used = {name for node in nodes for name in node.input}
    kept = [constant for constant in constants if constant.name in used]
    graph = helper.make_graph(nodes, "rtdenoise", inputs, outputs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="rtdenoise")
    model.ir_version = IR_VERSION
    checker.check_model(model, full_check=True)
    return model


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in graphs().items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
