"""A subscriber that speaks the protocol itself (ZMTP 3.0, ZeroMQ RFC 23), and so may say what no library would."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Self

GREETING = b"\xff" + bytes(8) + b"\x7f" + bytes([3, 0]) + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 3) + b"SUB"


class Enemy:
    """Connected to `endpoint` as a SUB socket."""

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.removeprefix("tcp://").split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.sendall(GREETING + bytes([4, len(READY)]) + READY)
        *_, n_bytes = self._exactly(len(GREETING) + 2)
        self._exactly(n_bytes)  # what comes before the other side is ready is taken for a broken handshake

    def _exactly(self, n_bytes: int) -> bytes:
        got = b""
        while len(got) < n_bytes:
            got += self._socket.recv(n_bytes - len(got)) or b"\0" * n_bytes
        return got

    def say(self, message: bytes, times: int = 1) -> None:
        """Send a message of one part; nothing happens when we were shown the door already."""
        long = len(message) > 255
        head = struct.pack(">BQ", 2, len(message)) if long else bytes([0, len(message)])
        with suppress(OSError):
            self._socket.sendall((head + message) * times)

    def is_out(self) -> bool:
        """Whether the other side has closed the connection."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(65536):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._socket.setblocking(True)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
