"""What slow, frozen and killed subscribers cost the publisher and each other: real processes, measured.

    python tools/slow_subscribers.py --seconds 20 --rounds 3

In each round the same frames are sent with one healthy subscriber alone, and then with others beside it: one that needs 25 ms for a
frame, one that is suspended, one that is killed. What should come out (reliability test 6): p99 of sending at most 1.5 times that of the
healthy one alone, at most the high-water mark in frames and a tenth of memory for each subscriber that is stuck, and nothing lost by
the healthy one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import psutil

from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher, high_water_mark
from rtdenoise.subscribe import Subscriber
from rtdenoise.wire import Drops, StreamFacts

SLOW_S = 0.025
"""What a slow subscriber needs for a frame: reliability test 5."""
MOST_RATIO, MEMORY_MARGIN = 1.5, 1.1
ENDPOINT = "tcp://127.0.0.1:*"
LAST = "last"


@dataclass(slots=True, frozen=True)
class Figures:
    """One phase. others: who was there beside the healthy subscriber.  grown_bytes: memory of the publisher's process at its largest
    over that before the first frame of the phase.  allowed_bytes: the high-water mark in frames and a tenth, for each that was stuck.
    """

    others: tuple[str, ...]
    n_sent: int
    send_p50_ms: float
    send_p99_ms: float
    send_max_ms: float
    grown_bytes: int
    allowed_bytes: int
    healthy_received: int
    healthy_lost: int


class Guest:
    """A subscriber in a process of its own: healthy, slow, frozen or killed. The last two are healthy until their hour comes."""

    def __init__(self, kind: str, endpoint: str) -> None:
        self.kind = kind
        command = [sys.executable, __file__, "--be", "slow" if kind == "slow" else "healthy", "--endpoint", endpoint]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def meet_its_fate(self) -> None:
        """Suspend or kill it, if that is what it is for."""
        if self.kind == "frozen":
            psutil.Process(self._process.pid).suspend()
        elif self.kind == "killed":
            self._process.kill()

    def resume(self) -> None:
        """Let a frozen one go on."""
        psutil.Process(self._process.pid).resume()

    def over(self) -> bool:
        """Whether it has read the last frame."""
        return self._process.poll() is not None

    def finish(self) -> dict[str, int]:
        """What it counted, after the last frame; nothing for one that was killed."""
        said, _ = self._process.communicate(timeout=60)
        return dict(json.loads(said)) if said else {}

    def end(self) -> None:
        """Be sure that it is gone."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def listen(endpoint: str, pause_s: float) -> dict[str, int]:
    """Read every frame until the one marked as the last; `newest` is its number."""
    with Subscriber(endpoint) as subscriber:
        for message in subscriber:
            if LAST in message.flags:
                return {
                    "received": subscriber.received - 1,
                    "missed": subscriber.missed,
                    "newest": message.frame.stamp.frame,
                }
            if pause_s:
                time.sleep(pause_s)
    raise AssertionError("a subscriber reads for ever")


@contextmanager
def guests(publisher: Publisher, kinds: Sequence[str]) -> Iterator[list[Guest]]:
    """Subscribers that are there before the first frame, and gone afterwards."""
    n_before = publisher.subscribers
    everybody = [Guest(kind, publisher.endpoint) for kind in kinds]
    try:
        if not publisher.wait_for_subscribers(n_before + len(kinds), timeout_s=60):
            raise SystemExit("the subscribers did not come within a minute")
        yield everybody
    finally:
        for guest in everybody:
            guest.end()


