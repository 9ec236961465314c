"""How UDVD learns: the middle frame from what it may see around each pixel (sheet A 6.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdenoise.methods.base import Batch, Losses, Network
from rtdenoise.methods.udvd.network import MIN_SIDE

LEARNING_RATE = 1e-4
"""Published, at the start (sheet A 6.4)."""
HALVINGS = (20 / 40, 25 / 40, 30 / 40)
"""Shares of the 40 epochs after which the learning rate is halved (sheet A 6.4)."""


class UdvdTask:
    """The noisy frame itself is the target: half the summed squared error per clip, for noise that is not known."""

    def __init__(self, network: Network) -> None:
        self.clip_frames = network.window.size
        self.min_crop = MIN_SIDE
        self._own = network.window.emits[0]

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """One step's loss on clips that are mirrored and reversed in time at random."""
        clips = torch.stack([_mirrored(clip, batch.generator) for clip in batch.clips])
        clips = clips.contiguous(memory_format=torch.channels_last)
        squared = (network(clips) - clips[:, self._own : self._own + 1]).square()
        return Losses(squared.sum() / (2 * len(clips)), {"squared": float(squared.detach().mean())})

    def schedule(self, progress: float) -> float:
        """Halved three times (sheet A 6.4)."""
        return 0.5 ** sum(progress >= at for at in HALVINGS)

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam (sheet A 6.4), which does not feel the units of the loss, so nothing depends on `scale`."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate)


def _mirrored(clip: Tensor, generator: torch.Generator) -> Tensor:
    """(T, Y, X) clip, each axis reversed with probability 1/2 (sheet A 6.4: flips and time reversal)."""
    coins = torch.randint(0, 2, (3,), generator=generator).tolist()
    return clip.flip([axis for axis, coin in enumerate(coins) if coin])
