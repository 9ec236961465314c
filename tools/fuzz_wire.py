"""Hostile messages against everything that reads the wire: nothing crashes, and nothing takes more memory than two frames.

    python tools/fuzz_wire.py --n 100000 --seed 1

`fuzz(n, seed)` is the same as a function. Of n messages nine tenths go to the two decoders directly, the rest through real sockets to
a Subscriber and a StatusSubscriber, with good messages between them that must all arrive.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import zmq

from rtdenoise import status, wire
from rtdenoise.errors import WireError
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.status import EndMessage, StartMessage, StatusMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from rtdenoise.wire import Drops, StreamFacts, encode_header

ALLOWED_BYTES = 2 * wire.MAX_BODY_BYTES
SHAPE = (6, 5)
Parts = list[bytes]
_BODY = bytes(60)
_GOOD_EVERY = 50
_FRAME = Frame(
    np.zeros(SHAPE, np.uint16), FrameStamp("c0ffee", 5, 5, 3, t_src=2, t_out=4, channel=1, plane=2), window=(3, 11)
)
_HEADER = encode_header(
    _FRAME, StreamFacts("raw", "rig", "model", "engine", "n1", 0.5), Drops(1, 2, 3), flags=("drift",)
)
_STATUS = (
    StartMessage(series="a", source="rig", shape=(4, 5), saturation=4095),
    StatusMessage(series="a", acquired=3, delivered=2, dropped={"input: drop_oldest": 1}),
    EndMessage(series="a", count=2, reason="ok"),
)


@dataclass(slots=True)
class Report:
    """What became of the messages.

    most_bytes: taken by Python and numpy for one message.  grown_bytes: by which the process grew, ZeroMQ's memory included.
    trouble: what must not happen, a line each; empty when all is well.
    """

    n: int = 0
    seed: int = 0
    read: int = 0
    refused: int = 0
    through_sockets: int = 0
    most_bytes: int = 0
    grown_bytes: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing crashed, nothing grew, every message is accounted for."""
        return not self.trouble and self.read + self.refused + self.through_sockets == self.n


def fuzz(n: int, seed: int) -> Report:
    """Send `n` hostile messages, the same ones for the same seed."""
    report, chance = Report(n=n, seed=seed), random.Random(seed)
    began, rss = time.monotonic(), psutil.Process().memory_info().rss
    n_live = n // 10
    already = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        for _ in range(n - n_live):
            _try_one(report, chance)
        _through_sockets(report, chance, n_live)
    finally:
        if not already:
            tracemalloc.stop()
    report.seconds = time.monotonic() - began
    report.grown_bytes = psutil.Process().memory_info().rss - rss
    if report.grown_bytes > ALLOWED_BYTES:
        report.trouble.append(f"the process grew by {report.grown_bytes} bytes")
    return report


def hostile_parts(chance: random.Random) -> tuple[str, Parts]:
    """An image message gone wrong, and in what way."""
    kind = chance.choice(_HEAVY if chance.random() < _HEAVY_SHARE else _LIGHT)
    return kind, _HOSTILE[kind](chance)


def hostile_status(chance: random.Random) -> bytes:
    """A status message gone wrong."""
    good = chance.choice(_STATUS).to_json()
    if chance.random() < _HEAVY_SHARE:
        big: tuple[Callable[[], bytes], ...] = (
            lambda: b"[" * chance.randrange(1, 200_000),
            lambda: b'{"htype":"rtdenoise-start-1.0","series":"a","later":' + _nested(chance) + b"}",
            lambda: good[:-1] + b',"later":"' + b"x" * chance.randrange(status.MAX_STATUS_BYTES) + b'"}',
        )
        return chance.choice(big)()
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: _flipped(good, chance),
        lambda: good[: chance.randrange(len(good))],
        lambda: _with_value(json.loads(good), chance),
        lambda: _duplicated(good, chance),
        lambda: json.dumps({**json.loads(good), "epoch_ns": chance.choice((10**400, -(2**70), 1e300))}).encode(),
        lambda: chance.randbytes(chance.randrange(2000)),
    )
    return chance.choice(changes)()


def _try_one(report: Report, chance: random.Random) -> None:
    if chance.random() < 0.3:
        kind, part = "status", hostile_status(chance)
        _observe(report, kind, lambda: _use_status(status.from_json(part)))
        return
    kind, parts = hostile_parts(chance)
    _observe(report, kind, lambda: _use_frame(wire.decode(parts), parts))


