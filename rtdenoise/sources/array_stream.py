"""Plain `array-1.0` messages: any rig that can send a JSON header and bytes, and the raw stream of another rtdenoise."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import zmq
from pydantic import Field

from rtdenoise import wire
from rtdenoise.errors import WireError
from rtdenoise.sources.base import SourceKind, StreamInfo
from rtdenoise.sources.door import BadMessage, Exposure, FeedSettings
from rtdenoise.sources.feed import Feed
from rtdenoise.sources.socket_door import Parts, SocketDoor

MAX_CHANNELS, MAX_PLANES = 16, 1024
"""Engineering choice: every channel and plane has a window of its own, so a damaged number must not make a thousand of them."""
_ADVICE = "start the sender, and check its address and that it sends two parts, a JSON header with htype array-1.0 and the pixels"


class ArrayStreamSettings(FeedSettings):
    """Where the frames come from, and what the headers leave open."""

    endpoint: str = Field(
        description="address of the sender (sub), or where we listen on this machine (pull), as tcp://host:port"
    )
    pattern: Literal["sub", "pull"] = Field(
        default="sub",
        description="sub: connect to a PUB socket. pull: bind for a PUSH socket, which waits for us and loses nothing",
    )
    stream: str | None = Field(
        default=None, description="only this stream of a publisher that sends several: raw for another rtdenoise"
    )
    key: Path | None = Field(
        default=None, description="key file for an rtdenoise on another machine, as its `rtdenoise keys add` wrote it"
    )
    channels: int | None = Field(
        default=None, ge=1, le=MAX_CHANNELS, description="channels; default: as in the first frames"
    )
    planes: int | None = Field(default=None, ge=1, le=MAX_PLANES, description="planes; default: as in the first frames")


class _Reader:
    """Headers of one sender. A frame's number is its `src_frame`, else its `frame`, else it is counted as it arrives.

    `frame` counts all channels and planes of a stream together, so it is divided by how many there are.
    """

    def __init__(self, settings: ArrayStreamSettings) -> None:
        self._settings = settings
        self._n_keys = (settings.channels or 1) * (settings.planes or 1)
        self._n_arrived = 0

    def understand(self, parts: Parts) -> Exposure:
        """The exposure in a message; its image is a view. Raises BadMessage."""
        try:
            message = wire.decode(parts)
        except WireError as error:
            raise BadMessage(str(error)) from None
        stamp = message.frame.stamp
        if not (0 <= stamp.channel < MAX_CHANNELS and 0 <= stamp.plane < MAX_PLANES):
            raise BadMessage(f"channel {stamp.channel}, plane {stamp.plane}")
        header = bytes(parts[0].buffer if isinstance(parts[0], zmq.Frame) else parts[0])
        number = stamp.src_frame if b'"src_frame"' in header else self._number(header, stamp.frame)
        time_ns = stamp.t_src if b'"t_src"' in header else None
        return Exposure((message.frame.pixels,), number, time_ns, stamp.series, stamp.channel, stamp.plane)

    def describe(self, exposures: list[Exposure], interval_s: float | None) -> StreamInfo:
        """The stream that these frames are the first of."""
        image = exposures[0].images[0]
        channels = self._settings.channels or 1 + max(e.channel for e in exposures)
        planes = self._settings.planes or 1 + max(e.plane for e in exposures)
        self._n_keys, self._n_arrived = channels * planes, 0
        return StreamInfo(
            f"array-1.0 at {self._settings.endpoint}",
            (image.shape[0], image.shape[1]),
            image.dtype.newbyteorder("=").name,
            bit_depth=8 * image.dtype.itemsize,
            channels=channels,
            planes=planes,
            frame_interval_s=interval_s,
            live=self._settings.pattern == "sub",
        )

    def _number(self, header: bytes, frame: int) -> int:
        if b'"frame"' in header or b'"frame_num"' in header:
            return frame // self._n_keys
        self._n_arrived += 1
        return (self._n_arrived - 1) // self._n_keys


def _door(settings: ArrayStreamSettings) -> SocketDoor:
    reader = _Reader(settings)
    topic = wire.prefix(settings.stream) if settings.stream else b""
    return SocketDoor(
        "the sender",
        _ADVICE,
        settings.endpoint,
        reader.understand,
        reader.describe,
        pattern=settings.pattern,
        topic=topic,
        mark=settings.queue_frames,
        key=settings.key,
    )


ArrayStreamSource = SourceKind(
    "frames that any program sends as array-1.0 messages over ZeroMQ", ArrayStreamSettings, lambda s: Feed(_door(s), s)
)
