"""A file that another program is writing right now, followed image by image: raw bytes (ThorImage, others) or TIFF (ScanImage, others)."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from rtdenoise.errors import EndOfStream, FileFormatError, SourceError
from rtdenoise.files import ifd, tiff_facts
from rtdenoise.files.growing import Growing, GrowingRaw, GrowingTiff
from rtdenoise.files.scanimage import MAX_CHANNELS
from rtdenoise.frame import Pixels
from rtdenoise.sources.base import SourceKind, StreamInfo
from rtdenoise.sources.door import Exposure, FeedSettings
from rtdenoise.sources.feed import Feed
from rtdenoise.sources.thorimage import EXPERIMENT, read_experiment

NAP_S = 0.005
"""Between two looks at the size of the file. Engineering choice: a look costs 10 us."""
SETTLED_S = 2.0
"""A description that nobody has touched for so long is complete, or wrong. Engineering choice."""
LOOK_ROUND_S = 0.5
"""Between two looks for a newer file that fits the pattern. Engineering choice."""
N_BUFFERS = 4
"""Images in hand: the one that is being read, and those that are looked at before it is clear what they are."""
_TIFF = (".tif", ".tiff", ".btf")


class FollowSettings(FeedSettings):
    """Which file, and what it does not say itself."""

    path: Path = Field(
        description="the file; or a folder of ThorImage; or a pattern such as run_*.tif, whose newest file is followed, then the next"
    )
    height: int | None = Field(default=None, ge=1, description="lines of a frame (raw files without an Experiment.xml)")
    width: int | None = Field(default=None, ge=1, description="pixels of a line (raw files without an Experiment.xml)")
    dtype: Literal["uint8", "uint16", "int16", "float32"] = Field(default="uint16", description="pixels of a raw file")
    offset: int = Field(default=0, ge=0, description="bytes before the first frame of a raw file")
    channels: int | None = Field(default=None, ge=1, description="interleaved channels, when the file does not say")
    planes: int | None = Field(default=None, ge=1, description="planes of a volume, when the file does not say")
    begin: Literal["start", "newest"] = Field(
        default="start",
        description="start: every frame, however long it takes. newest: from the end of what is there, and skip when behind",
    )
    idle_s: float = Field(default=10.0, gt=0, description="the series is over when the file has not grown for so long")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError("give both height and width, or neither")
        return self


@dataclass(slots=True, frozen=True)
class _Found:
    growing: Growing
    info: StreamInfo


class FollowDoor:
    """Images of the file as exposures, in the order of the file: channel fastest, then plane, then time."""

    drains = False

    def __init__(self, settings: FollowSettings) -> None:
        self._settings = settings
        self.name = str(settings.path)
        self.advice = "it is not there yet, or has no complete frame; start the acquisition, or check the path"
        self._found: _Found | None = None
        self._known: StreamInfo | None = None
        self._followed: Path | None = None
        self._buffers: list[Pixels] = []
        self._next = self._n_read = self._n_there = 0
        self._grew = self._looked = 0.0

    def connect(self) -> None:
        """Nothing yet: the file may come later."""
        self._known, self._followed = None, None

    def look(self, timeout_s: float) -> StreamInfo | None:
        """The stream, once there is enough of the file to tell. Raises FileFormatError for a file that cannot be followed."""
        self._found = self._find()
        if self._found is None:
            time.sleep(min(timeout_s, SETTLED_S))
            return None
        self._known = self._found.info
        self._buffers = [np.empty(self._known.shape, self._known.dtype) for _ in range(N_BUFFERS)]
        return self._known

    def begin(self) -> None:
        """Go on with the file, or take the one that has come after it."""
        self._n_read, self._grew = 0, time.perf_counter()
        self._looked = 0.0
        if self._found is not None and self._gone(self._found):
            self._leave()

    def forget(self) -> None:
        """Skip what is there already, when only the newest is wanted."""
        if self._settings.begin == "newest" and self._found is not None:
            self._next = self._found.growing.n_images() // self._per_time * self._per_time

    def receive(self, timeout_s: float) -> Exposure | None:
        """The next whole image. Raises EndOfStream when the file is complete or replaced, SourceError when it cannot be read."""
        deadline = time.perf_counter() + timeout_s
        while True:
            try:
                exposure = self._exposure()
            except OSError as error:
                raise SourceError(f"{self.name}: cannot be read: {error.strerror or error}") from error
            except FileFormatError as error:
                raise SourceError(str(error)) from error
            left = deadline - time.perf_counter()
            if exposure is not None or left <= 0:
                return exposure
            time.sleep(min(NAP_S, left))

    def close(self) -> None:
        """Let go of the file."""
        self._leave()
        self._buffers = []

    @property
    def _per_time(self) -> int:
        return self._known.channels * self._known.planes if self._known is not None else 1

    def _exposure(self) -> Exposure | None:
        if self._found is None:
            self._found = self._find()
            if self._found is None:
                return None
            self._buffers = [np.empty(self._found.info.shape, self._found.info.dtype) for _ in range(N_BUFFERS)]
        growing = self._found.growing
        if self._next >= self._n_there:
            n_there = growing.n_images()
            if n_there > self._n_there:
                self._n_there, self._grew = n_there, time.perf_counter()
        if self._next >= self._n_there:
            self._end_if_over(self._found)
            return None
        out = self._buffers[self._next % N_BUFFERS]
        if not growing.read(self._next, out):
            raise EndOfStream(f"{self.name} was cut while it was read, after {self._n_read} images")
        number, within = divmod(self._next, self._per_time)
        n_channels = self._found.info.channels
        self._next += 1
        self._n_read += 1
        return Exposure((out,), number, None, "", within % n_channels, within // n_channels)

    def _end_if_over(self, found: _Found) -> None:
        idle_s = time.perf_counter() - self._grew
        if self._gone(found):
            raise EndOfStream(f"{self.name}: the next series has begun in its place, after {self._n_read} images")
        if idle_s > self._settings.idle_s and self._n_read:
            raise EndOfStream(f"{self.name} has not grown for {idle_s:.0f} s: over after {self._n_read} images")
        if sys.platform == "win32":
            found.growing.close()  # there, an open file cannot be moved or deleted by its owner

    def _gone(self, found: _Found) -> bool:
        if found.growing.replaced():
            return True
        now = time.perf_counter()
        if now - self._looked < LOOK_ROUND_S:
            return False
        self._looked = now
        return self._resolved() not in (None, self._followed)

    def _leave(self) -> None:
        if self._found is not None:
            self._found.growing.close()
        self._found = None
        self._next = self._n_there = 0

    def _resolved(self) -> Path | None:
        """The file to follow by now, None while there is none."""
        path = self._settings.path
        if re.search(r"[*?\[]", path.name):
            files = sorted(path.parent.glob(path.name), key=_modified)
            return files[-1] if files else None
        if path.is_dir():
            return next(iter(sorted(path.glob("Image_*.raw"))), None)
        return path if path.is_file() else None

    def _find(self) -> _Found | None:
        """The file and what is in it, None while that cannot be told."""
        path = self._resolved()
        if path is None:
            return None
        try:
            found = self._tiff(path) if path.suffix.lower() in _TIFF else self._raw(path)
        except OSError:
            return None
        except FileFormatError:
            if time.time() - _modified(path) > SETTLED_S:
                raise
            return None  # it is being written
        if found is not None:
            self._followed = path
        return found

    def _raw(self, path: Path) -> _Found | None:
        s = self._settings
        info = StreamInfo(f"follow {path.name}", (s.height or 1, s.width or 1), s.dtype, live=s.begin == "newest")
        if s.height is None:
            beside = path.parent / EXPERIMENT
            if not beside.is_file():
                raise FileFormatError(
                    f"{path}: no {EXPERIMENT} beside it; give height, width and dtype, as in -o height=512"
                )
            told = read_experiment(beside)
            interval_s = 1.0 / told.frame_rate_hz if told.frame_rate_hz else None
            info = replace(
                info,
                shape=told.shape,
                channels=told.channels,
                planes=told.planes,
                frame_interval_s=interval_s,
                um_per_px=told.um_per_px,
            )
        info = self._as_asked(info)
        return _Found(GrowingRaw(path, info.shape, info.dtype, s.offset), info)

    def _tiff(self, path: Path) -> _Found | None:
        growing = GrowingTiff(path)
        n_images = growing.n_images()
        # ScanImage's channels are told from its first pages
        if n_images == 0 or (n_images <= MAX_CHANNELS and time.time() - _modified(path) < SETTLED_S):
            growing.close()
            return None
        page, facts = tiff_facts.describe(path, ifd.walk(path), self._settings.channels)
        info = StreamInfo(
            f"follow {path.name}",
            page.shape,
            page.dtype.newbyteorder("=").name,
            bit_depth=8 * page.dtype.itemsize,
            channels=facts.sizes[2],
            planes=facts.sizes[1],
            frame_interval_s=facts.frame_interval_s,
            live=self._settings.begin == "newest",
            um_per_px=facts.um_per_px,
            scan=facts.scan,
        )
        return _Found(growing, self._as_asked(info))

    def _as_asked(self, info: StreamInfo) -> StreamInfo:
        s = self._settings
        return replace(info, channels=s.channels or info.channels, planes=s.planes or info.planes)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


FollowSource = SourceKind(
    "a file that is being written, followed frame by frame (raw, TIFF)",
    FollowSettings,
    lambda s: Feed(FollowDoor(s), s),
)
