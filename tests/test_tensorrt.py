"""TensorRT as far as a machine without a card can tell, and what a machine with one must show."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdenoise import bundle as bundles
from rtdenoise import catalogue, machine
from rtdenoise.bundle import DEMO
from rtdenoise.engine import trt
from rtdenoise.engine.backends import BACKENDS, chain, open_runtime
from rtdenoise.engine.cuda import CudaDevice
from rtdenoise.engine.load import EngineChoice, EngineFactory, open_engine
from rtdenoise.engine.ort import OrtRuntime, free_sizes
from rtdenoise.engine.plans import PlanCache
from rtdenoise.engine.trt import StagedGraph, TrtRuntime
from rtdenoise.engine.trt_build import build_plan
from rtdenoise.errors import BundleError, EngineError, MissingExtraError
from tests.host_cuda import HostCuda
from tests.late_card import LateCard, LateRuntime

ON_A_CARD = [name for name, backend in BACKENDS.items() if backend.gpu]
MODELS = catalogue.registered()["bundles"]
DRIVER = 13010
HAS_DRIVER = machine.cuda_driver() is not None
SHAPE = (64, 88)
TOLERANCE = {"fp32": 1e-3, "fp16": 6e-2, "bf16": 2e-1, "int8": 5e-1}
"""Largest difference from ONNX Runtime on the CPU in sd of its output: fp32 sums in another order; fp16 as in the portable
target; bf16 keeps three bits less than fp16; int8 has 256 values."""

Frames = NDArray[np.float32]
needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed: it has no wheel for this system"
)
needs_card = pytest.mark.skipif(not HAS_DRIVER, reason="no NVIDIA driver with a card here")
without_card = pytest.mark.skipif(HAS_DRIVER, reason="there is a card here, which the tests marked gpu use")


@pytest.fixture
def pretended_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is decided by the driver's version goes on as if there were one; the card itself is memory of the host."""
    monkeypatch.setattr(machine, "cuda_driver", lambda: DRIVER)
    monkeypatch.setattr(trt, "CudaDevice", lambda: CudaDevice(HostCuda()))
    monkeypatch.setenv("RTDENOISE_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", ON_A_CARD)
