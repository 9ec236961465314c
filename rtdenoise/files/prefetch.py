"""Images of a movie before they are asked for: read ahead by a thread into a fixed pool, or all of them in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Protocol

import numpy as np

from rtdenoise.errors import RtDenoiseError, SourceError
from rtdenoise.files.movie import Movie
from rtdenoise.frame import Pixels

BLOCK_BYTES = 8 << 20
"""Bytes per block. Engineering choice: 16 frames of 512 x 512 x 2, so that handing a block over costs less than 10 us per frame."""
N_BLOCKS = 4
"""One with the reader, one being filled, two ready: at 30 frames/s a second of slow disk or of decoding a chunk goes unnoticed."""
_STOP_S = 1.0


@dataclass(slots=True, frozen=True)
class Span:
    """The part of a movie that is played, in images: `n_images` from `first` on, `n_total` in all (round and round), None for no end."""

    first: int
    n_images: int
    n_total: int | None

    def place(self, number: int) -> int:
        """Image of the movie that is the `number`-th to be played."""
        return self.first + number % self.n_images

    def block(self, number: int, n_max: int) -> int:
        """Images from `number` on that follow each other in the movie, `n_max` at most."""
        until_end = self.n_images - number % self.n_images
        return min(n_max, until_end, until_end if self.n_total is None else self.n_total - number)


class ImageSupply(Protocol):
    """`image(number, timeout_s)`: pixels (Y, X), read-only, valid until the next call; None when they did not come in time.

    Raises what the movie raised, at the image where it happened. Numbers never go back. `stop()` ends a wait.
    """

    def image(self, number: int, timeout_s: float) -> Pixels | None:
        """See above."""

    def stop(self) -> bool:
        """May be called from any thread, any number of times; waits a second at most. False: the movie is still being read."""


class Preloaded:
    """The whole span in memory: what a benchmark of everything behind the source wants."""

    def __init__(self, movie: Movie, span: Span) -> None:
        self._images = movie.read(span.first, span.first + span.n_images)
        self._images.flags.writeable = False

    def image(self, number: int, timeout_s: float) -> Pixels | None:
        """At once."""
        image: Pixels = self._images[number % len(self._images)]
        return image

    def stop(self) -> bool:
        """Nothing runs."""
        return True


@dataclass(slots=True)
class _Block:
    pixels: Pixels
    shown: Pixels
    first: int = 0
    n: int = 0
    error: RtDenoiseError | None = None

    def __contains__(self, number: int) -> bool:
        return self.first <= number < self.first + self.n


class Prefetcher:
    """A thread that stays `N_BLOCKS` ahead of its reader and no more (drop policy `stop`: it waits for free blocks).

    Memory: `N_BLOCKS` blocks, taken at construction. A reader that jumps ahead makes the thread skip what nobody will read.
    """

    def __init__(self, movie: Movie, span: Span) -> None:
        self._movie = movie
        self._span = span
        n = max(1, min(BLOCK_BYTES // movie.info.image_bytes, span.n_images))
        self._free: Queue[_Block | None] = Queue()
        self._ready: Queue[_Block | None] = Queue()
        for _ in range(N_BLOCKS):
            self._free.put(_empty_block((n, *movie.info.shape), movie.info.dtype))
        self._current: _Block | None = None
        self._wanted = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._fill_blocks, name="replay-prefetch", daemon=True)
        self._thread.start()

    def image(self, number: int, timeout_s: float) -> Pixels | None:
        """Waits for the disk `timeout_s` at most."""
        self._wanted = number
        while self._current is None or number not in self._current:
            if not self._advance(timeout_s):
                return None
        block = self._current
        image: Pixels = block.shown[number - block.first]
        return image

    def stop(self) -> bool:
        """End the thread. One that hangs in a dead network drive is left behind, with the movie; it holds nothing up."""
        self._stopping = True
        self._free.put(None)
        self._ready.put(None)
        self._thread.join(_STOP_S)
        return not self._thread.is_alive()

    def _advance(self, timeout_s: float) -> bool:
        """Give the current block back and take the next one; False when there is none in time. Raises the block's error."""
        if self._current is not None:
            if self._current.error is not None:
                raise self._current.error
            self._free.put(self._current)
            self._current = None
        try:
            self._current = self._ready.get(timeout=max(timeout_s, 0.0))
        except Empty:
            return False
        return self._current is not None

    def _fill_blocks(self) -> None:
        number = 0
        while self._span.n_total is None or number < self._span.n_total:
            block = self._free.get()
            if block is None or self._stopping:
                return
            number = max(number, self._wanted)
            self._fill(block, number)
            self._ready.put(block)
            number += block.n
            if block.error is not None:
                return

    def _fill(self, block: _Block, number: int) -> None:
        """Fill a block; where an image is bad, up to that image."""
        n = self._span.block(number, len(block.pixels))
        block.first, block.n = number, n
        place = self._span.place(number)
        try:
            self._movie.read_into(place, block.pixels[:n])
        except RtDenoiseError:
            block.n, block.error = self._fill_singly(block, place, n)
        except Exception as error:  # the thread must not die without a word: its reader would wait for ever
            block.n, block.error = (
                0,
                SourceError(f"{self._movie.info.path}: frame {place}: {type(error).__name__}: {error}"),
            )

    def _fill_singly(self, block: _Block, place: int, n: int) -> tuple[int, RtDenoiseError | None]:
        for k in range(n):
            try:
                self._movie.read_into(place + k, block.pixels[k : k + 1])
            except RtDenoiseError as error:
                return k, error
        return n, None


def _empty_block(shape: tuple[int, ...], dtype: str) -> _Block:
    pixels = np.empty(shape, dtype=dtype)
    shown = pixels.view()
    shown.flags.writeable = False
    return _Block(pixels, shown)
