"""Picture of the viewer while a simulated two-photon movie arrives: to judge the window, not the denoising.

The right pane gets the noise-free truth, 3 frames late, in place of a denoised movie.

    QT_QPA_PLATFORM=offscreen python tools/screenshot_viewer.py viewer.png --scene normal
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.publish import Publisher, StatusPublisher
from rtdenoise.simulate import preset, simulate
from rtdenoise.sources.base import SeriesClock
from rtdenoise.viewer import app
from rtdenoise.wire import Drops, StreamFacts

SCENES = ("normal", "stale", "raw-only", "end", "lossy")
FPS = 30.0
LOOKAHEAD = 3
N_FRAMES = 600
Ports = tuple[str, str, str]


def feed(scene: str, seconds: float, ports: multiprocessing.Queue[Ports], done: Event) -> None:
    """Publish until `done`; `scene` decides what happens in the last two seconds."""
    movie = simulate(preset("calcium", seed=3, shape=(512, 512), n_frames=150, snr_db=-2.0))
    noisy, clean = movie.noisy, movie.clean
    clock = SeriesClock()
    raw_facts = StreamFacts("raw", "simulated calcium, 920 nm", um_per_px=0.8)
    facts = StreamFacts(
        "denoised", "simulated calcium, 920 nm", "fast-simulated 3fa9c2d1b0e4", "openvino-bf16", "n1", 0.8
    )
    any_port = "tcp://127.0.0.1:*"
    with (
        Publisher(any_port, raw_facts, frame_bytes=2**19) as raw,
        Publisher(any_port, facts, frame_bytes=2**20) as denoised,
        StatusPublisher(any_port) as status,
    ):
        ports.put((raw.endpoint, denoised.endpoint, status.endpoint))
        meta = {"lookahead_frames": LOOKAHEAD, "lookahead_ms": LOOKAHEAD / FPS * 1e3, "frame_interval_s": 1 / FPS}
        status.start({"series": clock.series, "epoch_ns": clock.epoch_ns, **meta})
        lost = {"source: camera buffer": 4, "input: drop_oldest": 31} if scene == "lossy" else {}
        stamps: list[FrameStamp] = []
        for k in range(int((seconds + 60) * FPS)):
            while clock.now_ns() < k / FPS * 1e9:
                time.sleep(0.001)
            late = clock.now_ns() > (seconds - 2.5) * 1e9
            mode = "raw only" if late and scene == "raw-only" else "denoising"
            message = "the engine cannot keep up" if mode == "raw only" else ""
            counts = {
                "acquired": k + sum(lost.values()),
                "delivered": k - LOOKAHEAD,
                "in_flight": LOOKAHEAD,
                "dropped": lost,
            }
            if k % 30 == 0:
                status.status({**counts, "fps_in": FPS, "fps_out": FPS, "mode": mode, "message": message})
            if late and scene == "end":
                status.end(count=k, reason="ok", dropped=lost)
                break
            if late and scene == "stale":
                break
            stamps.append(FrameStamp(clock.series, k, k, clock.now_ns()))
            raw.publish(Frame(noisy[k % len(noisy)], stamps[-1]), Drops())
            if k >= LOOKAHEAD and mode == "denoising":
                i = k - LOOKAHEAD
                shown = Frame(clean[i % len(clean)], stamps[i], (i - 3, i + 3))
                denoised.publish(shown, Drops(), t_out=clock.now_ns())
            if done.is_set():
                break
        done.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("png", type=Path)
    parser.add_argument("--scene", choices=SCENES, default="normal")
    parser.add_argument("--seconds", type=float, default=9.0)
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    ports: multiprocessing.Queue[Ports] = spawn.Queue()
    done = spawn.Event()
    publisher = spawn.Process(target=feed, args=(args.scene, args.seconds, ports, done))
    publisher.start()
    try:
        app.main(*ports.get(timeout=300), duration_s=args.seconds, screenshot=args.png)
    finally:
        done.set()
        publisher.join()


if __name__ == "__main__":
    main()
