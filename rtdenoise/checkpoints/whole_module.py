"""A whole network that was pickled instead of its weights, as the authors of UMVD and SN2N do (sheets A 5.7, C 2.7).

Every class such a file names becomes `Inert`, which keeps what it is given and does nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from rtdenoise.checkpoints.checkpoint import Checkpoint
from rtdenoise.errors import FileFormatError

AUTHORS = ("model.", "__main__.")
"""Modules of the authors' classes, as pickled from their program or run as a script (sheet A 5.7)."""
SN2N_CLASSES = {
    f"SN2N.models.{name}_{dims}d" for name in ("Unet", "DoubleConv", "Down", "Up", "OutConv") for dims in (2, 3)
}
"""Classes of the authors' networks; the sheet (C 2.7) lists the parts in two dimensions, those in three are named alike."""
LAYERS = {
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.padding.ReplicationPad2d",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample",
    "torch.nn.modules.activation.LeakyReLU",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.batchnorm.BatchNorm3d",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.conv.Conv3d",
    "torch.nn.modules.pooling.MaxPool3d",
}
"""Layers of those networks (sheets A 5.7, C 2.7)."""
ASIDES = {"argparse.Namespace", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"}
"""What training programs store beside the weights: their arguments (sheet A 6.7), their best score."""
UPSTREAM_LEVEL = 64
"""The authors' default (sheet A 5.2); from about 25 on a filter in single precision cannot be told from it."""


class Inert:
    """Stands for a class of somebody's program: takes any argument and any state, and runs nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def is_harmless(name: str) -> bool:
    """Whether a name that a pickle wants called may be answered with `Inert`."""
    return name.startswith(AUTHORS) or name in SN2N_CLASSES | LAYERS | ASIDES


def checkpoint_of(path: Path, module: Inert) -> Checkpoint:
    """Parameters by the names a state dict would have, and the level of the temporal filter.

    Raises FileFormatError when there are no parameters.
    """
    try:
        tensors = {name.removeprefix("module."): tensor for name, tensor in _tensors(module, "")}
    except RecursionError:
        raise FileFormatError(f"{path}: holds an object that contains itself, not a network") from None
    if not tensors:
        raise FileFormatError(f"{path}: holds an object without parameters, not a network")
    level = _level(getattr(module, "weights", None))
    return Checkpoint(tensors, {} if level is None else {"level": level})


def _tensors(module: Inert, prefix: str) -> Iterator[tuple[str, Tensor]]:
    state = vars(module)
    for kind in ("_parameters", "_buffers", "_modules"):
        held = state.get(kind)
        for name, child in held.items() if isinstance(held, dict) else ():
            if isinstance(child, Tensor):
                yield f"{prefix}{name}", child.detach()
            elif isinstance(child, Inert):
                yield from _tensors(child, f"{prefix}{name}.")


def _level(weights: object) -> float | None:
    """Of the filter 1 - (x / k) ** level over frames x = 0 .. 2k (sheet A 5.2), from its value at x = 1; None where
    that shows nothing: three frames, or no filter.
    """
    if not isinstance(weights, Tensor) or weights.numel() < 5:
        return None
    values = weights.flatten().tolist()
    k = len(values) // 2
    rest = 1 - values[1]
    return UPSTREAM_LEVEL if rest <= 0 else round(-math.log(rest) / math.log(k), 3)