def _observe(report: Report, kind: str, read: Callable[[], None]) -> None:
    """Read one message, and note what it cost."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    report.kinds[kind] += 1
    try:
        read()
        report.read += 1
    except WireError as refusal:
        report.refused += 1
        if "\n" in str(refusal) or len(str(refusal)) > 500:
            report.trouble.append(f"{kind}: a refusal of {len(str(refusal))} characters")
    except Exception as error:  # the point of the program
        report.refused += 1
        report.trouble.append(f"{kind}: {type(error).__name__}: {str(error)[:200]}")
    taken = tracemalloc.get_traced_memory()[1] - before
    report.most_bytes = max(report.most_bytes, taken)
    if taken > ALLOWED_BYTES:
        report.trouble.append(f"{kind}: took {taken} bytes")


def _use_frame(message: wire.Message, parts: Sequence[bytes]) -> None:
    """Whoever reads a message may do this with it."""
    if message.frame.pixels.nbytes != len(parts[1]):
        raise AssertionError("pixels are not the bytes that came")
    _ = message.frame.pixels.astype(np.float32).sum(), repr(message.frame.stamp), repr(message.facts), message.flags


def _use_status(message: status.AnyStatus) -> None:
    _ = repr(message)
    if isinstance(message, StartMessage):
        message.model_copy(update={"host": status.host_id()}).age_ms(t_in=1)
    elif not isinstance(message.balanced, bool):
        raise AssertionError("the account is neither balanced nor not")


def _flipped(good: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(good)
    for _ in range(chance.randrange(1, 6)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged)


def _value(chance: random.Random, depth: int = 2) -> Any:
    """A JSON value that nobody expects; Any, because that is what JSON is."""
    inner = [] if depth == 0 else [_value(chance, depth - 1) for _ in range(chance.randrange(3))]
    number = chance.choice((0, -1, 2**31, 2**53 - 10, 2**63, 2**64, 10**400, -(10**400), chance.getrandbits(64)))
    text = chance.choice(("", "\ud800", "\x00", "\x1b[2J", "<img src=x>", "uint16", "object", "é" * 300, "a\nb"))
    choices = (None, True, number, -number, float("nan"), math.inf, 1e308, 0.5, text, inner, {"a": inner}, [number] * 2)
    return chance.choice(choices)


def _with_value(header: dict[str, Any], chance: random.Random) -> bytes:
    for _ in range(chance.randrange(1, 4)):
        header[chance.choice([*header, "encoding", "um_per_px", "later"])] = _value(chance)
    return json.dumps({**header, "htype": header["htype"] if chance.random() < 0.9 else _value(chance)}).encode()


def _duplicated(good: bytes, chance: random.Random) -> bytes:
    key = chance.choice(list(json.loads(good)))
    return good[:-1] + b"," + json.dumps({key: _value(chance)}).encode()[1:]


def _nested(chance: random.Random) -> bytes:
    """Lists in lists: around Python's limit of recursion and far beyond it."""
    depth = chance.choice((50, chance.randrange(900, 1000), 5_000, 30_000))
    return b"[" * depth + b"]" * depth


def _asking(shape: object, kind: str = "uint16") -> bytes:
    return json.dumps({"htype": "array-1.0", "shape": shape, "type": kind, "frame": 1}).encode()


