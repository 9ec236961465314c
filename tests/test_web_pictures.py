"""The browser view: what is sent to whom, and what a real browser paints of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the browser view needs pip install 'rtdenoise[web]'")

import aiohttp

from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.viewer.contrast import Grey, Levels
from rtdenoise.web.onlooker import MAX_UNPAINTED
from rtdenoise.wire import Drops
from tests.browser import chromium, new_page
from tests.onlookers import SHAPE, Run, browser, pixels_of, serving, until_shown
from tests.runs import free_port

BROWSER = chromium()


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
