"""Cameras of a pymmcore-plus core: opened here with a configuration of our own, or the core of a program that runs already.

In live mode frames are popped from one thread, as from any MMCore (`from_core`). Of a scripted run, `core.mda.run(...)`, a tap gets a
copy of each frame and takes nothing away (`mda_tap`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

from pydantic import Field

from rtdenoise.config import Settings
from rtdenoise.errors import ConfigError, MissingExtraError, SourceError
from rtdenoise.frame import Pixels
from rtdenoise.sources.base import SourceKind
from rtdenoise.sources.micromanager.base import Core
from rtdenoise.sources.micromanager.driver import LocalDriver
from rtdenoise.sources.micromanager.inprocess import DEMO_CONFIG
from rtdenoise.sources.micromanager.settings import MicromanagerSettings
from rtdenoise.sources.micromanager.source import MicromanagerSource
from rtdenoise.sources.tap import AcquisitionTap, TapSettings


class PymmcorePlusSettings(Settings):
    """Which devices to load, and what to set on the camera. Everything left out stays as the configuration file has it."""

    mm_path: Path | None = Field(
        default=None, description="folder of the device adapters; default: where pymmcore-plus finds them"
    )
    config: Path | None = Field(default=None, description="configuration file; default: a demo camera")
    buffer_mb: int = Field(default=256, ge=1, le=65536, description="memory for frames that wait to be read")
    exposure_ms: float | None = Field(
        default=None, gt=0, description="exposure, and so the frame interval of most cameras"
    )
    properties: dict[str, str] = Field(default={}, description='set in this order: {"Camera.Binning": "2"}')
    width: int | None = Field(default=None, ge=8, description="sensor pixels of the demo camera")
    height: int | None = Field(default=None, ge=8, description="sensor lines of the demo camera")
    n_frames: int | None = Field(
        default=None, ge=1, description="frames per camera of a series; none: until it is stopped"
    )
    on_busy: Literal["error", "stop", "attach"] = Field(
        default="error", description="when a sequence runs already: refuse, stop it, or take its frames"
    )
    max_backlog: int | None = Field(
        default=None, ge=1, description="frames that may wait; older ones are skipped and counted"
    )
    stall_timeout_s: float = Field(default=5.0, gt=0, description="say so after this long without a frame")

    def as_micromanager(self) -> MicromanagerSettings:
        """What of it concerns the camera, in the words of the Micro-Manager source."""
        return MicromanagerSettings(**self.model_dump(exclude={"mm_path", "config"}))


def from_core(core: Any, settings: PymmcorePlusSettings | None = None) -> MicromanagerSource:
    """A source for the CMMCorePlus of this program; its devices stay loaded at the end. (Any: the package is optional.)

    Popping takes the frames away from whoever else reads the buffer, so a running sequence is refused unless `on_busy` says otherwise.
    """
    asked = (settings or PymmcorePlusSettings()).as_micromanager()
    return MicromanagerSource(
        asked, lambda camera: LocalDriver(camera, cast(Core, _Renamed(core)), _take, lambda: None)
    )


def mda_tap(core: Any, settings: TapSettings | None = None) -> AcquisitionTap:
    """A source of the frames that `core.mda.run(...)` takes. Start it before the run and stop it after, as any AcquisitionTap."""
    tap = AcquisitionTap(settings)

    def copy(image: Pixels, event: Any, facts: Mapping[str, Any]) -> None:
        channel = getattr(event, "channel", None)
        axes = {"channel": channel.config if channel is not None else "", "z": event.index.get("z", 0)}
        tap(image, {**facts.get("camera_metadata", {}), "Axes": axes, "Exposure": facts.get("exposure_ms")})

    core.mda.events.frameReady.connect(copy)
    return tap


def _own(settings: PymmcorePlusSettings) -> MicromanagerSource:
    return MicromanagerSource(settings.as_micromanager(), lambda camera: _load(settings, camera))


PymmcorePlusSource = SourceKind(
    "a camera of pymmcore-plus, with its own configuration",
    PymmcorePlusSettings,
    _own,
    needs="pymmcore_plus",
    extra="plus",
)


def _load(settings: PymmcorePlusSettings, camera: MicromanagerSettings) -> LocalDriver:
    """A core of our own with the devices loaded. Raises MissingExtraError, ConfigError, SourceError."""
    try:
        from pymmcore_plus import CMMCorePlus
    except ImportError:
        raise MissingExtraError("pymmcore-plus", "plus") from None
    core = CMMCorePlus(*([str(settings.mm_path)] if settings.mm_path else []))
    core.setCircularBufferMemoryFootprint(settings.buffer_mb)
    try:
        _load_devices(core.loadSystemConfiguration, settings)
    except ConfigError:
        raise
    except Exception as error:  # OSError, RuntimeError or whatever an adapter throws
        where = settings.config or "demo camera"
        raise SourceError(f"{where}: cannot be loaded by pymmcore-plus: {' '.join(str(error).split())}") from error
    return LocalDriver(camera, cast(Core, _Renamed(core)), _take, core.unloadAllDevices)


def _load_devices(load: Callable[[str], None], settings: PymmcorePlusSettings) -> None:
    if settings.config is not None:
        there = [settings.config, *([settings.mm_path / settings.config] if settings.mm_path else [])]
        found = next((path for path in there if path.is_file()), None)
        if found is None:
            raise ConfigError(f"{settings.config}: no such configuration file")
        load(str(found))
        return
    with TemporaryDirectory(prefix="rtdenoise-") as folder:
        demo = Path(folder) / "demo.cfg"
        demo.write_text(DEMO_CONFIG, encoding="ascii")
        load(os.fspath(demo))


class _Renamed:
    """A core whose methods are named in snake_case, as the Micro-Manager source calls them."""

    def __init__(self, core: Any) -> None:
        self.core = core

    def __getattr__(self, name: str) -> Any:
        first, *rest = name.split("_")
        method = getattr(self.core, first + "".join(part.capitalize() for part in rest))
        setattr(self, name, method)  # the next call finds it without us
        return method


def _take(core: Core) -> tuple[Pixels, Mapping[str, Any]]:
    image, facts = cast(_Renamed, core).core.popNextImageAndMD()
    return image, facts