_MANY_KEYS = b'{"htype":"array-1.0",' + b",".join(b'"%d":[]' % k for k in range(6000)) + b"}"
_HOSTILE: dict[str, Callable[[random.Random], Parts]] = {
    "random bytes": lambda c: [c.randbytes(c.randrange(300)) for _ in range(2)],
    "flipped": lambda c: [_flipped(_HEADER, c), _BODY],
    "cut": lambda c: [_HEADER[: c.randrange(len(_HEADER))], _BODY],
    "wrong value": lambda c: [_with_value(json.loads(_HEADER), c), _BODY],
    "key twice": lambda c: [_duplicated(_HEADER, c), _BODY],
    "wrong length": lambda c: [_HEADER, bytes(c.randrange(200))],
    "2 GiB": lambda c: [_asking([2**15, 2**15 + c.randrange(9)]), _BODY],
    "huge shape": lambda c: [_asking([c.getrandbits(70), c.getrandbits(70)]), _BODY],
    "nested": lambda c: [
        b'{"htype":"array-1.0","%b":' % c.choice((b"shape", b"type", b"x")) + _nested(c) + b"}",
        _BODY,
    ],
    "long header": lambda c: [_HEADER[:-1] + b',"x":"' + b"x" * c.choice((64_000, 66_000, 500_000)) + b'"}', _BODY],
    "many keys": lambda _: [_MANY_KEYS, _BODY],
    "many digits": lambda c: [b'{"htype":"array-1.0","frame":' + b"9" * c.choice((20, 400, 5000)) + b"}", _BODY],
    "other htype": lambda c: [b'{"htype":"%b"}' % c.choice((b"x", b"array-2.0", b"dheader-1.0")), _BODY],
    "not text": lambda c: [b'{"htype":"array-1.0","source":"\xff\xfe' + c.randbytes(9) + b'"}', _BODY],
    "parts": lambda c: [_HEADER] * c.choice((0, 1, 3, 5, 200)),
    "empty": lambda c: c.choice(([b"", b""], [b"", _BODY], [_HEADER, b""])),
    "good": lambda c: [_HEADER, _BODY],
}


_HEAVY = ("nested", "long header", "many keys")
_LIGHT = tuple(kind for kind in _HOSTILE if kind not in _HEAVY)
_HEAVY_SHARE = 0.02
"""Messages that take long to make and to read, among those that do not, so that ten thousand take seconds."""


def _through_sockets(report: Report, chance: random.Random, n: int) -> None:
    """Hostile messages over TCP, and a good one after every few of them that must come out."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as images, context.socket(zmq.XPUB) as states:
        for socket in (images, states):
            socket.setsockopt(zmq.XPUB_NODROP, 1)
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind("tcp://127.0.0.1:*")
        with (
            Subscriber(images.getsockopt_string(zmq.LAST_ENDPOINT)) as frames,
            StatusSubscriber(states.getsockopt_string(zmq.LAST_ENDPOINT)) as news,
        ):
            images.recv(), states.recv()
            for k in range(n):
                images.send_multipart(hostile_parts(chance)[1] or [b""])
                states.send(hostile_status(chance))
                report.through_sockets += 1
                if k % _GOOD_EVERY == 0 or k == n - 1:
                    _expect_good(report, (images, frames), (states, news), k)
            n_seen = frames.bad + frames.foreign + frames.received + frames.stray
            n_sent = n + -(-n // _GOOD_EVERY) + (1 if n and (n - 1) % _GOOD_EVERY else 0)
            if n_seen != n_sent:
                report.trouble.append(f"sockets: {n_sent} messages were sent, {n_seen} are accounted for")


def _expect_good(
    report: Report,
    images: tuple[zmq.Socket[bytes], Subscriber],
    states: tuple[zmq.Socket[bytes], StatusSubscriber],
    k: int,
) -> None:
    series = f"good {k}"
    header = encode_header(Frame(_FRAME.pixels, FrameStamp(series, 0, 0, 0)), StreamFacts("raw"), Drops())
    images[0].send_multipart([header, _BODY])
    states[0].send(EndMessage(series=series, count=k).to_json())
    try:
        while (message := images[1].read(timeout_s=10)) is not None and message.frame.stamp.series != series:
            pass
        while (news := states[1].read(timeout_s=10)) is not None and news.series != series:
            pass
    except Exception as error:  # the point of the program
        report.trouble.append(f"sockets: {type(error).__name__}: {str(error)[:200]}")
        return
    if message is None or news is None:
        report.trouble.append(f"sockets: the good messages after {k} hostile ones did not arrive")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    report = fuzz(args.n, args.seed)
    print(f"{report.n} messages in {report.seconds:.1f} s: {report.read} read, {report.refused} refused,", end=" ")
    print(f"{report.through_sockets} through sockets; at most {report.most_bytes / 2**20:.1f} MiB for one,", end=" ")
    print(f"the process grew by {report.grown_bytes / 2**20:.1f} MiB")
    for line in sorted(set(report.trouble))[:20]:
        print(f"TROUBLE {line}")
    sys.exit(not report.ok)


if __name__ == "__main__":
    main()
