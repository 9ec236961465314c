"""What a run says about itself beside the images: one `start`, a `status` every second, one `end`. JSON, one part each."""

from __future__ import annotations

import json
import platform
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rtdenoise.errors import WireError

MAX_STATUS_BYTES = 1024 * 1024
"""Longest status message that is parsed. Engineering choice: a start message with every setting of a microscope is some ten KiB."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_id() -> str:
    """Equal in two processes exactly when `time.perf_counter_ns()` counts from the same moment in both."""
    boot = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.is_file() else f"{uuid.getnode():012x}"
    return f"{platform.node()}-{boot}"


class _StatusModel(BaseModel):
    """Base of the three messages: frozen; keys of a later version are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    htype: str

    def to_json(self) -> bytes:
        """Compact UTF-8 JSON that starts with the htype."""
        return self.model_dump_json().encode()


class Ages(BaseModel):
    """Arrival to publication over the last second, in ms."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    p50_ms: float = 0.0
    p95_ms: float = 0.0
    max_ms: float = 0.0


class Counters(_StatusModel):
    """Where every frame went: `acquired = delivered + dropped + in_flight`, at any moment.

    acquired: frames the camera made, as far as its numbers tell.  delivered: handed to the publisher.
    dropped: 'stage: reason' -> frames.  in_flight: in our hands.
    """

    acquired: int = 0
    delivered: int = 0
    dropped: dict[str, int] = {}
    in_flight: int = 0

    @property
    def n_dropped(self) -> int:
        """Frames dropped at all stages together."""
        return sum(self.dropped.values())

    @property
    def balanced(self) -> bool:
        """True when every acquired frame is accounted for."""
        return self.acquired == self.delivered + self.n_dropped + self.in_flight


class Recorder(BaseModel):
    """The recording of a run.

    state: 'off', 'recording', 'interrupted' (the disk is full or gone; frames are missing), 'complete' or 'failed'.
    written, dropped: raw frames in the recording, and missing in it.  seconds_left: until the disk is full at this rate.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    state: str = "off"
    path: str = ""
    written: int = 0
    dropped: int = 0
    seconds_left: float | None = None


class StartMessage(_StatusModel):
    """What is being run. Repeated every second for those who join late; further keys travel along.

    epoch_ns: `time.perf_counter_ns()` at the start of the series, good for processes whose `host_id()` is `host`.  utc: the same moment.
    lookahead_frames, lookahead_ms: what waiting for later frames costs.  saturation: count of a saturated pixel, None if unknown.
    software: package -> version.  settings: of the run, as given.  calibration: 'channel/plane' -> (offset, scale), as soon as it is known.
    policy: 'latest' or 'lossless'.  queues: name -> what it holds at most and what it does when it is full.
    clock: what `perf_counter_ns` is on that host.  host_name, pid: where, and which process, to look for it.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    htype: Literal["rtdenoise-start-1.0"] = "rtdenoise-start-1.0"
    series: str
    epoch_ns: int = Field(default_factory=time.perf_counter_ns)
    host: str = Field(default_factory=host_id)
    utc: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    source: str = ""
    shape: tuple[int, int] | None = None
    dtype: str = ""
    channels: int = 1
    planes: int = 1
    frame_interval_s: float | None = None
    um_per_px: float | None = None
    saturation: int | None = None
    model: str = ""
    engine: str = ""
    mode: str = ""
    lookahead_frames: int = 0
    lookahead_ms: float | None = None
    software: dict[str, str] = {}
    settings: dict[str, Any] = {}
    calibration: dict[str, tuple[float, float]] = {}
    policy: str = ""
    queues: dict[str, str] = {}
    endpoints: dict[str, str] = {}
    clock: str = ""
    host_name: str = ""
    pid: int = 0

    def age_ms(self, t_in: int) -> float | None:
        """Ms since the moment `t_in` (ns since series start); None when this process runs on another host."""
        if self.host != host_id():
            return None
        return (time.perf_counter_ns() - self.epoch_ns - t_in) / 1e6


class Event(BaseModel):
    """Something that somebody marked. t: ns since series start.  frame, src_frame: the newest ones, in the raw stream and of the camera."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    t: int
    frame: int
    src_frame: int
    text: str


class StatusMessage(Counters):
    """How the run is doing: once a second, and out of turn when an alarm begins.

    t: ns since series start.  fps_in, fps_out: frames acquired and delivered per second.  mode: 'denoising', 'raw only', ...
    engine: what runs the model.  message: one line for the person at the rig, empty when all is well.
    queues: name -> how full it was at most since the last second, 0 to 1.  alarms: what is wrong right now, a line each.
    latency_ms: stage -> (p50, p95, p99) over the last second.  norm_drift: 'channel/plane' -> contrast now over contrast at calibration.
    recorder: None where nothing is recorded.  restarts: of the denoise process.  events: marked since the last status.
    """

    htype: Literal["rtdenoise-status-1.0"] = "rtdenoise-status-1.0"
    series: str
    t: int = 0
    age: Ages = Ages()
    fps_in: float = 0.0
    fps_out: float = 0.0
    mode: str = ""
    engine: str = ""
    message: str = ""
    policy: str = ""
    queues: dict[str, float] = {}
    alarms: list[str] = []
    latency_ms: dict[str, tuple[float, float, float]] = {}
    norm_drift: dict[str, float] = {}
    recorder: Recorder | None = None
    restarts: int = 0
    events: list[Event] = []


class EndMessage(Counters):
    """How the run ended.

    count: frames delivered.  age, latency_ms: over the whole run.
    reason: 'ok' (the source came to its end), 'stopped' (somebody asked), or where it broke and how: 'source: ...', 'overflow: ...',
    'disconnected: ...', 'stalled: ...', 'geometry: ...', 'engine: ...', 'wire: ...', 'error: ...'.
    """

    htype: Literal["rtdenoise-end-1.0"] = "rtdenoise-end-1.0"
    series: str
    count: int
    reason: str = "ok"
    age: Ages = Ages()
    latency_ms: dict[str, tuple[float, float, float]] = {}
    recorder: Recorder | None = None
    restarts: int = 0
    seconds: float = 0.0


AnyStatus = StartMessage | StatusMessage | EndMessage
_MODELS: dict[str, type[StartMessage] | type[StatusMessage] | type[EndMessage]] = {
    "rtdenoise-start-1.0": StartMessage,
    "rtdenoise-status-1.0": StatusMessage,
    "rtdenoise-end-1.0": EndMessage,
}


def _whole(digits: str) -> int:
    """A number of at most 19 digits: longer ones fit no counter, and break whoever divides them."""
    if len(digits) > 20:
        raise ValueError("not a whole number of 64 bits")
    return int(digits)


def from_json(part: bytes) -> AnyStatus:
    """The message in `part`. Raises WireError for anything else."""
    if len(part) > MAX_STATUS_BYTES:
        raise WireError(f"status message of {len(part)} bytes; at most {MAX_STATUS_BYTES} are read")
    try:
        values: Any = json.loads(str(part, "utf-8"), parse_int=_whole)
        model = _MODELS[values["htype"]]
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise WireError(f"status message: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise WireError(f"not a status message of rtdenoise: {type(error).__name__}") from None
