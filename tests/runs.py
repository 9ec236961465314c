"""Running sessions in tests: free ports, subscribers that see everything, and quick sources."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np

from rtdenoise.session import Session
from rtdenoise.settings import RunSettings
from rtdenoise.sources.base import Source
from rtdenoise.subscribe import Subscriber
from rtdenoise.summary import Summary
from rtdenoise.wire import Message

FIRST_PORT, LAST_PORT = 20_000, 32_000
"""Below the ports that systems hand out by themselves, so that nobody takes a free one before the run binds it."""


def free_port() -> int:
    """The first of four neighbouring loopback ports that nobody uses right now."""
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(FIRST_PORT, LAST_PORT, 4)
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
            with suppress(OSError):
                for i, one in enumerate(sockets):
                    one.bind(("127.0.0.1", port + i))
                return port


def free_endpoints() -> dict[str, str]:
    """Four loopback endpoints whose ports nobody uses right now."""
    port = free_port()
    return {name: f"tcp://127.0.0.1:{port + i}" for i, name in enumerate(("denoised", "raw", "status", "control"))}


def settings(source: str, options: Mapping[str, Any], **more: Any) -> RunSettings:
    """Settings of a run on free ports; `engine` may be a dict."""
    values = {"source": {"name": source, "options": dict(options)}, "endpoints": free_endpoints(), **more}
    return RunSettings.model_validate(values)


class Listener:
    """Collects what a subscriber receives, in a thread of its own, as (key, src_frame, pixels or what `keep` makes of them)."""

    def __init__(self, endpoint: str, stream: str, keep: Callable[[Message], Any]) -> None:
        self.got: list[Any] = []
        self.subscriber = Subscriber(endpoint, stream=stream)
        self._keep = keep
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        quiet = 0
        while not (self._over.is_set() and quiet):
            message = self.subscriber.read(0.2)
            quiet = message is None
            if message is not None:
                self.got.append(self._keep(message))

    def finish(self) -> list[Any]:
        """Everything received, once nothing more comes."""
        self._over.set()
        self._thread.join(20)
        self.subscriber.close()
        return self.got


def copied(message: Message) -> tuple[tuple[int, int], int, np.ndarray]:
    return message.frame.stamp.key, message.frame.stamp.src_frame, message.frame.pixels.copy()


def numbered(message: Message) -> tuple[tuple[int, int], int]:
    return message.frame.stamp.key, message.frame.stamp.src_frame


def run_lossless(
    asked: RunSettings, keep: Callable[[Message], Any] = numbered, source: Source | None = None
) -> tuple[Summary, list[Any], list[Any]]:
    """A lossless run with one subscriber of each stream: (summary, raw, denoised)."""
    asked = asked.model_copy(update={"policy": "lossless", "wait_for": {"raw": 1, "denoised": 1}})
    raw = Listener(asked.endpoints.raw, "raw", keep)
    denoised = Listener(asked.endpoints.denoised, "denoised", keep)
    try:
        with Session(asked, source=source) as session:
            summary = session.run()
    finally:
        got_raw, got_denoised = raw.finish(), denoised.finish()
    return summary, got_raw, got_denoised
