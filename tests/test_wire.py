"""The message format: what is sent can be read by anybody, and what is read is checked."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdenoise.errors import WireError
from rtdenoise.frame import FRAME_DTYPES, Frame, FrameStamp
from rtdenoise.wire import (
    DTYPES,
    MAX_HEADER_BYTES,
    Drops,
    ForeignMessage,
    StreamFacts,
    decode,
    encode_header,
    prefix,
)

FACTS = StreamFacts("denoised", "rig 2, 100 %s of it: µm", "fast-simulated 0123456789ab", "openvino-bf16", "n1", 0.52)
STAMP = FrameStamp("c0ffee", frame=2**53 - 10, src_frame=7, t_in=3, t_src=2, t_out=4, channel=1, plane=2, dropped=5)
WIRE_ORDER = [
    "htype",
    "stream",
    "source",
    "shape",
    "type",
    "frame",
    "encoding",
    "endianness",
    "dtype",
    "msg",
    "frame_num",
]
WIRE_ORDER += ["series", "src_frame", "win", "complete", "flags", "t_src", "t_in", "t_out", "drops"]
WIRE_ORDER += ["model", "backend", "norm", "chan", "plane", "um_per_px"]


def numbered(k: int, dtype: str = "uint16", shape: tuple[int, int] = (6, 5)) -> Frame:
    return Frame(np.full(shape, k, dtype), FrameStamp("c0ffee", k, k, k))


def header_of(sent: Frame, **changes: Any) -> dict[str, Any]:
    return {**json.loads(encode_header(sent, FACTS, Drops())), **changes}


def as_parts(header: object, body: bytes = b"\0" * 60) -> list[bytes]:
    return [json.dumps(header).encode(), body]


@pytest.mark.parametrize("dtype", FRAME_DTYPES)
def test_what_was_sent_is_what_is_read(dtype: str) -> None:
    pixels = np.arange(30).reshape(6, 5).astype(dtype) - np.array(7).astype(dtype)
    sent = Frame(pixels, STAMP, window=(3, 11), complete=False)
    message = decode([encode_header(sent, FACTS, Drops(1, 2, 3), flags=("drift", "ood")), pixels.tobytes()])
    np.testing.assert_array_equal(message.frame.pixels, pixels)
    assert message.frame.pixels.dtype == pixels.dtype
    assert (message.frame.stamp, message.frame.window, message.frame.complete) == (STAMP, (3, 11), False)
    assert (message.facts, message.drops, message.flags) == (FACTS, Drops(1, 2, 3), ("drift", "ood"))


def test_a_header_has_every_key_in_the_agreed_order_and_is_short() -> None:
    header = encode_header(Frame(np.zeros((512, 512), np.float32), STAMP), FACTS, Drops())
    assert header.startswith(b'{"htype":"array-1.0","stream":"denoised",')
    assert header.startswith(prefix("denoised"))
    assert list(json.loads(header))[: len(WIRE_ORDER)] == WIRE_ORDER
    assert len(header) < 1024


def test_the_time_of_sending_can_be_given_by_the_caller() -> None:
    assert json.loads(encode_header(Frame(np.zeros((2, 2), np.uint8), STAMP), FACTS, Drops(), t_out=99))["t_out"] == 99


def test_old_clients_find_their_aliases() -> None:
    header = header_of(numbered(4))
    assert (header["dtype"], header["frame_num"], header["msg"]) == ("uint16", 4, f"{FACTS.source}/denoised")


def test_a_header_follows_a_change_of_geometry() -> None:
    for shape, dtype in (((6, 5), "uint16"), ((3, 5), "uint16"), ((6, 5), "float32")):
        header = header_of(numbered(1, dtype, shape))
        assert (tuple(header["shape"]), header["type"]) == (shape, dtype)


def test_reading_does_not_copy_pixels() -> None:
    body = bytes(range(30)) * 2
    pixels = decode(as_parts(header_of(numbered(0)), body)).frame.pixels
    assert np.shares_memory(pixels, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["little", "big"])
def test_every_pixel_type_of_the_convention_is_read_in_both_byte_orders(dtype: str, order: str) -> None:
    values = np.arange(6).reshape(2, 3)
    body = values.astype(np.dtype(dtype).newbyteorder("<" if order == "little" else ">")).tobytes()
    pixels = decode(as_parts({"htype": "array-1.0", "shape": [2, 3], "type": dtype, "endianness": order}, body)).frame
    np.testing.assert_array_equal(pixels.pixels, values.astype(dtype))


def test_keys_of_a_later_version_are_ignored() -> None:
    assert decode(as_parts(header_of(numbered(3), new={"deep": [1, None]}))).frame.stamp.frame == 3


def test_a_plain_array_message_of_another_program_is_read() -> None:
    message = decode(as_parts({"htype": "array-1.0", "shape": [6, 5], "type": "uint16", "frame": 12}))
    assert (message.frame.stamp.frame, message.frame.stamp.src_frame, message.facts.stream) == (12, 12, "")


def test_another_htype_is_foreign_not_bad() -> None:
    with pytest.raises(ForeignMessage, match="chunk-2"):
        decode(as_parts({"htype": "chunk-2.0", "shape": [6, 5]}))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shape": [6, 6]}, "60 bytes do not make"),
        ({"shape": [2**31, 2**31]}, "larger than any frame"),
        ({"shape": [-6, -5]}, "empty"),
        ({"shape": [6.0, 5.0]}, "whole number"),
        ({"shape": [30]}, "not \\(Y, X\\)"),
        ({"type": "object"}, "pixel type"),
        ({"type": ["uint16"]}, "pixel type"),
        ({"encoding": "bslz4"}, "without compression"),
        ({"endianness": "middle"}, "endianness"),
        ({"frame": True}, "frame is bool"),
        ({"frame": 10**30}, "64 bits"),
        ({"t_in": "soon"}, "t_in is str"),
        ({"series": "\ud800"}, "printable"),
        ({"source": "x" * 300}, "printable"),
        ({"win": [1]}, "win"),
        ({"drops": 3}, "drops"),
        ({"flags": [[]]}, "flag"),
        ({"um_per_px": -1}, "um_per_px"),
    ],
)
def test_a_damaged_header_is_refused_in_one_line(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(WireError, match=complaint) as refused:
        decode(as_parts(header_of(numbered(1), **change)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"{}"],
        [b"{}"] * 5,
        [b"", b""],
        [b"[" * 60_000, b""],
        [b" " * (MAX_HEADER_BYTES + 1), b""],
        [b'{"htype":"array-1.0","frame":' + b"9" * 5000 + b"}", b""],
        [b"\xff\xfe\x00", b"x"],
        [b"null", b""],
    ],
    ids=["none", "one", "five", "empty", "nested", "long", "huge number", "not text", "null"],
)
def test_parts_that_make_no_message_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(parts)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3), np.complex64)], ids=["3-D", "complex"]
)
def test_pixels_that_no_client_could_read_are_not_sent(pixels: Any) -> None:
    with pytest.raises(WireError, match=r"\(Y, X\)"):
        encode_header(Frame(pixels, STAMP), FACTS, Drops())


def assert_read_or_refused(parts: list[bytes]) -> None:
    try:
        message = decode(parts)
    except WireError:
        return
    assert message.frame.pixels.nbytes == len(parts[1])


def test_ten_thousand_damaged_messages_are_read_or_refused() -> None:
    random = np.random.default_rng(20_261_121)
    header = encode_header(numbered(5), FACTS, Drops())
    for _ in range(10_000):
        damaged = bytearray(header)
        for place in random.integers(0, len(header), random.integers(1, 6)):
            damaged[place] = random.integers(0, 256)
        cut = random.integers(1, len(header) + 1) if random.random() < 0.2 else len(header)
        assert_read_or_refused([bytes(damaged[:cut]), bytes(60)])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(WIRE_ORDER), JSON, max_size=6), st.binary(max_size=64))
def test_any_value_of_any_key_is_read_or_refused(values: dict[str, object], body: bytes) -> None:
    assert_read_or_refused(as_parts({**header_of(numbered(5)), **values, "htype": "array-1.0"}, body))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(parts)
