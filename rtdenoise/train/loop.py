"""The training loop: one network, one task, one state that can be saved and continued exactly."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.methods.base import Batch, Losses, Network, Task
from rtdenoise.train.movies import Crops
from rtdenoise.train.recipe import Recipe


@dataclass
class Training:
    """Everything a run consists of; `step` counts finished steps."""

    recipe: Recipe
    network: Network
    task: Task
    crops: Crops
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    step: int = 0

    def advance(self) -> Losses:
        """One optimiser step. Raises ConfigError when the loss is no longer a number."""
        settings = self.recipe.train
        self._set_mode()
        clips, scales = self.crops.draw(settings.batch, self.generator)
        clips = clips.contiguous(memory_format=torch.channels_last)  # grouped convolutions run 3x faster on a CPU
        batch = Batch(clips, scales, self.generator, self.step / settings.steps)
        losses = self.task.loss(self.network, batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.total)
        self.optimizer.step()
        self.step += 1
        if not math.isfinite(losses.total.item()):
            raise ConfigError(f"the loss is not a number at step {self.step}; lower train.learning_rate")
        return losses

    def learning_rate(self) -> float:
        """Of the coming step."""
        settings = self.recipe.train
        progress = self.step / settings.steps
        factors = {
            "published": self.task.schedule(progress),
            "constant": 1.0,
            "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        }
        return settings.learning_rate * factors[settings.schedule]

    def _set_mode(self) -> None:
        self.network.train()
        if self.step >= self.recipe.train.freeze_norm_at * self.recipe.train.steps:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def save(self, path: Path) -> None:
        """Write the state so that a reader finds the old file or the new one, never a part."""
        state = {
            "recipe": fingerprint(self.recipe),
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        torch.save(state, part)
        part.replace(path)

    def restore(self, path: Path) -> None:
        """Continue where `path` was saved. Raises ConfigError for another recipe's state, FileFormatError for a
        damaged file.
        """
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            if state["recipe"] != fingerprint(self.recipe):
                raise ConfigError(f"{path} belongs to another version of the recipe; delete it to start again")
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            self.step = int(state["step"])
        except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
            raise FileFormatError(f"{path}: damaged checkpoint ({error}); delete it to start again") from None


def fingerprint(recipe: Recipe) -> str:
    """What must be equal for a run to be continued: all of the recipe but threads, saving intervals and bundle
    facts.
    """
    free: Any = dict.fromkeys(("bundle", "validate_on", "card"), True)
    free["train"] = {"threads", "checkpoint_every", "validate_every"}
    return hashlib.sha256(recipe.model_dump_json(exclude=free).encode()).hexdigest()


def typical_scale(scales: list[float]) -> float:
    """Geometric mean of the movies' counts per normalised unit: one number for what depends on the units of the
    loss.
    """
    return math.exp(sum(map(math.log, scales)) / len(scales))
