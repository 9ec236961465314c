"""Memory, handles and threads of the processes of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import psutil  # type: ignore[import-untyped]

MIB = 1 << 20


@dataclass(slots=True, frozen=True)
class Gauge:
    """uss_mb: memory that would be free if this process ended.  rss_mb: with what it shares.  handles: open files and sockets."""

    uss_mb: float
    rss_mb: float
    handles: int
    threads: int


def gauge(pid: int) -> Gauge | None:
    """One reading; None when the process is gone or cannot be looked at."""
    try:
        process = psutil.Process(pid)
        memory = process.memory_full_info()
        handles = process.num_handles() if hasattr(process, "num_handles") else process.num_fds()
        return Gauge(memory.uss / MIB, memory.rss / MIB, handles, process.num_threads())
    except psutil.Error:
        return None


class Gauges:
    """Readings of several processes over some time."""

    def __init__(self) -> None:
        self._readings: dict[str, list[Gauge]] = {}

    def read(self, pids: Mapping[str, int]) -> None:
        """One reading of each."""
        for role, pid in pids.items():
            if (found := gauge(pid)) is not None:
                self._readings.setdefault(role, []).append(found)

    def take(self) -> dict[str, dict[str, float]]:
        """Role -> lowest unique memory, highest resident memory, most handles and threads; then begins anew.

        The lowest of a minute is what cannot be given back; what is above it comes and goes.
        """
        found = {
            role: {
                "uss_mb": round(min(g.uss_mb for g in readings), 3),
                "rss_mb": round(max(g.rss_mb for g in readings), 3),
                "handles": max(g.handles for g in readings),
                "threads": max(g.threads for g in readings),
            }
            for role, readings in self._readings.items()
        }
        self._readings = {}
        return found


def slope_per_hour(at_s: Sequence[float], values: Sequence[float]) -> float:
    """Least-squares slope; 0 for fewer than three values."""
    if len(values) < 3:
        return 0.0
    return float(np.polyfit(np.asarray(at_s) / 3600, values, 1)[0])
