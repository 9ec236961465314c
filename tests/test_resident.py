"""Frames that stay on the card: the same frames come out as from host memory, and only the newest one goes up."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdenoise import machine
from rtdenoise.engine.backends import BACKENDS
from rtdenoise.engine.base import Engine
from rtdenoise.engine.card import ALIGNED
from rtdenoise.engine.load import EngineChoice, EngineFactory, open_engine
from rtdenoise.errors import EngineError, MissingExtraError
from rtdenoise.frame import Frame, FrameStamp, Pixels
from rtdenoise.normalize import Normalization, calibrate
from rtdenoise.stream import StreamingDenoiser
from tests.late_card import LateCard, LateRuntime

pytest.importorskip("onnxruntime", reason="the card made of host memory computes with it")

Frames = NDArray[np.float32]
SAME = 1e-4
"""Of the output's sd: fp32, and merging sums in another order."""
FAST, UMVD, UNET = "fast-simulated", "umvd-calcium", "deepcadrt-calcium"


def movie(n_frames: int, shape: tuple[int, int], dtype: str = "uint16", seed: int = 0) -> Pixels:
    """Counts all over the range of the type: both bytes of 16 bits, below zero, fractions."""
    noise = np.random.default_rng(seed).standard_normal((n_frames, *shape))
    middle, sd = {"uint8": (120, 30), "uint16": (40000, 5000), "int16": (-100, 900), "float32": (3.5, 0.7)}[dtype]
    return (middle + sd * noise).astype(dtype)


def stamped(movies: list[Pixels], *, gaps: bool = False) -> Iterator[Frame]:
    """Several movies as series of their own, or as one series with frames lost between them."""
    numbers = itertools.count()
    for i_series, frames in enumerate(movies):
        for k, pixels in enumerate(frames):
            lost = int(gaps and i_series > 0 and k == 0)
            number = next(numbers)
            yield Frame(pixels, FrameStamp("one" if gaps else str(i_series), number, number, 0, dropped=lost))


def streamed(engine: Engine, frames: list[Frame], ahead: int = 0, *, leased: bool = False) -> list[Frame]:
    """What comes out, copied when it comes. Each frame is overwritten after its push, as a camera's buffer is."""
    shape = frames[0].pixels.shape[:2]
    norm = calibrate([frame.pixels for frame in frames])
    lease = (lambda size: np.full(size, np.nan, np.float32)) if leased else None
    denoiser = StreamingDenoiser(engine, norm, (shape[0], shape[1]), lease, ahead)
    out = []
    for frame in frames:
        pixels = frame.pixels.copy()
        ready = denoiser.push(Frame(pixels, frame.stamp))
        out += [Frame(f.pixels.copy(), f.stamp, f.window, f.complete) for f in ready]
        pixels[...] = 99
    return out + [Frame(f.pixels.copy(), f.stamp, f.window, f.complete) for f in denoiser.flush()]


def on_card(
    model: str | Path, shape: tuple[int, int], latency: str | int = "full", hop: int = 1, card: LateCard | None = None
) -> Engine:
    choice = EngineChoice(str(model), latency=latency, hop=hop)  # type: ignore[arg-type]
    return EngineFactory(choice, shape).over(LateRuntime(card)).make()  # type: ignore[arg-type]


def assert_same(given: list[Frame], wanted: list[Frame], within: float = SAME) -> None:
    facts = [[(f.stamp, f.window, f.complete) for f in frames] for frames in (given, wanted)]
    assert facts[0] == facts[1]
    spread = np.std([f.pixels for f in wanted])
    for one, other in zip(given, wanted, strict=True):
        np.testing.assert_allclose(one.pixels, other.pixels, rtol=0, atol=within * spread)


def compare(
    model: str, frames: list[Frame], latency: str | int = "full", hop: int = 1, ahead: int = 0, *, leased: bool = False
) -> None:
    shape = (frames[0].pixels.shape[0], frames[0].pixels.shape[1])
    with open_engine(model, shape=shape, backend="onnxruntime-cpu", latency=latency, hop=hop, threads=1) as host:  # type: ignore[arg-type]
        wanted = streamed(host, frames)
    with on_card(model, shape, latency, hop) as card:
        assert_same(streamed(card, frames, ahead, leased=leased), wanted)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("model", [FAST, UMVD])
def test_frames_of_every_type_come_out_as_from_host_memory(model: str, dtype: str) -> None:
    compare(model, list(stamped([movie(14, (21, 27), dtype)])))