def measure(others: Sequence[str], *, seconds: float, fps: float, shape: tuple[int, int]) -> Figures:
    """Send frames at `fps` to a healthy subscriber and to `others`, whose fate comes after a quarter of the time."""
    frame_bytes, n = shape[0] * shape[1] * 2, round(seconds * fps)
    pixels = np.random.default_rng(1).integers(0, 4096, shape).astype(np.uint16)
    process, took_s = psutil.Process(), []
    with (
        Publisher(ENDPOINT, StreamFacts("raw", "bench"), frame_bytes=frame_bytes, fps_hint=fps) as publisher,
        guests(publisher, ["healthy", *others]) as everybody,
    ):
        before = most = process.memory_info().rss
        began = time.perf_counter()
        for k in range(n):
            if k == n // 4:
                for guest in everybody:
                    guest.meet_its_fate()
            _wait_until(began + k / fps)
            sending = time.perf_counter()
            publisher.publish(Frame(pixels, FrameStamp("a", k, k, k)), Drops())
            took_s.append(time.perf_counter() - sending)
            if k % 50 == 0:
                most = max(most, process.memory_info().rss)
        _say_goodbye(publisher, pixels, n)
        healthy = everybody[0].finish()
    p50, p99, longest = (1e3 * float(value) for value in np.percentile(took_s[n // 4 :], (50, 99, 100)))
    n_stuck = max(1, sum(kind in ("slow", "frozen") for kind in others))
    allowed = round(MEMORY_MARGIN * n_stuck * high_water_mark(frame_bytes, fps) * frame_bytes)
    n_received = healthy["received"]
    return Figures(tuple(others), n, p50, p99, longest, most - before, allowed, n_received, n - n_received)


def _wait_until(moment: float) -> None:
    left = moment - time.perf_counter()
    if left > 0:
        time.sleep(left)


def _say_goodbye(publisher: Publisher, pixels: np.ndarray, n: int) -> None:
    """The last frame a few times, for those whose queue is full."""
    for k in range(20):
        publisher.publish(Frame(pixels, FrameStamp("a", n + k, n + k, n + k)), Drops(), flags=(LAST,))
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fps", type=float, default=200.0)
    parser.add_argument("--shape", type=int, nargs=2, default=(512, 512), metavar=("Y", "X"))
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--be", choices=("healthy", "slow"), help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.be:
        print(json.dumps(listen(args.endpoint, SLOW_S if args.be == "slow" else 0.0)))
        return
    shape = (args.shape[0], args.shape[1])
    phases = [(), ("frozen",), ("slow",), ("slow", "frozen", "killed")]
    seen: dict[tuple[str, ...], list[Figures]] = {phase: [] for phase in phases}
    for _ in range(args.rounds):
        for phase in phases:
            seen[phase].append(measure(phase, seconds=args.seconds, fps=args.fps, shape=shape))
            _show(seen[phase][-1], as_json=args.json)
    sys.exit(not _judge(seen))


def _show(figures: Figures, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(figures)), flush=True)
        return
    print(
        f"{'healthy + ' + ', '.join(figures.others) if figures.others else 'healthy alone':38} "
        f"send p50 {figures.send_p50_ms:.2f}, p99 {figures.send_p99_ms:.2f}, max {figures.send_max_ms:.1f} ms; "
        f"+{figures.grown_bytes / 2**20:.1f} MiB of {figures.allowed_bytes / 2**20:.1f}; "
        f"healthy {figures.healthy_received} of {figures.n_sent}",
        flush=True,
    )


def _judge(seen: dict[tuple[str, ...], list[Figures]]) -> bool:
    """Medians over the rounds against what should come out."""
    alone = float(np.median([figures.send_p99_ms for figures in seen[()]]))
    good = True
    for phase, rounds in seen.items():
        ratio = float(np.median([figures.send_p99_ms for figures in rounds])) / alone
        grown = max(figures.grown_bytes / figures.allowed_bytes for figures in rounds)
        lost = sum(figures.healthy_lost for figures in rounds)
        good &= ratio <= MOST_RATIO and grown <= 1.0 and lost == 0
        print(
            f"{', '.join(phase) or 'alone':24} p99 ratio {ratio:.2f}, memory {grown:.0%} of what is allowed, lost {lost}"
        )
    return good


if __name__ == "__main__":
    main()
