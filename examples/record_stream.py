"""Write messages as they are on the wire to a file, for tests of decoders in other languages.

    python record_stream.py recorded_stream.bin --messages 8

Each part of each message is its length (4 bytes, little-endian) and its bytes; a message has two parts. `recorded_stream.bin` here
was made from two streams of this run, 6 messages each, so that it holds int16 with negatives and float32, not square:

    rtdenoise run -s synthetic -o shape=[40,56] -o mode=calcium_artifact -o seed=7 --fps 30 -m gauss2d-ema --seconds 20
    python record_stream.py recorded_stream.bin tcp://127.0.0.1:5561 tcp://127.0.0.1:5560 --messages 6
"""

import argparse
import struct
from pathlib import Path

import zmq


def main() -> None:
    """Record so many messages of each endpoint."""
    parser = argparse.ArgumentParser(description="Write messages as they are on the wire to a file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("endpoints", nargs="*", default=["tcp://127.0.0.1:5560"])
    parser.add_argument("--messages", type=int, default=6, help="of each endpoint")
    asked = parser.parse_args()
    with asked.file.open("wb") as out:
        for endpoint in asked.endpoints:
            socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
            socket.subscribe(b"")
            socket.connect(endpoint)
            for _ in range(asked.messages):
                for part in socket.recv_multipart():
                    out.write(struct.pack("<I", len(part)) + part)
            socket.close()
    print(f"{asked.file}: {asked.file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
