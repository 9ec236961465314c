"""Watching a training without the truth: the task's own loss on frames that are kept from learning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rtdenoise.methods.base import Batch, Network, Task
from rtdenoise.train import chance
from rtdenoise.train.crops import Crops

CROPS = 32
"""Crops that one validation looks at. Engineering choice: they are the same every time, so two validations differ by
what was learned between them, not by what was drawn.
"""


@dataclass(slots=True, frozen=True)
class HeldOut:
    """Crops of held-out frames, the same at every call. batch: of all processes together."""

    crops: Crops
    batch: int
    seed: int

    def loss(self, network: Network, task: Task, fabric: Fabric) -> float:
        """Mean loss of the network as it would live, and of the task as it will be at the end of the training; the same
        in all processes.
        """
        n_batches = max(1, CROPS // self.batch)
        total = torch.zeros((), dtype=torch.float64, device=fabric.device)
        with _untouched(network, task), torch.no_grad():
            for i_batch in range(fabric.global_rank, n_batches, fabric.world_size):
                total += task.loss(network, self._batch(i_batch, fabric)).total
        if fabric.world_size > 1:
            fabric.all_reduce(total, reduce_op="sum")
        return total.item() / n_batches

    def _batch(self, i_batch: int, fabric: Fabric) -> Batch:
        generator = chance.generator(self.seed, chance.Draws.HELD_OUT, i_batch)
        clips, scales = self.crops.draw(self.batch, generator)
        clips = clips.to(fabric.device).contiguous(memory_format=torch.channels_last)
        return Batch(clips, scales.to(fabric.device), generator, progress=1.0)


@dataclass(slots=True)
class Best:
    """The weights of the lowest validation loss so far. stale: validations since then."""

    loss: float = math.inf
    step: int = 0
    stale: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, loss: float, step: int, network: nn.Module) -> None:
        """Keep the network's weights if `loss` is the lowest; a loss that is not a number never is."""
        if not loss < self.loss:
            self.stale += 1
            return
        self.loss, self.step, self.stale = loss, step, 0
        self.weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """What `restored` needs."""
        return {"loss": self.loss, "step": self.step, "stale": self.stale, "weights": self.weights}


def restored(state: Mapping[str, Any]) -> Best:
    """The `Best` whose `state()` this is."""
    return Best(float(state["loss"]), int(state["step"]), int(state["stale"]), dict(state["weights"]))


@contextmanager
def _untouched(network: Network, task: Task) -> Iterator[None]:
    """Both in eval mode inside; a task that remembers its calls forgets these."""
    memory = deepcopy(task.state_dict()) if isinstance(task, nn.Module) else None
    modules = [module for module in (network, task) if isinstance(module, nn.Module)]
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
        if memory is not None and isinstance(task, nn.Module):
            task.load_state_dict(memory)
