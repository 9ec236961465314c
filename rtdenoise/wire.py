"""The message format: two parts, a JSON header in the `array-1.0` convention of PSI htypes and the pixels as they are in memory.

Readable with three lines of Python, MATLAB or C#: parse part 1 as JSON, read part 2 as `shape` pixels of `type`, row by row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zmq

from rtdenoise.errors import WireError
from rtdenoise.frame import Frame, FrameStamp, Pixels
from rtdenoise.settings import DENOISED_PORT, RAW_PORT, STATUS_PORT, loopback

HTYPE = "array-1.0"
DENOISED_ENDPOINT = loopback(DENOISED_PORT)
RAW_ENDPOINT = loopback(RAW_PORT)
STATUS_ENDPOINT = loopback(STATUS_PORT)
MAX_HEADER_BYTES = 64 * 1024
"""Longest header that is parsed; ours are about 0.6 KiB. Engineering choice."""
MAX_BODY_BYTES = 256 * 1024 * 1024
"""Largest frame on the wire: 8192 x 8192 float32. Engineering choice."""
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
"""Pixel types of htypes `array-1.0` that are decoded; rtdenoise itself sends those in `frame.FRAME_DTYPES`."""
_MAX_TEXT = 256
_MAX_NUMBER = 2**63
_LARGEST_PIXEL_UM = 1e9

Part = bytes | bytearray | memoryview | zmq.Frame


class ForeignMessage(WireError):
    """A well-formed message of another `htype`: not for us, not a fault."""


@dataclass(slots=True, frozen=True)
class StreamFacts:
    """What is the same for every frame of a stream.

    stream: 'raw' or 'denoised'.  source: where the frames come from.  model: bundle name and hash.  backend: engine bound.
    norm: id of the calibration.  um_per_px: pixel size, None if unknown.  The last four are empty for a raw stream that has none.
    """

    stream: str
    source: str = ""
    model: str = ""
    backend: str = ""
    norm: str = ""
    um_per_px: float | None = None


@dataclass(slots=True, frozen=True)
class Drops:
    """Running totals since the series began; `src`, `in` and `proc` on the wire.

    source: lost before they reached us.  input: given up by our own queue.  processing: given up while denoising.
    """

    source: int = 0
    input: int = 0
    processing: int = 0


@dataclass(slots=True, frozen=True)
class Message:
    """A decoded message. `frame.pixels` is a view of the received bytes and keeps them alive; treat it as read-only."""

    frame: Frame
    facts: StreamFacts
    drops: Drops
    flags: tuple[str, ...] = ()


def encode_header(
    frame: Frame, facts: StreamFacts, drops: Drops, *, t_out: int | None = None, flags: Sequence[str] = ()
) -> bytes:
    """Part 1 of a message: compact JSON that starts `{"htype":"array-1.0","stream":"...",` so that a SUB prefix can filter.

    t_out: ns since the series started, in place of the stamp's.  flags: warmup, saturated, drift, ood, stalled.
    Raises WireError for pixels that are not `(Y, X)` of a known type.
    """
    stamp = frame.stamp
    return _template(facts, stamp.series, frame.pixels.shape, frame.pixels.dtype) % (
        stamp.frame,
        stamp.frame,
        stamp.src_frame,
        b"[%d,%d]" % frame.window if frame.window else b"null",
        b"true" if frame.complete else b"false",
        b",".join(_json(flag) for flag in flags),
        stamp.t_src,
        stamp.t_in,
        stamp.t_out if t_out is None else t_out,
        drops.source,
        drops.input,
        drops.processing,
        stamp.channel,
        stamp.plane,
        stamp.channel,
        stamp.dropped,
    )


def prefix(stream: str) -> bytes:
    """First bytes of every header of `stream`, for a SUB filter."""
    return b'{"htype":"%b","stream":%b,' % (HTYPE.encode(), _json(stream))


@lru_cache(maxsize=64)
def _template(facts: StreamFacts, series: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Everything that does not change from frame to frame, as a bytes template for the rest."""
    if len(shape) != 2 or dtype.name not in DTYPES:
        raise WireError(f"{facts.stream}: frames on the wire are (Y, X) of {', '.join(DTYPES)}; got {shape} {dtype}")
    kind = _json(dtype.name)
    fixed = [
        (b"source", _json(facts.source)),
        (b"shape", _json(list(shape))),
        (b"type", kind),
        (b"frame", None),
        (b"encoding", b'""'),
        (b"endianness", b'"little"'),
        (b"dtype", kind),
        (b"msg", _json(f"{facts.source}/{facts.stream}")),
        (b"frame_num", None),
        (b"series", _json(series)),
    ]
    start = b",".join(b'"%b":%b' % (key, b"%d" if value is None else _escaped(value)) for key, value in fixed)
    per_frame = (
        b'"src_frame":%d,"win":%b,"complete":%b,"flags":[%b],"t_src":%d,"t_in":%d,"t_out":%d,'
        b'"drops":{"src":%d,"in":%d,"proc":%d}'
    )
    described = b",".join(
        b'"%b":%b' % (key, _escaped(_json(value)))
        for key, value in ((b"model", facts.model), (b"backend", facts.backend), (b"norm", facts.norm))
    )
    place = b'"chan":%d,"plane":%d,"um_per_px":' + _escaped(_json(facts.um_per_px)) + b',"channel":%d,"dropped":%d}'
    return b",".join((_escaped(prefix(facts.stream)[:-1]), start, per_frame, described, place))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _escaped(rendered: bytes) -> bytes:
    return rendered.replace(b"%", b"%%")


