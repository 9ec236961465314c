"""A run in numbers, for the person who started it and for its log."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rtdenoise.denoise import Ready
from rtdenoise.vitals import Totals


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


def summed(totals: Totals, fps: float, age: tuple[float, ...]) -> str:
    """The totals of a run as one line of its log. age: p50, p95 and longest, in ms."""
    dropped = ", ".join(f"{n} {reason}" for reason, n in totals.dropped.items()) or "none"
    return (
        f"{totals.acquired} acquired, {totals.delivered} delivered, {totals.in_flight} in flight, dropped: {dropped}; "
        f"{fps:.1f} frames/s, age p50 {age[0]:.1f} p95 {age[1]:.1f} longest {age[2]:.1f} ms"
    )
