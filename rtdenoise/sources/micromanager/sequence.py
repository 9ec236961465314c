"""One sequence acquisition on a core, polled without blocking. The same for both backends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from rtdenoise.errors import EndOfStream, GeometryChanged, SourceBusy, SourceError, SourceOverflow, SourceStalled
from rtdenoise.frame import Pixels
from rtdenoise.sources.base import SeriesClock, SourceStats, StreamInfo
from rtdenoise.sources.micromanager.base import Core, Popped, Take
from rtdenoise.sources.micromanager.camera import channel_names, check_unchanged, first_line
from rtdenoise.sources.micromanager.ledger import Ledger
from rtdenoise.sources.micromanager.settings import MicromanagerSettings

NAP_S = 0.0005
"""Between two looks at an empty buffer. Engineering choice: a third of a millisecond of latency for a few percent of a core."""
SUSPECT_FILL = 0.95
"""MMCore frees a slot before its bytes are copied out; torn frames were seen only when the buffer was full."""
_ALIVE_CHECK_NS = 20_000_000


class Sequence:
    """Starts (or joins) a sequence, hands out its frames in order and knows why it ended. Used by one thread at a time, except `stop`."""

    stopped: bool
    """We asked for the end; frames that are already in the buffer can still be polled."""
    left: int
    """Frames in the camera buffer after the last pop."""

    def __init__(self, core: Core, take: Take, info: StreamInfo, settings: MicromanagerSettings) -> None:
        """take: pops one tagged image. Raises SourceBusy when a sequence runs that we may neither stop nor join."""
        self._core, self._take, self._info, self._settings = core, take, info, settings
        self.joined = self._claim()
        check_unchanged(core, info)
        self._channels = channel_names(core, info.channels) if info.channels > 1 else []
        self._capacity = int(core.get_buffer_total_capacity())
        self._stall_ns = round(1e9 * max(settings.stall_timeout_s, 3 * (info.frame_interval_s or 0)))
        self.stopped = False
        self._n_popped = 0
        self.left = 0
        self._offset_ns: int | None = None if self.joined else 0
        self.ledger = Ledger(self._capacity, from_zero=not self.joined)
        self._wall_start = datetime.now()  # naive local time, as MMCore stamps its frames
        self.clock = SeriesClock()
        self._last_news_ns = self._last_check_ns = time.perf_counter_ns()
        if not self.joined:
            self._start()

    @property
    def stats(self) -> SourceStats:
        """The running totals of this series (live, not a copy)."""
        return self.ledger.stats

    @property
    def frame_bytes(self) -> int:
        """Size of one frame."""
        return int(np.dtype(self._info.dtype).itemsize * np.prod(self._info.shape))

    def waiting(self) -> int:
        """Frames in the camera buffer."""
        return int(self._core.get_remaining_image_count())

    def poll(self) -> Popped | None:
        """The next frame, or None when there is none yet.

        Raises EndOfStream or a SourceError when there will be none; SourceStalled leaves the sequence usable.
        """
        try:
            return self._poll()
        except (SourceError, EndOfStream):
            raise
        except Exception as error:  # whatever a device adapter or the bridge throws
            raise SourceError(f"{self._info.name}: reading a frame failed: {first_line(error)}") from error

    def stop(self) -> None:
        """End a sequence that we started; one that we joined goes on. Frames already in the buffer can still be polled."""
        self.stopped = True
        if not self.joined and self._core.is_sequence_running():
            self._core.stop_sequence_acquisition()

    def _claim(self) -> bool:
        if not self._core.is_sequence_running():
            return False
        if self._settings.on_busy == "attach":
            return True
        if self._settings.on_busy == "error":
            raise SourceBusy(
                f"{self._info.name} is already running a sequence; stop it there, or use on_busy='stop' or 'attach'"
            )
        self._core.stop_sequence_acquisition()
        return False

    def _start(self) -> None:
        try:
            if self._settings.n_frames is None:
                self._core.start_continuous_sequence_acquisition(0.0)
            else:
                self._core.start_sequence_acquisition(self._settings.n_frames, 0.0, True)
        except Exception as error:
            raise SourceError(f"{self._info.name} would not start: {first_line(error)}") from error

    def _poll(self) -> Popped | None:
        if self._info.n_frames is not None and self._n_popped >= self._info.n_frames:
            raise EndOfStream(f"{self._info.name}: all {self._n_popped} frames are in")
        if self.stopped and self.joined:
            raise EndOfStream(f"{self._info.name}: left after {self._n_popped} frames")
        waiting = self.waiting()
        if waiting == 0:
            self._check_alive()
            return None
        if waiting >= SUSPECT_FILL * self._capacity:
            self.stats.suspect += 1
        self.stats.max_backlog = max(self.stats.max_backlog, waiting)
        return self._pop(waiting)

    def _pop(self, waiting: int) -> Popped | None:
        try:
            pixels, tags = self._take(self._core)
        except Exception as error:
            if "ircular buffer is empty" in str(error):
                return None  # wiped between the count and the pop
            raise
        t_in = self.clock.now_ns()
        self._last_news_ns = self._last_check_ns = time.perf_counter_ns()
        self._n_popped += 1
        self.left = waiting - 1
        return Popped(
            self._shaped(pixels, tags), self._channel(tags), int(tags["ImageNumber"]), t_in, self._device_ns(tags, t_in)
        )

    def _shaped(self, pixels: Pixels, tags: Mapping[str, Any]) -> Pixels:
        """`pixels` as (Y, X). The tags decide: pymmcore shapes an image by the camera's size now, not by the size it was taken with."""
        shape = (int(tags["Height"]), int(tags["Width"]))
        if shape != self._info.shape or pixels.size != shape[0] * shape[1] or pixels.dtype != self._info.dtype:
            raise GeometryChanged(
                f"{self._info.name}: a frame of {shape} {pixels.dtype} with {pixels.size} values came in a series of "
                f"{self._info.shape} {self._info.dtype}; stop, then open and start the source again"
            )
        return pixels.reshape(shape)

    def _channel(self, tags: Mapping[str, Any]) -> int:
        if not self._channels:
            return 0
        camera = tags.get("Camera")
        if camera in self._channels:
            return self._channels.index(camera)
        index = next((tags[tag] for tag in tags if tag.endswith("CameraChannelIndex")), tags.get("ChannelIndex", 0))
        return int(index)

    def _device_ns(self, tags: Mapping[str, Any], t_in: int) -> int:
        """Device time of a frame; of a sequence that we joined, counted from the arrival of our first frame."""
        if "ElapsedTime-ms" in tags:
            since_start = round(float(tags["ElapsedTime-ms"]) * 1e6)
        elif "TimeReceivedByCore" in tags:
            since = datetime.fromisoformat(str(tags["TimeReceivedByCore"])) - self._wall_start
            since_start = round(since.total_seconds() * 1e9)
        else:
            return t_in
        if self._offset_ns is None:
            self._offset_ns = t_in - since_start
        return since_start + self._offset_ns

    def _check_alive(self) -> None:
        now = time.perf_counter_ns()
        if now - self._last_check_ns < _ALIVE_CHECK_NS:
            return
        self._last_check_ns = now
        if not self._core.is_sequence_running():
            if self.waiting() == 0:  # the last frame may have come after we counted
                raise self._ending()
        elif now - self._last_news_ns > self._stall_ns:
            silent_s, self._last_news_ns = (now - self._last_news_ns) / 1e9, now
            raise SourceStalled(
                f"{self._info.name} has sent nothing for {silent_s:.1f} s: check trigger, shutter and scanner"
            )

    def _ending(self) -> Exception:
        so_far = f"after {self._n_popped} frames"
        if self.stopped:
            return EndOfStream(f"{self._info.name}: stopped {so_far}")
        if self._core.is_buffer_overflowed():
            return SourceOverflow(
                f"{self._info.name}: the camera buffer of {self._capacity} frames overflowed {so_far} of {self._info.n_frames}, "
                "so the acquisition stopped; read faster, raise buffer_mb or lower the frame rate"
            )
        if self.joined:
            return EndOfStream(f"{self._info.name}: its owner stopped the sequence {so_far}")
        try:
            check_unchanged(self._core, self._info)
        except SourceError as changed:
            return changed
        return SourceError(f"{self._info.name} was stopped by somebody else {so_far}; start the source again")