@pytest.mark.parametrize("gaps", [False, True], ids=["series", "gaps"])
@pytest.mark.parametrize(
    ("model", "latency", "hop"),
    [
        (FAST, "full", 1),
        (FAST, "full", 2),
        (FAST, "full", 3),
        (FAST, "full", 4),
        (FAST, "causal", 1),
        (FAST, "causal", 2),
        (UMVD, "full", 1),
        (UNET, 8, 2),
    ],
)
def test_short_and_long_series_come_out_as_from_host_memory(
    model: str, latency: str | int, hop: int, gaps: bool
) -> None:
    lengths = (3, 40) if model == UNET else (1, 9, 2, 3, 4, 12, 5)
    series = [movie(n, (9, 11) if model == UNET else (17, 19), seed=n) for n in lengths]
    compare(model, list(stamped(series, gaps=gaps)), latency, hop)


@pytest.mark.parametrize(("shape", "dtype"), [((17, 31), "int16"), ((16, 24), "uint8")], ids=str)
def test_a_network_that_carries_states_comes_out_as_from_host_memory(shape: tuple[int, int], dtype: str) -> None:
    series = [movie(n, shape, dtype, seed=n) for n in (3, 115)]
    compare(UNET, list(stamped(series)))


@pytest.mark.parametrize(("model", "hop", "latency"), [(FAST, 1, "full"), (FAST, 2, "causal"), (UNET, 8, "full")])
@pytest.mark.parametrize("leased", [False, True])
def test_the_same_frames_come_out_one_run_later_when_runs_may_be_under_way(
    model: str, hop: int, latency: str, leased: bool
) -> None:
    n_frames = 80 if model == UNET else 23
    compare(model, list(stamped([movie(n_frames, (16, 17)), movie(9, (16, 17))])), latency, hop, 1, leased=leased)


def test_a_run_that_is_under_way_holds_back_nothing_but_its_own_frames() -> None:
    with on_card(FAST, (16, 16)) as engine:
        frames = list(stamped([movie(20, (16, 16))]))
        at_once = StreamingDenoiser(engine, Normalization(0.0, 1.0), (16, 16))
        wanted = [[f.stamp.frame for f in at_once.push(frame)] for frame in frames]
        later = StreamingDenoiser(engine, Normalization(0.0, 1.0), (16, 16), ahead=1)
        given = [[f.stamp.frame for f in later.push(frame)] for frame in frames]
        assert given[4:] == wanted[3:-1]
        assert later.pending == at_once.pending + 1
        assert [f.stamp.frame for f in later.flush()] == list(range(16, 20))


@pytest.mark.parametrize(("model", "hop"), [(FAST, 1), (FAST, 2), (UNET, 8)])
def test_a_stream_that_is_reset_while_a_run_is_under_way_begins_anew(model: str, hop: int) -> None:
    shape, norm = (16, 16), Normalization(40000.0, 5000.0)
    frames = list(stamped([movie(64, shape)]))
    with on_card(model, shape, hop=hop) as engine:
        denoiser = StreamingDenoiser(engine, norm, shape, ahead=1)
        wanted = [f.pixels.copy() for frame in frames for f in denoiser.push(frame)]
        denoiser.reset()
        assert denoiser.pending == 0
        given = [f.pixels.copy() for frame in frames for f in denoiser.push(frame)]
    np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize("model", [FAST, UMVD])
def test_one_raw_frame_goes_up_for_each_that_is_pushed_and_nothing_is_allocated(model: str) -> None:
    shape, card = (32, 48), LateCard()
    frames = list(stamped([movie(60, shape)]))
    with on_card(model, shape, card=card) as engine:
        denoiser = StreamingDenoiser(engine, calibrate([frames[0].pixels]), shape)
        for frame in frames[:20]:
            list(denoiser.push(frame))
        card.uploaded.clear()
        before = len(card.allocated), card.n_pinned
        n_out = sum(1 for frame in frames[20:] for _ in denoiser.push(frame))
        assert card.uploaded == [frames[0].pixels.nbytes] * n_out == [2 * 32 * 48] * 40
        assert (len(card.allocated), card.n_pinned) == before


class IdleCard(LateCard):
    """Takes all work, does none and remembers nothing: what is left is what the host does."""

    def _put(self, work: object) -> None: ...

    def upload(self, address: int, array: Pixels) -> None: ...

    def fetch(self, array: Pixels, address: int) -> int:
        return 0

    def wait(self, ticket: int) -> None: ...


