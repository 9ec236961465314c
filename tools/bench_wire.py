"""How fast the wire can be: raw and denoised frames over tcp loopback to one subscriber in another process, nothing lost.

`bare` is pyzmq alone sending the same messages from 64 distinct frames, the ceiling a pipeline is compared with;
`copied` and `leased` go through rtdenoise's Publisher and Subscriber.

    python tools/bench_wire.py --shape 512 512 --frames 3000
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.queues import Queue

import numpy as np
import zmq

from rtdenoise.frame import Frame, FrameStamp, Pixels
from rtdenoise.publish import Publisher, high_water_mark
from rtdenoise.subscribe import Subscriber
from rtdenoise.wire import Drops, StreamFacts, encode_header

N_DISTINCT = 64
STREAMS = (("raw", "uint16"), ("denoised", "float32"))
Shape = tuple[int, int]


def bare_fps(shape: Shape, n_frames: int) -> float:
    """Frames (raw + denoised) per second of plain pyzmq: XPUB_NODROP, `send(copy=False)` from 64 frames, `recv(copy=False)`."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = [_bare_socket(context, shape, dtype) for _, dtype in STREAMS]
    made = [[_frame(shape, dtype, i) for i in range(N_DISTINCT)] for _, dtype in STREAMS]
    facts = [StreamFacts(stream, "bench") for stream, _ in STREAMS]

    def send(i: int) -> None:
        for socket, frames, fact in zip(sockets, made, facts, strict=True):
            frame = frames[i % N_DISTINCT]
            socket.send(encode_header(frame, fact, Drops()), zmq.SNDMORE)
            socket.send(frame.pixels.data, copy=False)

    endpoints = [socket.getsockopt_string(zmq.LAST_ENDPOINT) for socket in sockets]
    fps = _timed(_receive_bare, endpoints, n_frames, lambda: [socket.recv() for socket in sockets], send)
    for socket in sockets:
        socket.close()
    context.term()
    return fps


def publisher_fps(shape: Shape, n_frames: int, *, lease: bool) -> float:
    """The same through Publisher and Subscriber; with `lease` the frame is made in the publisher's own buffer."""
    publishers = [
        Publisher(
            "tcp://127.0.0.1:*",
            StreamFacts(stream, "bench"),
            frame_bytes=_n_bytes(shape, dtype),
            fps_hint=128,
            lossless=True,
        )
        for stream, dtype in STREAMS
    ]
    made = [[_frame(shape, dtype, i) for i in range(N_DISTINCT)] for _, dtype in STREAMS]

    def send(i: int) -> None:
        for publisher, frames, (_, dtype) in zip(publishers, made, STREAMS, strict=True):
            pixels = publisher.lease(shape, dtype) if lease else frames[i % N_DISTINCT].pixels
            publisher.publish(Frame(pixels, FrameStamp("0" * 32, i, i, i)), Drops(), t_out=i)

    def wait() -> None:
        for publisher in publishers:
            publisher.wait_for_subscribers(1, timeout_s=30)

    fps = _timed(_receive, [publisher.endpoint for publisher in publishers], n_frames, wait, send)
    for publisher in publishers:
        publisher.close()
    return fps


def _timed(
    receive: Callable[[list[str], int, Queue[int]], None],
    endpoints: list[str],
    n_frames: int,
    wait: Callable[[], object],
    send: Callable[[int], None],
) -> float:
    spawn = multiprocessing.get_context("spawn")
    lost: Queue[int] = spawn.Queue()
    receiver = spawn.Process(target=receive, args=(endpoints, n_frames, lost))
    receiver.start()
    wait()
    began = time.perf_counter()
    for i in range(n_frames):
        send(i)
    n_lost = lost.get(timeout=60)
    fps = n_frames / (time.perf_counter() - began)
    receiver.join()
    if n_lost:
        raise SystemExit(f"{n_lost} frames were lost")
    return fps


def _receive_bare(endpoints: list[str], n_frames: int, lost: Queue[int]) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    poller = zmq.Poller()
    n_left = {}
    for endpoint in endpoints:
        socket: zmq.Socket[bytes] = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, N_DISTINCT)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(endpoint)
        poller.register(socket, zmq.POLLIN)
        n_left[socket] = n_frames
    while any(n_left.values()) and (ready := poller.poll(10_000)):
        for socket, _ in ready:
            socket.recv_multipart(copy=False)
            n_left[socket] -= 1
    lost.put(sum(n_left.values()))
    context.destroy(linger=0)


def _receive(endpoints: list[str], n_frames: int, lost: Queue[int]) -> None:
    subscribers = [Subscriber(endpoint) for endpoint in endpoints]
    for _ in range(n_frames):
        for subscriber in subscribers:
            if subscriber.read(timeout_s=10) is None:
                break
    lost.put(sum(n_frames - subscriber.received for subscriber in subscribers))
    for subscriber in subscribers:
        subscriber.close()


def _bare_socket(context: zmq.Context[zmq.Socket[bytes]], shape: Shape, dtype: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.SNDHWM, high_water_mark(_n_bytes(shape, dtype), fps=128))
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    socket.bind("tcp://127.0.0.1:*")
    return socket


def _n_bytes(shape: Shape, dtype: str) -> int:
    return shape[0] * shape[1] * np.dtype(dtype).itemsize


def _frame(shape: Shape, dtype: str, i: int) -> Frame:
    pixels: Pixels = np.random.default_rng(i).integers(0, 4096, shape).astype(dtype)
    return Frame(pixels, FrameStamp("0" * 32, i, i, i))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=2, default=(512, 512), metavar=("Y", "X"))
    parser.add_argument("--frames", type=int, default=3000)
    args = parser.parse_args()
    shape = (args.shape[0], args.shape[1])
    print(f"{shape[0]} x {shape[1]}, uint16 + float32, {args.frames} frames, lossless, frames per second:")
    print(f"  bare   {bare_fps(shape, args.frames):8.0f}")
    print(f"  copied {publisher_fps(shape, args.frames, lease=False):8.0f}")
    print(f"  leased {publisher_fps(shape, args.frames, lease=True):8.0f}")


if __name__ == "__main__":
    main()
