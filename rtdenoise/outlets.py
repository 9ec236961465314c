"""The publishers of a run: raw and denoised frames, each numbered in its own stream."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtdenoise.errors import RtDenoiseError, WireError
from rtdenoise.frame import Frame
from rtdenoise.publish import Publisher
from rtdenoise.settings import RunSettings
from rtdenoise.shared import SharedRing, Slot
from rtdenoise.wire import Drops, StreamFacts

SUBSCRIBER_TIMEOUT_S = 60.0


class Outlets:
    """The two publishers of a run and the numbers of what they sent."""

    def __init__(self, settings: RunSettings, ring: SharedRing, model: str, backend: str) -> None:
        info, ends = ring.info, settings.endpoints
        self._ring = ring
        n_pixels = info.shape[0] * info.shape[1]
        fps = info.channels * info.planes / info.frame_interval_s if info.frame_interval_s else 128.0
        stopping = lambda: bool(ring.ints[Slot.STOP])  # noqa: E731 - two words of plumbing
        raw = StreamFacts("raw", info.name, um_per_px=info.um_per_px)
        self.raw = Publisher(
            ends.raw,
            raw,
            frame_bytes=n_pixels * np.dtype(info.dtype).itemsize,
            fps_hint=fps,
            lossless=settings.lossless,
            stopping=stopping,
        )
        try:
            self.denoised = Publisher(
                ends.denoised,
                replace(raw, stream="denoised", model=model, backend=backend),
                frame_bytes=n_pixels * 4,
                fps_hint=fps,
                lossless=settings.lossless,
                stopping=stopping,
            )
        except RtDenoiseError:
            self.raw.close()
            raise
        self._series: dict[Slot, str] = {}

    def wait_for_subscribers(self, settings: RunSettings) -> None:
        """Block until a lossless run has those it was told to wait for. Raises WireError after a minute."""
        for stream, publisher in (("raw", self.raw), ("denoised", self.denoised)):
            n = settings.wait_for.get(stream, 0)  # type: ignore[call-overload]
            if n and not publisher.wait_for_subscribers(n, SUBSCRIBER_TIMEOUT_S):
                raise WireError(
                    f"{publisher.endpoint}: {publisher.subscribers} of {n} subscribers came within "
                    f"{SUBSCRIBER_TIMEOUT_S:.0f} s; start them, or run without --lossless"
                )

    def send_raw(self, frame: Frame, drops: Drops, t_out: int) -> bool:
        """Publish a raw frame under the number it has in its stream; False when a lossless send was given up."""
        return self._send(self.raw, Slot.SENT_RAW, frame, drops, t_out)

    def send_denoised(self, frame: Frame, drops: Drops, t_out: int) -> bool:
        """Publish a denoised frame under the number it has in its stream; False when a lossless send was given up."""
        return self._send(self.denoised, Slot.SENT_DENOISED, frame, drops, t_out)

    def _send(self, publisher: Publisher, counter: Slot, frame: Frame, drops: Drops, t_out: int) -> bool:
        ints, series = self._ring.ints, frame.stamp.series
        # A series that an earlier process began goes on counting where that one stopped.
        if self._series.setdefault(counter, series) != series:
            self._series[counter] = series
            ints[counter] = 0
        sent = publisher.publish(frame.restamped(frame=int(ints[counter])), drops, t_out=t_out)
        ints[counter] += sent
        return sent

    def lease(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """A buffer for the next denoised frame, sent without another copy."""
        return self.denoised.lease(shape, "float32")  # type: ignore[return-value]

    def __enter__(self) -> Outlets:
        return self

    def __exit__(self, *exc: object) -> None:
        self.raw.close()
        self.denoised.close()
