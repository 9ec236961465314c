"""What a bundle is exported for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from rtdenoise import config
from rtdenoise.config import Settings
from rtdenoise.errors import ConfigError

FOLDERS = (Path("export/targets"), Path(__file__).parents[2] / "export" / "targets")
"""Where targets are looked up by name: the current checkout, then the one the package is installed from."""


class Tolerances(Settings):
    """How far the exported graphs may be from PyTorch FP32, in sd of its output.

    worst and mean: of all pixels.  bright: 99th percentile over the brightest 0.1 % of pixels (clipping shows there
    and hides in means). psnr_db: over the range of PyTorch's output.
    """

    worst: float = Field(default=1e-4, gt=0)
    mean: float = Field(default=1e-5, gt=0)
    bright: float = Field(default=1e-4, gt=0)
    psnr_db: float = Field(default=90.0, gt=0)


class Target(Settings):
    """A device, a precision and a frame size. deploy: options of the network's exported form, as `groups_per_branch`
    for FAST.

    The graphs stay dynamic in Y and X; `shape` is the size that device is meant to run and that parity is checked
    at, beside an odd one.
    """

    name: str = "portable-fp32"
    device: str = "any CPU"
    precision: Literal["fp32", "fp16"] = "fp32"
    shape: tuple[int, int] = (128, 160)
    deploy: dict[str, int] = {}
    tolerance: Tolerances = Tolerances()


PORTABLE = {
    "portable-fp32": Target(),
    "portable-fp16": Target(
        name="portable-fp16",
        precision="fp16",
        tolerance=Tolerances(worst=6e-2, mean=5e-3, bright=6e-2, psnr_db=50.0),
    ),
}
"""Targets that need no file. Half precision: within the golden cases' 6e-2 of the sd (golden vectors, how to compare)."""


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
