"""A run made of publishers, the server that shows it, and a browser made of a socket."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np

from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher, StatusPublisher
from rtdenoise.viewer.feed import Feed
from rtdenoise.web.gate import gate_for
from rtdenoise.web.server import Server
from rtdenoise.wire import Drops, StreamFacts

SHAPE = (24, 40)
ANY_PORT = "tcp://127.0.0.1:*"


class Run:
    """The three publishers of a run."""

    def __init__(self, port: int | None = None) -> None:
        ends = [ANY_PORT] * 3 if port is None else [f"tcp://127.0.0.1:{port + i}" for i in range(3)]
        self.denoised = Publisher(ends[0], StreamFacts("denoised", source="test"), frame_bytes=8192)
        self.raw = Publisher(ends[1], StreamFacts("raw", source="test"), frame_bytes=8192)
        self.status = StatusPublisher(ends[2])
        self.k = -1

    def joined(self) -> None:
        assert self.raw.wait_for_subscribers(1, timeout_s=20)
        assert self.denoised.wait_for_subscribers(1, timeout_s=20)

    def send(self) -> int:
        """The next frame, raw and denoised: a slope of counts that moves with its number."""
        self.k += 1
        for publisher, dtype in ((self.raw, np.uint16), (self.denoised, np.float32)):
            stamp = FrameStamp("a", self.k, self.k, t_in=self.k * 1000)
            publisher.publish(Frame(pixels_of(self.k, dtype), stamp), Drops())
        return self.k

    def close(self) -> None:
        for publisher in (self.raw, self.denoised, self.status):
            publisher.close()


def pixels_of(k: int, dtype: type) -> np.ndarray:
    return ((np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) * 7 + 50 * k) % 1000).astype(dtype)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Run, Server, str]]:
    """A run, a server that watches it, and the address with the token."""
    run = Run()
    feed = Feed(run.raw.endpoint, run.denoised.endpoint, run.status.endpoint)
    server = Server(feed, gate_for("127.0.0.1", ()), **options)
    try:
        run.joined()
        yield run, server, await server.open("127.0.0.1", 0)
    finally:
        await server.close()
        feed.close()
        run.close()


class Browser:
    """A browser made of a socket: it says what it has painted only when it is asked to."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.states: list[dict[str, Any]] = []

    async def picture(self) -> tuple[dict[str, Any], bytes]:
        while True:
            message = await self.socket.receive(timeout=20)
            if message.type == aiohttp.WSMsgType.BINARY:
                (length,) = struct.unpack_from("<I", message.data)
                return json.loads(message.data[4 : 4 + length]), message.data[4 + length :]
            self.states.append(json.loads(message.data))

    async def nothing_more(self) -> bool:
        """True when two states pass without a picture between them."""
        for _ in range(2):
            message = await self.socket.receive(timeout=20)
            if message.type == aiohttp.WSMsgType.BINARY:
                return False
        return True

    async def say(self, **words: Any) -> None:
        await self.socket.send_json(words)


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession() as session, session.ws_connect(stream_of(url)) as socket:
        yield Browser(socket)


def stream_of(url: str) -> str:
    return url.replace("/?", "/stream?")


async def until_shown(run: Run, server: Server) -> int:
    """Send the next frame and wait until the server has it."""
    k = run.send()
    deadline = time.monotonic() + 20
    while (shown := server.gallery.feed.picture.denoised) is None or shown.frame.stamp.src_frame != k:
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    return k
