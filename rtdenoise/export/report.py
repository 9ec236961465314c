"""What an export gave, as JSON beside the bundle and in `export/reports`."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from importlib import metadata

from rtdenoise import machine
from rtdenoise.config import Settings
from rtdenoise.errors import EngineError
from rtdenoise.export import fidelity, parity
from rtdenoise.export.fidelity import Fidelity
from rtdenoise.export.parity import Gap
from rtdenoise.export.target import Target

LIBRARIES = ("torch", "onnxruntime", "openvino", "nncf")


class Report(Settings):
    """One bundle for one target.

    how: int8 was made, the first way that is within tolerance.
    gaps: exported graphs against PyTorch on probe frames.  fidelity: engines on the bundle's clips, empty where it has none.
    bytes: of every file that was made.  peak_activation: the largest value inside the FP32 graphs on a clip, of 65504 that
    half precision holds.  device: what the figures were measured on, which need not be what the target is for.
    refused: what was outside the target's tolerances, empty when nothing was.
    """

    bundle: str
    target: Target
    how: str = ""
    gaps: tuple[Gap, ...] = ()
    fidelity: tuple[Fidelity, ...] = ()
    bytes: dict[str, int] = {}
    peak_activation: float | None = None
    device: str = ""
    date: str = ""
    versions: dict[str, str] = {}
    refused: str = ""


def refuse(report: Report) -> None:
    """Raise EngineError that names the first excess over the target's tolerances, if there is one."""
    parity.refuse(list(report.gaps), report.target, report.bundle)
    for found in report.fidelity:
        fidelity.refuse(found, report.target, report.bundle)


def stamped(report: Report) -> Report:
    """With the machine, the date, the libraries, and why it is refused, if it is."""
    try:
        refuse(report)
    except EngineError as error:
        report = report.model_copy(update={"refused": str(error)})
    device = machine.cpu_name() + ("; not run on a GPU" if report.target.device.startswith("NVIDIA") else "")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return report.model_copy(update={"device": device, "date": date, "versions": _versions()})


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
