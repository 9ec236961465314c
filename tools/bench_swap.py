"""What changing the model costs a run that goes on: frames lost, the pause on the wire, and the age of frames meanwhile.

python tools/bench_swap.py --model fast-simulated --to support-calcium --fps 30 --size 256 --swaps 4
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import zmq

from rtdenoise.bench.listener import free_endpoints
from rtdenoise.control import ControlClient
from rtdenoise.session import POLL_S, Session
from rtdenoise.settings import EngineSettings, RunSettings, SourceChoice


@dataclass(slots=True)
class Seen:
    """What a plain subscriber with ZeroMQ's defaults received: number, model, ns of arrival at the run and here."""

    frames: list[tuple[int, str, int, int]] = field(default_factory=list)

    def listen(self, endpoint: str, over: threading.Event) -> None:
        """Until `over` and nothing more comes."""
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.connect(endpoint)
            socket.subscribe(b"")
            while socket.poll(300) or not over.is_set():
                if socket.poll(0):
                    header = json.loads(socket.recv_multipart()[0])
                    self.frames.append((header["frame"], header["model"], header["t_in"], time.perf_counter_ns()))

    @property
    def lost(self) -> int:
        """Frames that did not arrive, from the first that did."""
        return self.frames[-1][0] - self.frames[0][0] + 1 - len(self.frames)

    def pauses_ms(self) -> list[float]:
        """Between the last frame of one model and the first of the next."""
        return [(b[3] - a[3]) / 1e6 for a, b in zip(self.frames, self.frames[1:], strict=False) if a[1] != b[1]]


def main() -> None:
    """Run, change the model back and forth, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fast-simulated")
    parser.add_argument("--to", default="gauss2d-ema")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--swaps", type=int, default=4)
    parser.add_argument("--rest", type=float, default=3.0, help="seconds before, between and after")
    args = parser.parse_args()
    source = SourceChoice(options={"mode": "blob", "shape": [args.size, args.size], "fps": args.fps})
    settings = RunSettings(source=source, engine=EngineSettings(model=args.model), endpoints=free_endpoints())
    denoised, raw, over = Seen(), Seen(), threading.Event()
    ends = settings.endpoints
    listeners = [
        threading.Thread(target=seen.listen, args=(endpoint, over))
        for seen, endpoint in ((denoised, ends.denoised), (raw, ends.raw))
    ]
    for listener in listeners:
        listener.start()
    spans: list[tuple[int, int]] = []

    def swap() -> None:
        with ControlClient(ends.control) as client:
            for i in range(args.swaps):
                time.sleep(args.rest)
                began = time.perf_counter_ns()
                reply = client.ask("model", model=(args.to, args.model)[i % 2])
                spans.append((began, time.perf_counter_ns()))
                print(f"{(spans[-1][1] - began) / 1e9:5.2f} s  {reply.message}")
            time.sleep(args.rest)

    with Session(settings) as session:
        asking = threading.Thread(target=swap)
        asking.start()
        while asking.is_alive() and session.poll():
            time.sleep(POLL_S)
        epoch = session.ring.epoch_ns(session.ring.head - 1) if session.ring else 0
        session.stop()
        summary = session.run()
    over.set()
    for listener in listeners:
        listener.join()
    report(denoised, raw, spans, epoch)
    print(f"{summary.acquired} acquired, {summary.delivered} delivered, dropped {summary.dropped or 0}")


def report(denoised: Seen, raw: Seen, spans: list[tuple[int, int]], epoch: int) -> None:
    """The figures."""
    ages = np.array([(at - epoch - t_in) / 1e6 for _, _, t_in, at in denoised.frames])
    at = np.array([frame[3] for frame in denoised.frames])
    warming = np.zeros(len(at), bool)
    for began, ended in spans:
        warming |= (at > began) & (at < ended - 400_000_000)  # the pause itself is reported by itself
    for name, chosen in (("while another warms up", warming), ("otherwise", ~warming)):
        if chosen.any():
            p50, p99, worst = np.percentile(ages[chosen], (50, 99, 100))
            print(f"age {name}: p50 {p50:.1f}, p99 {p99:.1f}, max {worst:.1f} ms ({chosen.sum()} frames)")
    print(f"pause at a change of model: {', '.join(f'{ms:.0f}' for ms in denoised.pauses_ms())} ms")
    print(f"lost by a plain subscriber: denoised {denoised.lost} of {len(denoised.frames)}, raw {raw.lost}")


if __name__ == "__main__":
    main()
