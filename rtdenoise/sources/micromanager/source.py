"""The Source in front of a Micro-Manager camera."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from rtdenoise.errors import SourceError
from rtdenoise.frame import Frame, FrameStamp
from rtdenoise.sources.base import SeriesClock, SourceStats, StreamInfo
from rtdenoise.sources.micromanager.base import STOP_S, Core, Driver
from rtdenoise.sources.micromanager.camera import describe, prepare
from rtdenoise.sources.micromanager.driver import LocalDriver
from rtdenoise.sources.micromanager.remote import RemoteDriver
from rtdenoise.sources.micromanager.sequence import Sequence
from rtdenoise.sources.micromanager.settings import MicromanagerSettings


class MicromanagerSource:
    """Frames of a Micro-Manager camera, in order, each with the number of frames that are missing before it.

    `stamp.dropped` counts all missing frames of that channel; `stats()` says how many of them were lost (`dropped`)
    and how many we threw away (`skipped`).
    After stop() the frames that were already taken can still be read, then EndOfStream is raised.
    """

    Settings = MicromanagerSettings

    def __init__(
        self,
        settings: MicromanagerSettings | None = None,
        connect: Callable[[MicromanagerSettings], Driver] | None = None,
    ) -> None:
        """connect: another way to a core than those of `settings.backend`."""
        self._settings = settings or MicromanagerSettings()
        self._driver_for = connect or _driver_for
        self._driver: Driver | None = None
        self._info: StreamInfo | None = None
        self._sequence: Sequence | None = None
        self._idle_clock = SeriesClock()
        self._n_read = 0

    @property
    def clock(self) -> SeriesClock:
        """Clock of the current series, or of this object before the first one."""
        return self._sequence.clock if self._sequence is not None else self._idle_clock

    def open(self) -> StreamInfo:
        """Connect, apply the settings, read the geometry; on an open source: end the series and read the geometry again.

        Raises MissingExtraError, ConfigError, SourceBusy, SourceDisconnected or another SourceError, and is closed again then.
        """
        self.stop()
        try:
            if self._driver is None:
                self._driver = self._connect()
            self._sequence = None
            self._driver.follow(None)
            self._info = self._driver.call(self._set_up)
        except BaseException:
            self.close()
            raise
        return self._info

    def start(self) -> None:
        """Begin a new series. Raises SourceBusy, GeometryChanged or another SourceError."""
        driver, info = self._opened()
        self.stop()
        self._n_read = 0
        driver.follow(None)  # or the old sequence would get the first frame of the new one
        self._sequence = driver.call(lambda core: Sequence(core, driver.take, info, self._settings))
        driver.follow(self._sequence)

    def read(self, timeout_s: float = 1.0) -> Frame | None:
        """The next frame `(Y, X)`, owned by the caller; None when none came in time. Raises EndOfStream or a SourceError."""
        driver, _ = self._opened()
        sequence = self._sequence
        if sequence is None:
            raise SourceError("the source has not been started; call start() first")
        arrival = driver.next(timeout_s)
        if arrival is None:
            return None
        popped, dropped = arrival
        stamp = FrameStamp(
            series=sequence.clock.series,
            frame=self._n_read,
            src_frame=popped.number,
            t_in=popped.t_in,
            t_src=popped.t_src,
            channel=popped.channel,
            dropped=dropped,
        )
        self._n_read += 1
        return Frame(popped.pixels, stamp)

    def backlog(self) -> int:
        """Frames that wait to be read, here and in the camera buffer."""
        return self._driver.waiting() if self._driver is not None and self._sequence is not None else 0

    def stats(self) -> SourceStats:
        """Totals of this series (of the last one after stop); `pull_cpu_ns` is the CPU time of the thread that pops
        (the socket thread of the bridge comes on top with backend `java`).
        """
        return replace(self._sequence.stats) if self._sequence is not None else SourceStats()

    def stop(self) -> None:
        """End the series; a sequence that somebody else started goes on."""
        sequence = self._sequence
        if sequence is None or sequence.stopped or self._driver is None:
            return
        sequence.stopped = True
        with contextlib.suppress(SourceError):  # a camera that is gone has stopped
            self._driver.call(lambda core: sequence.stop(), STOP_S)

    def close(self) -> None:
        """Stop, then let go of the camera; unloads devices that we loaded."""
        try:
            self.stop()
        finally:
            atexit.unregister(self.close)
            driver, self._driver, self._info = self._driver, None, None
            if driver is not None:
                driver.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _connect(self) -> Driver:
        driver = self._driver_for(self._settings)
        # At exit we must come before pycromanager: unloading a camera that runs fails, and a dead server is waited for.
        atexit.register(self.close)
        return driver

    def _set_up(self, core: Core) -> StreamInfo:
        prepare(core, self._settings)
        return describe(core, self._settings.n_frames)

    def _opened(self) -> tuple[Driver, StreamInfo]:
        if self._driver is None or self._info is None:
            raise SourceError("the source is not open; call open() first")
        return self._driver, self._info


def _driver_for(settings: MicromanagerSettings) -> Driver:
    return LocalDriver(settings) if settings.backend == "python" else RemoteDriver(settings)
