"""The whole stream with pyzmq and numpy alone: copy this file into your own program.

    python plain_pyzmq.py                                   # denoised frames of this computer
    python plain_pyzmq.py tcp://127.0.0.1:5561 --frames 10  # ten raw frames
    python plain_pyzmq.py --newest                          # for displays: skip what is old

Prints one line per frame: its number, the camera's number, its shape and mean, and how many frames never arrived.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import zmq


def frames(endpoint: str, *, newest: bool = False) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Header and pixels (Y, X) of every frame, for ever; with `newest` only of the newest that has arrived."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 64)
    socket.setsockopt(zmq.MAXMSGSIZE, 256 * 1024 * 1024)
    socket.subscribe(b"")
    socket.connect(endpoint)
    while True:
        parts = socket.recv_multipart(copy=False)
        while newest and socket.poll(0):
            parts = socket.recv_multipart(copy=False)
        header = json.loads(parts[0].bytes)
        if header["htype"] != "array-1.0":
            continue
        order = {"little": "<", "big": ">"}[header.get("endianness", "little")]
        kind = np.dtype(header["type"]).newbyteorder(order)
        yield header, np.frombuffer(parts[1].buffer, kind).reshape(header["shape"])


def main() -> None:
    """Print what arrives."""
    parser = argparse.ArgumentParser(description="Print the frames of a running rtdenoise.")
    parser.add_argument("endpoint", nargs="?", default="tcp://127.0.0.1:5560")
    parser.add_argument("--frames", type=int, help="stop after so many")
    parser.add_argument("--newest", action="store_true", help="skip to the newest frame when this program is slower")
    asked = parser.parse_args()
    series, expected, missed = None, 0, 0
    for n, (header, image) in enumerate(frames(asked.endpoint, newest=asked.newest), start=1):
        if header["series"] != series:
            series, expected = header["series"], header["frame"]
        missed += header["frame"] - expected
        expected = header["frame"] + 1
        print(f"{header['frame']} {header['src_frame']} {image.shape} {image.mean():.3f} missed {missed}", flush=True)
        if n == asked.frames:
            break


if __name__ == "__main__":
    main()
