"""Weights files of other programs, as plain tensors by name. Nothing in them is executed, neither Keras nor the authors'
code is needed.
"""

from __future__ import annotations

from pathlib import Path

from rtdenoise.checkpoints.checkpoint import Checkpoint
from rtdenoise.checkpoints.keras import read_keras
from rtdenoise.checkpoints.torch_file import read_torch
from rtdenoise.errors import FileFormatError

HDF5, ZIP, PICKLE = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80"
"""How HDF5 files, `torch.save` since 1.6 and `torch.save` before begin."""


def read(path: Path) -> Checkpoint:
    """The tensors of a Keras (HDF5) or PyTorch file, told apart by how it begins, whatever its name.

    Raises FileFormatError in one line that names the file: missing, truncated, of another kind, or with code in it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(HDF5))
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be opened: {error.strerror or error}") from None
    if start == HDF5:
        return read_keras(path)
    if start.startswith((ZIP, PICKLE)):
        return read_torch(path)
    raise FileFormatError(f"{path}: neither a Keras file (.h5) nor a PyTorch file (.pth, .pt, .ckpt)")


__all__ = ["Checkpoint", "read"]
