"""How UMVD learns: the noisy centre frame, from the frames around it (sheet A 5.4)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Batch, Losses, Network

LEARNING_RATE = 1e-3
"""Published, as an argument; the script halves it before the first epoch already (sheet A 5.4)."""
EPOCHS = 25
HALVED_EVERY = 10
"""Epochs 0, 10 and 20 begin with half the learning rate of before (sheet A 5.4)."""
MIN_CROP = 16
"""Engineering choice: four pixels at the lowest level."""


class UmvdTask:
    """The centre frame's noise is independent of the other frames, so the best guess of the noisy frame is the clean
    one.

    error: `mse` (half the squared error) or `l1`, both published; means over pixels instead of sums, which Adam does
    not see.
    """

    def __init__(self, network: Network, error: Literal["mse", "l1"] = "mse") -> None:
        if error not in ("mse", "l1"):
            raise ConfigError(f"UMVD's error is `mse` or `l1`, not {error!r}")
        self._error = error
        self._centre = network.window.size // 2
        self.clip_frames, self.min_crop = network.window.size, MIN_CROP

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """See `Task`."""
        clips = batch.clips
        wanted, given = clips[:, self._centre : self._centre + 1], network(clips)
        total = 0.5 * F.mse_loss(given, wanted) if self._error == "mse" else F.l1_loss(given, wanted)
        return Losses(total, {self._error: float(total.detach())})

    def schedule(self, progress: float) -> float:
        """See `published_schedule`."""
        return published_schedule(progress)

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam (sheet A 5.4)."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate)


def published_schedule(progress: float) -> float:
    """1/2, 1/4 and, for the last fifth, 1/8 of the learning rate (sheet A 5.4)."""
    return 0.5 ** (1 + int(min(progress, 1.0) * EPOCHS) // HALVED_EVERY)
