"""The page and its socket over HTTP. aiohttp brings both in one process and one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from rtdenoise.errors import MissingExtraError, WireError
from rtdenoise.viewer.feed import Feed
from rtdenoise.web.document import document
from rtdenoise.web.gate import Gate
from rtdenoise.web.onlooker import Gallery, Onlooker

try:
    from aiohttp import WSMsgType, web
except ImportError:
    raise MissingExtraError("aiohttp", "web") from None

MAX_FPS = 15.0
"""Pictures per second and browser; a person sees no more of a noisy movie. Engineering choice."""
MAX_ONLOOKERS = 16
"""Browsers at a time: bounds memory and work. Engineering choice."""
MAX_SAID_BYTES = 4096
HEARTBEAT_S = 10.0
"""A browser that does not answer for so long is let go. Engineering choice."""
_LOOK_S = 1 / 60
_REFUSED = "Nothing to see without the token: use the whole address that `rtdenoise web` printed.\n"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "rtdenoise",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Shows what a feed brings to every browser that has the token. Use from one event loop; `close` may be called twice."""

    def __init__(self, feed: Feed, gate: Gate, *, max_fps: float = MAX_FPS) -> None:
        self.gallery = Gallery(feed)
        self._gate, self._max_fps = gate, max_fps
        self._page = document()
        self._looking: asyncio.Task[None] | None = None
        app = web.Application(middlewares=[self._admit], client_max_size=MAX_SAID_BYTES)
        app.add_routes([web.get("/", self._show_page), web.get("/stream", self._stream)])
        app.on_response_prepare.append(self._protect)
        # No access log: the token would be in it.
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def open(self, bind: str, port: int) -> str:
        """Listen; gives the address with the token. Port 0 takes a free one. Raises WireError when the port is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, bind, port).start()
        except OSError as error:
            await self.close()
            raise WireError(
                f"{bind} port {port}: cannot be listened on ({error.strerror or error}); choose another --http-port"
            ) from None
        self._looking = asyncio.create_task(self._look())
        host = self._gate.address_for(bind)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self._runner.addresses[0][1]}/?token={self._gate.token}"

    async def wait(self, seconds: float | None) -> None:
        """Serve for so long, or until cancelled. Raises what ended the feed."""
        if self._looking is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._looking), seconds)

    async def close(self) -> None:
        """Say goodbye to every browser and stop listening."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._runner.cleanup()

    async def _look(self) -> None:
        while True:
            self.gallery.look()
            await asyncio.sleep(_LOOK_S)

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Before anything else, unknown addresses included: who has no token learns nothing."""
        peer = request.transport.get_extra_info("peername") if request.transport else None
        origin = request.headers.get("Origin")
        foreign = origin is not None and origin.partition("://")[2] != request.host
        if foreign or not self._gate.admits(request.query.get("token", ""), peer[0] if peer else None):
            return web.Response(status=403, text=_REFUSED)
        return await handler(request)

    async def _protect(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(_HEADERS)
        response.headers["Content-Security-Policy"] = self._page.policy

    async def _show_page(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._page.html, content_type="text/html")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if len(self.gallery.onlookers) >= MAX_ONLOOKERS:
            return web.Response(status=503, text=f"{MAX_ONLOOKERS} browsers are looking already; close one.\n")
        # Frames of noise hardly compress, and compressing them would cost more than sending them.
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_SAID_BYTES, compress=False)
        await socket.prepare(request)
        onlooker = Onlooker(self.gallery, socket, self._max_fps, time.monotonic)
        self.gallery.onlookers.add(onlooker)
        talking = asyncio.create_task(_talk(onlooker))
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    onlooker.hear(message.data)
        finally:
            self.gallery.onlookers.discard(onlooker)
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
        return socket


async def _talk(onlooker: Onlooker) -> None:
    with suppress(ConnectionError):  # the browser is gone; its socket says so to the other half
        await onlooker.talk()