@pytest.mark.parametrize(("model", "hop"), [(FAST, 1), (FAST, 2), (UMVD, 1)])
@pytest.mark.parametrize("ahead", [0, 1])
def test_the_host_allocates_nothing_of_a_frames_size(model: str, hop: int, ahead: int) -> None:
    shape = (128, 128)
    with on_card(model, shape, hop=hop, card=IdleCard()) as engine:
        denoiser = StreamingDenoiser(engine, Normalization(100.0, 10.0), shape, ahead=ahead)
        frames = list(stamped([movie(60, shape, "uint8")]))
        n_out = sum(1 for frame in frames[:30] for _ in denoiser.push(frame))
        tracemalloc.start()
        n_out += sum(1 for frame in frames[30:] for _ in denoiser.push(frame))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert n_out >= 55
    assert peak < 128 * 128


def test_networks_are_recorded_once_and_launched_for_every_window() -> None:
    card = LateCard()
    with on_card(UMVD, (16, 16), card=card) as engine:
        denoiser = StreamingDenoiser(engine, Normalization(0.0, 1.0), (16, 16))
        before = card.launches
        n_out = sum(1 for frame in stamped([movie(30, (16, 16))]) for _ in denoiser.push(frame))
        assert card.launches - before == 30 + n_out  # one for each frame's normalisation, one for each window


def test_an_engine_on_a_card_takes_single_windows_too() -> None:
    window = movie(8, (20, 24), "float32")
    with (
        on_card(FAST, (20, 24)) as card,
        open_engine(FAST, shape=(20, 24), backend="onnxruntime-cpu", threads=1) as host,
    ):
        size, target = host.window.size, host.window.emits[0]
        for first in (0, 1):
            wanted = host.run(window[first : first + size], first, first + target, 1)
            given = card.run(window[first : first + size], first, first + target, 1)
            np.testing.assert_allclose(given, wanted, rtol=0, atol=SAME * wanted.std())
        assert card.describe().backend == "late-card"


def test_graphs_are_compiled_once_for_all_streams_and_hops() -> None:
    runtime = LateRuntime()
    factory = EngineFactory(EngineChoice(FAST), (16, 16)).over(runtime)  # type: ignore[arg-type]
    engines = [factory.make(), factory.make(), factory.with_hop(2).make()]
    assert runtime.compiled.count("model") == 1
    assert runtime.compiled.count("merge") == 2
    for engine in engines:
        engine.close()


def test_closed_engines_give_the_cards_memory_back() -> None:
    card = LateCard()
    for _ in range(3):
        with on_card(FAST, (16, 16), card=card):
            assert card.in_use > 10 * 16 * 16 * 4
        assert card.in_use == 0


def test_a_card_without_room_says_so_when_the_engine_is_opened_and_keeps_nothing() -> None:
    card = LateCard(room=64 * ALIGNED)
    with pytest.raises(EngineError, match="no room for"):
        on_card(FAST, (64, 64), card=card)
    assert card.in_use == 0


def test_work_that_cannot_be_recorded_is_queued_as_it_is() -> None:
    class Forgetful(LateCard):
        def captured(self, queue: object) -> object:
            raise EngineError("this card records nothing")

    frames = list(stamped([movie(12, (16, 16))]))
    with on_card(FAST, (16, 16)) as engine, on_card(FAST, (16, 16), card=Forgetful()) as plain:
        assert_same(streamed(plain, frames), streamed(engine, frames))


@pytest.mark.gpu
@pytest.mark.skipif(machine.cuda_driver() is None, reason="no NVIDIA driver with a card here")
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name.startswith("tensorrt") and "fp32" in name])
@pytest.mark.parametrize(("model", "hop"), [(FAST, 1), (FAST, 2), (UMVD, 1), (UNET, 8)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_a_real_card_gives_what_the_processor_gives(backend: str, model: str, hop: int, dtype: str) -> None:
    frames = list(stamped([movie(70, (61, 83), dtype), movie(5, (61, 83), dtype)]))
    with open_engine(model, shape=(61, 83), backend="onnxruntime-cpu", hop=hop, threads=1) as host:
        wanted = streamed(host, frames)
    try:
        engine = open_engine(model, shape=(61, 83), backend=backend, hop=hop)
    except (MissingExtraError, EngineError) as error:
        pytest.skip(f"{backend} cannot run here: {error}")
    with engine:
        for ahead in (0, 1):
            assert_same(streamed(engine, frames, ahead), wanted, 1e-3)