def test_without_a_driver_every_engine_of_a_card_says_so_before_its_library_is_touched(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cuda_driver", lambda: None)
    monkeypatch.setattr(trt, "library", lambda module: pytest.fail(f"{module} was loaded"))
    with pytest.raises(EngineError) as refused:
        open_runtime(name)
    assert str(refused.value) == "no NVIDIA driver with a card here; use --engine auto, or install the driver"


def test_a_live_process_loads_no_library_of_a_card_before_one_is_opened() -> None:
    program = "import sys, rtdenoise.engine.load; print([m for m in sys.modules if m.startswith(('tensorrt', 'cuda', 'filelock'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=120)
    assert done.stdout.strip() == b"[]"


@pytest.mark.parametrize(("module", "package"), [("tensorrt", "tensorrt-cu13"), ("tensorrt_rtx", "'rtdenoise[gpu]'")])
def test_a_library_that_is_not_installed_comes_with_its_install_line(
    module: trt.Module, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cuda_driver", lambda: DRIVER)
    monkeypatch.setattr("rtdenoise.engine.trt_build.find_spec", lambda name: None)
    with pytest.raises(
        (EngineError, MissingExtraError), match=f"is not installed; run: pip install {package}".replace("[", r"\[")
    ):
        TrtRuntime(module, "fp32")


def test_auto_tries_the_engines_of_a_card_first_and_only_those_whose_graphs_a_bundle_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = bundles.read(DEMO)
    plain = bundles.Bundle(bundle.path, bundle.manifest.model_copy(update={"variants": {}, "engine": ""}))
    half = {"fp16": {"window": "half.onnx"}, "qdq": {"window": "quantised.onnx"}}
    both = bundles.Bundle(bundle.path, plain.manifest.model_copy(update={"variants": half}))
    monkeypatch.setattr(machine, "cuda_driver", lambda: None)
    on_cpu = chain(plain)
    assert not any(BACKENDS[name].gpu for name in on_cpu)
    monkeypatch.setattr(machine, "cuda_driver", lambda: DRIVER)
    assert chain(plain) == ["tensorrt-fp32", "tensorrt-rtx-fp32", "onnxruntime-cuda", *on_cpu]
    assert chain(both) == ["tensorrt-fp16", "tensorrt-rtx-fp16", *chain(plain)]


@needs_rtx
@pytest.mark.parametrize("capability", ["7.5", "8.9", "12.0", None])
def test_a_plan_is_built_for_a_card_that_is_not_here(capability: str | None) -> None:
    bundle = bundles.read(DEMO)
    build = [build_plan("tensorrt_rtx", bundle.graph("window"), ((1, 4, *SHAPE),), capability) for _ in range(2)]
    assert build[0] == build[1]
    assert len(build[0]) > bundle.graph("window").stat().st_size / 2


@needs_rtx
def test_a_graph_is_built_alike_from_its_bytes_and_from_its_file() -> None:
    path = bundles.read(DEMO).graph("window")
    plans = [build_plan("tensorrt_rtx", graph, ((1, 4, *SHAPE),), "8.6") for graph in (path, path.read_bytes())]
    assert plans[0] == plans[1]


@needs_rtx
@pytest.mark.parametrize(
    ("shapes", "capability", "reason"),
    [
        (((1, 5, 64, 88),), "8.6", r"input frames is \(1, 4, -1, -1\), which \(1, 5, 64, 88\) does not fit"),
        (((1, 4, 64, 88), (1, 4)), "8.6", "it takes 1 inputs, shapes were given for 2"),
        (((1, 4, 1, 1),), "8.6", "tensorrt_rtx cannot build it: "),
        (((1, 4, 64, 88),), "6.1", "names no compute capability 6.1, only 7.5, 8.0, 8.6, "),
    ],
)
def test_what_cannot_be_built_is_one_line(shapes: trt.Shapes, capability: str, reason: str) -> None:
    with pytest.raises(EngineError, match=reason) as refused:
        build_plan("tensorrt_rtx", bundles.read(DEMO).graph("window"), shapes, capability)
    assert "\n" not in str(refused.value)


@needs_rtx
def test_a_file_that_is_no_graph_is_one_line_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(EngineError, match=r"model\.onnx: cannot be read"):
        build_plan("tensorrt_rtx", path, ((1, 4, *SHAPE),), "8.6")
    path.write_bytes(b"not a graph")
    with pytest.raises(EngineError, match=r"model\.onnx: tensorrt_rtx cannot read it: [^\n]+$"):
        build_plan("tensorrt_rtx", path, ((1, 4, *SHAPE),), "8.6")


@needs_rtx
@without_card
def test_a_card_that_refuses_its_plan_is_one_line_and_the_plan_is_not_kept(pretended_driver: None) -> None:
    with pytest.raises(EngineError, match=r"model\.onnx: Host card does not load its plan: .*cudaError 35[^\n]*$"):
        TrtRuntime("tensorrt_rtx", "fp32").compile(bundles.read(DEMO).graph("window"), ((1, 4, *SHAPE),))
    assert not list(PlanCache().folder.glob("*.plan"))


@needs_rtx
@without_card
def test_where_the_card_s_engines_fail_auto_goes_on_with_the_processor(pretended_driver: None) -> None:
    pytest.importorskip("onnxruntime", reason="the processor's engine that every machine has is not installed")
    factory = EngineFactory(EngineChoice(DEMO, threads=1), SHAPE)
    with factory.make() as engine:
        assert not BACKENDS[engine.describe().backend].gpu
    refused = "\n".join(factory.refused)
    assert "tensorrt-fp32: tensorrt is not installed; run: pip install tensorrt-cu13" in refused
    assert "tensorrt-rtx-fp32: " in refused
    assert "does not load its plan" in refused


def test_onnx_runtime_without_cuda_is_one_line_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this is onnxruntime-gpu")
    monkeypatch.setattr(machine, "cuda_driver", lambda: DRIVER)
    with pytest.raises(
        EngineError, match=r"built for the CPU alone: pip uninstall onnxruntime, then pip install 'rtdenoise\[gpu\]'"
    ):
        OrtRuntime(1, "cuda")


@pytest.mark.parametrize("role", ["window", "newest", "older"])
def test_onnx_runtime_is_told_every_size_so_that_none_is_computed_beside_the_card(role: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx = pytest.importorskip("onnx", reason="the optimised graph is read with onnx, of the train extra")
    path = bundles.read(DEMO).graph(role)
    shapes = {"window": ((1, 4, *SHAPE),), "older": ((1, 2, *SHAPE),), "newest": ((1, 2, *SHAPE), (1, 4, *SHAPE))}[role]
    sizes = free_sizes(onnxruntime, path, shapes)
    assert sizes == {"Y": 64, "X": 88}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    for size, n in sizes.items():
        options.add_free_dimension_override_by_name(size, n)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    left = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "Shape" in {node.op_type for node in onnx.load(path).graph.node}
    assert not left & {"Shape", "Gather", "Concat", "Cast"}


def test_arrays_of_the_host_go_through_a_card_and_back_without_new_memory() -> None:
    pytest.importorskip("onnxruntime", reason="the stand-in card runs graphs with it")
    card, bundle = LateCard(), bundles.read(DEMO)
    frames = np.random.default_rng(0).standard_normal((3, 1, 4, *SHAPE), np.float32)
    shapes = (frames[0].shape,)
    graph = StagedGraph(card, LateRuntime(card).compile_on_device(bundle.graph("window"), shapes), shapes, shapes)
    wanted, out = np.empty(shapes[0], np.float32), np.empty(shapes[0], np.float32)
    plain = open_runtime("onnxruntime-cpu", 1).compile(bundle.graph("window"), shapes)
    taken = (len(card.allocated), card.n_pinned)
    for window in frames:
        graph.run((window,), out)
        plain.run((window,), wanted)
        np.testing.assert_array_equal(out, wanted)
    assert (len(card.allocated), card.n_pinned) == taken
    del graph
    gc.collect()
    assert card.in_use == 0


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ON_A_CARD)
def test_every_shipped_model_gives_on_the_card_what_it_gives_on_the_processor(
    name: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTDENOISE_CACHE", str(tmp_path))
    if find_spec(name.rpartition("-")[0].replace("-", "_")) is None:
        pytest.skip(f"the library of {name} is not installed")
    wanted = denoised(model, "onnxruntime-cpu")
    try:
        out = denoised(model, name)
    except (MissingExtraError, BundleError) as error:
        pytest.skip(str(error))
    precision = name.rpartition("-")[2]
    assert np.abs(out - wanted).max() <= TOLERANCE.get(precision, TOLERANCE["fp32"]) * wanted.std()


@pytest.mark.gpu
@needs_card
@needs_rtx
@pytest.mark.parametrize("shape", [(64, 64), (33, 47), (8, 9), (250, 202)], ids=str)
def test_odd_sizes_run_on_the_card(shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTDENOISE_CACHE", str(tmp_path))
    np.testing.assert_allclose(
        denoised(DEMO, "tensorrt-rtx-fp32", shape), denoised(DEMO, "onnxruntime-cpu", shape), atol=1e-3, rtol=0
    )


@pytest.mark.gpu
@needs_card
@needs_rtx
def test_a_plan_of_the_card_is_read_the_second_time_and_gives_the_same_bits(tmp_path: Path) -> None:
    cache, path, shapes = PlanCache(tmp_path), bundles.read(DEMO).graph("window"), ((1, 4, *SHAPE),)
    frames = np.random.default_rng(0).standard_normal(shapes[0], np.float32)
    outs = []
    for n_notes in (1, 0):
        runtime, out = TrtRuntime("tensorrt_rtx", "fp32", cache=cache), np.empty(shapes[0], np.float32)
        runtime.compile(path, shapes).run((frames,), out)
        assert len(runtime.notes) == n_notes
        outs.append(out)
    np.testing.assert_array_equal(*outs)
    assert list(tmp_path.glob("*.jit")), "the kernels that were compiled for this card are kept"


@pytest.mark.gpu
@needs_card
@needs_rtx
def test_a_thousand_loads_leave_the_card_s_memory_as_it_was(tmp_path: Path) -> None:
    from cuda.bindings import runtime as cuda

    cache, path, shapes = PlanCache(tmp_path), bundles.read(DEMO).graph("window"), ((1, 4, *SHAPE),)

    def cycle() -> int:
        TrtRuntime("tensorrt_rtx", "fp32", cache=cache).compile(path, shapes)
        gc.collect()
        _, free, _ = cuda.cudaMemGetInfo()
        return int(free)

    before = [cycle() for _ in range(20)][-1]
    after = [cycle() for _ in range(980)][-1]
    assert before - after < 32 << 20, "MiB of memory that never came back"


def denoised(model: str, backend: str, shape: tuple[int, int] = SHAPE) -> Frames:
    """The first full window's output."""
    with open_engine(model, shape=shape, backend=backend, threads=2) as engine:
        size, target = engine.window.size, engine.window.emits[0]
        frames = np.random.default_rng(0).standard_normal((size, *shape), np.float32)
        return engine.run(frames, 0, target, len(engine.window.emits)).copy()
