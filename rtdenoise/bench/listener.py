"""A subscriber in a process of its own, as a viewer would be: what of a run arrives there, and when."""

from __future__ import annotations

import multiprocessing
import signal
import socket
import time
from array import array
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Self

import numpy as np

from rtdenoise.errors import WireError
from rtdenoise.settings import Endpoints, loopback
from rtdenoise.status import StartMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber

ANSWER_TIMEOUT_S = 60.0
_IDLE_S = 0.05
Percentiles = tuple[float, float, float]


@dataclass(slots=True, frozen=True)
class Heard:
    """What arrived. received, missed: messages per stream.  fps: of the denoised stream, without warm-up.

    transport_ms: denoised frame handed to the publisher -> received.  total_ms: raw frame arrived at rtdenoise -> denoised frame received.
    Both p50, p95, p99; None when no frame after the warm-up came.
    """

    received: dict[str, int]
    missed: dict[str, int]
    fps: float
    transport_ms: Percentiles | None
    total_ms: Percentiles | None


class Listener:
    """Subscribes to both streams of a run, from before its start until `finish`. Use as a context manager."""

    def __init__(self, endpoints: Endpoints, n_warmup: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_listen, args=(endpoints, n_warmup, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self._answer()

    def finish(self) -> Heard:
        """Take what is still on its way, then say what came. Call it once, after the run."""
        self._pipe.send("finish")
        heard = self._answer()
        if not isinstance(heard, Heard):
            raise WireError("the listening process gave no figures; run rtdenoise bench again")
        return heard

    def close(self) -> None:
        """End the process."""
        self.process.join(0.5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)
        self._pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _answer(self) -> object:
        try:
            if self._pipe.poll(ANSWER_TIMEOUT_S):
                return self._pipe.recv()
        except EOFError:
            pass  # said below
        raise WireError(
            f"the listening process ended or hung (code {self.process.exitcode}); run rtdenoise bench again"
        )


def free_endpoints() -> Endpoints:
    """Four loopback endpoints that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(4)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    denoised, raw, status, control = (loopback(each.getsockname()[1]) for each in sockets)
    for each in sockets:
        each.close()
    return Endpoints(denoised=denoised, raw=raw, status=status, control=control)


@dataclass(slots=True)
class _Times:
    """Ns on two clocks: t_in and t_out since the series began, arrival on perf_counter."""

    t_in: array[int] = field(default_factory=lambda: array("q"))
    t_out: array[int] = field(default_factory=lambda: array("q"))
    arrived: array[int] = field(default_factory=lambda: array("q"))


def _listen(endpoints: Endpoints, n_warmup: int, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raw, denoised = Subscriber(endpoints.raw), Subscriber(endpoints.denoised)
    status = StatusSubscriber(endpoints.status)
    times = _Times()
    pipe.send("listening")
    while True:
        some = _take(denoised, times, n_warmup, 0)
        while raw.read(0) is not None:
            some = True
        # Waiting for the denoised stream alone keeps its times exact; raw frames, which come first, are only counted.
        if not some and not _take(denoised, times, n_warmup, _IDLE_S) and pipe.poll():
            break
    heard = _heard(raw, denoised, times, _epoch_ns(status))
    for subscriber in (raw, denoised, status):
        subscriber.close()
    pipe.send(heard)


def _take(subscriber: Subscriber, times: _Times, n_warmup: int, timeout_s: float) -> bool:
    """Read what is there, waiting for the first message only. True when there was any."""
    message = subscriber.read(timeout_s)
    some = message is not None
    while message is not None:
        now, stamp = time.perf_counter_ns(), message.frame.stamp
        if stamp.frame >= n_warmup:
            times.t_in.append(stamp.t_in)
            times.t_out.append(stamp.t_out)
            times.arrived.append(now)
        message = subscriber.read(0)
    return some


def _epoch_ns(status: StatusSubscriber) -> int | None:
    """When the series began on our clock, from the announcements that have waited for us."""
    epoch = None
    while (message := status.read(0.1)) is not None:
        if isinstance(message, StartMessage):
            epoch = message.epoch_ns
    return epoch


def _heard(raw: Subscriber, denoised: Subscriber, times: _Times, epoch_ns: int | None) -> Heard:
    received = {"raw": raw.received, "denoised": denoised.received}
    missed = {"raw": raw.missed, "denoised": denoised.missed}
    arrived = np.array(times.arrived, np.int64)
    if epoch_ns is None or len(arrived) < 2:
        return Heard(received, missed, 0.0, None, None)
    fps = (len(arrived) - 1) / ((arrived[-1] - arrived[0]) / 1e9)
    transport, total = (_percentiles_ms(arrived - epoch_ns - np.array(t)) for t in (times.t_out, times.t_in))
    return Heard(received, missed, float(fps), transport, total)


def _percentiles_ms(latencies_ns: np.typing.NDArray[np.int64]) -> Percentiles:
    p50, p95, p99 = np.percentile(latencies_ns, [50, 95, 99]) / 1e6
    return float(p50), float(p95), float(p99)
