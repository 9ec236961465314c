"""The benchmarks of engines: what they count is what was counted before, and a run leaves a report that can be judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import benching
import graph_cost
import numpy as np
import peaks
import pytest
import roofline
import torch
from bench_engines import CaseReport, Report, Row, merged
from benching import EAGER, Head, in_turn, serve
from graph_cost import Layer
from published import Attention, published
from rich.console import Console

from rtdenoise import bundle as bundles
from rtdenoise.engine.ov import has_bf16, with_half_states
from rtdenoise.engine.stepped import graph_shapes
from rtdenoise.methods import base

onnx = pytest.importorskip("onnx", reason="onnx is part of the train extra")
pytest.importorskip("openvino", reason="the counter reads graphs with OpenVINO, part of the live extra")

TOOLS = Path(benching.__file__).parent
QUIET = Console(quiet=True)
SIDE = 8
KEYS = ("layerType", "runtimePrecision")


def graph_of(folder: Path, op: str, weights: tuple[int, ...], maps_in: int, **attributes: object) -> Path:
    """A graph of one node, frames (1, maps, Y, X)."""
    sizes = {"frames": ["N", maps_in, "Y", "X"], "out": None}
    taken, given = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in sizes.items())
    constant = onnx.numpy_helper.from_array(np.ones(weights, np.float32), "w")
    node = onnx.helper.make_node(op, ["frames", "w"], ["out"], **attributes)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "one", [taken], [given], [constant]),
        ir_version=10,
        opset_imports=[onnx.helper.make_opsetid("", 18)],
    )
    path = folder / "one.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("op", "weights", "maps_in", "attributes", "multiplications"),
    [
        ("Conv", (6, 4, 3, 3), 4, {"pads": [1] * 4}, SIDE**2 * 6 * 4 * 9),
        ("Conv", (6, 2, 3, 3), 4, {"pads": [1] * 4, "group": 2}, SIDE**2 * 6 * 2 * 9),
        ("Conv", (6, 4, 3, 3), 4, {"pads": [1] * 4, "strides": [2, 2]}, (SIDE // 2) ** 2 * 6 * 4 * 9),
        ("ConvTranspose", (4, 6, 2, 2), 4, {"strides": [2, 2]}, SIDE**2 * 4 * 6 * 4),
        ("ConvTranspose", (4, 3, 2, 2), 4, {"strides": [2, 2], "group": 2}, SIDE**2 * 4 * 3 * 4),
        ("MatMul", (SIDE, 5), 4, {}, 4 * SIDE * 5 * SIDE),
    ],
    ids=["plain", "grouped", "strided", "transposed", "transposed and grouped", "product"],
)
def test_multiplications_are_counted_as_they_are_done(
    op: str, weights: tuple[int, ...], maps_in: int, attributes: dict[str, object], multiplications: int, tmp_path: Path
) -> None:
    (layer,) = graph_cost.layers(graph_of(tmp_path, op, weights, maps_in, **attributes), [(1, maps_in, SIDE, SIDE)])
    assert layer.flop == 2 * multiplications


def test_every_layer_reads_its_inputs_and_weights_and_writes_its_output_once(tmp_path: Path) -> None:
    path = graph_of(tmp_path, "Conv", (6, 4, 3, 3), 4, pads=[1] * 4)
    counted = graph_cost.layers(path, [(1, 4, SIDE, SIDE)])
    assert graph_cost.megabytes(counted, 2) == 2 * (SIDE**2 * 4 + SIDE**2 * 6 + 6 * 4 * 9) / 1e6


UNSEEN = 21 * (48 + 96) * 9 + (1 + 21 + 21) * 21 * 9
"""Multiplications per pixel that UMVD spends on its centre frame, whose weight is 0; ours leaves them out."""


@pytest.mark.parametrize(
    ("method", "facts", "gflop"),
    [("fast", {"frames": 8}, 3.67), ("deepvidv2", {}, 177.6), ("umvd", {"frames": 5}, 525 - 2 * UNSEEN * 512**2 / 1e9)],
)
def test_published_networks_cost_what_was_counted_before(
    method: str, facts: dict[str, int], gflop: float, tmp_path: Path
) -> None:
    """Engines sheet 1, at 512 x 512."""
    from rtdenoise.export.to_onnx import to_onnx
    from rtdenoise.methods import base

    network = base.load(method).network(**facts).eval()
    (tmp_path / "net.onnx").write_bytes(to_onnx(network, {"frames": network.window.size}, "denoised"))
    counted = graph_cost.layers(tmp_path / "net.onnx", [(1, network.window.size, 512, 512)])
    assert graph_cost.gflop(counted) == pytest.approx(gflop, rel=2e-3)
    assert graph_cost.is_dense(counted) == (method != "fast")  # FAST has two to sixteen maps per group


def layer(bucket: str) -> Layer:
    made = {
        "attention": Layer("a", "MatMul", 1e9, 1),
        "dilated branches": Layer("a", "Convolution", 1e9, 1, 64, 2, 2),
        "small channels/groups": Layer("a", "GroupConvolution", 1e9, 1, 8, 1, 2),
        "dense 2-D": Layer("a", "Convolution", 1e9, 1, 64, 1, 2),
        "dense 3-D": Layer("a", "Convolution", 1e9, 1, 64, 1, 3),
    }[bucket]
    assert made.bucket == bucket
    return made


@pytest.mark.parametrize("bucket", ["attention", "dilated branches", "small channels/groups", "dense 2-D", "dense 3-D"])
def test_time_goes_to_the_kind_of_layer_that_took_it(bucket: str) -> None:
    profile = [("fused", "Convolution", "a,relu", 4.0), ("other", "Reorder", "", 1.0)]
    first, second = roofline.parts([layer(bucket)], profile)
    assert (first.kind, first.share, first.gflops) == (bucket, 0.8, pytest.approx(250))
    assert second.kind == ("3-D pooling/reorders" if bucket == "dense 3-D" else "reorders and copies")


@pytest.mark.parametrize(
    ("peak", "memory", "limit"),
    [(1200.0, 1e6, "compute"), (1e6, 1.2, "memory"), (1e6, 1e6, "dense 2-D 100%")],
)
def test_a_limit_is_a_peak_that_is_near_or_what_takes_the_time(peak: float, memory: float, limit: str) -> None:
    rows = {"method": "m", "side": 64, "role": "window", "engine": "openvino-bf16", "dense": True, "slowest": "x"}
    figures = {"gflop": 1.0, "mb": 1.0, "intensity": 1e3, "ms": 1.0, "gflops": 1000.0, "of_peak": 0, "of_bandwidth": 0}
    part = roofline.Part(kind="dense 2-D", share=1.0, gflops=1000.0)
    row = roofline.Row(**rows, **figures, limit="", parts=(part,))  # type: ignore[arg-type]
    assert roofline.judged(row, {"bf16": peak, "memory": memory}).limit == limit


def test_no_layer_of_a_bf16_step_is_left_in_float32() -> None:
    """States in float32 once kept every transposed convolution and pooling of the step there: 1.3 times the time."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    if not has_bf16(core):
        pytest.skip("this processor has no bf16")
    bundle = bundles.read("deepcadrt-calcium")
    assert bundle.manifest.step is not None
    model = core.read_model(str(bundle.graph("step")))
    shapes = graph_shapes(bundle.manifest.step, (32, 32))
    model.reshape({port.get_any_name(): list(size) for port, size in zip(model.inputs, shapes, strict=True)})
    compiled = core.compile_model(with_half_states(openvino, model), "CPU", peaks.settings("bf16", 1))
    found = [
        {k: str(v.astype(str)) for k, v in op.get_rt_info().items() if k in KEYS}
        for op in compiled.get_runtime_model().get_ops()
    ]
    layers = [
        facts["runtimePrecision"]
        for facts in found
        if facts["layerType"] in ("Deconvolution", "Pooling", "Convolution")
    ]
    assert len(layers) > 10
    assert set(layers) == {"bf16"}


