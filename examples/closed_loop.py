"""From a cell to a trigger: a region's dF/F crosses a threshold, one line leaves this computer, and its latency is known.

    python closed_loop.py --roi 120 96 6 --high 0.5 --low 0.2 --udp 127.0.0.1:9000
    python closed_loop.py --roi 120 96 6 --pub tcp://127.0.0.1:5570

The line, on UDP or a ZeroMQ PUB socket and always on the terminal, is what a serial port would carry:

    TRIGGER 3 frame 412 dff 0.812 latency_ms 104.3

`latency_ms` is the time from the arrival of that frame in rtdenoise to the moment when the line was sent: waiting for later frames,
denoising, the wire and this program; not the camera's exposure. It is `-` on another computer than the one that runs rtdenoise, whose
clock cannot be compared. For the shortest one: `rtdenoise run --latency causal --hop 1`. At the end, and after Ctrl-C, the percentiles
of all frames and of all triggers are printed.

A trigger fires once when dF/F rises above `--high`, is armed again when it has fallen below `--low` (hysteresis), and never
fires twice within `--refractory` seconds of the microscope's time. F0 is the 8th percentile of the last `--window` frames,
and nothing fires before `--settle` of them are known.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress

import numpy as np
import zmq
from numpy.typing import NDArray

from rtdenoise.errors import RtDenoiseError
from rtdenoise.frame import Pixels
from rtdenoise.status import StartMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from rtdenoise.wire import DENOISED_ENDPOINT, STATUS_ENDPOINT

REMEMBERED = 100_000
"""Latencies kept for the percentiles at the end: an hour at 30 frames/s, 0.8 MB."""
Send = Callable[[str], object]


class Trigger:
    """Fires once per rise above `high`; armed again below `low`; not twice within `refractory_s`."""

    def __init__(self, high: float, low: float, refractory_s: float) -> None:
        if not low < high:
            raise RtDenoiseError(f"--low {low} must be below --high {high}")
        self._high, self._low, self._refractory_s = high, low, refractory_s
        self._armed = True
        self._fired_s = -np.inf

    def update(self, value: float, now_s: float) -> bool:
        """True when this value fires."""
        if value < self._low:
            self._armed = True
        if not self._armed or value < self._high or now_s - self._fired_s < self._refractory_s:
            return False
        self._armed, self._fired_s = False, now_s
        return True


class Region:
    """The mean of a disc, and its dF/F against a running percentile."""

    def __init__(self, y: int, x: int, radius: int, *, offset: float, window: int, percentile: float = 8.0) -> None:
        self._y, self._x, self._radius, self._offset = y, x, radius, offset
        self._values = np.zeros(window)
        self.n_seen = 0
        self._percentile = percentile
        self._inside: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None

    def dff(self, image: Pixels) -> float:
        """dF/F of this frame, which becomes part of the baseline; 0 while the baseline is not above 0."""
        if self._inside is None:
            self._inside = self._disc(image.shape)
        value = float(image[self._inside].mean()) - self._offset
        self._values[self.n_seen % len(self._values)] = value
        self.n_seen += 1
        f0 = float(np.percentile(self._values[: self.n_seen], self._percentile))
        return (value - f0) / f0 if f0 > 0 else 0.0

    def _disc(self, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        inside = (rows - self._y) ** 2 + (columns - self._x) ** 2 <= self._radius**2
        if not inside.any():
            raise RtDenoiseError(
                f"--roi {self._y} {self._x} {self._radius} is outside of frames of {shape[0]} x {shape[1]}"
            )
        where_y, where_x = np.nonzero(inside)
        return where_y, where_x


class Loop:
    """Frames in, lines out, and how long that took."""

    def __init__(self, asked: argparse.Namespace, stream: Subscriber, status: StatusSubscriber, send: Send) -> None:
        y, x, radius = asked.roi
        self._region = Region(y, x, radius, offset=asked.offset, window=asked.window)
        self._trigger = Trigger(asked.high, asked.low, asked.refractory)
        self._settle = asked.settle
        self._stream, self._status, self._send = stream, status, send
        self._start: StartMessage | None = None
        self.n_triggers = 0
        self.frames_ms: deque[float] = deque(maxlen=REMEMBERED)
        self.triggers_ms: deque[float] = deque(maxlen=REMEMBERED)

    def run(self, idle_s: float | None) -> None:
        """Until after the first frame none has come for `idle_s`."""
        heard_s = None
        while idle_s is None or heard_s is None or time.monotonic() - heard_s < idle_s:
            message = self._stream.read(0.05)
            self._listen()
            if message is not None:
                heard_s = time.monotonic()
                self._decide(
                    message.frame.stamp.src_frame,
                    message.frame.pixels,
                    message.frame.stamp.t_src,
                    message.frame.stamp.t_in,
                )

    def _decide(self, number: int, pixels: Pixels, t_src: int, t_in: int) -> None:
        dff = self._region.dff(pixels)
        fired = self._trigger.update(dff, (t_src or t_in) / 1e9) if self._region.n_seen > self._settle else False
        latency_ms = self._start.age_ms(t_in) if self._start else None
        if fired:
            self.n_triggers += 1
            told = "-" if latency_ms is None else f"{latency_ms:.1f}"
            self._send(f"TRIGGER {self.n_triggers} frame {number} dff {dff:.3f} latency_ms {told}\n")
            latency_ms = self._start.age_ms(t_in) if self._start else None
            _remember(self.triggers_ms, latency_ms)
        _remember(self.frames_ms, latency_ms)

    def _listen(self) -> None:
        """The start message brings the clock of the series."""
        while (told := self._status.read(0)) is not None:
            if isinstance(told, StartMessage):
                self._start = told


def summary(what: str, latencies_ms: deque[float]) -> str:
    """Percentiles in one line."""
    if not latencies_ms:
        return f"{what}: latency not known"
    p50, p95, p99 = np.percentile(latencies_ms, (50, 95, 99))
    return (
        f"{what}: {len(latencies_ms)}, latency p50 {p50:.1f} p95 {p95:.1f} p99 {p99:.1f} max {max(latencies_ms):.1f} ms"
    )


def main() -> None:
    """Watch one region until stopped."""
    asked = arguments()
    with ExitStack() as stack:
        stream = stack.enter_context(Subscriber(asked.endpoint))
        status = stack.enter_context(StatusSubscriber(asked.status))
        loop = Loop(asked, stream, status, sink(asked, stack))
        with suppress(KeyboardInterrupt):
            loop.run(asked.idle)
    print(f"{loop.n_triggers} triggers, {stream.missed} frames never arrived")
    print(summary("frames", loop.frames_ms))
    print(summary("triggers", loop.triggers_ms), flush=True)


def sink(asked: argparse.Namespace, stack: ExitStack) -> Send:
    """Where lines go: the UDP address or PUB endpoint that was asked for first, then the terminal."""
    send: Send | None = None
    if asked.udp:
        host, _, port = asked.udp.rpartition(":")
        packets = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        packets.connect((host, int(port)))
        send = lambda line: packets.send(line.encode())  # noqa: E731 - one line per sink
    elif asked.pub:
        publisher: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind(asked.pub)
        stack.callback(publisher.close)
        send = lambda line: publisher.send(line.encode(), zmq.NOBLOCK)  # noqa: E731

    def everywhere(line: str) -> None:
        if send is not None:
            with suppress(ConnectionRefusedError):  # nobody listens at the UDP port yet; the next line may be heard
                send(line)
        print(line, end="", flush=True)

    return everywhere


def _remember(latencies_ms: deque[float], latency_ms: float | None) -> None:
    if latency_ms is not None:
        latencies_ms.append(latency_ms)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--endpoint", default=DENOISED_ENDPOINT)
    parser.add_argument("--status", default=STATUS_ENDPOINT)
    parser.add_argument("--roi", type=int, nargs=3, metavar=("Y", "X", "RADIUS"), required=True, help="in pixels")
    parser.add_argument("--high", type=float, default=0.5, help="dF/F that fires")
    parser.add_argument("--low", type=float, default=0.2, help="dF/F below which it is armed again")
    parser.add_argument("--refractory", type=float, default=0.5, help="seconds between two triggers")
    parser.add_argument("--offset", type=float, default=0.0, help="counts without light")
    parser.add_argument("--window", type=int, default=300, help="frames that F0 is taken from")
    parser.add_argument("--settle", type=int, default=30, help="frames before anything fires")
    parser.add_argument("--udp", metavar="HOST:PORT", help="send lines as UDP packets")
    parser.add_argument("--pub", metavar="ENDPOINT", help="or publish them over ZeroMQ")
    parser.add_argument("--idle", type=float, help="stop when nothing has come for so many seconds")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except RtDenoiseError as error:
        sys.exit(f"closed_loop: {error}")
