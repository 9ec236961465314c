"""What one live run is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rtdenoise.config import Settings
from rtdenoise.normalize import CALIBRATION_FRAMES

DENOISED_PORT, RAW_PORT, STATUS_PORT, CONTROL_PORT = 5560, 5561, 5562, 5563

Policy = Literal["latest", "lossless"]


def loopback(port: int) -> str:
    """The endpoint of a port that only this machine can reach."""
    return f"tcp://127.0.0.1:{port}"


class SourceChoice(Settings):
    """A registered source and the values of its own settings model."""

    name: str = "synthetic"
    options: dict[str, Any] = {}
    n_series: int = Field(default=1, ge=1, description="series to take one after the other")


class EngineSettings(Settings):
    """Which model denoises, on what, how late. latency: a number is the look-ahead in frames. hop None: the smallest that keeps up."""

    model: str = "fast-simulated"
    backend: str = "auto"
    latency: Literal["full", "causal"] | Annotated[int, Field(ge=0)] = "full"
    hop: int | None = Field(default=None, ge=1)
    threads: int = Field(default=0, ge=0, description="0: all cores")
    normalization: Literal["calibrate", "bundle"] = "calibrate"
    calibration_frames: int = Field(default=CALIBRATION_FRAMES, ge=1)


class Endpoints(Settings):
    """Where a run can be listened to, and where it takes requests: `control` is on this machine, whatever the others are."""

    denoised: str = loopback(DENOISED_PORT)
    raw: str = loopback(RAW_PORT)
    status: str = loopback(STATUS_PORT)
    control: str = loopback(CONTROL_PORT)

    @classmethod
    def from_port(cls, port: int) -> Endpoints:
        """Denoised frames on `port`, raw on the next one, then status, then control."""
        denoised, raw, status, control = (loopback(port + i) for i in range(4))
        return cls(denoised=denoised, raw=raw, status=status, control=control)


class Remote(Settings):
    """Who else may watch: other machines that reach `bind`, with a key that is on the list in `keys_folder`.

    bind: an address of this computer, or 0.0.0.0 for all of them.
    """

    bind: str = Field(min_length=1, max_length=255)
    keys_folder: Path


class RecordSettings(Settings):
    """Where a run is kept.

    folder: new or empty.  denoised: also keep what comes out, as it is (`float32`) or rounded to the camera's pixel type (`raw`).
    min_seconds: least room on the disk to begin with (10 s: engineering choice).
    """

    folder: Path
    denoised: Literal["float32", "raw"] | None = None
    min_seconds: float = Field(default=10.0, ge=0)


class RunSettings(Settings):
    """One live run.

    policy: `lossless`: every stage waits for the next one, down to the subscribers (queue policy `stop`); `latest`: the camera is
    never held up, and what is too old is dropped and counted (queue policy `drop_oldest`).
    wait_for: subscribers per stream that a lossless run waits for before the first frame.
    max_backlog_s: a live run that is further behind than this skips to the newest frame. Engineering choice.
    log_dir: folder for the log, what the processes write to their error output, and the run's settings and end; None: nothing is kept.
    metrics_port: port on this machine where Prometheus may ask for the run's numbers (0: any free one); None: nowhere.
    record: keep the raw frames (see `rtdenoise.recording`); None: do not.
    """

    source: SourceChoice = SourceChoice()
    engine: EngineSettings = EngineSettings()
    endpoints: Endpoints = Endpoints()
    remote: Remote | None = None
    policy: Policy = "latest"
    wait_for: dict[Literal["raw", "denoised"], int] = {}
    duration_s: float | None = Field(default=None, gt=0)
    ring_s: float = Field(default=4.0, gt=0)
    ring_mb: int = Field(default=512, ge=1)
    max_backlog_s: float = Field(default=0.5, gt=0)
    record: RecordSettings | None = None
    log_dir: Path | None = None
    metrics_port: int | None = Field(default=None, ge=0, le=65535)

    @property
    def lossless(self) -> bool:
        """Whether nothing may be dropped, however long it takes."""
        return self.policy == "lossless"
