"""The publishers of a run: raw and denoised frames, each numbered in its own stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import RtDenoiseError, WireError
from rtdenoise.frame import Frame
from rtdenoise.publish import Publisher
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot
from rtdenoise.wire import Drops, StreamFacts

SUBSCRIBER_TIMEOUT_S = 60.0
RETURN_TIMEOUT_S = 1.0
"""Longest that frames wait for subscribers of an earlier process to come back. Those of ZeroMQ try every 100 to 200 ms."""
LEAVING_LINGER_MS = 500
"""For what was published before another process takes over; one slow subscriber must not hold up all others. Engineering choice."""
LOOK_NS = 50_000_000
"""Time between two looks at how full a queue is: an alarm is due within 100 ms. Engineering choice."""
SETTLE_S = 0.03
"""Between the last frame and the closing of a port: ZeroMQ gives up what it has half handed to a system whose buffers are full."""
PATIENCE_MS = 300
"""For queues that are full of what came while processes changed places. Engineering choice: far less than a person notices twice."""
PORT_TIMEOUT_S = 3.0
"""Longest that a port may stay in use after the process that had it has gone. Engineering choice; Linux frees it at once."""


@dataclass(slots=True, frozen=True)
class _Counters:
    """Where the totals of one stream are kept, so that they outlive the process."""

    sent: Slot
    series: Slot
    subscribers: Slot
    queued: Slot


_RAW = _Counters(Slot.SENT_RAW, Slot.RAW_SERIES, Slot.RAW_SUBSCRIBERS, Slot.QUEUED_RAW)
_DENOISED = _Counters(Slot.SENT_DENOISED, Slot.DENOISED_SERIES, Slot.DENOISED_SUBSCRIBERS, Slot.QUEUED_DENOISED)


class Outlets:
    """The two publishers of a run and the numbers of what they sent."""

    def __init__(self, settings: RunSettings, ring: SharedRing, model: str, backend: str) -> None:
        info, ends, ints = ring.info, settings.endpoints, ring.ints
        self._ints = ints
        self._before = {which: int(ints[which.subscribers]) for which in (_RAW, _DENOISED)}
        n_pixels = info.shape[0] * info.shape[1]
        fps = info.fps or 128.0
        leaving = int(ints[Slot.LEAVE])
        stopping = lambda: bool(ints[Slot.STOP] or ints[Slot.LEAVE] > leaving)  # noqa: E731 - two words of plumbing
        raw = StreamFacts("raw", info.name, um_per_px=info.um_per_px)
        self.raw = Publisher(
            ends.raw,
            raw,
            frame_bytes=n_pixels * np.dtype(info.dtype).itemsize,
            fps_hint=fps,
            lossless=settings.lossless,
            remote=settings.remote,
            stopping=stopping,
        )
        try:
            self.denoised = Publisher(
                ends.denoised,
                replace(raw, stream="denoised", model=model, backend=backend),
                frame_bytes=n_pixels * 4,
                fps_hint=fps,
                lossless=settings.lossless,
                remote=settings.remote,
                stopping=stopping,
            )
        except RtDenoiseError:
            self.raw.close(linger_ms=0)
            raise
        self._series: dict[_Counters, str] = {}
        self._looked_at: dict[_Counters, int] = {}

    def wait_for_subscribers(self, settings: RunSettings) -> None:
        """Block until a lossless run has those it was told to wait for. Raises WireError after a minute."""
        for stream, publisher in (("raw", self.raw), ("denoised", self.denoised)):
            n = settings.wait_for.get(stream, 0)  # type: ignore[call-overload]
            if n and not publisher.wait_for_subscribers(n, SUBSCRIBER_TIMEOUT_S):
                raise WireError(
                    f"{publisher.endpoint}: {publisher.subscribers} of {n} subscribers came within "
                    f"{SUBSCRIBER_TIMEOUT_S:.0f} s; start them, or run without --lossless"
                )

    def wait_for_return(self) -> int:
        """Block until those who listened to an earlier process are back, a second at most; how many did not come."""
        deadline = time.monotonic() + RETURN_TIMEOUT_S
        missing = 0
        for which, publisher in ((_RAW, self.raw), (_DENOISED, self.denoised)):
            before = self._before[which]
            while not publisher.wait_for_return(before, max(0.0, deadline - time.monotonic())):
                if time.monotonic() >= deadline:
                    missing += before - publisher.subscribers
                    break
                time.sleep(0.005)  # a run that was stopped still has frames to send
        return missing

    def send_raw(self, frame: Frame, drops: Drops, t_out: int) -> bool:
        """Publish a raw frame under the number it has in its stream; False when a lossless send was given up."""
        return self._send(self.raw, _RAW, frame, drops, t_out)

    def send_denoised(self, frame: Frame, drops: Drops, t_out: int) -> bool:
        """Publish a denoised frame under the number it has in its stream; False when a lossless send was given up."""
        return self._send(self.denoised, _DENOISED, frame, drops, t_out)

    def lease(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """A buffer for the next denoised frame, sent without another copy."""
        return self.denoised.lease(shape, "float32")  # type: ignore[return-value]

    def leave(self) -> None:
        """Unbind for another process, after what was published has left."""
        deadline = time.monotonic() + LEAVING_LINGER_MS / 1e3
        while max(self.raw.fill, self.denoised.fill) > 0 and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(SETTLE_S)
        for publisher in (self.raw, self.denoised):
            publisher.close(linger_ms=LEAVING_LINGER_MS)

    def be_patient(self, *, patient: bool) -> None:
        """Whether a queue that is full is waited for, a little, instead of losing frames: while a pause is made up for."""
        for publisher in (self.raw, self.denoised):
            publisher.be_patient(PATIENCE_MS if patient else 0)

    def close(self) -> None:
        """Unbind."""
        self.raw.close()
        self.denoised.close()

    def _send(self, publisher: Publisher, which: _Counters, frame: Frame, drops: Drops, t_out: int) -> bool:
        ints, series = self._ints, frame.stamp.series
        if self._series.get(which) != series:
            self._enter(which, series)
        self._note_fill(publisher, which, t_out)
        sent = publisher.publish(frame.restamped(frame=int(ints[which.sent])), drops, t_out=t_out)
        ints[which.sent] += sent
        ints[which.subscribers] = publisher.subscribers
        return sent

    def _note_fill(self, publisher: Publisher, which: _Counters, t_out: int) -> None:
        if not 0 <= t_out - self._looked_at.get(which, -LOOK_NS) < LOOK_NS:
            self._looked_at[which] = t_out
            self._ints[which.queued] = round(publisher.fill * 1000)

    def _enter(self, which: _Counters, series: str) -> None:
        """Count from 0, unless an earlier process has already begun this series."""
        self._series[which] = series
        tag = int(series, 16) & 0x7FFF_FFFF_FFFF_FFFF
        if self._ints[which.series] != tag:
            self._ints[which.series], self._ints[which.sent] = tag, 0


def bind_after(settings: RunSettings, ring: SharedRing, model: str, backend: str, *, is_first: bool) -> Outlets:
    """The outlets; any but the first process of a run waits for ports that the one before it has just left. Raises WireError."""
    deadline = time.monotonic() + (0.0 if is_first else PORT_TIMEOUT_S)
    while True:
        try:
            return Outlets(settings, ring, model, backend)
        except WireError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
