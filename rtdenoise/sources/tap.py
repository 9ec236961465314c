"""Denoise what a scripted pycromanager acquisition takes, without taking anything away from it."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from rtdenoise.config import Settings
from rtdenoise.errors import EndOfStream, GeometryChanged, SourceError, SourceOverflow, SourceStalled
from rtdenoise.frame import Frame, FrameStamp, Pixels, StreamInfo, check_frame
from rtdenoise.sources.base import SeriesClock, SourceStats


class TapSettings(Settings):
    """queue_frames: copies that may wait; the oldest beyond it are thrown away and counted (`drop_oldest`).

    height, width, dtype: geometry, when open() must not wait for the first image.
    first_image_s: how long open() waits for it otherwise.  stall_timeout_s: report SourceStalled after this long without an image.
    """

    queue_frames: int = Field(default=64, ge=1)
    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    dtype: Literal["uint8", "uint16"] = "uint16"
    first_image_s: float = Field(default=60.0, gt=0)
    stall_timeout_s: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _both_or_none(self) -> TapSettings:
        if (self.height is None) != (self.width is None):
            raise ValueError("give both height and width, or neither")
        return self


class AcquisitionTap:
    """`Acquisition(image_process_fn=tap)`: copies every image into a bounded queue, hands it on untouched, and is a Source.

    Start the series before the acquisition, stop it after, then ask whether everything came::

        tap.start()
        with Acquisition(directory=..., name=..., image_process_fn=tap) as acquisition:
            acquisition.acquire(events)
        tap.stop()
        tap.check(expected=300)

    The hook costs the acquisition one copy, never waits for a reader and never raises: a reader that is too slow loses the
    oldest copies, the acquisition loses nothing. Images that come between open() and the first start() belong to that series.
    `src_frame` counts the images of one (channel, plane) in the order in which the acquisition delivered them.
    """

    Settings = TapSettings

    def __init__(self, settings: TapSettings | None = None) -> None:
        self._settings = settings or TapSettings()
        self._news = threading.Condition()
        self._info: StreamInfo | None = None
        self._clock = SeriesClock()
        self._lent: Pixels | None = None
        self._running = self._fresh = True
        self._begin()

    def __call__(self, image: Pixels, metadata: dict[str, Any]) -> tuple[Pixels, dict[str, Any]]:
        """The hook: image and metadata come back as they are. Called by pycromanager on its own thread."""
        cpu_ns = time.thread_time_ns()
        with self._news:
            self._receive(image, metadata)
            self._stats.pull_cpu_ns += time.thread_time_ns() - cpu_ns
            self._news.notify_all()
        return image, metadata

    @property
    def clock(self) -> SeriesClock:
        """Clock of the current series."""
        return self._clock

    @property
    def n_images(self) -> int:
        """Images that the acquisition has handed us in this series."""
        return self._n_images

    def open(self) -> StreamInfo:
        """The geometry, from the settings or from the first image. Raises SourceStalled when no image comes in `first_image_s`."""
        wanted = self._settings
        with self._news:
            if not self._running:
                self._begin()
            if self._info is None and wanted.height and wanted.width:
                self._info = _describe((wanted.height, wanted.width), wanted.dtype, wanted.queue_frames)
            self._news.wait_for(lambda: self._info or self._problem, wanted.first_image_s)
            if self._info is not None:
                return self._info
            raise self._problem or SourceStalled(
                f"the acquisition gave no image in {wanted.first_image_s:.0f} s; was it started with image_process_fn=tap?"
            )

    def start(self) -> None:
        """Begin a new series."""
        with self._news:
            if not self._fresh:
                self._begin()
            self._fresh = False

    def read(self, timeout_s: float = 1.0) -> Frame | None:
        """The oldest copy; its pixels are reused after the next read. Raises EndOfStream after stop(), or a SourceError."""
        with self._news:
            if self._lent is not None:
                self._free.append(self._lent)
                self._lent = None
            self._news.wait_for(lambda: self._queue or self._problem or not self._running, timeout_s)
            if self._queue:
                return self._hand_out()
            if self._problem is not None:
                raise self._problem
            if not self._running:
                raise EndOfStream(f"the acquisition is over after {self._n_images} images")
            self._check_stalled()
            return None

    def backlog(self) -> int:
        """Copies that wait to be read."""
        return len(self._queue)

    def stats(self) -> SourceStats:
        """Totals of this series; `pull_cpu_ns` is what the hook cost the acquisition."""
        return replace(self._stats)

    def stop(self) -> None:
        """The acquisition is over: what is in the queue can still be read, then comes EndOfStream."""
        with self._news:
            self._running = False
            self._news.notify_all()

    def close(self) -> None:
        """Stop and forget the copies; the hook goes on handing images through."""
        self.stop()
        with self._news:
            self._queue.clear()
            self._free.clear()
            self._lent = self._info = None

    def check(self, expected: int) -> None:
        """Raise SourceOverflow unless the acquisition handed us exactly `expected` images in this series.

        pycromanager's Python backend can end without an error after its camera buffer overflowed; the count is the only sign.
        """
        if self._n_images < expected:
            raise SourceOverflow(
                f"the acquisition delivered {self._n_images} of {expected} images: the camera buffer overflowed or it was aborted; "
                "take fewer frames per second, or raise buffer_size_mb of start_headless"
            )
        if self._n_images > expected:
            raise SourceError(
                f"the acquisition delivered {self._n_images} images, {expected} were expected; was start() called for each?"
            )

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _begin(self) -> None:
        self._running = self._fresh = True
        self._clock = SeriesClock()
        self._wall_start = datetime.now()  # naive local time, as MMCore stamps its frames
        self._stats = SourceStats()
        self._n_images = self._n_read = 0
        self._last_ns = time.perf_counter_ns()
        self._problem: SourceError | None = None
        self._queue: deque[tuple[Pixels, FrameStamp]] = deque()
        self._free: deque[Pixels] = deque()
        self._lent = None
        self._channels: dict[tuple[str, str], int] = {}
        self._counts: Counter[tuple[int, int]] = Counter()
        self._missing: Counter[tuple[int, int]] = Counter()

    def _receive(self, image: Pixels, metadata: Mapping[str, Any]) -> None:
        """Keep a copy. Whatever is wrong with an image is for the reader to hear; raising here would abort the acquisition."""
        try:
            if self._info is None:
                self._info = _describe(
                    image.shape, str(image.dtype), self._settings.queue_frames, metadata.get("Exposure")
                )
            if self._running:
                self._n_images += 1
                check_frame(image, self._info.shape, self._info.dtype)
                self._keep(image, metadata)
        except SourceError as problem:
            self._problem = problem
        except Exception as error:
            self._problem = SourceError(f"image {self._n_images} of the acquisition could not be copied: {error}")

    def _keep(self, image: Pixels, metadata: Mapping[str, Any]) -> None:
        t_in = self._clock.now_ns()
        self._last_ns = time.perf_counter_ns()
        axes = metadata.get("Axes") or {}
        name = (str(metadata.get("Camera", "")), str(axes.get("channel", "")))
        key = (self._channels.setdefault(name, len(self._channels)), int(axes.get("z", 0)))
        number = self._counts[key]
        self._counts[key] += 1
        slot = self._slot(image)
        np.copyto(slot, image)
        stamp = FrameStamp(
            self._clock.series, 0, number, t_in, self._source_ns(metadata, t_in), channel=key[0], plane=key[1]
        )
        self._queue.append((slot, stamp))
        self._stats.max_backlog = max(self._stats.max_backlog, len(self._queue))

    def _slot(self, image: Pixels) -> Pixels:
        """Memory for one copy: `queue_frames` of them, and one that the reader holds."""
        if len(self._queue) == self._settings.queue_frames:
            slot, oldest = self._queue.popleft()
            self._missing[oldest.key] += 1
            self._stats.skipped += 1
            return slot
        return self._free.pop() if self._free else np.empty(image.shape, image.dtype)

    def _source_ns(self, metadata: Mapping[str, Any], t_in: int) -> int:
        """When MMCore got the image; ElapsedTime-ms is one constant for a whole hardware sequence of an Acquisition."""
        if "TimeReceivedByCore" not in metadata:
            return t_in
        since = datetime.fromisoformat(str(metadata["TimeReceivedByCore"])) - self._wall_start
        return round(since.total_seconds() * 1e9)

    def _hand_out(self) -> Frame:
        pixels, stamp = self._queue.popleft()
        self._lent = pixels
        stamp = replace(stamp, frame=self._n_read, dropped=self._missing.pop(stamp.key, 0))
        self._n_read += 1
        self._stats.received += 1
        return Frame(pixels, stamp)

    def _check_stalled(self) -> None:
        silent_s = (time.perf_counter_ns() - self._last_ns) / 1e9
        if silent_s > self._settings.stall_timeout_s:
            self._last_ns = time.perf_counter_ns()
            raise SourceStalled(
                f"the acquisition has sent nothing for {silent_s:.0f} s; is it paused, or over? call stop() at its end"
            )


def _describe(shape: tuple[int, ...], dtype: str, capacity: int, exposure_ms: float | None = None) -> StreamInfo:
    if len(shape) != 2 or dtype not in ("uint8", "uint16"):
        raise GeometryChanged(
            f"the acquisition takes {shape} {dtype} images; only 8- and 16-bit grey images can be denoised"
        )
    interval_s = float(exposure_ms) / 1000 if exposure_ms else None
    bits = 8 * np.dtype(dtype).itemsize
    return StreamInfo(
        "acquisition", (shape[0], shape[1]), dtype, bit_depth=bits, capacity=capacity, frame_interval_s=interval_s
    )
