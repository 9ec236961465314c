"""ScanImage's ZeroMQ stream: what a resonant vDAQ system publishes itself (ScanImage Premium 2025 and later), or
`examples/scanimage/publish_frames.m` from any other.

A message is 40 bytes, five little-endian doubles (pixelsPerLine, linesPerFrame, numChannels, timestamp in s, frameNumber), and the
pixels as little-endian int16: x fastest, then y, then channel; in the same part, in one of their own, or in one per channel.
"""

from __future__ import annotations

import math
import struct

import numpy as np
import zmq
from pydantic import Field

from rtdenoise.frame import Pixels
from rtdenoise.sources.base import SourceKind, StreamInfo
from rtdenoise.sources.door import BadMessage, Exposure, FeedSettings
from rtdenoise.sources.feed import Feed
from rtdenoise.sources.socket_door import Parts, SocketDoor

HEADER = struct.Struct("<5d")
MAX_SIDE, MAX_CHANNELS = 16_384, 16
"""Largest frame that is believed; ScanImage has up to 4 channels and a few thousand pixels per line. Engineering choice."""
MAX_SECONDS = 2.3e9
"""Fits the 64 bits of a stamp, and still holds the seconds since 1970 that another program may send in the place of ScanImage's."""
_PIXEL = np.dtype("<i2")
_ADVICE = "start Focus or Grab, and look at hSI.hScan2D.hAcq.ZMQAddress (or whether publish_frames is ticked under User Functions)"


class ScanImageSettings(FeedSettings):
    """Where ScanImage publishes."""

    endpoint: str = Field(
        default="tcp://127.0.0.1:65179", description="address of the ScanImage computer and the port of its ZMQAddress"
    )


def _door(settings: ScanImageSettings) -> SocketDoor:
    return SocketDoor("ScanImage", _ADVICE, settings.endpoint, understand, _describe, mark=settings.queue_frames)


ScanImageSource = SourceKind(
    "frames that ScanImage publishes over ZeroMQ", ScanImageSettings, lambda s: Feed(_door(s), s)
)


def understand(parts: Parts) -> Exposure:
    """The exposure in a message; its images are views. Raises BadMessage. Never allocates what a header asks for."""
    held = [part.buffer if isinstance(part, zmq.Frame) else memoryview(part) for part in parts]
    if len(held[0]) < HEADER.size:
        raise BadMessage(f"first part of {len(held[0])} bytes; a header has {HEADER.size}")
    n_columns, n_lines, n_channels, seconds, number = HEADER.unpack_from(held[0])
    shape = (_whole(n_channels, MAX_CHANNELS), _whole(n_lines, MAX_SIDE), _whole(n_columns, MAX_SIDE))
    body = [held[0][HEADER.size :], *held[1:]]
    images = _images([part for part in body if part.nbytes], shape)
    if not 0 <= number < 2**53 or number != int(number):
        raise BadMessage(f"frameNumber {number}")
    time_ns = round(seconds * 1e9) if math.isfinite(seconds) and abs(seconds) < MAX_SECONDS else None
    return Exposure(images, int(number), time_ns)


def _images(body: list[memoryview], shape: tuple[int, int, int]) -> tuple[Pixels, ...]:
    n_channels, n_lines, n_columns = shape
    n_bytes = n_lines * n_columns * _PIXEL.itemsize
    if len(body) == 1 and body[0].nbytes == n_bytes * n_channels:
        return tuple(np.frombuffer(body[0], _PIXEL).reshape(shape))
    if len(body) == n_channels and all(part.nbytes == n_bytes for part in body):
        return tuple(np.frombuffer(part, _PIXEL).reshape(n_lines, n_columns) for part in body)
    raise BadMessage(f"{[part.nbytes for part in body]} bytes do not make {shape} int16")


def _whole(value: float, most: int) -> int:
    if not 1 <= value <= most or value != int(value):
        raise BadMessage(f"{value} is no size of a frame")
    return int(value)


def _describe(exposures: list[Exposure], interval_s: float | None) -> StreamInfo:
    first = exposures[0].images
    rows, columns = first[0].shape
    return StreamInfo("ScanImage", (rows, columns), "int16", channels=len(first), frame_interval_s=interval_s)
