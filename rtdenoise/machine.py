"""What this computer is, for reports: processor, its instructions, memory, timer, versions."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import time
from functools import lru_cache
from importlib import metadata
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("rtdenoise", "numpy", "pyzmq", "openvino", "onnxruntime")


def cpu_name() -> str:
    """Model of the processor, as precisely as the system tells."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> tuple[str, ...] | None:
    """Which of the instruction sets that decide our speed this processor has; None where the system does not say."""
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    if not flags:
        return None
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
    return tuple(feature for feature in wanted if feature in flags.split())


@lru_cache(maxsize=1)
def cuda_driver() -> int | None:
    """Version of CUDA that the NVIDIA driver here serves, as 13010 for 13.1; None without a driver or a card that it can use.

    Asks the driver itself: libraries built on it crash where it is missing.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        found, version = ctypes.c_int(), ctypes.c_int()
        fails = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(found))
        fails = fails or driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if fails or not found.value else version.value


def load() -> float | None:
    """Processes that wanted a core over the last minute; None on Windows. Above 0.5 a timing is not to be trusted."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def peak_memory_mb() -> float | None:
    """Most memory that this process held so far; None where the system does not say."""
    if sys.platform == "win32":
        return _peak_on_windows()
    if (status := Path("/proc/self/status")).is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def version_of(package: str) -> str | None:
    """Installed version of a distribution, None when it is not there."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Package -> version, of those that are installed, and Python's own."""
    found = {package: version_of(package) for package in packages}
    return {"python": platform.python_version()} | {name: version for name, version in found.items() if version}


def timer_step_ms(n_steps: int = 20) -> float:
    """Median step of the clock that paces the sources: 15.6 ms on Windows before Python 3.13, far below 0.1 ms elsewhere."""
    steps = []
    for _ in range(n_steps):
        start = now = time.monotonic_ns()
        while now == start:
            now = time.monotonic_ns()
        steps.append(now - start)
    return sorted(steps)[n_steps // 2] / 1e6


def sleep_overshoot_ms(n_sleeps: int = 20) -> float:
    """Worst of a few sleeps of 1 ms: by how much this machine wakes a process too late."""
    worst = 0.0
    for _ in range(n_sleeps):
        start = time.perf_counter()
        time.sleep(0.001)
        worst = max(worst, time.perf_counter() - start - 0.001)
    return worst * 1e3


def _cpuinfo(key: str) -> str:
    if not _CPUINFO.is_file():
        return ""
    for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _peak_on_windows() -> float | None:
    class Counters(ctypes.Structure):
        # PROCESS_MEMORY_COUNTERS of the Windows API
        _fields_ = [("cb", ctypes.c_ulong), ("PageFaultCount", ctypes.c_ulong)] + [
            (name, ctypes.c_size_t) for name in ("PeakWorkingSetSize", *(f"unused{i}" for i in range(7)))
        ]

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    windows = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
    windows.GetCurrentProcess.restype = ctypes.c_void_p
    asked = windows.K32GetProcessMemoryInfo(
        ctypes.c_void_p(windows.GetCurrentProcess()), ctypes.byref(counters), counters.cb
    )
    return counters.PeakWorkingSetSize / 2**20 if asked else None