def decode(parts: Sequence[Part]) -> Message:
    """A message from its two parts; the pixels are not copied. Keys we do not know are ignored.

    Raises ForeignMessage for another htype and WireError for anything that cannot be a frame. Never allocates what a header asks for.
    """
    if len(parts) != 2:
        raise WireError(f"a message has two parts (header, pixels), this one has {len(parts)}")
    header = _parse(parts[0])
    pixels = _pixels(header, parts[1])
    stamp = FrameStamp(
        series=_text(header, "series"),
        frame=_whole(header, "frame", _whole(header, "frame_num", 0)),
        src_frame=_whole(header, "src_frame", _whole(header, "frame", 0)),
        t_in=_whole(header, "t_in", 0),
        t_src=_whole(header, "t_src", 0),
        t_out=_whole(header, "t_out", 0),
        channel=_whole(header, "chan", 0),
        plane=_whole(header, "plane", 0),
        dropped=_whole(header, "dropped", 0),
    )
    frame = Frame(pixels, stamp, _window(header), header.get("complete", True) is not False)
    return Message(frame, _facts(header), _drops(header), _flags(header))


def _bytes_of(part: Part) -> memoryview:
    return part.buffer if isinstance(part, zmq.Frame) else memoryview(part)


def _parse(part: Part) -> dict[str, Any]:
    raw = _bytes_of(part)
    if len(raw) > MAX_HEADER_BYTES:
        raise WireError(f"header of {len(raw)} bytes; at most {MAX_HEADER_BYTES} are read")
    try:
        header = json.loads(str(raw, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"header is not JSON: {type(error).__name__}") from None
    if not isinstance(header, dict) or not isinstance(header.get("htype"), str):
        raise WireError("header is not a JSON object with an htype")
    if header["htype"] != HTYPE:
        raise ForeignMessage(f"message of htype {header['htype'][:40]!r}, not {HTYPE}")
    return header


def _pixels(header: Mapping[str, Any], body: Part) -> Pixels:
    kind = header.get("type", header.get("dtype"))
    if kind not in DTYPES:
        raise WireError(f"pixel type {_shown(kind)} is not one of {', '.join(DTYPES)}")
    if header.get("encoding", "") != "":
        raise WireError(f"encoding {_shown(header['encoding'])} is not supported; publish without compression")
    ends = header.get("endianness", "little")
    if ends not in ("little", "big"):
        raise WireError(f"endianness {_shown(ends)} is neither little nor big")
    dtype = np.dtype(kind).newbyteorder("<" if ends == "little" else ">")
    n_rows, n_columns = _shape(header)
    held = _bytes_of(body)
    if n_rows * n_columns * dtype.itemsize != held.nbytes:
        raise WireError(f"{held.nbytes} bytes do not make ({n_rows}, {n_columns}) {kind}")
    return np.frombuffer(held, dtype).reshape(n_rows, n_columns)


def _shape(header: Mapping[str, Any]) -> tuple[int, int]:
    shape = header.get("shape")
    if not isinstance(shape, list) or len(shape) != 2:
        raise WireError(f"shape {_shown(shape)} is not (Y, X)")
    n_rows, n_columns = (_number(size, "shape") for size in shape)
    if min(n_rows, n_columns) < 1 or n_rows * n_columns > MAX_BODY_BYTES:
        raise WireError(f"shape ({n_rows}, {n_columns}) is empty or larger than any frame")
    return n_rows, n_columns


def _shown(value: object) -> str:
    """A wrong value for a message to a person; what is nested or very long is not spelt out, it may be so on purpose."""
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__


def _number(value: object, key: str) -> int:
    if type(value) is not int or not -_MAX_NUMBER <= value < _MAX_NUMBER:
        raise WireError(f"{key} is {type(value).__name__}, not a whole number of 64 bits")
    return value


def _whole(header: Mapping[str, Any], key: str, default: int) -> int:
    return _number(header[key], key) if key in header else default


def _text(header: Mapping[str, Any], key: str) -> str:
    value = header.get(key, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
        raise WireError(f"{key} is not a line of at most {_MAX_TEXT} printable characters")
    return value


def _size(header: Mapping[str, Any], key: str) -> float | None:
    value = header.get(key)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < _LARGEST_PIXEL_UM:
        raise WireError(f"{key} is not a positive number")
    return float(value)


def _facts(header: Mapping[str, Any]) -> StreamFacts:
    return StreamFacts(
        stream=_text(header, "stream"),
        source=_text(header, "source"),
        model=_text(header, "model"),
        backend=_text(header, "backend"),
        norm=_text(header, "norm"),
        um_per_px=_size(header, "um_per_px"),
    )


def _window(header: Mapping[str, Any]) -> tuple[int, int] | None:
    window = header.get("win")
    if window is None:
        return None
    if not isinstance(window, list) or len(window) != 2:
        raise WireError("win is not [first, last]")
    return _number(window[0], "win"), _number(window[1], "win")


def _drops(header: Mapping[str, Any]) -> Drops:
    drops = header.get("drops", {})
    if not isinstance(drops, dict):
        raise WireError("drops is not a table of counts")
    return Drops(_whole(drops, "src", 0), _whole(drops, "in", 0), _whole(drops, "proc", 0))


def _flags(header: Mapping[str, Any]) -> tuple[str, ...]:
    flags = header.get("flags", [])
    if not isinstance(flags, list) or len(flags) > 32:
        raise WireError("flags is not a short list of words")
    return tuple(_text({"flag": flag}, "flag") for flag in flags)
