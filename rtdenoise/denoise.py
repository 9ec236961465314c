"""The process that reads the shared ring, denoises and publishes. It may die at any time: acquisition never notices."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path

from rtdenoise.acquire import parent_lives
from rtdenoise.calibration import frames_needed, starting_normalization
from rtdenoise.engine.graph import one_line
from rtdenoise.engine.load import EngineFactory, factory_for
from rtdenoise.errors import EngineError, RtDenoiseError
from rtdenoise.frame import Frame
from rtdenoise.ledger import Ledger
from rtdenoise.normalize import Normalization
from rtdenoise.outlets import Outlets
from rtdenoise.pace import Pace, decide
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot, State
from rtdenoise.stream import StreamingDenoiser

WAIT_S = 0.05
Key = tuple[int, int]
Calibrations = dict[Key, tuple[float, float]]


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


def main(
    settings: RunSettings,
    ring_path: Path,
    wake: Semaphore,
    say: Connection,
    known: Calibrations,
    *,
    raw_only: str = "",
    without: tuple[str, ...] = (),
) -> None:
    """Entry point of the process. `known`: calibrations of an earlier process of the run; `raw_only`: why not to denoise;
    `without`: engines that failed in this run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ring = SharedRing.attach(ring_path)
        factory = factory_for(settings.engine, ring.info.shape, without, lambda name: say.send(("trying", name)))
        factory, ready = _prepare(settings, ring, factory, raw_only)
        with Outlets(settings, ring, ready.model, ready.backend) as outlets:
            outlets.wait_for_subscribers(settings)
            say.send(("ready", ready))
            _Loop(settings, ring, factory, ready, outlets, wake, say, known).run()
    except RtDenoiseError as error:
        say.send(("error", type(error).__name__, str(error)))
    except MemoryError as error:
        say.send(("error", EngineError.__name__, f"{settings.engine.model}: {one_line(error)}"))
    else:
        say.send(("done", None))


def _prepare(
    settings: RunSettings, ring: SharedRing, factory: EngineFactory, raw_only: str
) -> tuple[EngineFactory, Ready]:
    wanted, info = settings.engine, ring.info
    if raw_only:
        return factory, Ready("raw only", 0, 0.0, 0, raw_only, "", wanted.model, ())
    interval = info.frame_interval_s if info.live and not settings.lossless else None
    pace = _first_runs(factory, interval, info.channels * info.planes, fixed_hop=wanted.hop is not None)
    # From here on another engine is a matter for a new process: what is on the wire says which one runs.
    factory = factory.with_hop(max(1, pace.hop)).pinned()
    return factory, _ready(factory, pace)


def _first_runs(factory: EngineFactory, interval_s: float | None, n_streams: int, *, fixed_hop: bool) -> Pace:
    """As `decide`; an engine that fails in its first runs gives way to the next of the chain.

    Raises EngineError where there is none, or where the engine was named.
    """
    while True:
        try:
            return decide(factory, interval_s, n_streams, fixed_hop=fixed_hop)
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


