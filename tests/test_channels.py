"""Several channels and planes in one stream: each is denoised by itself, in its own order, whichever engine they share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtdenoise.engine.base import Engine, is_stateless
from rtdenoise.engine.filters import FILTERS
from rtdenoise.engine.load import open_engine
from rtdenoise.errors import EndOfStream
from rtdenoise.frame import Frame, FrameStamp, Pixels, StreamInfo
from rtdenoise.normalize import Normalization
from rtdenoise.session import Session
from rtdenoise.sources.base import SeriesClock, SourceStats
from rtdenoise.stream import StreamingDenoiser
from tests.fragile import bundle, graph, usable
from tests.mm_rig import TWO_CAMERAS, need_camera
from tests.runs import Listener, copied, run_lossless, settings

Key = tuple[int, int]
SHAPE = (24, 32)
KEYS: list[Key] = [(channel, plane) for channel in range(2) for plane in range(3)]
N_EACH = 60


def picture(key: Key, number: int) -> Pixels:
    """Every channel and plane has its own level, pattern and time course."""
    rng = np.random.default_rng([*key, number])
    return (1000 * key[0] + 300 * key[1] + 5 * number + rng.integers(0, 50, SHAPE)).astype(np.uint16)


class ManyPlanes:
    """Two channels of three planes, in another order at every time point, as cameras behind one buffer are."""

    def __init__(self) -> None:
        self.clock = SeriesClock()
        rng = np.random.default_rng(3)
        self._order = [KEYS[i] for _ in range(N_EACH) for i in rng.permutation(len(KEYS))]
        self._n_read = dict.fromkeys(KEYS, 0)
        self._next = 0

    def open(self) -> StreamInfo:
        return StreamInfo("many planes", SHAPE, "uint16", 16, channels=2, planes=3, live=False)

    def start(self) -> None:
        self.clock = SeriesClock()

    def read(self, timeout_s: float = 1.0) -> Frame | None:
        if self._next == len(self._order):
            raise EndOfStream
        key = self._order[self._next]
        number, self._n_read[key] = self._n_read[key], self._n_read[key] + 1
        t = self.clock.now_ns()
        stamp = FrameStamp(self.clock.series, self._next, number, t, t, 0, *key)
        self._next += 1
        return Frame(picture(key, number), stamp)

    def backlog(self) -> int:
        return 0

    def stats(self) -> SourceStats:
        return SourceStats(received=self._next)

    def stop(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("model", ["median", "gauss2d-ema"])
def test_every_stream_is_what_it_would_be_alone_with_engines_that_are_shared_and_engines_that_are_not(
    model: str,
) -> None:
    asked = settings("synthetic", {}, engine={"model": model})
    summary, raw, denoised = run_lossless(asked, copied, source=ManyPlanes())
    assert (summary.error, summary.delivered, summary.dropped) == ("", len(KEYS) * N_EACH, {})
    for key in KEYS:
        assert [number for k, number, _ in raw if k == key] == list(range(N_EACH))
        ours = [(number, pixels) for k, number, pixels in denoised if k == key]
        with FILTERS[model](SHAPE) as engine:
            alone = list(_denoised(engine, key))
        assert [number for number, _ in ours] == [number for number, _ in alone] == list(range(N_EACH))
        for (_, live), (_, wanted) in zip(ours, alone, strict=True):
            np.testing.assert_array_equal(live, wanted)


def _denoised(engine: Engine, key: Key) -> list[tuple[int, Pixels]]:
    denoiser = StreamingDenoiser(engine, Normalization(0.0, 1.0), SHAPE)
    frames = [Frame(picture(key, k), FrameStamp("s", k, k, 0, 0, 0, *key)) for k in range(N_EACH)]
    out = [(f.stamp.src_frame, f.pixels.copy()) for frame in frames for f in denoiser.push(frame)]
    return out + [(f.stamp.src_frame, f.pixels.copy()) for f in denoiser.flush()]


def in_turn(engines: dict[Key, Engine]) -> dict[Key, list[Pixels]]:
    """Two streams, a frame of one after a frame of the other, each through its engine."""
    denoisers = {key: StreamingDenoiser(engine, Normalization(0.0, 1.0), SHAPE) for key, engine in engines.items()}
    found: dict[Key, list[Pixels]] = {key: [] for key in engines}
    for k in range(20):
        for key, denoiser in denoisers.items():
            found[key] += [
                f.pixels.copy() for f in denoiser.push(Frame(picture(key, k), FrameStamp("s", k, k, 0, 0, 0, *key)))
            ]
    return found


def as_if_shared(one: Engine, others: tuple[Engine, Engine]) -> bool:
    """Whether one engine gives two streams in turn what an engine for each gives."""
    a, b = KEYS[0], KEYS[-1]
    shared, apart = in_turn({a: one, b: one}), in_turn({a: others[0], b: others[1]})
    return all(np.array_equal(x, y) for key in (a, b) for x, y in zip(shared[key], apart[key], strict=True))


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_says_that_streams_may_share_it_exactly_when_they_may(name: str) -> None:
    make = FILTERS[name]
    assert as_if_shared(make(SHAPE), (make(SHAPE), make(SHAPE))) == is_stateless(make(SHAPE))


def test_streams_may_share_a_network_that_looks_at_whole_windows(tmp_path: Path) -> None:
    usable("onnxruntime-cpu")
    model = str(bundle(tmp_path / "plain", graph(limit=1e9)).path)
    one, *others = (open_engine(model, shape=SHAPE, backend="onnxruntime-cpu", threads=1) for _ in range(3))
    assert is_stateless(one)
    assert as_if_shared(one, (others[0], others[1]))


def test_two_cameras_of_one_microscope_run_live_and_each_keeps_its_own_level_and_order(tmp_path: Path) -> None:
    need_camera()
    file = tmp_path / "two.cfg"
    file.write_text(TWO_CAMERAS)
    n_each = 60
    options = {"config": str(file), "exposure_ms": 10.0, "n_frames": n_each, "buffer_mb": 16}
    # A running mean per stream: were it one for both, each camera would show half of the other.
    asked = settings("micromanager", options, engine={"model": "gauss2d-ema"}, wait_for={"raw": 1, "denoised": 1})
    raw = Listener(asked.endpoints.raw, "raw", copied)
    denoised = Listener(asked.endpoints.denoised, "denoised", copied)
    with Session(asked) as session:
        assert session.ring is not None
        assert session.ring.info.channels == 2
        summary = session.run()
    assert (summary.error, summary.acquired, summary.balanced, summary.in_flight) == ("", 2 * n_each, True, 0)
    for got in (raw.finish(), denoised.finish()):
        for channel, mean in ((0, 99 + 500), (1, 99 + 2000)):
            ours = [(number, pixels) for (c, _), number, pixels in got if c == channel]
            numbers = [number for number, _ in ours]
            assert numbers == sorted(set(numbers))
            # What is missing was dropped and counted, as on any machine that is busy with other things.
            assert n_each - len(numbers) <= sum(summary.dropped.values())
            assert np.mean([pixels.mean() for _, pixels in ours]) == pytest.approx(mean, rel=0.01)
