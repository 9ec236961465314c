"""The process that reads the shared ring, denoises and publishes. It may die at any time: acquisition never notices."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path

from rtdenoise import background
from rtdenoise.acquire import parent_lives
from rtdenoise.engine.graph import one_line
from rtdenoise.engine.load import EngineFactory, factory_for
from rtdenoise.errors import EngineError, RtDenoiseError
from rtdenoise.loop import Loop
from rtdenoise.outlets import bind_after
from rtdenoise.pace import Pace, decide
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot
from rtdenoise.streams import Calibrations, Streams

TURN_POLL_S = 0.002


@dataclass(slots=True, frozen=True)
class Ready:
    """What the process says before the first frame."""

    mode: str
    hop: int
    ms_per_frame: float
    latency_frames: int
    reason: str
    backend: str
    model: str
    refused: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Place:
    """Of a denoise process among those of a run.

    number: from 1 on.  standby: another one is at work until this one is ready.  raw_only: why not to denoise.
    without: engines that failed in this run.
    """

    number: int = 1
    standby: bool = False
    raw_only: str = ""
    without: tuple[str, ...] = ()


def main(
    settings: RunSettings, ring_path: Path, wake: Semaphore, say: Connection, known: Calibrations, place: Place
) -> None:
    """Entry point of the process. `known`: calibrations of an earlier process of the run.

    Says ('trying', engine), ('ready', Ready), ('on', how many subscribers are missing), ('calibrated', (key, values)), and at its end
    ('done', None), ('left', None) where another one takes over, or ('error', type, message).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ring = SharedRing.attach(ring_path)
        if place.standby:
            with background.priority():
                loop, ready = _prepared(settings, ring, wake, say, known, place)
            say.send(("ready", ready))
            _wait_for_turn(ring, place.number)
        else:
            loop, ready = _prepared(settings, ring, wake, say, known, place)
        _serve(settings, ring, loop, ready, place, say)
    except RtDenoiseError as error:
        say.send(("error", type(error).__name__, str(error)))
    except MemoryError as error:
        say.send(("error", EngineError.__name__, f"{settings.engine.model}: {one_line(error)}"))


def _serve(settings: RunSettings, ring: SharedRing, loop: Loop, ready: Ready, place: Place, say: Connection) -> None:
    outlets = bind_after(settings, ring, ready.model, ready.backend, is_first=place.number == 1)
    try:
        missing = outlets.wait_for_return() if place.number > 1 else 0
        outlets.wait_for_subscribers(settings)
        if not place.standby:
            say.send(("ready", ready))
        say.send(("on", missing))
        is_over = loop.run(outlets)
    except BaseException:
        outlets.close()
        raise
    if is_over:
        outlets.close()
        say.send(("done", None))
    else:
        outlets.leave()
        ring.ints[Slot.LEFT] = ring.ints[Slot.LEAVE]
        say.send(("left", None))


def _wait_for_turn(ring: SharedRing, number: int) -> None:
    """Until every process before this one has left its ports."""
    while ring.ints[Slot.LEFT] < number - 1:
        if not parent_lives():
            raise EngineError("the run ended while a model was being changed")
        time.sleep(TURN_POLL_S)


def _prepared(
    settings: RunSettings, ring: SharedRing, wake: Semaphore, say: Connection, known: Calibrations, place: Place
) -> tuple[Loop, Ready]:
    """The loop with its engine open and warm. Raises what the engine cannot do."""
    if place.raw_only:
        ready = Ready("raw only", 0, 0.0, 0, place.raw_only, "", settings.engine.model, ())
        return Loop(settings, ring, None, wake, place.number), ready
    wanted = settings.engine
    factory = factory_for(wanted, ring.info.shape, place.without, lambda name: say.send(("trying", name)))
    factory, pace = _paced(settings, ring, factory, beside=place.standby)
    ready = _ready(factory, pace)
    if not pace.hop:
        if place.standby:
            raise EngineError(pace.reason)
        return Loop(settings, ring, None, wake, place.number), ready
    streams = Streams(wanted, ring, factory, known, lambda key, values: say.send(("calibrated", (key, values))))
    loop = Loop(settings, ring, streams, wake, place.number)
    if place.standby:
        loop.warm()
    return loop, ready


def _paced(
    settings: RunSettings, ring: SharedRing, factory: EngineFactory, *, beside: bool
) -> tuple[EngineFactory, Pace]:
    """The factory of the engine that opened, at the hop at which it keeps up."""
    info = ring.info
    interval = info.frame_interval_s if info.live and not settings.lossless else None
    n_streams, fixed_hop = info.channels * info.planes, settings.engine.hop is not None
    pace = _first_runs(factory, interval, n_streams, fixed_hop=fixed_hop, beside=beside)
    # From here on another engine is a matter for a new process: what is on the wire says which one runs.
    return factory.with_hop(max(1, pace.hop)).pinned(), pace


def _first_runs(
    factory: EngineFactory, interval_s: float | None, n_streams: int, *, fixed_hop: bool, beside: bool
) -> Pace:
    """As `decide`; an engine that fails in its first runs gives way to the next of the chain.

    Raises EngineError where there is none, or where the engine was named.
    """
    while True:
        try:
            return decide(factory, interval_s, n_streams, fixed_hop=fixed_hop, beside=beside)
        except EngineError as error:
            factory.give_up(error)
        except RtDenoiseError:
            raise
        except Exception as error:  # an engine's own exception types are not known here
            factory.give_up(EngineError(f"{factory.choice.model}: the first run failed: {one_line(error)}"))


def _ready(factory: EngineFactory, pace: Pace) -> Ready:
    with factory.make() as engine:
        facts = engine.describe()
    mode = "denoising" if pace.hop else "raw only"
    refused = (*factory.refused, *factory.notes)
    return Ready(
        mode, pace.hop, pace.ms_per_frame, pace.latency_frames, pace.reason, facts.backend, facts.model, refused
    )
