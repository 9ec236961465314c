"""How SUPPORT learns: every pixel from all that the network may see around it (sheet B 1.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.methods.base import Batch, Losses, Network

LEARNING_RATE = 5e-4
"""Published, constant (sheet B 1.4)."""


class SupportTask:
    """The noisy frame itself is the target, with half its mean absolute and half its mean squared error."""

    def __init__(self, network: Network) -> None:
        self.clip_frames = network.window.size
        self.min_crop = network.min_side
        self._own = network.window.emits[0]
        self._turns = network.facts["hole_y"] == network.facts["hole_x"]

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """One step's loss on clips that are turned and mirrored at random."""
        clips = torch.stack([self._turned(clip, batch.generator) for clip in batch.clips])
        clips = clips.contiguous(memory_format=torch.channels_last)
        predicted, wanted = network(clips), clips[:, self._own : self._own + 1]
        absolute, squared = F.l1_loss(predicted, wanted), F.mse_loss(predicted, wanted)
        total = 0.5 * absolute + 0.5 * squared
        return Losses(total, {"absolute": float(absolute.detach()), "squared": float(squared.detach())})

    def _turned(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        quarters, mirrored = torch.randint(0, 4, (2,), generator=generator).tolist()
        if not self._turns or clip.shape[-2] != clip.shape[-1]:
            quarters = 2 * (quarters % 2)
        clip = torch.rot90(clip, quarters, (-2, -1))
        return clip.flip(-2) if mirrored % 2 else clip

    def schedule(self, progress: float) -> float:
        """Constant (sheet B 1.4)."""
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam (sheet B 1.4). The authors normalise as we do, so nothing depends on `scale`."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate)
