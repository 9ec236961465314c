"""The examinations: each opens what it reports on."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from importlib.util import find_spec

from rtdenoise import catalogue, logbook, machine, ringfile
from rtdenoise.doctor.check import Check, State
from rtdenoise.doctor.facts import bundle_problem
from rtdenoise.engine.backends import BACKENDS
from rtdenoise.engine.cuda import NO_DRIVER
from rtdenoise.engine.probe import PROBE_SHAPE, Probe, isolated, probe_all
from rtdenoise.errors import EngineError
from rtdenoise.settings import CONTROL_PORT, DENOISED_PORT, RAW_PORT, STATUS_PORT, RunSettings

LIVE = "pip install 'rtdenoise[live]'"
DEMO_CAMERA = "pip install mm-test-adapters"
SERVER_PORT = 4827
_OPENING = "rtdenoise.doctor.opening"
_TIMEOUT_S = 60.0
FILE_PACKAGES = {
    "tifffile": "TIFF, OME-TIFF, ScanImage",
    "imagecodecs": "compressed TIFF",
    "zarr": "OME-Zarr",
    "h5py": "HDF5, NWB",
}


def engines() -> list[Check]:
    """Every engine, run on the demo bundle."""
    checks = [_engine(found) for found in probe_all()]
    if machine.version_of("onnxruntime") and machine.version_of("onnxruntime-gpu"):
        both = "onnxruntime and onnxruntime-gpu are both installed; they share a module and break each other"
        checks.append(Check("engine", "onnxruntime", "problem", both, "pip uninstall onnxruntime"))
    return checks


def models() -> list[Check]:
    """The bundles that came with the package: every file as it was made."""
    names = catalogue.registered()["bundles"]
    problems = [problem for name in names if (problem := bundle_problem(name))]
    if problems:
        return [Check("models", "bundles", "problem", "; ".join(problems), "pip install --force-reinstall rtdenoise")]
    return [Check("models", "bundles", "ok", f"{len(names)} models, every file matches its checksum")]


def cameras() -> list[Check]:
    """Micro-Manager in this process and on its port."""
    return [_in_process(), *_server()]


def files() -> list[Check]:
    """What movies can be read and written."""
    try:
        problems = isolated(_OPENING, "imports", *FILE_PACKAGES, timeout_s=_TIMEOUT_S)
    except EngineError as error:
        return [Check("files", "libraries", "problem", str(error), LIVE)]
    checks = []
    for package, formats in FILE_PACKAGES.items():
        if problem := problems[package]:
            state: State = "missing" if problem == "not installed" else "problem"
            checks.append(Check("files", package, state, f"{problem} ({formats})", LIVE))
        else:
            version = machine.version_of(package.replace("_", "-")) or ""
            checks.append(Check("files", package, "ok", f"{version} ({formats})"))
    return checks


def viewer() -> list[Check]:
    """Whether a window can be made."""
    name = "viewer window"
    if not _has_display():
        detail = "no display here (neither DISPLAY nor WAYLAND_DISPLAY is set); the viewer can save pictures only"
        return [
            _opened("viewer", "viewer pictures", "qt", QT_QPA_PLATFORM="offscreen"),
            Check("viewer", name, "note", detail),
        ]
    return [_opened("viewer", name, "qt")]


def computer() -> list[Check]:
    """Ports, room for the ring, logs, clock and processor."""
    return [_ports(), _ring_room(), _logs(), _clock(), _processor(), _torch()]


def _engine(found: Probe) -> Check:
    if found.usable:
        detail = f"{found.version} on {found.device}: {found.ms:.1f} ms per run of the demo model at {PROBE_SHAPE[0]} x {PROBE_SHAPE[1]}"
        return Check("engine", found.name, "ok", detail)
    why, _, command = found.why_not.partition("; run: ")
    if command:
        return Check("engine", found.name, "missing", why, command)
    why = why.partition(";")[0]
    if NO_DRIVER in why and not BACKENDS[found.name].report:
        return Check("engine", found.name, "untested", f"{why}, and no card has run this engine for us yet")
    if NO_DRIVER in why or "no bf16 instructions" in why:
        return Check("engine", found.name, "note", why)
    return Check("engine", found.name, "problem", why, _reinstall(found.name))


def _reinstall(engine: str) -> str:
    return "pip install --force-reinstall " + engine.rpartition("-")[0]


def _in_process() -> Check:
    name = "Micro-Manager in process"
    check = _opened("camera", name, "camera")
    if check.state == "problem" and find_spec("mm_test_adapters") is None and find_spec("pymmcore") is not None:
        detail = "pycromanager is there; no Micro-Manager folder was found and there is no demo camera to try"
        return Check("camera", name, "ok", detail, f"{DEMO_CAMERA}, or set mm_path to the Micro-Manager folder")
    return check


def _server() -> list[Check]:
    name = f"Micro-Manager on port {SERVER_PORT}"
    with socket.socket() as door:
        door.settimeout(0.5)
        if door.connect_ex(("127.0.0.1", SERVER_PORT)):
            how = f"nobody answers; to use one that runs: Tools > Options > Run server on port {SERVER_PORT}"
            return [Check("camera", name, "note", how)]
    return [_opened("camera", name, "server", str(SERVER_PORT))]


def _opened(group: str, name: str, what: str, *arguments: str, **environment: str) -> Check:
    """What `doctor.opening` says about one thing."""
    try:
        found = isolated(_OPENING, what, *arguments, timeout_s=_TIMEOUT_S, **environment)
    except EngineError as error:
        return Check(group, name, "problem", str(error), LIVE)
    state: State = "ok" if found["ok"] else "missing" if found.get("missing") else "problem"
    return Check(group, name, state, str(found["detail"]), str(found.get("fix", "")))


def _has_display() -> bool:
    return not sys.platform.startswith("linux") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("QT_QPA_PLATFORM")
    )


def _ports() -> Check:
    ports = (DENOISED_PORT, RAW_PORT, STATUS_PORT, CONTROL_PORT)
    taken = [port for port in ports if not _is_free(port)]
    if taken:
        detail = f"in use: {', '.join(map(str, taken))}; probably another rtdenoise run"
        return Check("machine", "ports", "problem", detail, "stop that run, or start with --port 5570")
    return Check("machine", "ports", "ok", f"{ports[0]} to {ports[-1]} are free")


def _is_free(port: int) -> bool:
    with socket.socket() as door:
        if sys.platform != "win32":  # there the option would let us bind a port that is in use
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _ring_room() -> Check:
    folder = ringfile.default_folder(RunSettings().ring_mb << 20)
    free_mb, wanted_mb = shutil.disk_usage(folder).free >> 20, RunSettings().ring_mb
    detail = f"{free_mb} MiB free in {folder}; a run takes up to {wanted_mb} MiB there"
    if free_mb < wanted_mb:
        return Check("machine", "frame ring", "problem", detail, f"free some of {folder}, or use smaller frames")
    return Check("machine", "frame ring", "ok", detail)


def _logs() -> Check:
    folder = logbook.default_folder()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return Check("machine", "logs", "note", f"{folder} cannot be written", "rtdenoise run --log-dir another/folder")
    return Check("machine", "logs", "ok", f"{len(logbook.runs(folder))} runs in {folder}")


def _clock() -> Check:
    step, late = machine.timer_step_ms(), machine.sleep_overshoot_ms()
    detail = f"clock step {step:.4f} ms, a sleep of 1 ms ends up to {late:.1f} ms late"
    if step > 1:
        return Check(
            "machine",
            "clock",
            "note",
            f"{detail}; source rates above {250 / step:.0f} fps will be uneven",
            "use Python 3.13 or later",
        )
    return Check("machine", "clock", "ok", detail)


def _processor() -> Check:
    features, busy = machine.cpu_features(), machine.load()
    known = "instructions unknown" if features is None else " ".join(features) or "none of the instructions we look for"
    detail = f"{machine.cpu_name()}, {os.cpu_count()} cores, {known}"
    if busy is not None and busy > 0.5:
        return Check(
            "machine",
            "processor",
            "note",
            f"{detail}; other programs keep {busy:.1f} cores busy, so timings are too slow",
        )
    return Check("machine", "processor", "ok", detail)


def _torch() -> Check:
    version = machine.version_of("torch")
    if version:
        return Check("machine", "training", "ok", f"torch {version} (not used in a live run)")
    return Check(
        "machine",
        "training",
        "note",
        "torch is not installed; only training and export need it",
        "pip install 'rtdenoise[train]'",
    )
