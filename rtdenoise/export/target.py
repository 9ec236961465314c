"""What a bundle is exported for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from rtdenoise import config
from rtdenoise.bundle import GraphKind
from rtdenoise.config import Settings
from rtdenoise.errors import ConfigError

FOLDERS = (Path("export/targets"), Path(__file__).parents[2] / "export" / "targets")
"""Where targets are looked up by name: the current checkout, then the one the package is installed from."""


class Tolerances(Settings):
    """How far what is exported may be from PyTorch FP32.

    Graphs on noise with bright cells, in sd of PyTorch's output (not asked of int8, which is calibrated on movies):
    worst and mean of all pixels; bright, the 99th percentile over the brightest 0.1 % of pixels (clipping shows there
    and hides in means); psnr_db over the range of PyTorch's output.
    Engines on the bundle's own clips: loss_db of PSNR against the truth, or where there is none psnr_db; bright_percent,
    the same percentile in percent of the bright pixels' mean; trace_r, the lowest correlation of a trace with PyTorch's.
    0.999 is an error of 4.5 % of what the trace varies by, 0.995 one of 10 %: engineering choices.
    """

    worst: float = Field(default=1e-4, gt=0)
    mean: float = Field(default=1e-5, gt=0)
    bright: float = Field(default=1e-4, gt=0)
    psnr_db: float = Field(default=90.0, gt=0)
    loss_db: float = Field(default=0.01, gt=0)
    bright_percent: float = Field(default=0.1, gt=0)
    trace_r: float = Field(default=0.9999, gt=0, lt=1)


class Target(Settings):
    """A device, a precision and a frame size. deploy: options of the network's exported form, as `groups_per_branch`
    for FAST.

    graphs: the form of the graphs that the bundle gets beside its fp32 ones.  engines: those that are judged on the
    bundle's clips; for a form that none of them is made for, ONNX Runtime stands in on the CPU.
    The graphs stay dynamic in Y and X; `shape` is the size that device is meant to run and that parity is checked
    at, beside an odd one.
    """

    name: str = "portable-fp32"
    device: str = "any CPU"
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    graphs: GraphKind = "fp32"
    engines: tuple[str, ...] = ("onnxruntime-cpu",)
    shape: tuple[int, int] = (128, 160)
    deploy: dict[str, int] = {}
    tolerance: Tolerances = Tolerances()


_HALF = Tolerances(worst=6e-2, mean=5e-3, bright=6e-2, psnr_db=50.0, loss_db=0.05, bright_percent=2.0, trace_r=0.999)
LIMITS = {
    "fp32": Tolerances(),
    "fp16": _HALF,
    "bf16": _HALF,
    "int8": _HALF.model_copy(update={"psnr_db": 45.0, "loss_db": 0.1, "trace_r": 0.995}),
}
"""What a precision may cost. Half precision on probe frames: within the golden cases' 6e-2 of the sd (golden vectors, how
to compare). psnr_db where there is no truth: an error that takes 0.05 or 0.1 dB from an output 30 dB from the truth.
"""
PORTABLE = {
    "portable-fp32": Target(),
    "portable-fp16": Target(name="portable-fp16", precision="fp16", graphs="fp16", tolerance=LIMITS["fp16"]),
}
"""Targets that need no file."""


def find(name: str | None) -> Target:
    """The target of a TOML file or of that name in `export/targets`, or a portable one; None is FP32. Raises ConfigError."""
    if name is None or name in PORTABLE:
        return PORTABLE[name or "portable-fp32"]
    candidates = [Path(name), *(folder / f"{name}.toml" for folder in FOLDERS)]
    for path in candidates:
        if path.is_file():
            return config.load(Target, path)
    files = {file.stem for folder in FOLDERS if folder.is_dir() for file in folder.glob("*.toml")}
    raise ConfigError(f"no target {name!r}: neither a file nor one of {', '.join(sorted(files | PORTABLE.keys()))}")
