"""The nouns: a frame, its stamp, and the window a network sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rtdenoise.errors import GeometryChanged, WindowError

Pixels = NDArray[np.generic]
FRAME_DTYPES = ("uint8", "uint16", "int16", "float32")
"""Pixel types a frame may have; anything else (RGB, 32-bit counts) is refused where it enters."""


@dataclass(slots=True, frozen=True)
class FrameStamp:
    """Which frame it is and when. Times are integer ns since the series started, on `time.perf_counter_ns`.

    series: hex id of the uninterrupted acquisition.  frame: index in this stream, from 0.
    src_frame: the camera's own number (per channel where the camera numbers them so).
    t_src: device time; t_in: arrival in our process; t_out: handed to the publisher (0 until then).
    dropped: camera frames of this channel and plane that were lost just before this one.
    """

    series: str
    frame: int
    src_frame: int
    t_in: int
    t_src: int = 0
    t_out: int = 0
    channel: int = 0
    plane: int = 0
    dropped: int = 0

    @property
    def key(self) -> tuple[int, int]:
        """(channel, plane): each key has its own ring and window."""
        return (self.channel, self.plane)


@dataclass(slots=True, frozen=True)
class Frame:
    """One camera image `(Y, X)` with its stamp. Pixels are in camera counts, raw or denoised.

    `window` is (first, last) camera number that went into it and `complete` is False when the window was cut by a gap or
    by the start or end of the series; both describe denoised frames only.
    """

    pixels: Pixels
    stamp: FrameStamp
    window: tuple[int, int] | None = None
    complete: bool = True

    def restamped(self, **changes: int | str) -> Frame:
        """The same pixels with some fields of the stamp replaced."""
        return replace(self, stamp=replace(self.stamp, **changes))  # type: ignore[arg-type]


def check_frame(pixels: Pixels, shape: tuple[int, int], dtype: DTypeLike) -> None:
    """Raise GeometryChanged unless `pixels` is `(Y, X)` of this shape and type."""
    if pixels.shape != shape or pixels.dtype != np.dtype(dtype):
        raise GeometryChanged(
            f"frame is {pixels.shape} {pixels.dtype}, the series began with {shape} {np.dtype(dtype)}; "
            "stop the run, then start it again with the new geometry"
        )


@dataclass(slots=True, frozen=True)
class WindowSpec:
    """The T consecutive frames a network sees, the positions it emits, and the new frames per run.

    size: T.  emits: positions 0..T-1 that come out of a run, ascending and consecutive.  hop: new frames per run.
    edge: at the start and end of a segment a window is filled up with mirrored frames ("mirror"), or cut to the frames that exist
    ("trim": FAST merges fewer predictions there).  min_size: the fewest frames a trimmed window may have; the first outputs wait for them.
    """

    size: int
    emits: Sequence[int] = field(default=(0,))
    hop: int = 1
    edge: Literal["mirror", "trim"] = "mirror"
    min_size: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "emits", tuple(self.emits))
        if self.min_size == 0:
            object.__setattr__(self, "min_size", self.size)
        steps = [b - a for a, b in zip(self.emits, self.emits[1:], strict=False)]
        inside = bool(self.emits) and self.emits[0] >= 0 and self.emits[-1] < self.size
        if self.size < 1 or self.hop < 1 or not inside or any(step != 1 for step in steps):
            raise WindowError(f"window of {self.size} frames cannot emit {self.emits} at hop {self.hop}")
        if not 1 <= self.min_size <= self.size:
            raise WindowError(f"window of {self.size} frames cannot have min_size {self.min_size}")

    @property
    def lookahead(self) -> int:
        """Later frames needed before the newest emitted frame can come out."""
        return self.size - 1 - self.emits[-1]

    @property
    def latency_frames(self) -> int:
        """Most frames that arrive after a frame before it comes out: look-ahead + hop - 1."""
        return self.lookahead + self.hop - 1


@dataclass(slots=True, frozen=True)
class StreamInfo:
    """What a source will deliver, known before the first frame.

    shape: (Y, X).  dtype: numpy name, one of FRAME_DTYPES.  capacity: frames the device buffers.
    frame_interval_s: per frame of one channel and plane, None if unknown.  n_frames: frames in a series, None if open-ended.
    live: True when frames come whether or not anybody reads.
    scan: what the acquisition software says about the scan (bidirectional, line_time_s, ...), empty when it says nothing.
    """

    name: str
    shape: tuple[int, int]
    dtype: str
    bit_depth: int = 16
    channels: int = 1
    planes: int = 1
    frame_interval_s: float | None = None
    live: bool = True
    capacity: int = 0
    n_frames: int | None = None
    um_per_px: float | None = None
    scan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fps(self) -> float | None:
        """Frames per second of all channels and planes together, None if unknown."""
        return self.channels * self.planes / self.frame_interval_s if self.frame_interval_s else None
