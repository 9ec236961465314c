"""The one MMCore of this process: started once, shared, unloaded by its last user."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from pathlib import Path
from types import ModuleType
from typing import cast

from rtdenoise.errors import ConfigError, MissingExtraError, SourceBusy, SourceError
from rtdenoise.sources.micromanager.base import Core
from rtdenoise.sources.micromanager.settings import MicromanagerSettings

DEMO_CONFIG = """\
Property,Core,Initialize,0
Device,DHub,DemoCamera,DHub
Device,Camera,DemoCamera,DCam
Device,Galvo,DemoCamera,DGalvo
Parent,Camera,DHub
Parent,Galvo,DHub
Property,Core,Initialize,1
Property,Core,Camera,Camera
Property,Core,Galvo,Galvo
Property,Core,AutoShutter,0
Property,Camera,PixelType,16bit
Property,Camera,BitDepth,16
Property,Camera,OnCameraCCDXSize,512
Property,Camera,OnCameraCCDYSize,512
Property,Camera,Mode,Noise
Property,Camera,Exposure,33.3
"""
"""Micro-Manager's demo camera with calibrated photon noise, and a galvo (loaded after the camera) that adds a bright spot."""

PYMMCORE_FOR = {70: "10.1.1.70.6", 71: "11.2.1.71.0", 73: "11.9.0.73.0", 74: "11.10.0.74.1", 75: "12.5.1.75.0"}
"""Device interface version -> the newest pymmcore on PyPI that speaks it (the fourth number of its version)."""

Setup = tuple[Path, Path | None]


class _Held:
    """What runs in this process; `users` counts the sources that rely on it."""

    lock = threading.Lock()
    setup: Setup | None = None
    users = 0


def borrow(settings: MicromanagerSettings) -> Core:
    """The core of this process, started when there is none. Every borrow needs one `give_back`.

    Raises MissingExtraError, ConfigError or SourceError with what to do; SourceBusy when a core with another configuration runs.
    """
    pycromanager = _pycromanager()
    from mmpycorex import is_pymmcore_active

    with _Held.lock:
        if not is_pymmcore_active():
            _Held.setup, _Held.users = _start(pycromanager, settings), 0
        elif (settings.config or settings.mm_path) and _Held.setup != _setup(settings):
            raise SourceBusy(
                "another Micro-Manager configuration is loaded in this process; close it first, or leave out mm_path and config to use it"
            )
        _Held.users += 1
        return cast(Core, pycromanager.Core())


def give_back() -> None:
    """Unload the devices after the last user; a core that somebody else started in this process stays."""
    with _Held.lock:
        _Held.users -= 1
        if _Held.users == 0 and _Held.setup is not None:
            _pycromanager().stop_headless()
            _Held.setup = None


def _pycromanager() -> ModuleType:
    try:
        import pycromanager
    except ImportError as error:
        raise MissingExtraError(error.name or "pycromanager", "live") from None
    return cast(ModuleType, pycromanager)


def _start(pycromanager: ModuleType, settings: MicromanagerSettings) -> Setup:
    mm_path, config = _setup(settings)
    _let_drivers_be_found(mm_path)
    _forget_stale_engine()
    with tempfile.TemporaryDirectory(prefix="rtdenoise-") as folder:
        if config is None:
            file = Path(folder) / "demo.cfg"
            file.write_text(DEMO_CONFIG, encoding="ascii")
        else:
            file = config
        try:
            pycromanager.start_headless(
                str(mm_path), config_file=str(file), python_backend=True, buffer_size_mb=settings.buffer_mb
            )
        except Exception as error:  # OSError, RuntimeError or whatever an adapter throws
            raise SourceError(_why_not(error, mm_path, config)) from error
    return mm_path, config


def _setup(settings: MicromanagerSettings) -> Setup:
    """Micro-Manager's folder and the configuration file, None for the demo camera."""
    mm_path = (
        settings.mm_path or (_test_adapters() if settings.config is None else None) or _installed() or _test_adapters()
    )
    if mm_path is None:
        raise ConfigError(
            "no Micro-Manager found; set mm_path to its folder (for the demo camera: pip install mm-test-adapters)"
        )
    if not mm_path.is_dir():
        raise ConfigError(f"{mm_path}: no such folder; set mm_path to the Micro-Manager folder")
    if settings.config is None:
        return mm_path.resolve(), None
    for candidate in (settings.config, mm_path / settings.config):
        if candidate.is_file():
            return mm_path.resolve(), candidate.resolve()
    raise ConfigError(f"{settings.config}: no such configuration file, neither here nor in {mm_path}")


def _installed() -> Path | None:
    from mmpycorex import find_existing_mm_install

    try:
        found = find_existing_mm_install()
    except ValueError:  # it knows Windows and macOS only
        return None
    return Path(found) if found else None


def _test_adapters() -> Path | None:
    try:
        from mm_test_adapters import device_adapter_path
    except ImportError:
        return None
    return Path(device_adapter_path())


def _let_drivers_be_found(mm_path: Path) -> None:
    """Vendor libraries sit beside the adapters; Windows looks for them on PATH and in added folders only."""
    if str(mm_path) not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] += os.pathsep + str(mm_path)
    if hasattr(os, "add_dll_directory"):
        os.add_dll_directory(str(mm_path))


def _forget_stale_engine() -> None:
    """pycromanager keeps the acquisition engine of a core that was stopped; with it the next Acquisition fails and hangs at exit."""
    from pycromanager.acquisition.acq_eng_py.internal.engine import Engine

    if hasattr(Engine, "singleton"):
        del Engine.singleton


def _why_not(error: Exception, mm_path: Path, config: Path | None) -> str:
    text = " ".join(str(error).split())
    versions = re.search(r"requires (\d+)\D+has (\d+)", text)
    if versions is None:
        return f"{config or 'demo camera'}: cannot be loaded with the device adapters in {mm_path}: {text}"
    ours, theirs = (int(version) for version in versions.groups())
    version = PYMMCORE_FOR.get(theirs)
    install = (
        f'pip install "pymmcore=={version}"'
        if version
        else f"pip index versions pymmcore (and take one whose fourth number is {theirs})"
    )
    return f"{mm_path} has device interface {theirs}, the installed pymmcore speaks {ours}; run: {install}"
