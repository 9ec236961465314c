"""Plans kept on disk: made once, checked whenever they are read, and never in the way of a stream."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rtdenoise import bundle as bundles
from rtdenoise.bundle import DEMO
from rtdenoise.engine.plans import PlanCache, PlanKey, default_folder, graph_hash
from rtdenoise.engine.trt_build import build_plan
from tests import plan_child

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: it has no wheel for this system")
pytest.importorskip("filelock", reason="filelock is not installed: it comes with rtdenoise[gpu]")

GRAPH = bundles.read(DEMO).graph("window")
KEY = PlanKey(
    graph=graph_hash(GRAPH),
    shapes=((1, 4, 40, 48),),
    precision="fp32",
    backend="tensorrt-rtx",
    version="1.7.1.116",
    gpu="NVIDIA RTX A4000",
    compute_capability="8.6",
    driver=13010,
)
OTHERS = {
    "graph": "0" * 64,
    "shapes": ((1, 4, 40, 56),),
    "precision": "fp16",
    "backend": "tensorrt",
    "version": "1.8.0.0",
    "gpu": "NVIDIA RTX A5000",
    "compute_capability": "8.9",
    "driver": 13020,
    "system": "Plan 9",
}


@pytest.fixture(scope="module")
def plan() -> bytes:
    """A real one."""
    return build_plan("tensorrt_rtx", GRAPH, KEY.shapes, KEY.compute_capability)


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


def never() -> bytes:
    pytest.fail("there was no need to build")


def test_a_plan_is_built_once_and_then_read(cache: PlanCache, plan: bytes) -> None:
    first = cache.fetch(KEY, lambda: plan)
    assert first.note == "no tensorrt-rtx plan for 1x4x40x48 yet; built anew"
    again = PlanCache(cache.folder).fetch(KEY, never)
    assert (again.content, again.note) == (plan, "")


def test_the_first_line_of_a_kept_plan_says_what_it_is_for(cache: PlanCache, plan: bytes) -> None:
    cache.fetch(KEY, lambda: plan)
    header = json.loads(cache.path(KEY).read_bytes().partition(b"\n")[0])
    assert header["key"]["gpu"] == "NVIDIA RTX A4000"
    assert header["key"]["shapes"] == [[1, 4, 40, 48]]
    assert header["bytes"] == len(plan)


@pytest.mark.parametrize("part", OTHERS)
def test_everything_that_a_plan_depends_on_asks_for_another(cache: PlanCache, part: str) -> None:
    cache.fetch(KEY, lambda: b"for one")
    other = replace(KEY, **{part: OTHERS[part]})
    assert cache.fetch(other, lambda: b"for another").content == b"for another"
    assert cache.fetch(KEY, never).content == b"for one"


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("driver", "made for driver 13020, not 13010"),
        ("version", "made for version 1.8.0.0, not 1.7.1.116"),
        ("gpu", "made for gpu NVIDIA RTX A5000, not NVIDIA RTX A4000"),
    ],
)
def test_what_has_changed_since_the_last_plan_is_said(cache: PlanCache, plan: bytes, part: str, reason: str) -> None:
    cache.fetch(replace(KEY, **{part: OTHERS[part]}), lambda: b"stale")
    assert cache.fetch(KEY, lambda: plan).note == f"the plan that is kept was {reason}; built anew"


def test_a_plan_under_another_s_name_is_refused_and_made_anew(cache: PlanCache, plan: bytes) -> None:
    other = replace(KEY, compute_capability="8.9")
    cache.fetch(other, lambda: b"another card's")
    cache.path(other).rename(cache.path(KEY))
    assert_made_anew(cache, plan, "made for compute capability 8.9, not 8.6")


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda whole: whole[:-100], "truncated, "),
    "one byte flipped": (lambda whole: whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:], "damaged, its checksum"),
    "longer": (lambda whole: whole + b"more", "too long, "),
    "cut in its first line": (lambda whole: whole[:50], "not a plan that rtdenoise wrote"),
    "foreign": (lambda whole: whole.partition(b"\n")[2], "not a plan that rtdenoise wrote"),
    "another JSON": (lambda whole: b"[1, 2]\n" + whole, "not a plan that rtdenoise wrote"),
    "empty": (lambda whole: b"", "not a plan that rtdenoise wrote"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_plan_is_refused_with_its_reason_and_made_anew(cache: PlanCache, plan: bytes, how: str) -> None:
    damage, reason = DAMAGE[how]
    cache.fetch(KEY, lambda: plan)
    path = cache.path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    assert_made_anew(cache, plan, reason)


def assert_made_anew(cache: PlanCache, plan: bytes, reason: str) -> None:
    made = cache.fetch(KEY, lambda: plan)
    assert made.content == plan
    assert made.note.startswith(f"{cache.path(KEY).name}: {reason}")
    assert "\n" not in made.note
    assert cache.fetch(KEY, never).content == plan


def test_a_plan_that_the_library_refused_is_forgotten(cache: PlanCache, plan: bytes) -> None:
    cache.fetch(KEY, lambda: b"refused")
    cache.discard(KEY)
    assert cache.fetch(KEY, lambda: plan).content == plan


def test_two_processes_make_one_build(tmp_path: Path, plan: bytes) -> None:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Event(), spawn.Event()
    pairs = [(here, there), (there, here)]
    children = [spawn.Process(target=plan_child.fetch, args=(tmp_path, GRAPH, KEY, *pair)) for pair in pairs]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0]
    assert (tmp_path / plan_child.BUILDS).read_text(encoding="utf-8") == "built\n"
    assert (tmp_path / "no.answer").read_bytes() == (tmp_path / "read.answer").read_bytes() == plan


def test_a_killed_build_leaves_nothing_that_stops_the_next(cache: PlanCache, plan: bytes) -> None:
    spawn = multiprocessing.get_context("spawn")
    building = spawn.Event()
    child = spawn.Process(target=plan_child.begin_and_never_end, args=(cache.folder, KEY, building))
    child.start()
    assert building.wait(60)
    child.kill()
    child.join(60)
    half = cache.path(KEY).with_name(cache.path(KEY).name + ".part")
    half.write_bytes(b"what a writer had written when it was killed")
    assert cache.fetch(KEY, lambda: plan).content == plan
    assert {path.suffix for path in cache.folder.iterdir()} <= {".plan", ".lock"}
    assert cache.fetch(KEY, never).content == plan


def test_a_build_that_fails_keeps_nothing_and_may_be_tried_again(cache: PlanCache, plan: bytes) -> None:
    def fails() -> bytes:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        cache.fetch(KEY, fails)
    assert not list(cache.folder.glob("*.plan*"))
    assert cache.fetch(KEY, lambda: plan).content == plan


def test_the_plans_not_used_for_longest_make_room(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path, most_bytes=3600)  # three of a thousand bytes with their headers, not four
    keys = [replace(KEY, driver=13000 + i) for i in range(4)]
    for age, key in zip((30, 20, 10), keys, strict=False):
        cache.fetch(key, lambda: bytes(800))
        seconds = cache.path(key).stat().st_mtime - age
        os.utime(cache.path(key), (seconds, seconds))
    cache.fetch(keys[0], never)  # the oldest, but used just now
    cache.fetch(keys[3], lambda: bytes(800))
    assert [cache.path(key).exists() for key in keys] == [True, False, True, True]


def test_a_plan_larger_than_the_bound_is_kept_alone(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path, most_bytes=1000)
    cache.fetch(KEY, lambda: bytes(500))
    large = replace(KEY, driver=1)
    cache.fetch(large, lambda: bytes(5000))
    assert cache.fetch(large, never).content == bytes(5000)
    assert not cache.path(KEY).exists()


def test_where_nothing_can_be_kept_the_plan_is_built_all_the_same(tmp_path: Path, plan: bytes) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    made = PlanCache(tmp_path / "file" / "plans").fetch(KEY, lambda: plan)
    assert made.content == plan
    assert "built anew; it cannot be kept: " in made.note


def test_what_saves_time_is_kept_beside_the_plan_and_dropped_when_damaged(cache: PlanCache) -> None:
    assert cache.read(KEY, "jit") == b""
    cache.write(KEY, "jit", b"kernels")
    assert cache.read(KEY, "jit") == b"kernels"
    path = cache.path(KEY, "jit")
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.read(KEY, "jit") == b""


def test_weights_beside_a_graph_belong_to_it(tmp_path: Path) -> None:
    graph, weights = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    graph.write_bytes(b"graph")
    alone = graph_hash(graph)
    weights.write_bytes(b"weights")
    assert len({alone, first := graph_hash(graph)}) == 2
    weights.write_bytes(b"others!")
    assert graph_hash(graph) not in {alone, first}


def test_the_folder_is_the_one_named_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTDENOISE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "plans"
    assert PlanCache().folder == tmp_path / "plans"
    monkeypatch.delenv("RTDENOISE_CACHE")
    assert default_folder().parts[-2:] == ("rtdenoise", "plans")
