"""Says how a run goes: on the wire once a second and when an alarm begins, in the log once a minute, and at the end."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtdenoise import announce, vitals
from rtdenoise.alarms import Watch
from rtdenoise.denoise import Ready
from rtdenoise.errors import RtDenoiseError
from rtdenoise.latency import percentiles_ms
from rtdenoise.logbook import Logbook
from rtdenoise.publish import StatusPublisher
from rtdenoise.settings import RunSettings
from rtdenoise.shared import STAGES, SharedRing, Slot
from rtdenoise.status import Recorder
from rtdenoise.summary import Summary, summed

STATUS_INTERVAL_S = 1.0
LOG_INTERVAL_S = 60.0
"""A line of totals in the log, and the soonest that the same alarm is written there again. Engineering choice."""


@dataclass(slots=True)
class _Snapshot:
    at: float
    acquired: int
    delivered: int
    latency: dict[str, NDArray[np.int64]] = field(repr=False)


@dataclass(slots=True, frozen=True)
class _Rates:
    """What the last full second was like; a message out of turn repeats it."""

    fps_in: float = 0.0
    fps_out: float = 0.0
    age: tuple[float, ...] = (0.0, 0.0, 0.0)
    latency_ms: dict[str, tuple[float, ...]] = field(default_factory=dict)


class Reporter:
    """Turns the shared totals into status messages, log lines and the summary.

    calibrations: (channel, plane) -> (offset, scale), filled by the session while it runs.
    fills, drift: what the last status message said of queues and contrast.
    """

    def __init__(
        self,
        ring: SharedRing,
        status: StatusPublisher,
        ready: Ready,
        settings: RunSettings,
        calibrations: Mapping[vitals.Key, tuple[float, float]],
        log: Logbook,
    ) -> None:
        self._ring, self._status, self._ready, self._log = ring, status, ready, log
        self._settings, self._calibrations = settings, calibrations
        self._series = ""
        self._fixed: dict[str, object] = {}
        self._announced: dict[str, object] = {}
        self._message = ""
        self._events: list[dict[str, object]] = []
        self._began = time.monotonic()
        self._last = self._snapshot()
        self._rates = _Rates()
        self._watch = Watch(ring, settings)
        self._drift = vitals.Drift(ring)
        self.fills: dict[str, float] = dict(self._watch.fills)
        self.drift: dict[str, float] = {}
        self._logged_at = self._began
        self._logged: dict[str, float] = {}
        self._ended = False
        self._stopped = False

    @property
    def ready(self) -> Ready:
        """What the newest denoise process said before its first frame."""
        return self._ready

    def now_ready(self, ready: Ready, why: str) -> None:
        """A new denoise process took over."""
        self._ready = ready
        self.note(f"{why}; {ready.reason}")

    def event(self, event: Mapping[str, object]) -> None:
        """Something that happened at the rig: the next status message tells everybody who listens."""
        self._events.append(dict(event))

    def note(self, line: str) -> None:
        """Something that the next status message says, after what it has to say already."""
        self._message = f"{self._message}; {line}" if self._message else line

    def recorder(self) -> Recorder | None:
        """How the recording is doing; None where there is none."""
        return vitals.recorder(self._ring, self._settings)

    def stopping(self) -> None:
        """Somebody asked the run to end, which counts unless it has ended by itself."""
        self._stopped = True

    def tick(self) -> None:
        """Announce a new series at once; a status when a second has passed, or when an alarm begins."""
        self._announce()
        now = time.monotonic()
        must_say = self._watch.look()
        if not self._series:
            return
        self._status.greet()
        if now - self._last.at >= STATUS_INTERVAL_S:
            self._new_second()
            self._send_status()
            self._watch.begin_anew()
            self._log.keep_small()
        elif must_say:
            self._send_status()
        if now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            self._log.write(summed(vitals.totals(self._ring), self._rates.fps_out, self._rates.age))

    def end(self, error: RtDenoiseError | None) -> None:
        """The last message of a run, on the wire and in the log. Without a single frame there is no series, and only the log says so."""
        if self._ended:
            return
        self._ended = True
        self._announce()
        reason, summary = self._reason(error), self.summary(str(error) if error else "")
        ages = self._ring.latency["age"].percentiles_ms(50, 95, 100) or (0.0, 0.0, 0.0)
        self._log.write(f"end: {reason}; {summed(vitals.totals(self._ring), summary.fps, ages)}")
        self._log.note_facts({"summary": summary.as_dict(), "reason": reason})
        if self._series:
            if self._message or self._events:  # news of the last second
                self._send_status()
            message = self._status.end(
                summary.delivered,
                reason,
                summary.dropped,
                acquired=summary.acquired,
                in_flight=summary.in_flight,
                age=_ages(ages),
                latency_ms=summary.latency_ms,
                recorder=self.recorder(),
                restarts=summary.restarts,
                seconds=summary.seconds,
            )
            self._log.note_facts({"end": message.model_dump()})

    def summary(self, error: str) -> Summary:
        """The run so far, in numbers."""
        ints, seconds = self._ring.ints, time.monotonic() - self._began
        totals = vitals.totals(self._ring)
        latency = {s: p for s in STAGES if (p := self._ring.latency[s].percentiles_ms(50, 95, 99)) is not None}
        return Summary(
            acquired=totals.acquired,
            delivered=totals.delivered,
            dropped=totals.dropped,
            in_flight=totals.in_flight,
            seconds=seconds,
            fps=totals.delivered / seconds,
            latency_ms=latency,
            pull_cpu=int(ints[Slot.PULL_CPU_NS]) / 1e9 / seconds,
            restarts=int(ints[Slot.RESTARTS]),
            ready=self._ready,
            error=error,
        )

    def _reason(self, error: RtDenoiseError | None) -> str:
        if error is not None:
            return f"{error.cause}: {error}"
        return "stopped" if self._stopped else "ok"

    def _announce(self) -> None:
        """A new series, or another engine or calibration of the same one: those who listen hear at once."""
        head = self._ring.head
        newest = self._ring.frame(head - 1) if head else None
        if newest is not None and newest.stamp.series != self._series:
            self._series = newest.stamp.series
            self._fixed = announce.start_of(self._series, self._ring.epoch_ns(head - 1), self._ring, self._settings)
            self._log.write(f"series {self._series} of {self._ring.info.name}, {self._settings.policy}")
        if not self._series:
            return
        fields = self._fixed | announce.engine_of(
            self._ready, self._ring.info.frame_interval_s, dict(self._calibrations)
        )
        if fields != self._announced:
            self._announced = fields
            self._log.note_facts({"start": {name: value for name, value in fields.items() if name != "settings"}})
            self._status.start(fields)

    def _new_second(self) -> None:
        before, now = self._last, self._snapshot()
        self._last = now
        seconds = now.at - before.at
        latency = {
            stage: found
            for stage in STAGES
            if (found := percentiles_ms(now.latency[stage] - before.latency[stage], 50, 95, 99)) is not None
        }
        self._rates = _Rates(
            (now.acquired - before.acquired) / seconds,
            (now.delivered - before.delivered) / seconds,
            percentiles_ms(now.latency["age"] - before.latency["age"], 50, 95, 100) or (0.0, 0.0, 0.0),
            latency,
        )
        self.drift = self._drift.ratios(dict(self._calibrations))

    def _send_status(self) -> None:
        alarms = self._watch.lines(self.drift)
        self.fills = dict(self._watch.fills)
        totals, rates = vitals.totals(self._ring), self._rates
        self._status.status(
            {
                "acquired": totals.acquired,
                "delivered": totals.delivered,
                "dropped": totals.dropped,
                "in_flight": totals.in_flight,
                "t": time.perf_counter_ns() - self._ring.epoch_ns(max(0, self._ring.head - 1)),
                "age": _ages(rates.age),
                "fps_in": rates.fps_in,
                "fps_out": rates.fps_out,
                "mode": self._ready.mode,
                "engine": self._ready.backend,
                "message": self._line(alarms),
                "policy": self._settings.policy,
                "queues": self.fills,
                "alarms": alarms,
                "latency_ms": rates.latency_ms,
                "norm_drift": self.drift,
                "recorder": self.recorder(),
                "restarts": int(self._ring.ints[Slot.RESTARTS]),
                "events": self._events,
            }
        )
        self._message = ""
        self._events = []
        self._watch.said(alarms)
        self._log_alarms(alarms)

    def _line(self, alarms: list[str]) -> str:
        """One line for the person at the rig: news first, then what is wrong, then why nothing is denoised."""
        said = "; ".join(([self._message] if self._message else []) + alarms)
        return said or ("" if self._ready.hop else self._ready.reason)

    def _log_alarms(self, alarms: list[str]) -> None:
        now = time.monotonic()
        for line in alarms:
            kind = re.sub(r"[\d.]+", "", line)
            if now - self._logged.get(kind, -LOG_INTERVAL_S) >= LOG_INTERVAL_S:
                self._logged[kind] = now
                self._log.write(f"alarm: {line}")

    def _snapshot(self) -> _Snapshot:
        ints = self._ring.ints
        latency = {stage: histogram.counts.copy() for stage, histogram in self._ring.latency.items()}
        return _Snapshot(time.monotonic(), int(ints[Slot.ACQUIRED]), int(ints[Slot.DELIVERED]), latency)


def marked(ring: SharedRing, text: str) -> dict[str, int | str] | None:
    """An event at the newest frame of the ring: t in ns since its series began, now; None before the first frame."""
    head = ring.head
    newest = ring.frame(head - 1) if head else None
    if newest is None:
        return None
    # The newest frame may still wait to be sent: what is not raw yet comes after what is.
    number = int(ring.ints[Slot.SENT_RAW] + newest.stamp.frame - ring.ints[Slot.RAW_UPTO])
    t = time.perf_counter_ns() - ring.epoch_ns(head - 1)
    return {"t": t, "frame": max(0, number), "src_frame": newest.stamp.src_frame, "text": text}


def _ages(percentiles: tuple[float, ...]) -> dict[str, float]:
    return {"p50_ms": percentiles[0], "p95_ms": percentiles[1], "max_ms": percentiles[2]}
