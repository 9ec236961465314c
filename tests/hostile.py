"""What a sender may do to us, as Hypothesis strategies, and what must come of it. For property tests and the soak alike.

`schedules()` draws lists of `Deed`; `expect(deeds)` says which frames arrive and what is counted; a `Sender` does the deeds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import zmq
from hypothesis import strategies as st

from rtdenoise.sources.numbering import MAX_GAP, REORDER

SHAPE, OTHER_SHAPE = (6, 8), (8, 6)
PRELUDE = range(1, 10)
"""Good frames with which every schedule begins; a source learns size and rate from them."""
STEP_NS = 10_000_000
Kind = Literal[
    "good", "miss", "repeat", "late", "time back", "blank", "saturated", "nan", "garbage", "lie", "astray",
    "reshape", "retype", "restart",
]  # fmt: skip
HARMLESS: tuple[Kind, ...] = (
    "good", "miss", "repeat", "late", "time back", "blank", "saturated", "nan", "garbage", "lie", "astray",
)  # fmt: skip
ENDINGS: tuple[Kind, ...] = ("reshape", "retype", "restart")
"""What no series survives: it ends, with a name for why."""


@dataclass(frozen=True)
class Deed:
    """One thing done. n: frames left out before a good one (`miss`), which bytes (`garbage`), how a header lies (`lie`)."""

    kind: Kind
    n: int = 1


@dataclass
class Expected:
    """Numbers that arrive after the prelude, totals of the source, and how the series ends: ok, restart or geometry."""

    delivered: list[int] = field(default_factory=list)
    dropped: int = 0
    repeated: int = 0
    late: int = 0
    bad: int = 0
    time_back: int = 0
    end: Literal["ok", "restart", "geometry"] = "ok"


def schedules(endings: Sequence[Kind] = ENDINGS, most: int = 25) -> st.SearchStrategy[list[Deed]]:
    """Lists of deeds, the last of which may end the series. A sender that falls silent is one whose list is over."""
    harmless = st.lists(st.builds(Deed, st.sampled_from(HARMLESS), st.integers(1, 5)), max_size=most)
    ending = st.one_of(st.just([]), st.builds(lambda kind: [Deed(kind)], st.sampled_from(endings)))
    return st.builds(lambda deeds, end: deeds + end, harmless, ending)


@dataclass(frozen=True)
class Shot:
    """One message to be sent: a frame with its number, or bytes that are none."""

    number: int
    deed: Deed
    good: bool = True
    late_ns: int = 0


def shots(deeds: Sequence[Deed], first: int) -> Iterator[Shot]:
    """The messages of a schedule whose next number is `first`. A `late` frame is one that was left out shortly before, if any was."""
    following, left_out = first, []
    for deed in deeds:
        if deed.kind in ("garbage", "lie"):
            yield Shot(0, deed, good=False)
        elif deed.kind == "repeat":
            yield Shot(following - 1, deed)
        elif deed.kind == "astray":
            yield Shot(following + 2 * MAX_GAP, deed)
        elif deed.kind == "late":
            left_out = [number for number in left_out if following - 1 - number <= REORDER]
            if left_out:
                yield Shot(left_out.pop(), deed)
        elif deed.kind == "restart":
            yield from (Shot(following - 1000 + k, deed) for k in range(3))
            return
        else:
            if deed.kind == "miss":
                left_out.extend(range(following, following + deed.n))
                following += deed.n
            yield Shot(following, deed, late_ns=3 * STEP_NS if deed.kind == "time back" else 0)
            following += 1


def expect(deeds: Sequence[Deed], first: int) -> Expected:
    """What a source makes of it."""
    seen, newest, clock, twice = Expected(), first - 1, (first - 1) * STEP_NS, set[int]()
    for shot in shots(deeds, first):
        kind = shot.deed.kind
        if not shot.good:
            seen.bad += 1
        elif kind in ("reshape", "retype"):
            seen.dropped += shot.number - newest - 1
            seen.bad += 1
            seen.end = "geometry"
            break
        elif kind == "restart":
            seen.end = "restart"
            break
        elif kind == "repeat":
            seen.repeated += 1
        elif kind in ("late", "astray"):
            seen.late += 1
            twice.add(shot.number)
        else:
            seen.dropped += shot.number - newest - 1
            newest = shot.number
            at = shot.number * STEP_NS - shot.late_ns
            seen.time_back += at < clock
            clock = at
            seen.delivered.append(shot.number)
    return seen


class Sender:
    """Does the deeds, as ScanImage or as plain array-1.0. Bind first, then wait for `joined`."""

    def __init__(self, format_: Literal["scanimage", "array"], endpoint: str, dtype: str = "uint16") -> None:
        self._scanimage, self._dtype = format_ == "scanimage", "int16" if format_ == "scanimage" else dtype
        self._socket = zmq.Context.instance().socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 10_000)
        self._socket.bind(endpoint)

    def joined(self, timeout_s: float = 10.0) -> bool:
        """Whether somebody has subscribed in time."""
        return bool(self._socket.poll(round(timeout_s * 1000))) and bool(self._socket.recv())

    def prelude(self) -> None:
        """Good frames."""
        for number in PRELUDE:
            self.send(Shot(number, Deed("good")))

    def send(self, shot: Shot) -> None:
        """One message."""
        kind, n = shot.deed.kind, shot.deed.n
        if kind == "garbage":
            self._socket.send_multipart([bytes([n] * k) for k in (39, 7, 1, 300)[: n % 4 + 1]])
            return
        dtype = "uint8" if kind == "retype" and not self._scanimage else self._dtype
        # ScanImage has one pixel type only
        shape = OTHER_SHAPE if kind == "reshape" or (kind == "retype" and self._scanimage) else SHAPE
        body = self._pixels(kind, shape, dtype).tobytes()
        time_ns = shot.number * STEP_NS - shot.late_ns
        if self._scanimage:
            header = [float(shape[1]), float(shape[0]), 1.0, time_ns / 1e9, float(shot.number)]
            if kind == "lie":
                header[n % 5 if n % 5 != 3 else 0] = float("nan")
            self._socket.send(struct.pack("<5d", *header) + body)
            return
        told = {"htype": "array-1.0", "shape": shape, "type": dtype, "frame": shot.number, "t_src": time_ns}
        if kind == "lie":
            told |= (
                {"shape": [9, 9]},
                {"frame": "x"},
                {"type": "object"},
                {"shape": [2**31, 2**31]},
                {"htype": "dheader-1.0"},
            )[n - 1]
        self._socket.send_multipart([json.dumps(told).encode(), body])

    def close(self) -> None:
        """Unplug."""
        self._socket.close(linger=0)

    def _pixels(self, kind: Kind, shape: tuple[int, int], dtype: str) -> np.ndarray:
        image = np.arange(shape[0] * shape[1]).reshape(shape).astype(dtype)
        if kind == "blank":
            image[:] = 0
        elif kind == "saturated":
            image[:] = 1e9 if dtype == "float32" else np.iinfo(dtype).max
        elif kind == "nan" and dtype == "float32":
            image[:] = np.nan
        return image
