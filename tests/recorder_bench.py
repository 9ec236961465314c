"""A recorder in this process, fed from here: what a camera, a disk or a channel does is up to the test."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtdenoise import acquire
from rtdenoise.child import rebuilt
from rtdenoise.frame import Frame, FrameStamp, Pixels, StreamInfo
from rtdenoise.recording.recorder import Recorder
from rtdenoise.settings import RecordSettings, RunSettings
from rtdenoise.shared import SharedRing, Slot

SHAPE = (16, 24)


def record_in_this_process(
    folder: Path,
    *,
    n_frames: int,
    capacity: int = 512,
    channels: int = 1,
    planes: int = 1,
    interval_s: float = 0.0,
    missing: Callable[[int], int] = lambda _: 0,
) -> tuple[SharedRing, list[str]]:
    """Write `n_frames` into a ring while it is recorded: (ring, what the recorder said).

    Frame k holds its camera number in its last pixel, channel and plane in its first two; `missing(k)` camera frames were lost before
    it. Channels and planes take turns.
    """
    notes: list[str] = []
    n_keys = channels * planes
    info = StreamInfo(
        "bench", SHAPE, "uint16", channels=channels, planes=planes, frame_interval_s=(interval_s or 0.001) * n_keys
    )
    ring = SharedRing.create(folder.with_name("frames.ring"), info, capacity)
    asked = RecordSettings(folder=folder)
    series, epoch_ns, numbers = uuid.uuid4().hex, time.perf_counter_ns(), [0] * n_keys
    with Recorder(asked, RunSettings(record=asked), ring, notes.append):
        for k in range(n_frames):
            plane, channel = divmod(k % n_keys, channels)
            numbers[k % n_keys] += missing(k)
            number = numbers[k % n_keys]
            now = time.perf_counter_ns() - epoch_ns
            stamp = FrameStamp(series, k, number, now, 1000 * k, 0, channel, plane, missing(k))
            ring.write(Frame(marked(number, channel, plane), stamp), epoch_ns)
            numbers[k % n_keys] += 1
            if interval_s:
                time.sleep(interval_s)
    return ring, notes


def marked(number: int, channel: int, plane: int) -> Pixels:
    """A frame that says which one it is."""
    pixels = np.full(SHAPE, number, np.uint16)
    pixels[0, :2] = channel, plane
    return pixels


def acquire_in_this_process(
    folder: Path, options: Mapping[str, Any], record: Mapping[str, Any] | None = None, **more: Any
) -> tuple[SharedRing, list[str]]:
    """A whole run of the acquire process's own code, in a thread, recorded and over: (ring, what it said).

    `record`: more of its settings. Raises what the process would have said instead of starting.
    """
    source = {"name": "synthetic", "options": dict(options), **more}
    settings = RunSettings.model_validate({"source": source, "record": {"folder": folder, **(record or {})}})
    ring_path = folder.with_name("frames.ring")
    ears, mouth = multiprocessing.Pipe(duplex=False)
    wake = multiprocessing.get_context("spawn").Semaphore(0)
    arguments = (lambda: acquire.open_source(settings.source), settings, ring_path, wake, mouth)
    thread = threading.Thread(target=acquire.serve, args=arguments)
    thread.start()
    message = ears.recv()
    if message[0] != "opened":
        thread.join()
        raise rebuilt(*message[1:])
    ring = SharedRing.attach(ring_path)
    ring.ints[Slot.GO] = 1
    thread.join()
    notes = []
    while ears.poll():
        kind, value, *_ = ears.recv()
        notes += [value] if kind == "note" else []
    return ring, notes
