"""What a stranger has to know of a computer and an installation, as plain values for JSON. Nothing here starts a camera or an engine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any

from rtdenoise import bundle, catalogue, logbook, machine, registry
from rtdenoise.engine.probe import isolated
from rtdenoise.errors import BundleError, EngineError

ENVIRONMENT = (
    "RTDENOISE_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "CUDA_VISIBLE_DEVICES",
    "OV_",
    "ORT_",
    "QT_",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "VIRTUAL_ENV",
    "CONDA_DEFAULT_ENV",
)
"""Beginnings of the variables that change how we run; no others are looked at."""
_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader")


def computer() -> dict[str, Any]:
    """System, processor, memory, disk, card, clock, environment."""
    disk = shutil.disk_usage(os.curdir)
    return {
        "system": platform.platform(),
        "python": f"{sys.version} ({platform.python_implementation()}, {platform.machine()})",
        "processor": machine.cpu_name(),
        "cores": os.cpu_count(),
        "instructions": machine.cpu_features(),
        "load": machine.load(),
        "memory_mb": _memory_mb(),
        "disk_free_mb": disk.free >> 20,
        "cuda_driver": machine.cuda_driver(),
        "cards": _cards(),
        "clock_step_ms": machine.timer_step_ms(),
        "sleep_overshoot_ms": machine.sleep_overshoot_ms(),
        "log_folder": str(logbook.default_folder()),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(ENVIRONMENT)},
    }


def packages() -> dict[str, str]:
    """Every installed distribution -> version."""
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"]}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def registered() -> dict[str, Any]:
    """What is registered, whether each source can be imported, and whether each bundle is whole."""
    return {
        **catalogue.registered(),
        "sources": _sources(),
        "bundles": {name: bundle_problem(name) or "ok" for name in catalogue.registered()["bundles"]},
    }


def bundle_problem(name: str) -> str:
    """Why a bundle cannot be used; empty when every file has its checksum."""
    try:
        bundle.read(name)
    except BundleError as error:
        return str(error)
    return ""


def _sources() -> dict[str, str]:
    modules = {point.name: point.module for point in metadata.entry_points(group=registry.SOURCES)}
    try:
        problems = isolated("rtdenoise.doctor.opening", "imports", *modules.values(), timeout_s=60.0)
    except EngineError as error:
        return dict.fromkeys(modules, str(error))
    return {name: problems[module] or "ok" for name, module in modules.items()}


def _cards() -> list[str] | str:
    if shutil.which(_NVIDIA_SMI[0]) is None:
        return "no nvidia-smi here"
    try:
        done = subprocess.run(_NVIDIA_SMI, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"
    return (done.stdout or done.stderr).splitlines()


def _memory_mb() -> int | None:
    """Memory of the computer; None where the system does not say."""
    if sys.platform == "win32" or not hasattr(os, "sysconf"):
        return None
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) >> 20
