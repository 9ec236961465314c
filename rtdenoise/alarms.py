"""What a person must hear at once: queues that fill up, frames that are lost, contrast that left the calibration."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rtdenoise import vitals
from rtdenoise.recording.tape import WARN_S
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing
from rtdenoise.status import Recorder

DRIFT_ALARM = 1.5
"""Contrast that left the calibration by this factor is reported. Engineering choice, the same as for pixel size and frame rate."""
FILL_ALARMS = (0.75, 1.0)
"""A queue is reported from here on; the levels of areaDetector's queues."""
QUIET_S = 0.05
"""Least time between two messages out of turn: an alarm is out within 100 ms, a storm of them is not a flood. Engineering choice."""
_EXPECTED = ("source: skipped by policy", "denoise: behind", "denoise: stopped before it was sent")
_AT_THE_END = _EXPECTED[2:]
_LOST = "frames lost: "


class Watch:
    """Looks at queues and losses many times a second, and keeps the worst of them until it is reported.

    What `latest` drops on purpose is no alarm there; what `lossless` loses is always one. A source that can wait fills every queue
    by design, so only with a live one is a full queue an alarm.
    """

    def __init__(self, ring: SharedRing, settings: RunSettings) -> None:
        self._ring, self._settings = ring, settings
        self._heeds_queues = ring.info.live
        self._expected = _AT_THE_END if settings.lossless else _EXPECTED
        self.fills = vitals.queue_fills(ring, settings)
        self._dropped = self._lost()
        self._said: list[str] = []
        self._said_at = -QUIET_S

    def look(self) -> bool:
        """Note how things are; True when there is something that must not wait for its turn."""
        for name, fill in vitals.queue_fills(self._ring, self._settings).items():
            self.fills[name] = max(fill, self.fills.get(name, 0.0))
        if time.monotonic() - self._said_at < QUIET_S:
            return False
        return any(line not in self._said for line in self.lines())

    def lines(self, drift: Mapping[str, float] | None = None) -> list[str]:
        """What is wrong, a line each."""
        heeded = {name: fill for name, fill in self.fills.items() if self._heeds_queues or name == "recorder"}
        found = [*self._losses(), *_of_recorder(vitals.recorder(self._ring, self._settings))]
        found += [line for name, fill in heeded.items() if (line := _of_queue(name, fill))]
        return found + [line for key, ratio in (drift or {}).items() if (line := _of_drift(key, ratio))]

    def said(self, lines: list[str]) -> None:
        """These lines went out."""
        self._said, self._said_at = lines, time.monotonic()

    def begin_anew(self) -> None:
        """A second is over: from here on a new worst, and new losses."""
        self.fills = vitals.queue_fills(self._ring, self._settings)
        self._dropped = self._lost()
        self._said = [line for line in self._said if not line.startswith(_LOST)]  # the next loss is news again

    def _losses(self) -> list[str]:
        new = {reason: n - self._dropped.get(reason, 0) for reason, n in self._lost().items()}
        return [f"{_LOST}{n}, {reason}" for reason, n in new.items() if n > 0 and reason not in self._expected]

    def _lost(self) -> dict[str, int]:
        recorder = vitals.recorder(self._ring, self._settings)
        return self._ring.dropped() | ({"recorder: not written": recorder.dropped} if recorder else {})


def _of_recorder(recorder: Recorder | None) -> list[str]:
    if recorder is None:
        return []
    if recorder.state in ("interrupted", "failed"):
        return [f"the recording is {recorder.state}: frames are missing in {recorder.path}"]
    left = recorder.seconds_left
    return (
        [f"the disk of {recorder.path} is full within {WARN_S / 60:.0f} minutes"]
        if left is not None and left < WARN_S
        else []
    )


def _of_queue(name: str, fill: float) -> str:
    if fill >= FILL_ALARMS[1]:
        return f"the queue '{name}' is full"
    return f"the queue '{name}' is over {FILL_ALARMS[0]:.0%} full" if fill >= FILL_ALARMS[0] else ""


def _of_drift(key: str, ratio: float) -> str:
    if 1 / DRIFT_ALARM < ratio < DRIFT_ALARM:
        return ""
    return f"contrast of channel/plane {key} is {ratio:.2f} times what it was at calibration; recalibrate"
