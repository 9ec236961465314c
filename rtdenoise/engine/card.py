"""Frames on a card: what is uploaded, the ring that keeps it normalised, and what comes home."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdenoise.engine.device import Device, DeviceGraph
from rtdenoise.errors import EngineError, WindowError
from rtdenoise.frame import Pixels
from rtdenoise.normalize import Normalization

GRAPHS = Path(__file__).parent / "graphs"
"""Made by tools/make_device_graphs.py."""
ALIGNED = 256
"""Bytes that the address of a tensor is a multiple of (TensorRT's rule for `set_tensor_address`)."""
N_HOMES = 3
"""Places for results: of a run under way, of one that is waited for, and of the one whose counts are still looked at."""
RAW = {"uint8": ("uint8", 1), "uint16": ("uint8", 2), "int16": ("uint8", 2), "float32": ("float32", 1)}
"""Pixel type of a frame -> type and elements per pixel of the tensor that it is uploaded as."""

Shape = tuple[int, int]
Run = Callable[[], None]


def raw_shape(dtype: str, shape: Shape) -> tuple[int, ...]:
    """What `ingest-<dtype>` takes for frames of `shape` (Y, X)."""
    return (1, *shape, 2) if RAW[dtype][1] == 2 else (1, *shape)


class Memory:
    """What one engine has taken on a card, cleared, at addresses that a tensor may begin at."""

    def __init__(self, card: Device) -> None:
        self.card = card
        self._taken: list[int] = []

    def take(self, n_bytes: int) -> int:
        """Raises EngineError when there is no room."""
        room = -(-n_bytes // ALIGNED) * ALIGNED
        address = self.card.alloc(room)
        self._taken.append(address)
        self.card.clear(address, room)
        return address

    def frames(self, n: int, shape: Shape) -> int:
        """Room for `n` float32 frames, one after the other."""
        return self.take(n * 4 * shape[0] * shape[1])

    def free(self) -> None:
        """Give everything back once no work needs it."""
        if self._taken:
            self.card.synchronize()
        while self._taken:
            self.card.free(self._taken.pop())


def replay(card: Device, queue: Run) -> Run:
    """`queue` as one launch; as it is where the card cannot record it. Runs it once: a recording must not be the first run."""
    queue()
    card.synchronize()
    try:
        return card.captured(queue)
    except EngineError:
        return queue


class Constants:
    """The two numbers of a normalisation, and their inverses, on the card."""

    def __init__(self, memory: Memory) -> None:
        self._card = memory.card
        self.offset, self.scale, self.inverse = (memory.take(4) for _ in range(3))
        self._host = memory.card.pinned((3, 1), np.float32)

    def put(self, normalization: Normalization) -> None:
        """Rounded as `Normalization.apply` and `invert` do. Waits for the card."""
        self._card.synchronize()
        self._host[:, 0] = [normalization.offset, normalization.scale, 1.0 / normalization.scale]
        for row, address in enumerate((self.offset, self.scale, self.inverse)):
            self._card.upload(address, self._host[row])
        self._card.synchronize()


class CardRing:
    """The last `capacity` normalised frames on the card, under linear frame numbers as in `rtdenoise.ring.FrameRing`."""

    def __init__(self, memory: Memory, shape: Shape, capacity: int) -> None:
        self._card, self.capacity, self._frame_bytes = memory.card, capacity, 4 * shape[0] * shape[1]
        self._slots = memory.frames(capacity, shape)
        self.n_frames = 0

    def put(self, frame: int) -> None:
        """Take the frame at this address in."""
        slot = self.n_frames % self.capacity
        self._card.copy(self._slots + slot * self._frame_bytes, frame, self._frame_bytes)
        self.n_frames += 1

    def gather(self, frames: Sequence[int], to: int) -> None:
        """Copy these frames to an address, one after the other. Raises WindowError when one of them is not here."""
        if not max(0, self.n_frames - self.capacity) <= min(frames) <= max(frames) < self.n_frames:
            raise WindowError(f"frames {min(frames)}..{max(frames)} are not all on the card; it has {self.n_frames}")
        for slot, n in self._pieces(frames):
            self._card.copy(to, self._slots + slot * self._frame_bytes, n * self._frame_bytes)
            to += n * self._frame_bytes

    def reset(self) -> None:
        """Forget all frames; numbers start again at 0."""
        self.n_frames = 0

    def _pieces(self, frames: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(slot, frames) of stretches that lie one after the other: one or two for a window that is not mirrored."""
        first = 0
        for i in range(1, len(frames) + 1):
            follows = i < len(frames) and frames[i] == frames[i - 1] + 1 and frames[i] % self.capacity
            if not follows:
                yield frames[first] % self.capacity, i - first
                first = i


class Intake:
    """The way in: a raw frame goes to the card as the camera gave it, and is normalised there.

    shape: of frames as they come.  padded: as the network wants them, filled up with copies of the last row and column.
    n_places: frames that may be on their way at a time.  n_put: frames put since the beginning.
    """

    def __init__(
        self,
        memory: Memory,
        graphs: Mapping[str, DeviceGraph],
        constants: Constants,
        shape: Shape,
        padded: Shape,
        n_places: int,
    ) -> None:
        self._card, self._graphs, self._constants = memory.card, graphs, constants
        self._shape, self._padded = shape, padded
        self._raw, self._staged = memory.frames(1, padded), memory.frames(1, padded)
        self._places = memory.card.pinned((n_places, 4 * padded[0] * padded[1]), np.uint8)
        self._views: dict[str, tuple[list[Pixels], Run]] = {}
        self.n_put = self._n_arrived = 0

    def put(self, pixels: Pixels) -> int:
        """Queue the upload of a frame; returns the address at which it will lie, normalised, until the next one."""
        places, ingest = self._views.get(pixels.dtype.name) or self._prepare(pixels.dtype.name)
        if self.n_put - self._n_arrived >= len(places):
            self._card.synchronize()
            self._n_arrived = self.n_put
        place = places[self.n_put % len(places)]
        self._fill(place, pixels)
        self._card.upload(self._raw, place)
        ingest()
        self.n_put += 1
        return self._staged

    def note_arrived(self, n_put: int) -> None:
        """What had been put when `n_put` was this has arrived: its places may be used again."""
        self._n_arrived = max(self._n_arrived, n_put)

    def _prepare(self, dtype: str) -> tuple[list[Pixels], Run]:
        n_bytes = self._padded[0] * self._padded[1] * np.dtype(dtype).itemsize
        places: list[Pixels] = [place[:n_bytes].view(dtype).reshape(self._padded) for place in self._places]
        graph, constants = self._graphs[dtype], self._constants
        addresses = (self._raw, constants.offset, constants.inverse, self._staged)
        self._views[dtype] = places, replay(self._card, lambda: graph.enqueue(addresses))
        return self._views[dtype]

    def _fill(self, place: Pixels, pixels: Pixels) -> None:
        y, x = self._shape
        np.copyto(place[:y, :x], pixels)
        place[y:, :x] = pixels[-1:]
        place[:, x:] = place[:, x - 1 : x]


class Homes:
    """The way back: counts lie in one of a few places on the card and come to pinned memory beside the work for later runs."""

    def __init__(self, memory: Memory, n_rows: int, shape: Shape) -> None:
        self._card = memory.card
        self.addresses = [memory.frames(n_rows, shape) for _ in range(N_HOMES)]
        self.arrays: list[NDArray[np.float32]] = [
            memory.card.pinned((n_rows, *shape), np.float32)  # type: ignore[misc]
            for _ in range(N_HOMES)
        ]
        self._tickets: list[int | None] = [None] * N_HOMES

    def open(self, place: int) -> int:
        """The address that work queued next may write to."""
        if (ticket := self._tickets[place]) is not None:
            self._card.hold(ticket)
        return self.addresses[place]

    def fetch(self, place: int, n_rows: int) -> None:
        """Queue the way back of the first rows there."""
        self._tickets[place] = self._card.fetch(self.arrays[place][:n_rows], self.addresses[place])

    def wait(self, place: int) -> bool:
        """Until it is here; False when it was before."""
        if (ticket := self._tickets[place]) is None:
            return False
        self._card.wait(ticket)
        self._tickets[place] = None
        return True
