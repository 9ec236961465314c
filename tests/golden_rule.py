"""Closed-form weights and inputs of the golden cases in tests/golden: numbers only, made once with the authors' networks."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
_MASK = np.uint64(0xFFFFFFFF)
_SPREAD = {"g": (1.0, 0.1), "h": (0.25, 0.025), "v": (1.0, 0.5), "a": (0.25, 0.1), "z": (0.0, 0.0)}


def hashed(tensor_number: int, size: int, seed: int = 0) -> NDArray[np.float64]:
    """`size` numbers in [-1, 1) from a 32-bit integer hash."""
    start = np.uint64((0x9E3779B9 * (tensor_number + 1) + seed) & 0xFFFFFFFF)
    x = (np.arange(size, dtype=np.uint64) + start) & _MASK
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x ^= x >> np.uint64(shift)
        x = (x * np.uint64(factor)) & _MASK
    return x / 2.0**31 - 1


def weight(tensor_number: int, shape: tuple[int, ...], kind: str, seed: int = 0) -> NDArray[np.float32]:
    """One tensor of a state dict; `kind` says what it is (w weight, b bias, m mean, v variance, g gain)."""
    middle, spread = _SPREAD.get(kind, (0.0, 0.1))
    if kind == "w":
        spread = math.sqrt(6 / math.prod(shape[1:]))
    return (middle + spread * hashed(tensor_number, math.prod(shape), seed).reshape(shape)).astype(np.float32)


def frames(shape: tuple[int, ...], phase: float = 0.0, k0: int = 0, raw: bool = False) -> NDArray[np.float32]:
    """The smooth input of a case; the last two axes are Y, X. `raw` is in camera counts."""
    *lead, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    k = sum(lead) + k0
    waves = np.sin(0.3 * k + 0.11 * y * (1 + 0.05 * k) + 0.07 * x + phase)
    waves = waves + 0.5 * np.sin(1.7 * y + 2.3 * x + 0.9 * k + 2 * phase)
    return (100 + 30 * waves if raw else waves).astype(np.float32)


@dataclass
class Case:
    """One stored case: `arrays` by name and the parsed `meta`."""

    name: str
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]

    def state_dict(self) -> dict[str, Tensor]:
        shapes, kinds = self.meta["shapes"], self.arrays["kinds"]
        return {
            str(key): torch.from_numpy(weight(i, tuple(shapes[i]), str(kinds[i]), self.meta["seed"]))
            for i, key in enumerate(self.arrays["keys"])
        }


def case(name: str) -> Case:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    return Case(name, arrays, json.loads(str(arrays.pop("meta"))))


def names(prefix: str) -> list[str]:
    return sorted(path.stem for path in FOLDER.glob(f"{prefix}*.npz"))