def case_of(method: str, side: int, engine: str, ratio: float, facts: dict[str, int] | None = None) -> CaseReport:
    ones = {"worst_sd": 0.0, "rms_sd": 0.0, "peak_mb": 1.0}
    rows = [
        Row(form="window", engine=name, ms=(1, 1, 1), ratio=(r, r, r), **ones)
        for name, r in ((EAGER, 1), (engine, ratio))
    ]
    return CaseReport(head=Head(), method=method, side=side, facts=facts or {}, rounds=1, rows=tuple(rows))


@pytest.mark.parametrize(("ratio", "met"), [(5.9, False), (6.0, True)])
def test_a_goal_is_met_by_its_engine_at_its_size_alone(ratio: float, met: bool) -> None:
    report = merged(Report(), case_of("support", 512, "openvino-bf16", ratio))
    (verdict,) = report.verdicts
    assert (verdict.method, verdict.side, verdict.goal, verdict.met) == ("support", 512, 6, met)


def test_a_small_network_is_judged_by_no_goal() -> None:
    report = merged(Report(), case_of("support", 512, "openvino-bf16", 9.0, {"first": 8}))
    assert not report.verdicts


def test_a_second_run_replaces_its_own_cases_and_keeps_the_others() -> None:
    report = merged(Report(), case_of("support", 256, "openvino-bf16", 2.0))
    report = merged(report, case_of("umvd", 256, "openvino-bf16", 2.0))
    report = merged(report, case_of("support", 256, "openvino-bf16", 4.0))
    assert [case.method for case in report.cases] == ["umvd", "support"]
    assert {v.method: v.reached for v in report.verdicts} == {"umvd": 2.0, "support": 4.0}


