"""From the newest pair of frames to the bytes a browser paints."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from rtdenoise.frame import Pixels
from rtdenoise.viewer.contrast import Grey, Levels, levels_of
from rtdenoise.viewer.feed import Picture
from rtdenoise.wire import Message

SETTLED_AFTER = 30
"""Pictures without a denoised frame after which the automatic levels stay as they are. Engineering choice."""
MIN_SIDE, MAX_SIDE = 64, 4096


@dataclass(slots=True, frozen=True)
class View:
    """How a browser wants its pictures. levels: None for the automatic ones.  side: most rows or columns it can show."""

    levels: Levels | None = None
    side: int = 1024


class AutoLevels:
    """Levels from the first picture that has both frames; they stay, so that a change of brightness means something."""

    def __init__(self) -> None:
        self.levels: Levels | None = None
        self._n_seen = 0
        self._settled: tuple[object, ...] | None = None

    def see(self, picture: Picture) -> None:
        """Another picture is there. A new shape or pixel type begins anew."""
        kind = tuple((m.frame.pixels.shape, m.frame.pixels.dtype.name) for m in (picture.raw,) if m)
        if self._settled == kind:
            return
        self._n_seen += 1
        self.levels = levels_of(_frames(picture)) or self.levels
        if self.levels and (picture.denoised or self._n_seen >= SETTLED_AFTER):
            self._settled, self._n_seen = kind, 0


class Painter:
    """Greys of the current picture, made once for all browsers that want the same."""

    def __init__(self) -> None:
        self._number = -1
        self._made: dict[tuple[Levels, int], bytes] = {}
        self._greys = {"raw": Grey(), "denoised": Grey()}

    def paint(self, number: int, picture: Picture, levels: Levels, side: int) -> bytes:
        """Length of the header (4 bytes, little-endian), the header (JSON), the grey bytes of raw, those of denoised.

        number: of the picture.  header: n, levels, step (every how many pixels are sent), raw and denoised as [rows, columns] or null.
        """
        if number != self._number:
            self._number = number
            self._made.clear()
        step = _step(picture, side)
        made = self._made.get((levels, step))
        if made is None:
            made = self._made[levels, step] = self._encoded(number, picture, levels, step)
        return made

    def _encoded(self, number: int, picture: Picture, levels: Levels, step: int) -> bytes:
        header: dict[str, object] = {"n": number, "levels": [levels.black, levels.white], "step": step}
        body = bytearray()
        for name, message in (("raw", picture.raw), ("denoised", picture.denoised)):
            header[name] = None
            if message is not None:
                grey = self._greys[name].of(message.frame.pixels[::step, ::step], levels)
                header[name] = list(grey.shape)
                body += grey.data
        text = json.dumps(header).encode()
        return b"".join((struct.pack("<I", len(text)), text, body))


def levels_now(picture: Picture) -> Levels | None:
    """Levels that suit this picture."""
    return levels_of(_frames(picture))


def _messages(picture: Picture) -> list[Message]:
    return [message for message in (picture.raw, picture.denoised) if message is not None]


def _frames(picture: Picture) -> list[Pixels]:
    return [message.frame.pixels for message in _messages(picture)]


def _step(picture: Picture, side: int) -> int:
    """Pixels are left out, never averaged: a mean over neighbours would make the raw frame look better than it is."""
    largest: int = max(max(message.frame.pixels.shape) for message in _messages(picture))
    return -(-largest // min(max(side, MIN_SIDE), MAX_SIDE))
