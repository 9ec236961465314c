"""The browser view: who may look, and what the page may do."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

pytest.importorskip("aiohttp", reason="the browser view needs pip install 'rtdenoise[web]'")

import aiohttp

from rtdenoise.errors import ConfigError, WireError
from rtdenoise.web.gate import gate_for
from rtdenoise.web.server import MAX_ONLOOKERS, Server
from tests.onlookers import serving, stream_of, until_shown


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


def test_the_address_that_is_printed_can_be_opened_even_when_all_are_served() -> None:
    async def ask() -> None:
        async with serving() as (_, other, _), aiohttp.ClientSession() as session:
            server = Server(other.gallery.feed, gate_for("0.0.0.0", ["127.0.0.0/8"]))
            url = await server.open("0.0.0.0", 0)
            try:
                assert url.startswith("http://127.0.0.")
                async with session.get(url) as answer:
                    assert answer.status == 200
            finally:
                await server.close()

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


def test_the_server_needs_no_screen_and_no_qt() -> None:
    code = "import sys; sys.modules.update(PySide6=None, pyqtgraph=None); import rtdenoise.web.server"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
