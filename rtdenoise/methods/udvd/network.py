"""The UDVD network: two stages of U-Nets, each in four directions, and a readout that sees all four."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.bundle import StageFacts
from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Deployment, Network, whole_and_stages
from rtdenoise.methods.udvd.halfplane import DIRECTIONS, LEFT, SLOPE, UP, BlindUNet, beyond, mirrored

FRAMES = 5
SPAN = 3
"""Frames of the window, and of each run of the first stage (sheet A 6.2)."""
RUNS = FRAMES - SPAN + 1
AXES = (UP, LEFT, UP, LEFT)
"""Along which the network of each direction looks."""
MIN_SIDE = 4
"""Two 2x2 poolings."""


class UdvdNetwork(Network):
    """UDVD (ICCV 2021): five frames in, the middle one out; 2,123,664 parameters as published.

    A pixel of the output sees no pixel at its own place in any of the five frames. The first stage takes three frames
    and runs once per new frame, since two thirds of what it gives were there before.

    width: maps of the encoders.  wide: of the decoders, and of the second stage's output.  maps: of the first stage's
    output in each direction.  outputs: numbers per pixel, of which the first is the prediction; 2 for weights that were
    trained on Gaussian noise of a known sd.
    """

    min_side = MIN_SIDE

    def __init__(self, width: int = 48, wide: int = 96, maps: int = 32, outputs: int = 1) -> None:
        super().__init__()
        self.window = WindowSpec(size=FRAMES, emits=(FRAMES // 2,))
        self.facts = {"width": width, "wide": wide, "maps": maps, "outputs": outputs}
        self.stages = StageFacts(span=SPAN, maps=DIRECTIONS * maps)
        self.first = BlindUNet(SPAN, maps, width, wide)
        self.second = BlindUNet(RUNS * maps, wide, width, wide)
        together = DIRECTIONS * wide
        self.readout = nn.ModuleList(
            [_pointwise(together, together), _pointwise(together, wide), _pointwise(wide, outputs)]
        )

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        runs = torch.cat([frames[:, i : i + SPAN] for i in range(RUNS)])
        return self.fuse(torch.cat(self.encode(runs).chunk(RUNS), 1))

    def encode(self, frames: Tensor) -> Tensor:
        """Three frames in all four directions, each mirrored as its network takes it: see `Network`."""
        return torch.cat(_in_all_directions(self.first, [mirrored(frames, d) for d in range(DIRECTIONS)]), 1)

    def fuse(self, features: Tensor) -> Tensor:
        """Three first stages to the middle frame: see `Network`."""
        return self.predict(features)[:, :1]

    def predict(self, features: Tensor) -> Tensor:
        """`fuse` with all `outputs`."""
        parts = features.chunk(RUNS * DIRECTIONS, 1)  # the runs of one direction lie four apart
        runs = [torch.cat(parts[d::DIRECTIONS], 1) for d in range(DIRECTIONS)]
        seen = [beyond(x, AXES[d]) for d, x in enumerate(_in_all_directions(self.second, runs))]
        x = torch.cat([mirrored(x, d) for d, x in enumerate(seen)], 1)
        for layer in self.readout[:-1]:
            x = F.leaky_relu(layer(x), SLOPE)
        return self.readout[-1](x)  # type: ignore[no-any-return]

    def deploy(self, **options: int) -> Deployment:
        """The same with kernels made beforehand, so that none is made while it runs."""
        if options:
            raise ConfigError(f"UDVD has no deploy option {', '.join(options)}")
        network = deepcopy(self)
        network.first, network.second = self.first.ready(), self.second.ready()
        return whole_and_stages(network)


def _in_all_directions(network: BlindUNet, inputs: list[Tensor]) -> list[Tensor]:
    """One input and one output per direction; those along the same axis run as one batch."""
    n = len(inputs[0])
    up, left = (network(torch.cat(inputs[axis - UP :: 2]), axis) for axis in (UP, LEFT))
    return [up[:n], left[:n], up[n:], left[n:]]


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, SLOPE)
    return conv
