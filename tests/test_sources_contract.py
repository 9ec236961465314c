"""What every registered source must do, whatever it is. A source that is registered and has no rig here fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from rtdenoise import config, registry
from rtdenoise.errors import ConfigError, EndOfStream, SourceError, SourceStalled
from rtdenoise.frame import Frame, StreamInfo
from rtdenoise.sources.base import Source
from tests.fake_rig import Rig
from tests.mm_rig import need_camera
from tests.runs import free_port

SHAPE = (24, 32)
FPS = 200.0


@dataclass
class Setup:
    """Settings of a source and, where frames come from outside, the program that sends them."""

    options: dict[str, Any]
    begin: Callable[[], Rig] | None = None
    rig: Rig | None = None
    opened: list[Source] = field(default_factory=list)

    def flow(self) -> None:
        if self.rig is None and self.begin is not None:
            self.rig = self.begin()
        if self.rig is not None:
            self.rig.do("run", FPS)

    def hush(self) -> None:
        if self.rig is not None:
            self.rig.do("pause")


def synthetic(_: Path, __: ExitStack) -> Setup:
    return Setup({"mode": "counter", "shape": list(SHAPE), "fps": FPS})


def replay(folder: Path, _: ExitStack) -> Setup:
    tifffile.imwrite(folder / "m.tif", np.zeros((50, *SHAPE), np.uint16), photometric="minisblack")
    return Setup({"path": str(folder / "m.tif"), "rate": FPS, "loop": True})


def camera(_: Path, __: ExitStack) -> Setup:
    need_camera()
    return Setup({"width": SHAPE[1], "height": SHAPE[0], "exposure_ms": 1000 / FPS, "buffer_mb": 16})


def plus(folder: Path, rigs: ExitStack) -> Setup:
    pytest.importorskip("pymmcore_plus", reason="pymmcore-plus is not installed (pip install 'rtdenoise[plus]')")
    return camera(folder, rigs)


def scanimage(_: Path, rigs: ExitStack) -> Setup:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    return Setup(
        {"endpoint": endpoint}, lambda: rigs.enter_context(Rig("ScanImage", endpoint=endpoint, shape=SHAPE, channels=2))
    )


def arrays(_: Path, rigs: ExitStack) -> Setup:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    return Setup({"endpoint": endpoint}, lambda: rigs.enter_context(Rig("Arrays", endpoint=endpoint, shape=SHAPE)))


def shm(folder: Path, rigs: ExitStack) -> Setup:
    path = str(folder / "scanbox.mmap")
    options = {"path": path, "order": "columns", "inverted": True}
    return Setup(options, lambda: rigs.enter_context(Rig("Scanbox", path=path, shape=SHAPE)))


def follow(folder: Path, rigs: ExitStack) -> Setup:
    path = str(folder / "series.raw")
    options = {"path": path, "height": SHAPE[0], "width": SHAPE[1]}
    return Setup(options, lambda: rigs.enter_context(Rig("RawFile", path=path, shape=SHAPE)))


RIGS: dict[str, Callable[[Path, ExitStack], Setup]] = {
    "follow": follow,
    "micromanager": camera,
    "pymmcore-plus": plus,
    "replay": replay,
    "scanimage": scanimage,
    "shm": shm,
    "synthetic": synthetic,
    "zmq": arrays,
}


@pytest.fixture(params=registry.names(registry.SOURCES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def setup(name: str, tmp_path: Path) -> Iterator[Setup]:
    with ExitStack() as rigs:
        made = RIGS[name](tmp_path, rigs)
        yield made
        for source in made.opened:
            source.close()


def make(name: str, setup: Setup, **more: Any) -> Source:
    kind = registry.load(registry.SOURCES, name)
    source: Source = kind(config.build(kind.Settings, {**setup.options, **more}, name))
    setup.opened.append(source)
    return source


@contextmanager
def flowing(name: str, setup: Setup) -> Iterator[tuple[Source, StreamInfo]]:
    source = make(name, setup)
    setup.flow()
    info = source.open()
    source.start()
    yield source, info
    source.close()


def take(source: Source, n: int) -> list[Frame]:
    frames: list[Frame] = []
    deadline = time.monotonic() + 20
    while len(frames) < n:
        assert time.monotonic() < deadline, f"{len(frames)} of {n} frames in 20 s"
        frame = source.read(0.2)
        if frame is not None:
            frames.append(Frame(np.array(frame.pixels), frame.stamp))
    return frames


def read_to_the_end(source: Source) -> None:
    with suppress(EndOfStream):
        for _ in range(10_000):
            source.read(0.2)
        raise AssertionError("it does not end")


def test_constructing_it_touches_nothing_and_every_state_can_be_left(name: str, setup: Setup) -> None:
    source = make(name, setup)
    assert isinstance(source, Source)
    for _ in range(2):
        source.stop()
        source.close()
    with pytest.raises(SourceError, match="open"):
        source.start()


def test_settings_say_what_they_mean_and_refuse_what_they_do_not_know(name: str, setup: Setup) -> None:
    model = registry.load(registry.SOURCES, name).Settings
    text = model.__doc__ or ""
    unsaid = [key for key, known in model.model_fields.items() if not known.description and key not in text]
    assert not unsaid
    with pytest.raises(ConfigError, match="unknown colour; known: "):
        make(name, setup, colour="red")


def test_frames_come_once_in_order_and_every_one_is_accounted_for(name: str, setup: Setup) -> None:
    with flowing(name, setup) as (source, info):
        stamps = []
        for frame in take(source, 60):
            assert (frame.pixels.shape, str(frame.pixels.dtype)) == (info.shape, info.dtype)
            stamps.append(frame.stamp)
        stats = source.stats()
    assert [s.frame for s in stamps] == list(range(60))
    assert len({s.series for s in stamps}) == 1
    assert all(a.t_in <= b.t_in for a, b in pairwise(stamps))
    for key in {s.key for s in stamps}:
        mine = [s for s in stamps if s.key == key]
        steps = [b.src_frame - a.src_frame for a, b in pairwise(mine)]
        assert min(steps) > 0
        assert all(s.dropped <= step - 1 for s, step in zip(mine[1:], steps, strict=True))
        assert sum(step - 1 for step in steps) <= stats.dropped + stats.skipped
    assert stats.received == 60


def test_a_new_start_is_a_new_series(name: str, setup: Setup) -> None:
    with flowing(name, setup) as (source, _):
        first = take(source, 5)
        source.stop()
        read_to_the_end(source)
        source.start()
        second = take(source, 5)
    assert [f.stamp.frame for f in second] == list(range(5))
    assert first[0].stamp.series != second[0].stamp.series


def test_stop_ends_a_read_that_waits_and_a_closed_source_opens_again(name: str, setup: Setup) -> None:
    with flowing(name, setup) as (source, _):
        take(source, 3)
        setup.hush()
        ended = threading.Event()

        def read_on() -> None:
            with suppress(EndOfStream):
                while True:
                    with suppress(SourceStalled):
                        source.read(20.0)
            ended.set()

        reader = threading.Thread(target=read_on, daemon=True)
        reader.start()
        begin = time.perf_counter()
        source.stop()
        assert ended.wait(5)
        assert time.perf_counter() - begin < 1.0
        source.close()
        setup.flow()
        source.open()
        source.start()
        take(source, 3)


def test_nothing_in_time_is_none_in_time(name: str, setup: Setup) -> None:
    with flowing(name, setup) as (source, _):
        take(source, 3)
        setup.hush()
        late: list[float] = []
        for _ in range(200):
            begin = time.perf_counter()
            if source.read(0.001) is None:
                late.append(time.perf_counter() - begin)
        assert late
        assert sorted(late)[len(late) // 2] < 0.05
