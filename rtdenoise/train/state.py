"""The state of a training in a file, so that a run goes on as if it had not been interrupted."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.train import watch
from rtdenoise.train.loop import Training
from rtdenoise.train.recipe import Recipe

DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
)
"""What reading a truncated or foreign file of torch raises."""
FREE = {"threads", "checkpoint_every", "validate_every", "patience", "keep", "precision", "device", "devices"}
"""Keys of [train] that may change between two parts of a run."""


def save(training: Training, path: Path) -> None:
    """Write the state so that a reader finds the old file or the new one, never a part; in process 0 only, but to be
    called in all.
    """
    training.average_statistics()
    if not training.fabric.is_global_zero:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(_state(training), part)
    part.replace(path)


def restore(training: Training, path: Path) -> None:
    """Continue where `path` was saved. Raises ConfigError for another recipe's state, FileFormatError for a damaged
    file.
    """
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if state["recipe"] != fingerprint(training.recipe):
            raise ConfigError(f"{path} belongs to another version of the recipe; delete it to start again")
        training.network.load_state_dict(state["network"])
        if isinstance(training.task, nn.Module):
            training.task.load_state_dict(state["task"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.plateau.load_state_dict(state["plateau"])
        training.fabric.strategy.precision.load_state_dict(state["precision"])
        training.best = watch.restored(state["best"])
        training.step, training.seconds = int(state["step"]), float(state["seconds"])
        training.smooth_loss = float(state["smooth_loss"])
    except DAMAGE as error:
        raise FileFormatError(f"{path}: damaged checkpoint ({error}); delete it to start again") from None


def fingerprint(recipe: Recipe) -> str:
    """What must be equal for a run to be continued: all of the recipe but bundle facts and the keys in `FREE`. A key at
    its default counts as absent, so a new key does not end the runs that never had it.
    """
    free: Any = dict.fromkeys(("bundle", "validate_on", "card"), True)
    free["train"] = FREE
    return hashlib.sha256(recipe.model_dump_json(exclude=free, exclude_defaults=True).encode()).hexdigest()


def _state(training: Training) -> dict[str, Any]:
    task = training.task.state_dict() if isinstance(training.task, nn.Module) else {}
    return {
        "recipe": fingerprint(training.recipe),
        "step": training.step,
        "seconds": training.seconds,
        "smooth_loss": training.smooth_loss,
        "network": training.network.state_dict(),
        "task": task,
        "optimizer": training.optimizer.state_dict(),
        "plateau": training.plateau.state_dict(),
        "precision": training.fabric.strategy.precision.state_dict(),
        "best": training.best.state(),
    }
