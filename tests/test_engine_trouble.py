"""Engines that cannot be built, run out of memory, break in the middle or are killed: one clear line, and the stream goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle, GraphKind, Manifest, NormalizationFacts, WindowFacts
from rtdenoise.engine.backends import open_runtime
from rtdenoise.engine.load import EngineChoice, EngineFactory, open_engine
from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.fallback import MAX_RESTARTS, Fallback
from rtdenoise.session import Session
from rtdenoise.status import AnyStatus, StartMessage, StatusMessage
from rtdenoise.subscribe import StatusSubscriber
from rtdenoise.summary import Summary
from rtdenoise.wire import Message
from tests.runs import Listener, numbered, settings

LEAK_BYTES = {"onnxruntime-cpu": 4 << 20, "openvino-fp32": 8 << 20}
"""Growth of a process's own memory that counts as none, once what is free was given back. An engine that stayed would hold 0.13 MB
with ONNX Runtime and 0.67 MB with OpenVINO, measured at 16 x 16: 100 MB and 16 MB here."""
LIMIT = 100.0
"""Normalised counts from which on the graph below cannot be run by ONNX Runtime."""
ENGINES = ("onnxruntime-cpu", "openvino-fp32")


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


@pytest.fixture
def fragile(tmp_path: Path) -> Bundle:
    """A model that was measured to be fastest with the engine that will fail."""
    usable(*ENGINES)
    return bundle(tmp_path / "fragile", graph(), "onnxruntime-cpu")


def usable(*names: str) -> None:
    """A skip where this machine does not have one of these engines."""
    for name in names:
        try:
            open_runtime(name, 1)
        except (MissingExtraError, EngineError) as error:
            pytest.skip(f"{name} cannot run here: {error}")


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


def test_an_engine_that_failed_is_left_out_by_name(fragile: Bundle) -> None:
    factory = EngineFactory(EngineChoice(str(fragile.path), threads=1, without=("onnxruntime-cpu",)), (16, 16))
    with factory.make() as engine:
        assert engine.describe().backend.startswith("openvino")
    assert factory.refused[0] == "onnxruntime-cpu: it failed in this run"


def test_an_engine_is_restarted_once_and_then_left_out_while_there_is_another() -> None:
    fallback = Fallback(replaceable=True)
    assert fallback.after("fast").says == "restart with fast"
    assert not fallback.without
    assert fallback.after("fast").says == "going on without fast"
    assert fallback.after("slow").says == "restart with slow"
    assert fallback.after("slow").says == "going on without slow"
    assert fallback.without == ("fast", "slow")
    assert not fallback.given_up


@pytest.mark.parametrize(("replaceable", "engine"), [(False, "fast"), (True, "")], ids=["named", "before any engine"])
def test_what_no_other_engine_can_replace_is_restarted_three_times_and_then_given_up(
    replaceable: bool, engine: str
) -> None:
    fallback = Fallback(replaceable)
    assert [fallback.after(engine).raw_only for _ in range(MAX_RESTARTS)] == [False] * MAX_RESTARTS
    assert fallback.after(engine).raw_only
    assert fallback.after("another").raw_only
    assert fallback.without == ()


def bound(message: Message) -> tuple[int, str]:
    return message.frame.stamp.src_frame, message.facts.backend


BRIGHTER = {"mode": "counter", "shape": [32, 48], "fps": 200.0}
"""Frame k holds k counts and more: soon above LIMIT of what the first frames were calibrated to."""


def run_until(session: Session, status: StatusSubscriber, done: Callable[[list[AnyStatus]], bool]) -> Summary:
    """Run until `done` with what the status has said, then stop and let the run end in order."""
    told: list[AnyStatus] = []
    deadline = time.monotonic() + 60
    while not done(told):
        assert session.poll(), "the run ended too early"
        assert time.monotonic() < deadline, "it never happened"
        if (message := status.read(0.02)) is not None:
            told.append(message)
    session.stop()
    return session.run()


def test_an_engine_that_breaks_in_the_middle_is_replaced_by_the_next_and_the_wire_says_so(fragile: Bundle) -> None:
    news: list[str] = []
    asked = settings("synthetic", BRIGHTER, engine={"model": str(fragile.path), "threads": 1}, ring_s=8.0)
    denoised = Listener(asked.endpoints.denoised, "denoised", bound)

    def replaced(told: list[AnyStatus]) -> bool:
        """Everybody was told, and frames of the next engine have arrived."""
        says = [m for m in told if isinstance(m, StatusMessage)]
        starts = [m.engine for m in told if isinstance(m, StartMessage)]
        return (
            any("going on without onnxruntime-cpu" in m.message for m in says)
            and says[-1].engine.startswith("openvino")
            and starts[-1] == says[-1].engine
            and denoised.got[-1][1] == says[-1].engine
        )

    with StatusSubscriber(asked.endpoints.status) as status, Session(asked, news.append) as session:
        summary = run_until(session, status, replaced)
    assert (summary.error, summary.balanced, summary.in_flight, summary.restarts) == ("", True, 0, 2)
    assert set(summary.dropped) == {"denoise: engine failed"}
    assert summary.delivered > 200
    steps = [line.rpartition("; ")[2] for line in news if "failed three times" in line]
    assert steps == ["restart with onnxruntime-cpu", "going on without onnxruntime-cpu"]
    backends = list(dict.fromkeys(backend for _, backend in denoised.finish()))
    assert backends == ["onnxruntime-cpu", summary.ready.backend]


def test_an_engine_that_was_named_is_restarted_and_never_replaced(fragile: Bundle) -> None:
    news: list[str] = []
    engine = {"model": str(fragile.path), "backend": "onnxruntime-cpu", "threads": 1}
    asked = settings("synthetic", BRIGHTER, engine=engine, ring_s=8.0)
    raw = Listener(asked.endpoints.raw, "raw", numbered)
    raw_only_from: list[int] = []

    with StatusSubscriber(asked.endpoints.status) as status, Session(asked, news.append) as session:

        def raw_goes_on(_: list[AnyStatus]) -> bool:
            if session.ready is not None and session.ready.mode == "raw only" and session.ring is not None:
                raw_only_from.append(session.ring.head)
            return bool(raw_only_from) and raw.got[-1][1] > raw_only_from[0]

        summary = run_until(session, status, raw_goes_on)
    raw.finish()
    assert (summary.error, summary.balanced, summary.in_flight) == ("", True, 0)
    assert (summary.restarts, summary.ready.mode, summary.ready.backend) == (MAX_RESTARTS + 1, "raw only", "")
    assert [line.rpartition("; ")[2] for line in news if "failed three times" in line] == [
        *(f"restart {n + 1}" for n in range(MAX_RESTARTS)),
        "raw frames only from here",
    ]


def test_an_engine_that_fails_in_its_first_run_gives_way_before_the_first_frame(tmp_path: Path) -> None:
    usable(*ENGINES)
    model = bundle(tmp_path / "never", graph(limit=-1e6), "onnxruntime-cpu")
    options = {"mode": "counter", "shape": [32, 48], "fps": None, "live": False, "n_frames": 20}
    with Session(settings("synthetic", options, engine={"model": str(model.path), "threads": 1})) as session:
        summary = session.run()
    assert (summary.error, summary.restarts, summary.delivered, summary.dropped) == ("", 0, 20, {})
    assert summary.ready.backend.startswith("openvino")
    assert summary.ready.refused[0].startswith(f"onnxruntime-cpu: {model.path}: the first run failed: ")


def kill_when_trying(session: Session, engine: str, times: int) -> threading.Thread:
    """Kill the denoise process as soon as it has begun to open `engine`, so many times."""

    def killing() -> None:
        killed: set[int] = set()
        while len(killed) < times and session.ready is None:
            pid = session.denoise_pid
            if session.trying == engine and pid is not None and pid not in killed:
                killed.add(pid)
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            time.sleep(0.001)  # asks again

    thread = threading.Thread(target=killing, daemon=True)
    thread.start()
    return thread


def test_a_process_killed_while_it_builds_is_started_again_and_then_without_that_engine(fragile: Bundle) -> None:
    news: list[str] = []
    options = {"mode": "counter", "shape": [256, 256], "fps": 50.0, "n_frames": 50}
    session = Session(settings("synthetic", options, engine={"model": str(fragile.path), "threads": 1}), news.append)
    killer = kill_when_trying(session, "onnxruntime-cpu", times=2)
    with session:
        summary = session.run()
    killer.join(5)
    assert (summary.error, summary.acquired, summary.balanced, summary.restarts) == ("", 50, True, 2)
    assert all("its process ended with code" in line for line in news[:2])
    said = ["restart with onnxruntime-cpu", "going on without onnxruntime-cpu"]
    assert [line.rpartition("; ")[2] for line in news[:2]] == said
    assert summary.ready.backend.startswith("openvino")
