"""Engines that cannot be built, run out of memory or leave it behind: one clear line, and the next of the chain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rtdenoise.engine.load import EngineChoice, EngineFactory, open_engine
from rtdenoise.errors import EngineError
from tests.fragile import ENGINES, bundle, graph, usable

LEAK_BYTES = {"onnxruntime-cpu": 4 << 20, "openvino-fp32": 8 << 20}
"""Growth of a process's own memory that counts as none, once what is free was given back. An engine that stayed would hold 0.13 MB
with ONNX Runtime and 0.67 MB with OpenVINO, measured at 16 x 16: 100 MB and 16 MB here."""


def in_another_process(code: str, *arguments: str) -> str:
    """What the program prints, whose last line must be there."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"it ended with {done.returncode}: {done.stderr}"
    return done.stdout.strip()


CYCLES = """
import ctypes, sys
import numpy as np, psutil
from rtdenoise.engine.load import open_engine
model, backend, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
frames, own = np.zeros((1, 16, 16), np.float32), []
for k in range(1, n + 1):
    with open_engine(model, shape=(16, 16), backend=backend, threads=1) as engine:
        engine.run(frames, 0, 0, 1)
    if k in (n // 5, n):
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # what is free but kept goes up and down by 26 MB
        own.append(psutil.Process().memory_full_info().uss)
print(own[1] - own[0])
"""


@pytest.mark.parametrize(
    ("backend", "n"),
    [
        ("onnxruntime-cpu", 1000),
        ("openvino-fp32", 30),
        pytest.param("openvino-fp32", 1000, marks=pytest.mark.soak, id="openvino-fp32-1000, a minute"),
    ],
)
def test_engines_that_are_opened_and_closed_again_and_again_leave_no_memory_behind(
    backend: str, n: int, tmp_path: Path
) -> None:
    usable(backend)
    pytest.importorskip("psutil", reason="reads the memory of a process; part of the dev extra")
    model = bundle(tmp_path / "small", graph())
    assert int(in_another_process(CYCLES, str(model.path), backend, str(n))) < LEAK_BYTES[backend]


SCARCE = """
import resource
from rtdenoise.engine.backends import open_runtime
from rtdenoise.engine.load import EngineChoice, EngineFactory
from rtdenoise.errors import EngineError
for name in ("onnxruntime-cpu", "openvino-fp32"):  # their libraries are there already; memory runs out later
    open_runtime(name, 1)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (300 << 20),) * 2)
try:
    EngineFactory(EngineChoice("deepcadrt-calcium", threads=1), (2048, 2048)).make()
except EngineError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process can be limited, and read, on Linux only")
def test_a_model_too_large_for_the_memory_ends_in_one_line_after_every_engine_was_tried() -> None:
    usable(*ENGINES)
    said = in_another_process(SCARCE)
    assert len(said.splitlines()) == 1
    assert said.startswith("no engine can run here: ")
    for name in ENGINES:
        (reason,) = [part for part in said.split("; ") if f"{name}: " in part]
        assert "deepcadrt-calcium" in reason
        assert "not enough memory" in reason


@pytest.mark.parametrize("backend", ENGINES)
def test_a_damaged_graph_is_named_in_one_line(backend: str, tmp_path: Path) -> None:
    usable(backend)
    damaged = bundle(tmp_path / "damaged", b"this is no graph")
    with pytest.raises(EngineError) as refused:
        open_engine(damaged.path, shape=(16, 16), backend=backend)
    assert str(damaged.path / "model.onnx") in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_with_a_damaged_graph_auto_ends_with_the_reasons_of_all(tmp_path: Path) -> None:
    usable(*ENGINES)
    damaged = bundle(tmp_path / "damaged", b"this is no graph")
    with pytest.raises(EngineError, match=r"^no engine can run here: ") as refused:
        open_engine(damaged.path, shape=(16, 16))
    assert all(f"{name}: {damaged.path / 'model.onnx'}: " in str(refused.value) for name in ENGINES)


def test_when_only_the_fast_form_is_damaged_the_next_engine_runs_and_says_why(tmp_path: Path) -> None:
    usable(*ENGINES)
    half = bundle(tmp_path / "half", graph(), "openvino-int8", {"int8": {"window": "int8.xml"}})
    factory = EngineFactory(EngineChoice(str(half.path), threads=1), (16, 16))
    with factory.make() as engine:
        assert engine.describe().backend != "openvino-int8"
    assert factory.refused[0].startswith(f"openvino-int8: {half.path / 'int8.xml'}: ")
