"""Loads A, B and C: a synthetic camera whose frames hold their own number, so that every pixel can be checked anywhere."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from rtdenoise.settings import RunSettings, loopback
from soaks.asked import Asked

FIRST_PORT, LAST_PORT = 32_100, 32_700
"""Below the ports that systems hand out by themselves, and apart from those of the tests."""
N_PORTS = 4


@dataclass(slots=True, frozen=True)
class Load:
    """A camera. model: an untrained filter that two cores keep up with at that rate (ms per frame: `rtdenoise bench --model`)."""

    name: str
    shape: tuple[int, int]
    fps: float
    model: str


LOADS = {
    load.name: load
    for load in (
        Load("A", (512, 512), 30.0, "gauss2d-ema"),
        Load("B", (512, 512), 200.0, "ema"),
        Load("C", (256, 64), 1000.0, "ema"),
        Load("slow-subscriber", (512, 512), 100.0, "ema"),
    )
}


def free_ports() -> list[int]:
    """Neighbouring loopback ports that nobody uses right now."""
    draw = random.SystemRandom()
    while True:
        first = draw.randrange(FIRST_PORT, LAST_PORT, N_PORTS)
        with ExitStack() as stack, suppress(OSError):
            for i in range(N_PORTS):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", first + i))
            return [first + i for i in range(N_PORTS)]


def endpoints() -> dict[str, str]:
    """Where a run of its own can be listened to."""
    names = ("denoised", "raw", "status", "control")
    return {name: loopback(port) for name, port in zip(names, free_ports(), strict=True)}


def run_settings(
    load: Load, asked: Asked, *, n_frames: int | None = None, n_series: int = 1, **more: Any
) -> RunSettings:
    """Settings of a live run of this load on free ports. n_frames: of a series, None for no end."""
    shape = list(asked.shape if any(asked.shape) else load.shape)
    options = {"mode": "counter", "shape": shape, "fps": load.fps, "n_frames": n_frames}
    known = RunSettings().endpoints.model_dump()
    values: dict[str, Any] = {
        "source": {"name": "synthetic", "options": options, "n_series": n_series},
        "engine": {"model": asked.model or load.model, "threads": 1},
        "endpoints": {name: where for name, where in endpoints().items() if name in known},
    }
    return RunSettings.model_validate(values | more)
