"""What arrives, what of it is on screen, and how old that is. Knows sockets and frames, nothing of windows."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rtdenoise.keyring import ClientKeys
from rtdenoise.status import EndMessage, StartMessage, StatusMessage
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from rtdenoise.wire import Message

HISTORY_BYTES = 48 * 1024 * 1024
HISTORY_FRAMES = 512
"""Raw frames kept for the denoised frame that comes later: 96 of 512 x 512 uint16. Engineering choice."""
READ_LIMIT = 512
"""Most messages taken from one stream per look; what is left is taken at the next. Engineering choice."""
STALE_S = 1.0
"""Silence before the picture is called frozen; three frame intervals where a frame takes longer. Engineering choice."""
LOSING_S = 5.0
"""A loss younger than this is news. Engineering choice: longer than the interval of status messages."""
MAX_KEYS = 64
"""Channels and planes to choose from; a stream that claims more is not listed further. Engineering choice."""
_RATE_S = 0.5
Key = tuple[int, int]


class RawHistory:
    """The newest raw frames, bounded in bytes, found by camera number."""

    def __init__(self, max_bytes: int = HISTORY_BYTES, max_frames: int = HISTORY_FRAMES) -> None:
        self._max_bytes, self._max_frames = max_bytes, max_frames
        self._messages: OrderedDict[tuple[str, Key, int], Message] = OrderedDict()
        self._n_bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Message) -> None:
        """Keep a raw frame; the oldest go when there is no room."""
        if _identity(message) not in self._messages:
            self._messages[_identity(message)] = message
            self._n_bytes += message.frame.pixels.nbytes
        while len(self._messages) > 1 and (len(self._messages) > self._max_frames or self._n_bytes > self._max_bytes):
            self._n_bytes -= self._messages.popitem(last=False)[1].frame.pixels.nbytes

    def partner(self, denoised: Message) -> Message | None:
        """The raw frame that this denoised one was made of, if it is still here."""
        return self._messages.get(_identity(denoised))


def _identity(message: Message) -> tuple[str, Key, int]:
    stamp = message.frame.stamp
    return stamp.series, stamp.key, stamp.src_frame


class Rate:
    """Events per second over the last half second or more."""

    def __init__(self) -> None:
        self.per_s = 0.0
        self._n = 0
        self._since: float | None = None

    def add(self, n: int, now_s: float) -> None:
        """`n` more events have happened by `now_s`."""
        if self._since is None:
            self._since = now_s
            return
        self._n += n
        if now_s - self._since >= _RATE_S:
            self.per_s, self._n, self._since = self._n / (now_s - self._since), 0, now_s


@dataclass(slots=True)
class Arrivals:
    """Every message of one look, in order, and the picture they make."""

    raw: list[Message] = field(default_factory=list)
    denoised: list[Message] = field(default_factory=list)
    changed: bool = False


@dataclass(slots=True, frozen=True)
class Picture:
    """What is on screen: a raw and a denoised frame, and whether they are the same camera frame."""

    raw: Message | None = None
    denoised: Message | None = None

    @property
    def paired(self) -> bool:
        """True when both panes show the same camera frame."""
        return self.raw is not None and self.denoised is not None and _identity(self.raw) == _identity(self.denoised)


class Feed:
    """Three subscribers and what is known from them. `look` never blocks; use it from one thread.

    clock: seconds, for silence and rates.  shown: pictures painted.
    passed_over: denoised frames of the chosen channel that arrived and were not painted.
    """

    def __init__(
        self,
        raw_endpoint: str,
        denoised_endpoint: str,
        status_endpoint: str,
        clock: Callable[[], float] = time.monotonic,
        keys: ClientKeys | None = None,
    ) -> None:
        self._clock = clock
        self.raw_endpoint = raw_endpoint
        self.raw = Subscriber(raw_endpoint, keys=keys)
        self.denoised = Subscriber(denoised_endpoint, keys=keys)
        self._status = StatusSubscriber(status_endpoint, keys=keys)
        self.start: StartMessage | None = None
        self.status: StatusMessage | None = None
        self._end: EndMessage | None = None
        self.picture = Picture()
        self.keys: list[Key] = []
        self.key: Key | None = None
        self.fps_raw, self.fps_shown = Rate(), Rate()
        self.shown = self.passed_over = 0
        self.ages_ms: deque[float] = deque(maxlen=64)
        self._history = RawHistory()
        self._heard_s: float | None = None
        self._denoised_s: float | None = None
        self._n_lost, self._lost_s = 0, -math.inf

    def look(self) -> Arrivals:
        """Take everything that has arrived and choose the newest picture. Call it before painting."""
        now_s = self._clock()
        self._look_at_status()
        arrivals = Arrivals(self._chosen(_waiting(self.raw)), self._chosen(_waiting(self.denoised)))
        for message in arrivals.raw:
            self._history.add(message)
        if arrivals.raw or arrivals.denoised:
            self._heard_s = now_s
        if arrivals.denoised:
            self._denoised_s = now_s
        arrivals.changed = self._choose(arrivals, now_s)
        self._note_losses(now_s)
        self.fps_raw.add(len(arrivals.raw), now_s)
        self.fps_shown.add(int(arrivals.changed), now_s)
        return arrivals

    def choose_key(self, key: Key) -> None:
        """Show another channel and plane."""
        if key != self.key:
            self.key, self.picture = key, Picture()

    def silent_s(self) -> float | None:
        """Seconds since a frame arrived; None before the first."""
        return None if self._heard_s is None else self._clock() - self._heard_s

    def undenoised_s(self) -> float | None:
        """Seconds since a denoised frame arrived; None before the first."""
        return None if self._denoised_s is None else self._clock() - self._denoised_s

    def stale(self) -> bool:
        """True when frames came and then stopped although the series did not end."""
        silent_s = self.silent_s()
        return self.ended() is None and silent_s is not None and silent_s > self._patience_s()

    def refused(self) -> str:
        """Why the run does not let us watch; empty when it does, or is not there."""
        return self.raw.refused()

    def ended(self) -> EndMessage | None:
        """How the series on screen ended, if it did."""
        shown = self.picture.denoised or self.picture.raw
        if self._end is None or (shown is not None and shown.frame.stamp.series != self._end.series):
            return None
        return self._end

    def lost(self) -> dict[str, int]:
        """Frames lost, by place: as the run tells, and on the way to this window."""
        told = self.ended() or self.status
        missed = {"wire: raw": self.raw.missed, "wire: denoised": self.denoised.missed}
        return {**(told.dropped if told else self._drops_on_the_wire()), **missed}

    def losing(self) -> bool:
        """True when frames were lost in the last seconds."""
        return self._clock() - self._lost_s < LOSING_S

    def raw_only(self) -> bool:
        """True when raw frames arrive and denoised ones have not for longer than the look-ahead explains."""
        if self.picture.raw is None or self.stale() or self.ended():
            return False
        without_s = self.undenoised_s()
        lookahead_s = (self.start.lookahead_ms or 0.0) / 1e3 if self.start else 0.0
        return without_s is None or without_s > self._patience_s() + lookahead_s

    def age_ms(self) -> float | None:
        """Age now of the frame on screen; None when the clocks cannot be compared or nothing is shown."""
        shown = self.picture.denoised if self.picture.denoised and not self.raw_only() else self.picture.raw
        if shown is None or self.start is None or shown.frame.stamp.series != self.start.series:
            return None
        return self.start.age_ms(shown.frame.stamp.t_in)

    def note_painted(self) -> None:
        """The picture is on screen now."""
        self.shown += 1
        age_ms = self.age_ms()
        if age_ms is not None:
            self.ages_ms.append(age_ms)

    def age_percentiles_ms(self) -> tuple[float, float] | None:
        """Median and 95th percentile of the age of the last pictures at the moment they were painted."""
        if not self.ages_ms:
            return None
        median, high = np.percentile(self.ages_ms, (50, 95))
        return float(median), float(high)

    def close(self) -> None:
        """Disconnect."""
        for subscriber in (self.raw, self.denoised, self._status):
            subscriber.close()

    def _patience_s(self) -> float:
        interval_s = self.start.frame_interval_s if self.start else None
        return max(STALE_S, 3 * (interval_s or 0.0))

    def _drops_on_the_wire(self) -> dict[str, int]:
        shown = self.picture.denoised or self.picture.raw
        if shown is None:
            return {}
        return {"source": shown.drops.source, "input": shown.drops.input, "processing": shown.drops.processing}

    def _note_losses(self, now_s: float) -> None:
        n_lost = sum(self.lost().values())
        if n_lost > self._n_lost:
            self._lost_s = now_s
        self._n_lost = n_lost

    def _look_at_status(self) -> None:
        for _ in range(READ_LIMIT):
            message = self._status.read(timeout_s=0)
            if message is None:
                return
            if isinstance(message, StartMessage):
                self._begin(message)
            elif isinstance(message, StatusMessage):
                self.status = message
            else:
                self._end = message

    def _begin(self, start: StartMessage) -> None:
        if self.start is None or self.start.series != start.series:
            self._end = self.status = None
            self.ages_ms.clear()
        self.start = start

    def _chosen(self, messages: list[Message]) -> list[Message]:
        """Those of the chosen channel and plane; the first that is ever seen is chosen until somebody asks for another."""
        for message in messages:
            if message.frame.stamp.key not in self.keys and len(self.keys) < MAX_KEYS:
                self.keys = sorted([*self.keys, message.frame.stamp.key])
        if self.key is None and self.keys:
            self.key = self.keys[0]
        return [message for message in messages if message.frame.stamp.key == self.key]

    def _choose(self, arrivals: Arrivals, now_s: float) -> bool:
        """Pair the newest denoised frame with its raw one; without denoised frames show the newest raw one."""
        if arrivals.denoised:
            self.passed_over += len(arrivals.denoised) - 1
            newest = arrivals.denoised[-1]
            fallback = arrivals.raw[-1] if arrivals.raw else self.picture.raw
            self.picture = Picture(self._history.partner(newest) or fallback, newest)
            return True
        if not arrivals.raw:
            return False
        if self._denoised_s is not None and now_s - self._denoised_s < self._patience_s():
            return False
        self.picture = Picture(arrivals.raw[-1], self.picture.denoised)
        return True


def _waiting(subscriber: Subscriber) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < READ_LIMIT and (message := subscriber.read(timeout_s=0)) is not None:
        messages.append(message)
    return messages
