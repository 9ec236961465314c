"""One browser that looks: what it wants, what it was sent, what it has painted."""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rtdenoise.viewer import theme
from rtdenoise.viewer.contrast import Levels
from rtdenoise.viewer.feed import Feed, Rate
from rtdenoise.viewer.report import report
from rtdenoise.web.pictures import MAX_SIDE, AutoLevels, Painter, View, levels_now

if TYPE_CHECKING:
    from aiohttp.web import WebSocketResponse

MAX_UNPAINTED = 2
"""Pictures that may be under way to a browser. One more than it paints, so that a slow link still moves. Engineering choice."""
STATE_S = 0.5
"""How often numbers are sent. Engineering choice: as fast as a person reads them."""


class Gallery:
    """What all browsers look at: one feed, one picture at a time.

    Nothing is queued for a browser (drop_oldest, depth 1): it is given the newest picture when it can take one.
    """

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.auto = AutoLevels()
        self.painter = Painter()
        self.n_pictures = 0
        self.onlookers: set[Onlooker] = set()

    def look(self) -> None:
        """Take what has arrived; wake the browsers when there is a new picture."""
        if not self.feed.look().changed:
            return
        self.n_pictures += 1
        self.auto.see(self.feed.picture)
        for onlooker in self.onlookers:
            onlooker.wake.set()


class Onlooker:
    """Sends to one browser at its own speed, at most `max_fps` pictures a second; a slow one delays nobody else.

    A browser says which picture it has painted, and at most two are under way to it: what the network holds back is never old.
    """

    def __init__(self, gallery: Gallery, socket: WebSocketResponse, max_fps: float, clock: Callable[[], float]) -> None:
        self.wake = asyncio.Event()
        self._not_sent = 0
        self._before = gallery.feed.passed_over
        self._gallery, self._socket, self._clock = gallery, socket, clock
        self._interval_s = 1.0 / max_fps
        self._view = View()
        self._repaint = False
        self._last = gallery.n_pictures - 1 if gallery.n_pictures else 0
        self._under_way: deque[tuple[int, Callable[[], float | None]]] = deque()
        self._ages_ms: deque[float] = deque(maxlen=64)
        self._painted = Rate()
        self._next_state_s = self._next_picture_s = -math.inf

    @property
    def passed_over(self) -> int:
        """Denoised frames that came since it joined and that it was not sent: too many for it, or newer ones came with them."""
        return self._not_sent + self._gallery.feed.passed_over - self._before

    async def talk(self) -> None:
        """Send until the browser is gone (ConnectionError, or cancelled)."""
        while True:
            self.wake.clear()
            if self._clock() >= self._next_state_s:
                self._next_state_s = self._clock() + STATE_S
                await self._socket.send_str(json.dumps(self._state()))
            wait_s = self._next_state_s - self._clock()
            if self._wants_picture():
                if self._clock() >= self._next_picture_s:
                    await self._send_picture()
                    continue
                wait_s = min(wait_s, self._next_picture_s - self._clock())
            await self._sleep(wait_s)

    def hear(self, text: str) -> None:
        """A browser says `painted` n, `levels` (null: choose now; [black, white]), `side`. What makes no sense is not heard."""
        try:
            said: Any = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        if type(said.get("painted")) is int:
            self._note_painted(said["painted"])
        if type(said.get("side")) is int and 0 < said["side"] <= MAX_SIDE:
            self._change(replace(self._view, side=said["side"]))
        if "levels" in said:
            self._change(replace(self._view, levels=_levels(said["levels"]) or levels_now(self._gallery.feed.picture)))
        self.wake.set()

    def _change(self, view: View) -> None:
        self._repaint = self._repaint or view != self._view
        self._view = view

    def _wants_picture(self) -> bool:
        new = self._gallery.n_pictures > self._last or (self._repaint and self._gallery.n_pictures > 0)
        return new and len(self._under_way) < MAX_UNPAINTED

    async def _send_picture(self) -> None:
        gallery, number = self._gallery, self._gallery.n_pictures
        levels = self._view.levels or gallery.auto.levels or Levels(0.0, 1.0)
        self._not_sent += max(0, number - self._last - 1)
        self._last, self._repaint = number, False
        # One that was late may be followed early, so that the rate asked for is reached; more than one may not.
        self._next_picture_s = max(self._next_picture_s, self._clock() - self._interval_s) + self._interval_s
        self._under_way.append((number, _age_of(gallery.feed)))
        await self._socket.send_bytes(gallery.painter.paint(number, gallery.feed.picture, levels, self._view.side))

    def _note_painted(self, number: int) -> None:
        while self._under_way and self._under_way[0][0] <= number:
            _, age_ms = self._under_way.popleft()
            seen_ms = age_ms()
            if seen_ms is not None:
                self._ages_ms.append(seen_ms)
            self._painted.add(1, self._clock())

    async def _sleep(self, wait_s: float) -> None:
        try:
            await asyncio.wait_for(self.wake.wait(), max(wait_s, 0.001))
        except TimeoutError:
            return

    def _state(self) -> dict[str, object]:
        self._painted.add(0, self._clock())
        told = report(self._gallery.feed)
        shown = (f"{self._painted.per_s:.1f} /s", f"{self.passed_over} passed over here", theme.TEXT)
        cells = {**told.cells, "AGE ON SCREEN": self._age(), "SHOWN": shown}
        return {
            "state": told.state,
            "colour": told.colour,
            "cells": cells,
            "raw": {"caption": told.raw_caption, "notice": told.raw_notice},
            "denoised": {"caption": told.denoised_caption, "notice": told.denoised_notice},
            "model": told.model,
        }

    def _age(self) -> tuple[str, str, str]:
        """Until the browser said that it had painted: the way there and back is included."""
        if not self._ages_ms or self._gallery.feed.ended():
            return "-", "needs a run on the computer that serves this page", theme.QUIET
        median, high = np.percentile(self._ages_ms, (50, 95))
        return f"{median:.0f} ms", f"p95 {high:.0f} ms{_waited(self._gallery.feed)}", theme.TEXT


def _waited(feed: Feed) -> str:
    waited_ms = feed.start.lookahead_ms if feed.start else None
    return f", look-ahead {waited_ms:.0f}" if waited_ms else ""


def _levels(asked: object) -> Levels | None:
    if not isinstance(asked, list) or len(asked) != 2 or not all(type(count) in (int, float) for count in asked):
        return None
    black, white = asked
    return (
        Levels(float(black), float(white)) if math.isfinite(black) and math.isfinite(white) and black < white else None
    )


def _age_of(feed: Feed) -> Callable[[], float | None]:
    """How old the frame on screen is whenever it is asked, whatever the feed shows by then."""
    shown = feed.picture.raw if feed.raw_only() or feed.picture.denoised is None else feed.picture.denoised
    start = feed.start
    if shown is None or start is None or shown.frame.stamp.series != start.series:
        return lambda: None
    t_in = shown.frame.stamp.t_in
    return lambda: start.age_ms(t_in)
