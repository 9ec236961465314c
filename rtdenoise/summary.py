"""What a run says about itself: once a second on the wire, and at its end to the person who started it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtdenoise.denoise import Ready
from rtdenoise.latency import percentiles_ms
from rtdenoise.publish import StatusPublisher
from rtdenoise.shared import STAGES, SharedRing, Slot

STATUS_INTERVAL_S = 1.0


@dataclass(slots=True, frozen=True)
class Summary:
    """A run in numbers. latency_ms: stage -> (p50, p95, p99).  pull_cpu: share of a core that taking frames cost."""

    acquired: int
    delivered: int
    dropped: dict[str, int]
    in_flight: int
    seconds: float
    fps: float
    latency_ms: dict[str, tuple[float, ...]]
    pull_cpu: float
    restarts: int
    ready: Ready
    error: str = ""

    @property
    def balanced(self) -> bool:
        """acquired = delivered + dropped + in flight, to the frame."""
        return self.acquired == self.delivered + sum(self.dropped.values()) + self.in_flight

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self) | {"balanced": self.balanced}


@dataclass(slots=True)
class _Snapshot:
    at: float
    acquired: int
    delivered: int
    ages: NDArray[np.int64] = field(repr=False)


class Reporter:
    """Turns the shared totals into status messages and the summary."""

    def __init__(self, ring: SharedRing, status: StatusPublisher, ready: Ready) -> None:
        self._ring, self._status, self._ready = ring, status, ready
        self._series = ""
        self._message = ""
        self._began = time.monotonic()
        self._last = self._snapshot()
        self._ended = False

    def now_ready(self, ready: Ready) -> None:
        """A new denoise process took over."""
        self._ready, self._series = ready, ""
        self.note(f"the denoise process was restarted; {ready.reason}")

    def note(self, line: str) -> None:
        """Something that the next status message says, after what it has to say already."""
        self._message = f"{self._message}; {line}" if self._message else line

    def tick(self) -> None:
        """Announce a new series at once; a status when a second has passed."""
        self._announce_series()
        now = time.monotonic()
        if self._series and now - self._last.at >= STATUS_INTERVAL_S:
            self._send_status()

    def end(self, error: str) -> None:
        """The last message of a run."""
        if self._ended or not self._series:
            return
        self._ended = True
        totals = self._totals()
        self._status.end(
            totals["delivered"],  # type: ignore[arg-type]
            error or "ok",
            totals["dropped"],  # type: ignore[arg-type]
            acquired=totals["acquired"],
            in_flight=totals["in_flight"],
        )

    def summary(self, error: str) -> Summary:
        """The run so far, in numbers."""
        ints, seconds = self._ring.ints, time.monotonic() - self._began
        totals = self._totals()
        latency = {s: p for s in STAGES if (p := self._ring.latency[s].percentiles_ms(50, 95, 99)) is not None}
        return Summary(
            **totals,  # type: ignore[arg-type]
            seconds=seconds,
            fps=int(ints[Slot.DELIVERED]) / seconds,
            latency_ms=latency,
            pull_cpu=int(ints[Slot.PULL_CPU_NS]) / 1e9 / seconds,
            restarts=int(ints[Slot.RESTARTS]),
            ready=self._ready,
            error=error,
        )

    def _totals(self) -> dict[str, object]:
        ints = self._ring.ints
        return {
            "acquired": int(ints[Slot.ACQUIRED]),
            "delivered": int(ints[Slot.DELIVERED]),
            "dropped": self._ring.dropped(),
            "in_flight": self._ring.in_flight(),
        }

    def _announce_series(self) -> None:
        head = self._ring.head
        newest = self._ring.frame(head - 1) if head else None
        if newest is None or newest.stamp.series == self._series:
            return
        info, ready = self._ring.info, self._ready
        self._series = newest.stamp.series
        interval = info.frame_interval_s
        self._status.start(
            {
                "series": self._series,
                "epoch_ns": self._ring.epoch_ns(head - 1),
                "source": info.name,
                "shape": info.shape,
                "dtype": info.dtype,
                "channels": info.channels,
                "planes": info.planes,
                "frame_interval_s": interval,
                "um_per_px": info.um_per_px,
                "saturation": (1 << info.bit_depth) - 1 if np.dtype(info.dtype).kind == "u" else None,
                "model": ready.model,
                "engine": ready.backend,
                "mode": ready.mode,
                "lookahead_frames": ready.latency_frames,
                "lookahead_ms": ready.latency_frames * interval * 1e3 if interval else None,
            }
        )

    def _send_status(self) -> None:
        before, now = self._last, self._snapshot()
        self._last = now
        ages = percentiles_ms(now.ages - before.ages, 50, 95, 100) or (0.0, 0.0, 0.0)
        seconds = now.at - before.at
        self._status.status(
            {
                **self._totals(),
                "t": time.perf_counter_ns() - self._ring.epoch_ns(max(0, self._ring.head - 1)),
                "age": {"p50_ms": ages[0], "p95_ms": ages[1], "max_ms": ages[2]},
                "fps_in": (now.acquired - before.acquired) / seconds,
                "fps_out": (now.delivered - before.delivered) / seconds,
                "mode": self._ready.mode,
                "engine": self._ready.backend,
                "message": self._message or ("" if self._ready.hop else self._ready.reason),
            }
        )
        self._message = ""

    def _snapshot(self) -> _Snapshot:
        ints = self._ring.ints
        ages = self._ring.latency["age"].counts.copy()
        return _Snapshot(time.monotonic(), int(ints[Slot.ACQUIRED]), int(ints[Slot.DELIVERED]), ages)
