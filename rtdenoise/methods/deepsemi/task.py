"""How DeepSeMi learns: every voxel is predicted from the others (sheet B 2.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Batch, Losses, Network

LEARNING_RATE = 1e-4
"""Published, constant (sheet B 2.4)."""
BETAS = (0.5, 0.999)
"""Published (sheet B 2.4)."""
FLIP_CHOICES = 5
"""T, Y, X or, twice as likely as each of these, none (sheet B 2.4)."""
TURN_CHOICES = 5
"""Quarter turns 0 to 4: the whole turn counts as none (sheet B 2.4)."""


class DeepSemiTask:
    """L1 + MSE between the noisy frames and three predictions of them: the network's, and those of the past and of the
    future alone, all weighted 1 (sheet B 2.4).
    """

    min_crop = 32  # engineering choice: four pixels a side at the coarsest level; smaller crops are mostly border

    def __init__(self, network: Network) -> None:
        self.clip_frames = network.window.size
        self.emits = slice(network.window.emits[0], network.window.emits[-1] + 1)

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """Raises ConfigError for crops that are not square."""
        height, width = batch.clips.shape[-2:]
        if height != width:
            raise ConfigError(f"DeepSeMi trains on square crops, which it turns; got {height} x {width}")
        clips = torch.stack([_turned(clip, batch.generator) for clip in batch.clips])
        target = clips[:, self.emits]
        whole, past, future = network(clips, heads=True).unbind(1)
        parts = {"whole": _gap(whole, target), "past": _gap(past, target), "future": _gap(future, target)}
        total = torch.stack(list(parts.values())).sum()
        return Losses(total, {name: part.item() for name, part in parts.items()})

    def schedule(self, progress: float) -> float:
        """Constant (sheet B 2.4)."""
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam with the published betas."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=BETAS)


def _gap(prediction: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(prediction, target) + F.mse_loss(prediction, target)


def _turned(clip: Tensor, generator: torch.Generator) -> Tensor:
    """One clip `(T, Y, X)`, mirrored in time or space and turned as published."""
    axis, turns = (int(torch.randint(0, n, (), generator=generator)) for n in (FLIP_CHOICES, TURN_CHOICES))
    mirrored = clip.flip(axis) if axis < clip.dim() else clip
    return mirrored.rot90(turns, (1, 2))