def answering(form: str, pipe: Connection) -> None:
    if form == "dies":
        os._exit(3)
    serve(pipe, form.upper(), os.getpid)


def test_every_form_is_measured_in_a_process_of_its_own() -> None:
    greetings, answers = in_turn(answering, ("a", "b"), (), 2, QUIET)
    assert greetings == {"a": "A", "b": "B"}
    processes = {form: set(pids) for form, pids in answers.items()}
    assert len(processes["a"]) == len(processes["b"]) == 1
    assert len(processes["a"] | processes["b"] | {os.getpid()}) == 3


def test_a_worker_that_dies_is_named() -> None:
    with pytest.raises(RuntimeError, match="dies"):
        in_turn(answering, ("dies",), (), 1, QUIET)


def test_the_smallest_run_gives_a_report_with_figures(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    words = ["--methods", "sn2n", "--sizes", "64", "--rounds", "1", "--engines", "onnxruntime-cpu", "--narrow"]
    words += ["--cache", str(tmp_path / "cache"), "--json", str(out)]
    command = [sys.executable, str(TOOLS / "bench_engines.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (case,) = Report(**json.loads(out.read_text(encoding="utf-8"))).cases
    assert [row.engine for row in case.rows] == [EAGER, "onnxruntime-cpu"]
    assert all(np.isfinite([*row.ms, *row.ratio, row.worst_sd]).all() and min(row.ms) > 0 for row in case.rows)
    assert case.rows[1].worst_sd < 1e-3  # two libraries in float32


def test_the_published_form_of_a_network_gives_what_ours_gives() -> None:
    torch.manual_seed(0)
    method = base.load("ted")
    network = method.network(**method.narrow).eval()
    frames = torch.randn(1, network.window.size, 24, 32)
    with torch.inference_mode():
        ours = network(frames).clone()
        theirs = published(network)(frames)
    assert any(isinstance(module, Attention) for module in network.modules())
    assert float((ours - theirs).abs().max() / ours.std()) < 1e-5
