"""How a run is doing, read from its shared ring by the supervisor: totals, queues, drift. Nothing here is done per frame."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtdenoise.frame import Pixels, StreamInfo
from rtdenoise.recording.tape import TapeState
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot
from rtdenoise.status import Recorder

PERMILLE = 1000
_TRIES = 10
_DRIFT_FRAMES = 8
_DRIFT_PIXELS = 10_000
Key = tuple[int, int]


@dataclass(slots=True, frozen=True)
class Totals:
    """Where every frame of a run went. dropped: 'stage: reason' -> frames."""

    acquired: int
    delivered: int
    dropped: dict[str, int]
    in_flight: int

    @property
    def balanced(self) -> bool:
        """acquired = delivered + dropped + in flight, to the frame."""
        return self.acquired == self.delivered + sum(self.dropped.values()) + self.in_flight


def totals(ring: SharedRing) -> Totals:
    """The running totals. They change while they are read: of a few looks the first that balances, else the last."""
    for _ in range(_TRIES):
        found = Totals(
            acquired=int(ring.ints[Slot.ACQUIRED]),
            delivered=int(ring.ints[Slot.DELIVERED]),
            dropped=ring.dropped(),
            in_flight=ring.in_flight(),
        )
        if found.balanced:
            break
        time.sleep(0)
    return found


def waits(settings: RunSettings, info: StreamInfo) -> bool:
    """Whether frames are left in the source while there is no room for them here."""
    return settings.lossless or not info.live


def backlog_limit(settings: RunSettings, info: StreamInfo, capacity: int) -> int:
    """Frames that may wait for the denoiser: until it skips, or where it may not, until the ring is full."""
    if waits(settings, info):
        return capacity
    per_second = info.fps or 100.0
    return max(8, round(settings.max_backlog_s * per_second))


def queue_fills(ring: SharedRing, settings: RunSettings) -> dict[str, float]:
    """How full each queue is, 0 to 1. ring: frames that must not be overwritten yet.  denoise: frames not yet read, of those that may wait.
    publishers: frames that wait for the slowest subscriber.  recorder: frames not yet written, where there is one.
    """
    ints = ring.ints
    head, unread = int(ints[Slot.HEAD]), int(ints[Slot.RAW_UPTO])
    # Where the source waits, it waits for frames to be settled; elsewhere only those not yet read can be lost.
    needed = int(ints[Slot.TAIL]) if waits(settings, ring.info) else unread
    fills = {
        "ring": (head - needed) / max(1, ring.capacity - 2),
        "denoise": (head - unread) / backlog_limit(settings, ring.info, ring.capacity),
        "raw publisher": int(ints[Slot.QUEUED_RAW]) / PERMILLE,
        "denoised publisher": int(ints[Slot.QUEUED_DENOISED]) / PERMILLE,
    }
    if ints[Slot.RECORDER_STATE] == TapeState.RECORDING:
        fills["recorder"] = (head - int(ints[Slot.RECORDER_CURSOR])) / ring.capacity
    return {name: min(1.0, max(0.0, fill)) for name, fill in fills.items()}


def queue_rules(settings: RunSettings, info: StreamInfo, capacity: int) -> dict[str, str]:
    """What each queue holds and what it does when it is full, in words."""
    backlog = backlog_limit(settings, info, capacity)
    held = waits(settings, info)
    behind = "the newest frame is next, older ones are dropped and counted (drop_oldest)"
    sending = "the run waits (stop)" if settings.lossless else "that subscriber loses the newest frame (drop_newest)"
    rules = {
        "ring": f"{capacity} frames; full: {'the source waits (stop)' if held else 'the oldest is overwritten (drop_oldest)'}",
        "denoise": f"{backlog} frames; full: {'the source waits (stop)' if held else behind}",
        "raw publisher": f"half a second for each subscriber; full: {sending}",
        "denoised publisher": f"half a second for each subscriber; full: {sending}",
    }
    if settings.record is not None:
        rules["recorder"] = f"{capacity} frames; full: the oldest is missing in the recording (drop_oldest)"
    return rules


def recorder(ring: SharedRing, settings: RunSettings) -> Recorder | None:
    """How the recording of a run is doing; None where there is none."""
    if settings.record is None:
        return None
    ints = ring.ints
    state = TapeState(int(ints[Slot.RECORDER_STATE]))
    return Recorder(
        state=state.name.lower(),
        path=str(settings.record.folder),
        written=int(ints[Slot.RECORDED]),
        dropped=int(ints[Slot.RECORDER_LOST]),
        seconds_left=float(ints[Slot.RECORDER_SECONDS_LEFT]) if state == TapeState.RECORDING else None,
    )


def key_name(key: Key) -> str:
    """'channel/plane', as status messages name a stream."""
    return f"{key[0]}/{key[1]}"


@dataclass(slots=True)
class Drift:
    """How far the contrast of the raw frames has left what it was when they were calibrated."""

    ring: SharedRing
    _known: dict[Key, tuple[float, float]] = field(default_factory=dict)
    _sd: dict[Key, float] = field(default_factory=dict)

    def ratios(self, calibrations: Mapping[Key, tuple[float, float]]) -> dict[str, float]:
        """'channel/plane' -> standard deviation of the newest frames over that at calibration, where it is 1."""
        found = {}
        for key, values in calibrations.items():
            if values == (0.0, 1.0) or (sd := self._contrast(key)) is None:
                continue  # an untrained filter takes counts as they are
            if self._known.get(key) != values:
                self._known[key], self._sd[key] = values, sd
            found[key_name(key)] = sd / self._sd[key]
        return found

    def _contrast(self, key: Key) -> float | None:
        """Standard deviation of every n-th pixel of the newest frames of a stream; None without contrast."""
        head, sample = self.ring.head, []
        n_streams = self.ring.info.channels * self.ring.info.planes
        for number in range(max(self.ring.oldest, head - _DRIFT_FRAMES * n_streams), head):
            frame = self.ring.frame(number)
            if frame is not None and frame.stamp.key == key:
                sample.append(_few(frame.pixels))
        return (float(np.stack(sample).std()) or None) if sample else None


def _few(pixels: Pixels) -> NDArray[np.float32]:
    """A copy of every n-th pixel, some ten thousand."""
    step = max(1, int((pixels.size / _DRIFT_PIXELS) ** 0.5))
    return pixels[::step, ::step].astype(np.float32)
