"""The browser view: who may look, what is sent, and what a real browser paints of it."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the browser view needs pip install 'rtdenoise[web]'")

import aiohttp

from rtdenoise.errors import ConfigError, WireError
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher, StatusPublisher
from rtdenoise.viewer.contrast import Grey, Levels
from rtdenoise.viewer.feed import Feed
from rtdenoise.web.gate import gate_for
from rtdenoise.web.onlooker import MAX_UNPAINTED
from rtdenoise.web.server import MAX_ONLOOKERS, Server
from rtdenoise.wire import Drops, StreamFacts
from tests.browser import chromium, new_page
from tests.runs import free_port

SHAPE = (24, 40)
ANY_PORT = "tcp://127.0.0.1:*"
BROWSER = chromium()


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


def test_without_the_token_there_is_a_403_and_not_one_byte_of_an_image() -> None:
    async def ask() -> None:
        async with serving() as (run, server, url), aiohttp.ClientSession() as session:
            await until_shown(run, server)
            bare = url.partition("?")[0]
            wrong = [bare, f"{bare}?token=", f"{bare}?token={'a' * 32}", f"{bare}?token=\udcff", f"{bare}nothing"]
            for address in (*wrong, *map(stream_of, wrong[1:4]), f"{bare}stream"):
                async with session.get(address) as answer:
                    said = await answer.read()
                assert answer.status == 403
                assert said.startswith(b"Nothing to see without the token")
                assert len(said) < 200
            for address in (f"{bare}stream", stream_of(wrong[2])):
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await session.ws_connect(address)
            assert not server.gallery.onlookers

    asyncio.run(ask())


def test_a_page_of_another_site_cannot_open_the_stream_even_with_the_token() -> None:
    async def ask() -> None:
        async with serving() as (_, _, url), aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await session.ws_connect(stream_of(url), origin="http://elsewhere.example")
            mine = "http://" + urlsplit(url).netloc
            async with session.ws_connect(stream_of(url), origin=mine) as socket:
                assert (await socket.receive(timeout=20)).type == aiohttp.WSMsgType.TEXT

    asyncio.run(ask())


def test_every_start_has_another_token() -> None:
    assert len({gate_for("127.0.0.1", ()).token for _ in range(5)}) == 5


@pytest.mark.parametrize(
    ("allow", "peer", "admitted"),
    [
        ([], "127.0.0.1", True),
        ([], "::1", True),
        ([], "192.168.1.7", False),
        (["192.168.1.0/24"], "192.168.1.7", True),
        (["192.168.1.0/24"], "::ffff:192.168.1.7", True),
        (["192.168.1.0/24"], "192.168.2.7", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        ([], None, False),
    ],
)
def test_only_this_computer_and_the_networks_that_were_named_may_look(
    allow: list[str], peer: str | None, admitted: bool
) -> None:
    gate = gate_for("127.0.0.1", allow)
    assert gate.admits(gate.token, peer) is admitted
    assert not gate.admits(gate.token[:-1], peer)


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.168.1.5", "::"])
def test_another_address_than_loopback_is_refused_unless_somebody_is_allowed(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"--allow 192\.168\.1\.0/24"):
        gate_for(bind, [])
    assert gate_for(bind, ["10.0.0.0/8"]).token


@pytest.mark.parametrize(
    ("bind", "allow", "says"), [("localhost", [], "not an IP"), ("::1", ["10.0.0.1/8"], "host bits")]
)
def test_a_malformed_address_or_network_is_named(bind: str, allow: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        gate_for(bind, allow)


def test_the_page_fetches_nothing_and_forbids_the_browser_to() -> None:
    async def ask() -> tuple[str, str, str]:
        async with serving() as (_, _, url), aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text(), answer.headers["Content-Security-Policy"], answer.headers["Referrer-Policy"]

    html, policy, referrer = asyncio.run(ask())
    assert not re.search(r"https?://|//[a-z]+\.[a-z]|@import|url\(", html)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert referrer == "no-referrer"


def test_the_grey_bytes_are_the_newest_frames_at_the_levels_that_were_asked_for() -> None:
    async def ask() -> None:
        async with serving() as (run, server, url), browser(url) as mine:
            await mine.say(levels=[100, 900])
            await until_shown(run, server)
            levels = None
            while levels != [100.0, 900.0]:
                header, greys = await mine.picture()
                await mine.say(painted=header["n"])
                levels = header["levels"]
            expected = [Grey().of(pixels_of(0, dtype), Levels(100, 900)).tobytes() for dtype in (np.uint16, np.float32)]
            assert (header["raw"], header["denoised"], header["step"]) == ([*SHAPE], [*SHAPE], 1)
            assert greys == b"".join(expected)

    asyncio.run(ask())


def test_levels_are_chosen_once_and_again_when_somebody_asks() -> None:
    async def ask() -> None:
        async with serving(max_fps=1000) as (run, server, url), browser(url) as mine:
            seen = []
            for _ in range(3):
                await until_shown(run, server)
                header, _ = await mine.picture()
                seen.append(header["levels"])
                await mine.say(painted=header["n"])
            assert seen[0] == seen[1] == seen[2]
            assert 0 <= seen[0][0] < seen[0][1] <= 1000
            for k in (10, 11):  # ten times as bright
                run.raw.publish(Frame(pixels_of(0, np.uint16) * 10, FrameStamp("a", k, k, t_in=0)), Drops())
            run.denoised.publish(Frame(pixels_of(0, np.float32) * 10, FrameStamp("a", 10, 10, t_in=0)), Drops())
            header, _ = await mine.picture()
            assert header["levels"] == seen[0]
            await mine.say(painted=header["n"], levels=None)
            assert (await mine.picture())[0]["levels"][1] > 5 * seen[0][1]

    asyncio.run(ask())


def test_a_small_screen_gets_every_second_pixel_and_is_told() -> None:
    async def ask() -> None:
        async with serving() as (run, _, url), browser(url) as mine:
            big = np.arange(100 * 130, dtype=np.float32).reshape(100, 130)
            await mine.say(side=65, levels=[0, 13000])
            run.denoised.publish(Frame(big, FrameStamp("a", 0, 0, t_in=0)), Drops())
            header, greys = await mine.picture()
            while header["step"] == 1:
                await mine.say(painted=header["n"])
                header, greys = await mine.picture()
            assert (header["step"], header["raw"], header["denoised"]) == (2, None, [50, 65])
            assert greys == Grey().of(big[::2, ::2], Levels(0, 13000)).tobytes()

    asyncio.run(ask())


def test_a_browser_that_paints_nothing_gets_two_pictures_then_the_newest_and_holds_up_nobody() -> None:
    async def ask() -> None:
        async with serving(max_fps=1000) as (run, server, url), browser(url) as stuck, browser(url) as quick:
            for _ in range(20):
                await until_shown(run, server)
                header, _ = await quick.picture()
                await quick.say(painted=header["n"])
            assert header["n"] == server.gallery.n_pictures == 20
            for _ in range(MAX_UNPAINTED):
                first, _ = await stuck.picture()
            assert await stuck.nothing_more()
            await stuck.say(painted=first["n"])
            newest, _ = await stuck.picture()
            assert newest["n"] == 20
            assert first["n"] < 10

    asyncio.run(ask())


def test_a_browser_is_told_how_old_its_picture_is_and_what_it_was_not_shown() -> None:
    async def ask() -> None:
        async with serving(max_fps=1000) as (run, server, url), browser(url) as mine:
            deadline = time.monotonic() + 20
            while server.gallery.feed.start is None:
                run.status.start({"series": "a", "lookahead_ms": 100})
                await asyncio.sleep(0.01)
                assert time.monotonic() < deadline
            for _ in range(10):
                await until_shown(run, server)
            newest = n_received = 0
            while newest < 10:
                newest, n_received = (await mine.picture())[0]["n"], n_received + 1
                await mine.say(painted=newest)
            for _ in range(3):  # the numbers that were on their way, and those after it
                cells = (await mine.socket.receive_json(timeout=20))["cells"]
            assert cells["SHOWN"][1].startswith(f"{10 - n_received} passed over")
            age, details, _ = cells["AGE ON SCREEN"]
            assert float(age.removesuffix(" ms")) > 0
            assert "look-ahead 100" in details

    asyncio.run(ask())


def test_what_a_browser_says_wrongly_is_not_heard() -> None:
    async def ask() -> None:
        async with serving() as (run, server, url), browser(url) as mine:
            for words in (
                "no json",
                "[" * 3000,
                "[1]",
                '{"levels":[2,1]}',
                '{"side":-4,"painted":"x"}',
                '{"levels":[0,1e999]}',
            ):
                await mine.socket.send_str(words)
            await until_shown(run, server)
            header, _ = await mine.picture()
            assert header["n"] == 1

    asyncio.run(ask())


def test_pictures_come_no_faster_than_the_cap() -> None:
    async def ask() -> None:
        async with serving(max_fps=20) as (run, server, url), browser(url) as mine:
            began = time.monotonic()
            painted = 0
            while painted < 8:
                await until_shown(run, server)
                header, _ = await mine.picture()
                await mine.say(painted=header["n"])
                painted += 1
            assert time.monotonic() - began >= 6 / 20 * 0.99  # one may come early

    asyncio.run(ask())


def test_the_number_of_browsers_is_limited_and_a_place_is_free_again_when_one_leaves() -> None:
    async def ask() -> None:
        async with serving() as (_, server, url), aiohttp.ClientSession() as session:
            sockets = [await session.ws_connect(stream_of(url)) for _ in range(MAX_ONLOOKERS)]
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await session.ws_connect(stream_of(url))
            for socket in sockets:
                await socket.close()
            deadline = time.monotonic() + 20
            while server.gallery.onlookers:
                assert time.monotonic() < deadline
                await asyncio.sleep(0)
            async with session.ws_connect(stream_of(url)) as socket:
                assert (await socket.receive(timeout=20)).type == aiohttp.WSMsgType.TEXT

    asyncio.run(ask())


def test_a_taken_port_is_said_in_one_line() -> None:
    async def ask() -> None:
        async with serving() as (_, server, url):
            other = Server(server.gallery.feed, gate_for("127.0.0.1", ()))
            with pytest.raises(WireError, match="choose another --http-port"):
                await other.open("127.0.0.1", urlsplit(url).port or 0)

    asyncio.run(ask())


@pytest.mark.skipif(BROWSER is None, reason="no Chromium, Chrome or Edge here; apt install chromium-headless-shell")
def test_a_real_browser_paints_the_frames_that_were_sent_and_without_the_token_nothing() -> None:
    port = free_port()
    run = Run(port)
    command = [sys.executable, "-m", "rtdenoise.cli", "web", "--port", str(port), "--http-port", "0", "--seconds", "90"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("open ").strip()
        run.joined()
        asyncio.run(_look(run, url))
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=20)
        run.close()
    assert "token" not in said, "the token is printed once"


async def _look(run: Run, url: str) -> None:
    assert BROWSER is not None
    async with aiohttp.ClientSession() as session, new_page(BROWSER, session) as page:
        await page.go(url.partition("?")[0])
        assert "Nothing to see without the token" in await page.until("document.body && document.body.innerText")
        assert await page.do("document.querySelectorAll('canvas').length") == 0
        await page.go(url)
        await page.until("document.getElementById('cells')?.children.length === 4")
        k = run.send()
        await page.until("document.body.dataset.painted")
        await page.do("say({ levels: [0, 1000] })")
        greys = [Grey().of(pixels_of(n, np.float32), Levels(0, 1000)).copy() for n in (k, k + 1)]
        await page.until(_canvas_is(greys[0]))
        run.send()
        await page.until(_canvas_is(greys[1]))
        assert "frame 1" in await page.until(
            "document.querySelector('#denoised .caption').textContent.includes('frame 1') && document.body.innerText"
        )
        await page.do("byId('compare').click()")
        assert await page.do("getComputedStyle(byId('raw')).display") == "none"


def _canvas_is(greys: np.ndarray) -> str:
    """True in the browser when both canvases show exactly these greys, opaque."""
    rows, columns = greys.shape
    return f"""[...document.querySelectorAll('canvas')].every((canvas) => {{
        const wanted = {greys.ravel().tolist()};
        if (canvas.width !== {columns} || canvas.height !== {rows}) return false;
        const got = canvas.getContext('2d').getImageData(0, 0, {columns}, {rows}).data;
        return wanted.every((grey, i) => got[4 * i] === grey && got[4 * i + 1] === grey && got[4 * i + 2] === grey
            && got[4 * i + 3] === 255);
    }})"""
