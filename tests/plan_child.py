"""What the processes of the plan cache's tests do."""

from __future__ import annotations

from multiprocessing.synchronize import Event
from pathlib import Path

from rtdenoise.engine.plans import PlanCache, PlanKey
from rtdenoise.engine.trt_build import build_plan

BUILDS = "builds.txt"


def fetch(folder: Path, graph: Path, key: PlanKey, mine: Event, other: Event) -> None:
    """Fetch the plan, counting builds in a file; a build ends only once the other process wants the plan as well."""

    def build() -> bytes:
        assert other.wait(60)
        with (folder / BUILDS).open("a", encoding="utf-8") as builds:
            builds.write("built\n")
        return build_plan("tensorrt_rtx", graph, key.shapes, key.compute_capability)

    mine.set()
    plan = PlanCache(folder / "plans").fetch(key, build)
    (folder / f"{plan.note[:2] or 'read'}.answer").write_bytes(plan.content)


def begin_and_never_end(folder: Path, key: PlanKey, building: Event) -> None:
    """A build that only a kill ends."""

    def build() -> bytes:
        building.set()
        while True:
            building.wait()

    PlanCache(folder).fetch(key, build)