class _Loop:
    """Reads the ring frame by frame; every frame it takes is settled once: delivered, or dropped with a reason."""

    def __init__(
        self,
        settings: RunSettings,
        ring: SharedRing,
        factory: EngineFactory,
        ready: Ready,
        outlets: Outlets,
        wake: Semaphore,
        say: Connection,
        known: Calibrations,
    ) -> None:
        self._settings, self._ring, self._factory, self._outlets = settings, ring, factory, outlets
        self._wake, self._say, self._known = wake, say, known
        self._raw_only = ready.mode == "raw only"
        self._ledger = Ledger(ring)
        self._streams: dict[Key, StreamingDenoiser] = {}
        self._waiting: dict[Key, list[int]] = {}
        self._gaps: dict[Key, int] = {}
        self._failures = 0
        self._flushed_at = -1
        self._catching_up = True
        self._may_skip = ring.info.live and not settings.lossless
        per_second = len(_keys(ring)) / ring.info.frame_interval_s if ring.info.frame_interval_s else 100.0
        self._max_backlog = max(8, round(settings.max_backlog_s * per_second))
        n_context = 0 if self._raw_only else self._window_size() * len(_keys(ring))
        self._cursor = self._ledger.resume(n_context)

    def run(self) -> None:
        """Until the source has ended and every frame is settled."""
        while parent_lives():
            if self._cursor < self._ring.head:
                self._step()
            elif self._ring.state in (State.ENDED, State.FAILED):
                break
            elif int(self._ring.ints[Slot.SERIES_END]) == self._cursor != self._flushed_at:
                self._flush()
            else:
                self._catching_up = False
                self._wake.acquire(timeout=WAIT_S)
        self._flush()
        self._ledger.give_up_rest()

    def _step(self) -> None:
        backlog = self._ring.head - self._cursor
        if self._may_skip and not self._catching_up and backlog > self._max_backlog:
            self._skip(self._ring.head - len(_keys(self._ring)), "denoise: behind")
        frame = self._ring.frame(self._cursor) if self._cursor >= self._ring.oldest else None
        if frame is None:
            self._skip(self._ring.oldest + self._ring.capacity // 16, "ring: overwritten before it was read")
            return
        self._cursor += 1
        self._ledger.take(frame.stamp.frame, self._cursor)
        t_in, now = frame.stamp.t_in, self._now(frame)
        self._ring.latency["queue"].add(now - t_in)
        if self._ledger.first_look(frame.stamp.frame):
            self._outlets.send_raw(frame, self._ledger.drops(), now)
        if self._raw_only:
            self._ring.latency["age"].add(self._now(frame) - t_in)
            self._ledger.deliver(frame.stamp.frame)
        else:
            self._feed(frame)

    def _skip(self, to: int, reason: str) -> None:
        """Give up frames before `to`; the next frame of every stream says that there is a hole before it."""
        to = min(max(to, self._cursor + 1), self._ring.head)
        for number in range(self._cursor, to):
            self._ledger.take(number, number + 1)
            self._ledger.drop(number, reason)
        keys = _keys(self._ring)
        self._gaps = dict.fromkeys(keys, max(1, (to - self._cursor) // len(keys)))
        self._cursor = to

    def _feed(self, frame: Frame) -> None:
        key = frame.stamp.key
        if key in self._streams:
            self._push(self._streams[key], frame)
            return
        waiting = self._waiting.setdefault(key, [])
        waiting.append(frame.stamp.frame)
        if key in self._known or len(waiting) >= frames_needed(self._settings.engine):
            self._begin(key)

    def _begin(self, key: Key) -> None:
        """Calibrate a stream on the frames that wait for it, then denoise them."""
        frames = [frame for n in self._waiting.pop(key) if (frame := self._ring.frame(n)) is not None]
        if not frames:
            return
        if key not in self._known:
            found = starting_normalization(self._settings.engine, [frame.pixels for frame in frames])
            self._known[key] = (found.offset, found.scale)
            self._say.send(("calibrated", (key, self._known[key])))
        normalization = Normalization(*self._known[key])
        engine = self._factory.make()
        self._streams[key] = StreamingDenoiser(engine, normalization, self._ring.info.shape, self._outlets.lease)
        for frame in frames:
            self._push(self._streams[key], frame)

    def _push(self, denoiser: StreamingDenoiser, frame: Frame) -> None:
        if gap := self._gaps.pop(frame.stamp.key, 0):
            frame = frame.restamped(dropped=frame.stamp.dropped + gap)
        begun = denoiser.begun
        self._deliver(denoiser, denoiser.push(frame), frame.stamp.key)
        if denoiser.begun and not begun:
            # A segment's first window may cost as much as a dozen later ones: what arrived meanwhile is made up for.
            # Skipping it would begin another segment, and so on for ever.
            self._catching_up = True

    def _deliver(self, denoiser: StreamingDenoiser, ready: Iterator[Frame], key: Key) -> None:
        start, publishing = time.perf_counter_ns(), 0
        try:
            for out in ready:
                publishing += self._publish(out, key)
            self._failures = 0
        except RtDenoiseError:
            raise
        except Exception as error:  # an engine's own exception types are not known here
            self._note_failure(denoiser, key, error)
        self._ring.latency["denoise"].add(time.perf_counter_ns() - start - publishing)

    def _publish(self, out: Frame, key: Key) -> int:
        number, start = out.stamp.frame, time.perf_counter_ns()
        if self._ring.is_settled(number):
            return 0
        publisher = self._outlets.denoised
        if publisher.facts.norm != (norm := _norm_id(self._known[key])):
            publisher.facts = replace(publisher.facts, norm=norm)
        t_out = start - self._ring.epoch_ns(number)
        if self._outlets.send_denoised(out, self._ledger.drops(), t_out):
            self._ring.latency["age"].add(t_out - out.stamp.t_in)
            self._ledger.deliver(number)
        took = time.perf_counter_ns() - start
        self._ring.latency["publish"].add(took)
        return took

    def _note_failure(self, denoiser: StreamingDenoiser, key: Key, error: Exception) -> None:
        """An engine that fails loses the frames of its window; one that goes on failing ends the process."""
        denoiser.reset()
        self._ledger.drop_taken("denoise: engine failed")
        self._gaps[key] = 1
        self._failures += 1
        if self._failures >= 3:
            raise EngineError(
                f"{self._settings.engine.model}: the engine failed three times in a row: {one_line(error)}"
            )

    def _flush(self) -> None:
        for key in list(self._waiting):
            self._begin(key)
        for key, denoiser in self._streams.items():
            self._deliver(denoiser, denoiser.flush(), key)
        self._flushed_at = self._cursor

    def _window_size(self) -> int:
        with self._factory.make() as engine:
            return engine.window.size + engine.window.hop

    def _now(self, frame: Frame) -> int:
        return time.perf_counter_ns() - self._ring.epoch_ns(frame.stamp.frame)


def _keys(ring: SharedRing) -> list[Key]:
    return [(channel, plane) for channel in range(ring.info.channels) for plane in range(ring.info.planes)]


@lru_cache(maxsize=64)
def _norm_id(calibration: tuple[float, float]) -> str:
    return hashlib.sha256(f"{calibration[0]:.6g} {calibration[1]:.6g}".encode()).hexdigest()[:8]
