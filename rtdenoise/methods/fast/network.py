"""The FAST network: a grouped-convolution U-Net over C consecutive frames, and its parts that can run apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Deployment, Network

WIDTH = 64
"""Feature maps at every level (sheet C 1.2: f_maps = [64, 64, 64])."""
FIRST = 32
"""Feature maps of the first convolution, unless there are more frames (sheet C 1.2)."""
LEGAL_FRAMES = (2, 4, 8, 16, 32)
"""C for which the network is a sum of C/2 independent two-frame branches (sheet C 1.2: at 64 they mix)."""
MIN_SIDE = 4
"""Two 2x2 poolings."""


class ConvNormRelu(nn.Module):
    """3x3 grouped convolution without bias, BatchNorm, ReLU; groups = min(inputs, outputs) / 2 (sheet C 1.2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        groups = min(inputs, outputs) // 2
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=False)
        self.batchnorm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.relu(self.batchnorm(self.conv(x)), inplace=True)


class Level(nn.Module):
    """Two convolutions under the names that published checkpoints use."""

    def __init__(self, inputs: int, middle: int) -> None:
        super().__init__()
        pair = {"SingleConv1": ConvNormRelu(inputs, middle), "SingleConv2": ConvNormRelu(middle, WIDTH)}
        self.basic_module = nn.ModuleDict(pair)

    def convs(self) -> list[ConvNormRelu]:
        """Both convolutions, in order."""
        return [conv for conv in self.basic_module.values() if isinstance(conv, ConvNormRelu)]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        for conv in self.convs():
            x = conv(x)
        return x


class FastNetwork(Network):
    """FAST (Nat. Commun. 2025, s41467-025-64681-8): `frames` = C frames in, C frames out; 13,572 parameters at the
    paper's C = 4.

    Raises ConfigError for a C at which upstream's grouping does not exist or its branches mix.
    """

    min_side = MIN_SIDE

    def __init__(self, frames: int = 4) -> None:
        super().__init__()
        if frames not in LEGAL_FRAMES:
            raise ConfigError(f"FAST needs frames to be one of {LEGAL_FRAMES}, got {frames}")
        self.window = WindowSpec(size=frames, emits=range(frames))
        self.facts = {"frames": frames}
        self.encoders = nn.ModuleList([Level(frames, FIRST), Level(WIDTH, WIDTH), Level(WIDTH, WIDTH)])
        self.decoders = nn.ModuleList([Level(WIDTH, WIDTH), Level(2 * WIDTH, WIDTH)])
        self.final_conv = nn.Conv2d(WIDTH, frames, 1)

    def convs(self) -> list[ConvNormRelu]:
        """All ten convolutions with BatchNorm, from input to output."""
        levels = [*self.encoders, *self.decoders]
        return [conv for level in levels if isinstance(level, Level) for conv in level.convs()]

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        fine = self.encoders[0](frames)
        middle = self.encoders[1](F.max_pool2d(fine, 2))
        deep = self.encoders[2](F.max_pool2d(middle, 2))
        # The first decoder takes from its skip only the size (sheet C 1.2).
        up = self.decoders[0](F.interpolate(deep, size=middle.shape[-2:]))
        up = F.interpolate(up, size=fine.shape[-2:])
        return self.final_conv(self.decoders[1](torch.cat([fine, up], dim=1)))  # type: ignore[no-any-return]

    def deploy(self, *, groups_per_branch: int = 2, **options: int) -> Deployment:
        """Whole window, and (C > 2) the part that need not wait for the newest two frames apart from the part that
        must. groups_per_branch: see `Branches`.
        """
        from rtdenoise.methods.fast.split import Branches, Newest

        if options or groups_per_branch < 1:
            raise ConfigError(f"FAST deploys with groups_per_branch of 1 or more, got {groups_per_branch} {options}")
        branches = self.window.size // 2
        window = Branches(self, range(branches), groups_per_branch, bias=True)
        if branches == 1:
            return Deployment({"window": window})
        older = Branches(self, range(branches - 1), groups_per_branch, bias=True)
        newest = Newest(Branches(self, range(branches - 1, branches), groups_per_branch, bias=False))
        return Deployment({"window": window, "older": older, "newest": newest}, newest_frames=2)
