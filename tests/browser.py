"""A real headless Chromium for tests, driven over its DevTools socket. Any Chrome, Chromium or Edge that is installed will do."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
PLACES = (
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
FLAGS = (
    "--headless",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--no-sandbox",  # containers have none, and the only page is ours
)
TIMEOUT_S = 20.0


def chromium() -> str | None:
    """Path of a browser, None when there is none."""
    named = (shutil.which(name) for name in NAMES)
    placed = (place for place in PLACES if Path(place).is_file())
    return next((path for path in (*named, *placed) if path), None)


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._n_sent = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A DevTools command and its answer."""
        self._n_sent += 1
        number = self._n_sent
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json(timeout=TIMEOUT_S)
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

    async def go(self, address: str) -> None:
        """Open an address."""
        await self.call("Page.navigate", url=address)

    async def do(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        got = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait inside the browser until the expression is true; gives its value."""
        wait = f"""new Promise((done, fail) => {{
            const since = performance.now();
            const look = () => {{
                const value = {script};
                if (value) done(value);
                else if (performance.now() - since > {1000 * TIMEOUT_S}) fail(new Error("never happened"));
                else setTimeout(look, 20);
            }};
            look();
        }})"""
        return await self.do(wait)

    async def screenshot(self, path: Path, width: int, height: int, scale: float = 1.0) -> None:
        """Save what a window of this size shows."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < height}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)
        painted = await self.do("Number(document.body.dataset.painted)")
        await self.until(f"Number(document.body.dataset.painted) > {painted + 2}")
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def new_page(path: str, session: aiohttp.ClientSession) -> AsyncIterator[Page]:
    """A tab in a browser of its own, closed afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HOME": profile},
            start_new_session=True,
        )
        try:
            port = _debugging_port(process)
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tab = next(tab for tab in await answer.json() if tab["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                await page.call("Page.enable")
                yield page
                await page.call("Browser.close")
            process.wait(TIMEOUT_S)
        finally:
            _kill(process)
            process.wait(TIMEOUT_S)
            if process.stderr is not None:
                process.stderr.close()  # read no further: a helper of the browser may hold the other end a little longer


def _kill(process: subprocess.Popen[str]) -> None:
    """What was started may be a script that started the browser, so the whole group goes."""
    if sys.platform == "win32":
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _debugging_port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if "DevTools listening on ws://" in line:
            return int(line.split("ws://")[1].split("/")[0].rpartition(":")[2])
    raise AssertionError(f"the browser did not start: {''.join(said)}")
