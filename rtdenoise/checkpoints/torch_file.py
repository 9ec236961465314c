"""Weights that PyTorch wrote, by its loader that executes nothing."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from rtdenoise.checkpoints.checkpoint import Checkpoint
from rtdenoise.checkpoints.whole_module import ASIDES, Inert, checkpoint_of, is_harmless
from rtdenoise.errors import FileFormatError

NESTINGS = ("state_dict", "model", "params", "params_ema", "model_state_dict")
"""Keys under which training programs keep the network's tensors beside their optimiser (sheets A 3.7, 6.7; B 5.7)."""
NAMED = re.compile(r"GLOBAL (\S+)")


def read_torch(path: Path) -> Checkpoint:
    """The tensors of `torch.save(...)`: a state dict, alone or nested as training programs do, or a whole module whose
    classes are known. A leading `module.` is taken off.

    Raises FileFormatError when the file is damaged, wants anything called that is not on the list (named), or holds no
    tensors by name.
    """
    foreign = _foreign(path)
    forbidden = sorted(name for name in foreign if not is_harmless(name))
    if forbidden:
        raise _refused(path, forbidden[0])
    stored = _load(path, [(Inert, name) for name in foreign])
    if isinstance(stored, list | tuple) and len(stored) == 1:
        stored = stored[0]
    if isinstance(stored, Inert):
        return checkpoint_of(path, stored)
    return Checkpoint(_state_dict(path, stored))


def _foreign(path: Path) -> list[str]:
    """Names that the file wants called and PyTorch does not take for harmless. Files from before 1.6 cannot be searched:
    those stored beside weights for them, and loading stops at any other.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                return sorted(ASIDES)
        return [str(name) for name in get_unsafe_globals_in_checkpoint(path)]
    except ValueError:
        raise FileFormatError(f"{path}: a TorchScript program, not weights; save the state_dict instead") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _damaged(path, error) from None


def _load(path: Path, allowed: list[tuple[type, str]]) -> Any:
    """The stored object (Any: whatever somebody's program saved)."""
    try:
        with safe_globals(allowed), warnings.catch_warnings():  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # about pickles of other programs, which fail in one line of their own
            return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        named = NAMED.search(str(error))
        raise (_refused(path, named[1]) if named else _damaged(path, error)) from None
    # What a damaged pickle raises is not told: any of the virtual machine's own errors.
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None


def _state_dict(path: Path, stored: object) -> dict[str, Tensor]:
    for key in NESTINGS:
        if isinstance(stored, Mapping) and key in stored and not isinstance(stored[key], Tensor):
            return _state_dict(path, stored[key])
    if isinstance(stored, list | tuple) and len(stored) == 1:
        return _state_dict(path, stored[0])
    if not isinstance(stored, Mapping) or not stored:
        raise FileFormatError(f"{path}: holds a {type(stored).__name__}, no tensors by name")
    for name, tensor in stored.items():
        if not isinstance(tensor, Tensor):
            raise FileFormatError(f"{path}: holds no state dict: {name!r} is a {type(tensor).__name__}, not a tensor")
    return {str(name).removeprefix("module."): tensor.detach() for name, tensor in stored.items()}


def _refused(path: Path, name: str) -> FileFormatError:
    return FileFormatError(f"{path}: wants {name} executed, which no weights need; nothing was; do not trust this file")


def _damaged(path: Path, error: Exception) -> FileFormatError:
    said = " ".join(str(error).split())[:160] or type(error).__name__
    return FileFormatError(f"{path}: not a whole file of torch.save: {said}")
