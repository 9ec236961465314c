"""Weights that Keras wrote to HDF5, without Keras (sheet A 1.7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtdenoise.checkpoints.checkpoint import Checkpoint
from rtdenoise.errors import FileFormatError, MissingExtraError


def read_keras(path: Path) -> Checkpoint:
    """{"conv2d_3/kernel:0": tensor, ...} as stored (kernels: Y, X, inputs, outputs), from `model.save` or
    `model.save_weights`. Raises FileFormatError when the file is damaged or holds no Keras weights.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "train") from None
    try:
        with h5py.File(path, "r") as file:
            tensors = dict(_tensors(path, file.get("model_weights", file)))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path}: damaged HDF5 file: {_one_line(error)}; copy it again") from None
    if not tensors:
        raise FileFormatError(f"{path}: HDF5, but without the weights of a Keras model (no layer_names)")
    return Checkpoint(tensors)


def _tensors(path: Path, group: Any) -> Iterator[tuple[str, Tensor]]:
    for layer in _names(group, "layer_names"):
        for name in _names(group[layer], "weight_names"):
            stored = np.asarray(group[layer][name][()])
            if not np.issubdtype(stored.dtype, np.number):
                raise FileFormatError(f"{path}: {name} is {stored.dtype}, not numbers")
            yield name, torch.from_numpy(stored)


def _names(group: Any, key: str) -> list[str]:
    """An attribute that lists names; Keras cuts one of more than 64 kB into `key0`, `key1`, ..."""
    keys = [key] if key in group.attrs else []
    while not keys or keys[-1] != key:
        following = f"{key}{len(keys)}"
        if following not in group.attrs:
            break
        keys.append(following)
    found = [name for each in keys for name in group.attrs[each]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in found]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
