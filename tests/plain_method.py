"""A method whose loss leaves nothing to chance, and whose task remembers: for tests of the training loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Batch, Losses, Method, Network

RECIPE = """
name = "plain"
method = "plain"
[data]
movies = ["*.tif"]
[train]
steps = 12
batch = 4
crop_px = 16
learning_rate = 0.05
threads = 1
"""


class PlainNetwork(Network):
    """Three frames to the middle one by a convolution, with a BatchNorm before it."""

    def __init__(self) -> None:
        super().__init__()
        self.window, self.facts = WindowSpec(3, range(1, 2)), {}
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        predicted: Tensor = self.conv(self.norm(frames))
        return predicted


class PlainTask(nn.Module):
    """The middle frame of each clip from all three and an offset of its own; remembers the mean of what it saw."""

    seen: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.clip_frames, self.min_crop = 3, 8
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        with torch.no_grad():
            self.seen.lerp_(batch.clips.mean(), 0.5)
        total = functional.mse_loss(network(batch.clips) + self.offset, batch.clips[:, 1:2])
        return Losses(total, {})

    def schedule(self, progress: float) -> float:
        return 1.0 if progress < 0.5 else 0.1

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([*network.parameters(), *self.parameters()], lr=learning_rate, momentum=0.9)


METHOD = Method("plain", "A convolution", "none", PlainNetwork, PlainTask)
