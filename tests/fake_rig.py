"""Other people's acquisition programs, each in a process of its own: python fake_rig.py KIND JSON, then a JSON command per line.

Image k of channel c holds `value(k, c)` everywhere, so that the pixels prove the order. Commands: {"run": fps} sends on and on,
{"pause": 1}, {"at": number} is the next one, {"send": [numbers]}, or the name of a method of the kind with its argument. Each is
answered with the next number.
"""

from __future__ import annotations

import json
import mmap
import queue
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import zmq

PARTS = ("one", "two", "per channel")


def value(number: int, channel: int = 0) -> int:
    """What every pixel of an image holds: negative for low numbers, another for each channel."""
    return number % 20_000 - 50 + 1000 * channel


def images(number: int, shape: tuple[int, int], channels: int, dtype: str) -> np.ndarray:
    """(C, Y, X); unsigned types hold `value` + 50."""
    lift = 50 if dtype.startswith("u") else 0
    levels = np.array([value(number, c) + lift for c in range(channels)], dtype)
    return np.broadcast_to(levels[:, None, None], (channels, *shape)).copy()


class ScanImage:
    """The 40-byte format."""

    def __init__(
        self, endpoint: str, shape: tuple[int, int], channels: int = 1, parts: str = "one", rate: float = 100.0
    ) -> None:
        self.shape, self.channels, self.parts, self.rate = tuple(shape), channels, parts, rate
        self.every = 0
        self.socket = zmq.Context.instance().socket(zmq.XPUB)
        self.socket.setsockopt(zmq.SNDHWM, 10_000)
        self.socket.bind(endpoint)

    def emit(self, number: int) -> None:
        if self.every and number % self.every == 0:
            return
        stack = images(number, self.shape, self.channels, "int16")
        header = struct.pack("<5d", self.shape[1], self.shape[0], self.channels, number / self.rate, number)
        bodies = {"one": [header + stack.tobytes()], "two": [header, stack.tobytes()]}
        self.socket.send_multipart(bodies.get(self.parts) or [header, *(one.tobytes() for one in stack)])

    def reshape(self, shape: tuple[int, int]) -> None:
        self.shape = tuple(shape)

    def leave_out(self, every: int) -> None:
        """Never publish the frames whose number is a multiple of this."""
        self.every = every

    def garbage(self, text: str) -> None:
        self.socket.send(text.encode())

    def joined(self, n: int) -> None:
        """Wait for so many subscriptions."""
        for _ in range(n):
            self.socket.recv()


class Arrays:
    """Two-part array-1.0 messages with as few keys as a rig may send."""

    def __init__(
        self,
        endpoint: str,
        shape: tuple[int, int],
        dtype: str = "uint16",
        push: bool = False,
        more: dict[str, Any] | None = None,
    ) -> None:
        self.shape, self.dtype, self.more = tuple(shape), dtype, more or {}
        self.channels = self.more.pop("channels", 1)
        self.socket = zmq.Context.instance().socket(zmq.PUSH if push else zmq.XPUB)
        self.socket.setsockopt(zmq.SNDHWM, 10_000)
        (self.socket.connect if push else self.socket.bind)(endpoint)

    def emit(self, number: int) -> None:
        for c, image in enumerate(images(number, self.shape, self.channels, self.dtype)):
            header = {"htype": "array-1.0", "shape": self.shape, "type": self.dtype, **self.more}
            if "frame" not in self.more:
                header["frame"] = number * self.channels + c
            if self.channels > 1:
                header["chan"] = c
            self.socket.send_multipart(
                [json.dumps({k: v for k, v in header.items() if v is not None}).encode(), image.tobytes()]
            )

    def change(self, more: dict[str, Any]) -> None:
        self.more = {**self.more, **more}

    joined = ScanImage.joined
    garbage = ScanImage.garbage


