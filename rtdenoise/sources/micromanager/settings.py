"""What a user may say about a Micro-Manager camera."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rtdenoise.config import Settings

DEFAULT_PORT = 4827
"""Port of Micro-Manager's own server (Tools > Options > Run server on port 4827)."""


class MicromanagerSettings(Settings):
    """Settings of a Micro-Manager camera. Everything left out stays as the configuration file or the running program has it.

    backend: `python` loads the devices into this process; `java` talks to a Micro-Manager that is already running on host:port.
    mm_path, config: the Micro-Manager folder and its configuration file (`python` only); with neither, a demo camera is used.
    buffer_mb: memory for frames that wait to be read (MMCore's circular buffer, or our own queue in front of `java`).
    exposure_ms: exposure, and so the frame interval of most cameras.
    properties: `{"Camera.Mode": "Noise"}` or `["Camera.Mode=Noise"]`, set in this order before anything else.
    width, height: sensor pixels of the demo camera.  n_frames: frames per camera of a series that ends by itself, None to run until stop().
    on_busy: what to do when a sequence is already running: refuse, stop it, or attach to it (the frames are then taken away from others).
    max_backlog: frames that may wait; the oldest beyond it are thrown away and counted.  policy `latest` is max_backlog 1.
    stall_timeout_s: report SourceStalled after this long without a frame (and never before three exposures).
    """

    backend: Literal["python", "java"] = "python"
    mm_path: Path | None = None
    config: Path | None = None
    buffer_mb: int = Field(default=256, ge=1, le=65536)
    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    exposure_ms: float | None = Field(default=None, gt=0)
    properties: dict[str, str] = {}
    width: int | None = Field(default=None, ge=8)
    height: int | None = Field(default=None, ge=8)
    n_frames: int | None = Field(default=None, ge=1)
    on_busy: Literal["error", "stop", "attach"] = "error"
    max_backlog: int | None = Field(default=None, ge=1)
    policy: Literal["all", "latest"] = "all"
    stall_timeout_s: float = Field(default=5.0, gt=0)

    @field_validator("properties", mode="before")
    @classmethod
    def _pairs(cls, given: Any) -> Any:  # Any: this is what the user wrote, before it was checked
        if isinstance(given, list | tuple):
            given = dict(_pair(str(text)) for text in given)
        if not isinstance(given, Mapping):
            return given
        for name in given:
            if not all(str(name).partition(".")):
                raise ValueError(f"{name!r} is not Device.Property, as in Camera.Binning")
        return {str(name): str(value) for name, value in given.items()}

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> MicromanagerSettings:
        if self.policy == "latest" and self.max_backlog not in (None, 1):
            raise ValueError("policy 'latest' is max_backlog 1; leave max_backlog out, or use policy 'all'")
        if self.backend == "java" and (self.mm_path or self.config):
            raise ValueError(
                "mm_path and config belong to backend 'python'; backend 'java' uses what the running Micro-Manager has loaded"
            )
        return self

    @property
    def depth(self) -> int | None:
        """Frames that may wait, None for as many as the buffer holds."""
        return 1 if self.policy == "latest" else self.max_backlog

    @property
    def changes_camera(self) -> bool:
        """True when opening sets anything on the camera."""
        return bool(self.properties or self.width or self.height or self.exposure_ms)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not Device.Property=value, as in Camera.Binning=2")
    return name.strip(), value.strip()
