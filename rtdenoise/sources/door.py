"""What a source that is sent frames is made of: exposures, and the door through which they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from rtdenoise import config
from rtdenoise.frame import Pixels
from rtdenoise.sources.base import StreamInfo
from rtdenoise.sources.numbering import Key


class BadMessage(Exception):
    """What came is not a frame: counted, never raised out of a source."""


class FeedSettings(config.Settings):
    """What can be said of every source that is sent frames."""

    n_frames: int | None = Field(
        default=None,
        ge=1,
        description="frames of each channel and plane in a series; none: until it ends or is stopped",
    )
    frame_rate_hz: float | None = Field(
        default=None, gt=0, description="frames per second, where the sender does not say and it cannot be measured"
    )
    queue_frames: int = Field(
        default=64, ge=1, description="exposures that may wait for us; the oldest beyond it are skipped and counted"
    )
    first_frame_s: float = Field(
        default=60.0, gt=0, description="how long to wait for the first frame, or for the file"
    )
    stall_timeout_s: float = Field(default=5.0, gt=0, description="say so after this long without a frame")


@dataclass(slots=True, frozen=True)
class Exposure:
    """What a device sent at once: images `(Y, X)` of one moment, those of `channel`, `channel + 1`, ...

    number: the device's own count.  time_ns: the device's clock, None without one.  series: the device's name for the acquisition,
    empty without one. Pixels stay valid while the exposure is kept, unless the door says otherwise.
    """

    images: tuple[Pixels, ...]
    number: int
    time_ns: int | None = None
    series: str = ""
    channel: int = 0
    plane: int = 0

    @property
    def key(self) -> Key:
        """(channel, plane) of the first image."""
        return (self.channel, self.plane)


class Door(Protocol):
    """Where exposures come from. Called from one thread at a time; nothing waits longer than its `timeout_s`.

    name: for errors.  advice: what to check when nothing comes.  drains: exposures pile up by themselves, so all that wait are
    taken at once and the oldest thrown away; False where the sender waits for us.
    """

    name: str
    advice: str
    drains: bool

    def connect(self) -> None:
        """Make ready to receive; the sender may come later. Raises ConfigError or a SourceError."""

    def look(self, timeout_s: float) -> StreamInfo | None:
        """What will come, None while that cannot be told. Raises what makes waiting useless."""

    def begin(self) -> None:
        """A new series."""

    def forget(self) -> None:
        """Throw away what came before the series."""

    def receive(self, timeout_s: float) -> Exposure | None:
        """The next exposure, None when there is none. Raises BadMessage, EndOfStream or a SourceError."""

    def close(self) -> None:
        """Let go. May be called twice, never hangs."""


def interval_s(numbers: list[int], times_ns: list[int]) -> float | None:
    """Seconds per frame from the first and last of some frames of one channel; None when they do not tell."""
    if len(numbers) < 2 or numbers[-1] <= numbers[0] or times_ns[-1] <= times_ns[0]:
        return None
    return (times_ns[-1] - times_ns[0]) / 1e9 / (numbers[-1] - numbers[0])