class Scanbox:
    """One slot; a frame that is made while the one before has not been taken is lost."""

    def __init__(self, path: str, shape: tuple[int, int], channels: int = 1, patient: bool = False) -> None:
        self.shape, self.channels, self.patient = tuple(shape), channels, patient
        n_bytes = 32 + 2 * 2 * 64 * 64 * 4
        Path(path).write_bytes(bytes(n_bytes))
        with Path(path).open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.header = np.ndarray(16, np.int16, self.memory)
        self.header[:3] = (-1, *self.shape)

    def emit(self, number: int) -> None:
        deadline = time.monotonic() + 10
        while self.patient and self.header[0] != -1 and time.monotonic() < deadline:
            time.sleep(0.0002)
        if self.header[0] != -1:
            return
        stack = 65535 - images(number, self.shape, self.channels, "uint16")
        pixels = np.ndarray((self.channels, self.shape[1], self.shape[0]), np.uint16, self.memory, 32)
        pixels[:] = stack.transpose(0, 2, 1)
        self.header[1:3] = self.shape
        self.header[0] = number % 32768

    def reshape(self, shape: tuple[int, int]) -> None:
        self.shape = tuple(shape)

    def stop(self, _: int) -> None:
        deadline = time.monotonic() + 10
        while self.header[0] >= 0 and time.monotonic() < deadline:
            time.sleep(0.0002)
        self.header[0] = -2

    def again(self, _: int) -> None:
        self.header[0] = -1


class RawFile:
    """Bytes that are appended; the file appears with the first of them."""

    def __init__(
        self, path: str, shape: tuple[int, int], dtype: str = "uint16", channels: int = 1, before: int = 0
    ) -> None:
        self.path, self.shape, self.dtype, self.channels, self.before = (
            Path(path),
            tuple(shape),
            dtype,
            channels,
            before,
        )
        self.rest = b""

    def emit(self, number: int) -> None:
        head = bytes(self.before) if not self.path.exists() else b""
        self._append(head + self.rest + images(number, self.shape, self.channels, self.dtype).tobytes())
        self.rest = b""

    def half(self, number: int) -> None:
        """Write the first part of an image only; the rest comes with the next one."""
        whole = images(number, self.shape, self.channels, self.dtype).tobytes()
        self._append(whole[: len(whole) // 3])
        self.rest = whole[len(whole) // 3 :]

    def replace(self, _: int) -> None:
        """The next series takes the place of this file."""
        self.path.unlink()

    def _append(self, content: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(content)


class TiffFile:
    """A TIFF that tifffile writes page by page, as acquisition programs do."""

    def __init__(
        self, path: str, shape: tuple[int, int], dtype: str = "int16", bigtiff: bool = True, byteorder: str = "<"
    ) -> None:
        import tifffile

        self.shape, self.dtype = tuple(shape), dtype
        self.writer = tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder)

    def emit(self, number: int) -> None:
        self.writer.write(
            images(number, self.shape, 1, self.dtype)[0], photometric="minisblack", metadata=None, contiguous=False
        )
        self.writer.filehandle.flush()


KINDS = {kind.__name__: kind for kind in (ScanImage, Arrays, Scanbox, RawFile, TiffFile)}


def main(kind: str, options: dict[str, Any]) -> None:
    rig, commands = KINDS[kind](**options), queue.SimpleQueue[Any]()
    threading.Thread(
        target=lambda: [commands.put(json.loads(line)) for line in sys.stdin] and None, daemon=True
    ).start()
    number, interval_s, due = options_number(kind), 0.0, 0.0
    print("ready", flush=True)
    while True:
        wait = max(0.0, due - time.monotonic()) if interval_s else 60.0
        try:
            command = commands.get(timeout=wait)
        except queue.Empty:
            if interval_s:
                rig.emit(number)
                number, due = number + 1, max(due + interval_s, time.monotonic() - 1)
            continue
        ((name, argument),) = command.items()
        if name == "run":
            interval_s, due = 1 / argument, time.monotonic()
        elif name == "pause":
            interval_s = 0.0
        elif name == "at":
            number = argument
        elif name == "send":
            for number in argument:
                rig.emit(number)
            number = argument[-1] + 1
        else:
            getattr(rig, name)(argument)
        print(number, flush=True)


def options_number(kind: str) -> int:
    """ScanImage counts from 1, files hold what comes first."""
    return 1 if kind == "ScanImage" else 0


class Rig:
    """One of them, as a test commands it."""

    def __init__(self, kind: str, **options: Any) -> None:
        command = [sys.executable, __file__, kind, json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()

    def do(self, name: str, argument: Any = 1) -> int:
        """Give a command; returns the number of the next frame."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({name: argument}) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the rig died"
        return line


class Here:
    """The same in this process, for those that need not send by themselves."""

    def __init__(self, kind: str, **options: Any) -> None:
        self._rig = KINDS[kind](**options)

    def do(self, name: str, argument: Any = 1) -> None:
        """Give a command."""
        for one in argument if name == "send" else [argument]:
            getattr(self._rig, "emit" if name == "send" else name)(one)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
