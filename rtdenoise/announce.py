"""What the `start` message of a run says: everything that somebody who joins late, or reads it years later, has to know."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from rtdenoise import machine, vitals
from rtdenoise.denoise import Ready
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing


def start_of(series: str, epoch_ns: int, ring: SharedRing, settings: RunSettings) -> dict[str, Any]:
    """The fields of a series that do not change while it runs. epoch_ns: perf_counter_ns at its start."""
    info, interval = ring.info, ring.info.frame_interval_s
    return {
        "series": series,
        "epoch_ns": epoch_ns,
        "utc": _utc_of(epoch_ns),
        "source": info.name,
        "shape": info.shape,
        "dtype": info.dtype,
        "channels": info.channels,
        "planes": info.planes,
        "frame_interval_s": interval,
        "um_per_px": info.um_per_px,
        "saturation": (1 << info.bit_depth) - 1 if np.dtype(info.dtype).kind == "u" else None,
        "software": machine.versions(),
        "settings": settings.model_dump(mode="json"),
        "policy": settings.policy,
        "queues": vitals.queue_rules(settings, info, ring.capacity),
        "endpoints": settings.endpoints.model_dump(),
        "clock": _clock(),
        "host_name": platform.node(),
        "pid": os.getpid(),
    }


def engine_of(
    ready: Ready, interval_s: float | None, calibrations: Mapping[vitals.Key, tuple[float, float]]
) -> dict[str, Any]:
    """The fields that change with the denoise process and its calibration."""
    return {
        "model": ready.model,
        "engine": ready.backend,
        "mode": ready.mode,
        "lookahead_frames": ready.latency_frames,
        "lookahead_ms": ready.latency_frames * interval_s * 1e3 if interval_s else None,
        "calibration": {vitals.key_name(key): values for key, values in calibrations.items()},
    }


def _utc_of(epoch_ns: int) -> str:
    """The wall clock at that moment of the monotonic one: the only place where the two meet."""
    ago = timedelta(microseconds=(time.perf_counter_ns() - epoch_ns) / 1e3)
    return (datetime.now(UTC) - ago).isoformat(timespec="milliseconds")


def _clock() -> str:
    facts = time.get_clock_info("perf_counter")
    return f"perf_counter_ns, {facts.implementation}, resolution {facts.resolution * 1e9:.0f} ns"
