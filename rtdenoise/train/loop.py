"""The training loop: one network, one task, one state that can be saved and continued exactly."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Batch, Losses, Network, Task
from rtdenoise.train import chance, devices
from rtdenoise.train.crops import Crops
from rtdenoise.train.recipe import Recipe
from rtdenoise.train.watch import Best, HeldOut

SMOOTHING = 0.98
"""Weight of the past in the loss that is shown and logged. Engineering choice."""


@dataclass
class Training:
    """Everything a run consists of; `step` counts finished steps, `seconds` the time they took.

    wrapped: `network` as Fabric runs it (precision, several processes).  held_out: None when nothing is held out.
    """

    recipe: Recipe
    fabric: Fabric
    network: Network
    wrapped: nn.Module
    task: Task
    crops: Crops
    held_out: HeldOut | None
    optimizer: torch.optim.Optimizer
    plateau: ReduceLROnPlateau
    best: Best = field(default_factory=Best)
    step: int = 0
    seconds: float = 0.0
    smooth_loss: float = math.nan

    def advance(self) -> Losses:
        """One optimiser step. Raises ConfigError when the loss is no longer a number."""
        began = time.perf_counter()
        self._set_mode()
        self._set_learning_rate()
        losses = self.task.loss(self.wrapped, self._batch())
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(losses.total)
        self._share_what_the_task_learned()
        self.optimizer.step()
        self.step += 1
        self._note(losses.total.item())
        self.seconds += time.perf_counter() - began
        return losses

    def validate(self) -> float | None:
        """The loss on held-out frames, None without any; keeps the best weights and lowers a `plateau` rate."""
        self.average_statistics()
        if self.held_out is None:
            return None
        loss = self.held_out.loss(self.network, self.task, self.fabric)
        self.best.offer(loss, self.step, self.network)
        if self.recipe.train.schedule == "plateau":
            self.plateau.step(loss)
        return loss

    def average_statistics(self) -> None:
        """Give all processes the same running statistics: before they are saved, looked at or frozen."""
        for module in (self.network, self.task):
            if isinstance(module, nn.Module):
                devices.average(self.fabric, module)

    @property
    def over(self) -> bool:
        """All steps are done, or the validation loss has stood still for too long."""
        settings = self.recipe.train
        return self.step >= settings.steps or 0 < settings.patience <= self.best.stale

    @property
    def kept_step(self) -> int:
        """The step whose weights become the bundle."""
        return self.best.step if self.recipe.train.keep == "best" and self.best.weights else self.step

    def learning_rate(self) -> float:
        """Of the coming step."""
        settings = self.recipe.train
        progress = self.step / settings.steps
        match settings.schedule:
            case "published":
                return settings.learning_rate * self.task.schedule(progress)
            case "cosine":
                return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
            case "constant":
                return settings.learning_rate
            case "plateau":
                return float(self.optimizer.param_groups[0]["lr"])

    def _batch(self) -> Batch:
        """This process's share of the coming step's crops, with chance of its own for the task."""
        settings, rank, world = self.recipe.train, self.fabric.global_rank, self.fabric.world_size
        drawn = chance.generator(settings.seed, chance.Draws.CROPS, self.step)
        clips, scales = self.crops.draw(settings.batch, drawn, slice(rank, None, world))
        clips = clips.to(self.fabric.device)
        clips = clips.contiguous(memory_format=torch.channels_last)  # grouped convolutions run 3x faster on a CPU
        generator = chance.generator(settings.seed, chance.Draws.TASK, self.step, rank)
        return Batch(clips, scales.to(self.fabric.device), generator, self.step / settings.steps)

    def _set_learning_rate(self) -> None:
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _set_mode(self) -> None:
        self.network.train()
        first_frozen = math.ceil(self.recipe.train.freeze_norm_at * self.recipe.train.steps)
        if self.step < first_frozen:
            return
        if self.step == first_frozen:
            self.average_statistics()
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def _share_what_the_task_learned(self) -> None:
        """Fabric averages the network's gradients; those of a task that learns too are averaged here."""
        if self.fabric.world_size > 1 and isinstance(self.task, nn.Module):
            for weight in self.task.parameters():
                if isinstance(weight.grad, Tensor):
                    self.fabric.all_reduce(weight.grad)

    def _note(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ConfigError(f"the loss is not a number at step {self.step}; lower train.learning_rate")
        past = loss if math.isnan(self.smooth_loss) else self.smooth_loss
        self.smooth_loss = SMOOTHING * past + (1 - SMOOTHING) * loss
