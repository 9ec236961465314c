"""Fixtures of the Micro-Manager tests: sources that are always closed, and the same camera on both backends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mm_rig import SIZE, Bench, Opened, StandIn, need_camera, wait_for


@pytest.fixture
def opened() -> Iterator[Opened]:
    need_camera()
    sources = Opened()
    yield sources
    sources.close()


@pytest.fixture(scope="module")
def micromanager() -> Iterator[StandIn]:
    """A Micro-Manager with its server on, 64 x 48 pixels."""
    need_camera()
    with StandIn() as standin:
        yield standin


@pytest.fixture
def rig(micromanager: StandIn) -> StandIn:
    micromanager.tidy()
    return micromanager


@pytest.fixture(params=["python", "java"])
def camera(request: pytest.FixtureRequest, micromanager: StandIn, opened: Opened) -> Bench:
    if request.param == "java":
        micromanager.tidy()
    return Bench(micromanager if request.param == "java" else None, opened)


@pytest.fixture
def shared(camera: Bench) -> Bench:
    """A camera that is running because somebody else looks at it."""
    camera(start=False, **SIZE)
    camera.run()
    wait_for(lambda: camera.do("getRemainingImageCount") > 3)
    return camera
