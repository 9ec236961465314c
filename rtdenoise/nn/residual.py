"""A plain residual network of 3x3 convolutions with PReLU, as DeepVID and DeepVID v2 have it."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

MOMENTUM = 0.5
"""Of every BatchNorm (sheet A 2.2 and 3.2)."""


class Convolution(nn.Module):
    """Convolution with bias and zero padding, then BatchNorm if it has an `eps`, then PReLU if it has a `slope` to
    begin with (one per map).
    """

    def __init__(
        self, inputs: int, outputs: int, side: int = 3, *, eps: float | None = None, slope: float | None = None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
        self.norm = nn.Identity() if eps is None else nn.BatchNorm2d(outputs, eps=eps, momentum=MOMENTUM)
        self.activation = nn.Identity() if slope is None else nn.PReLU(outputs, init=slope)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two convolutions plus the block's input; nothing after the sum."""

    def __init__(self, features: int, *, eps: float, slope: float) -> None:
        super().__init__()
        first = Convolution(features, features, eps=eps, slope=slope)
        self.model = nn.Sequential(first, Convolution(features, features, eps=eps))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x + self.model(x)  # type: ignore[no-any-return]


class ResidualNetwork(nn.Module):
    """`(B, inputs, Y, X)` -> `(B, 1, Y, X)`: one convolution, `blocks` residual blocks, the long skip, two readouts.

    Named as in the checkpoints of DeepVID v2 (sheet A 3.7). Any Y and X. The last readout, one number and a bias, begins
    as the identity: at random it may begin near zero or with the wrong sign (engineering choice).
    """

    def __init__(self, inputs: int, features: int, blocks: int, *, eps: float, slope: float) -> None:
        super().__init__()
        self.in_block = Convolution(inputs, features, slope=slope)
        self.model = nn.Sequential(*[ResidualBlock(features, eps=eps, slope=slope) for _ in range(blocks)])
        self.pre_out_block = Convolution(features, features, eps=eps)
        last = Convolution(1, 1, side=1)
        self.out_block = nn.Sequential(Convolution(features, 1, slope=slope), last)
        nn.init.ones_(last.conv.weight)
        nn.init.zeros_(last.conv.bias)  # type: ignore[arg-type]

    def convolutions(self) -> list[Convolution]:
        """All of them, from input to output."""
        return [module for module in self.modules() if isinstance(module, Convolution)]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        shallow = self.in_block(x)
        return self.out_block(shallow + self.pre_out_block(self.model(shallow)))  # type: ignore[no-any-return]


def folded(network: ResidualNetwork, order: list[int]) -> ResidualNetwork:
    """A copy to run: every BatchNorm is part of its convolution, and channel k of the input is what `network` takes as
    channel `order.index(k)`. Eval mode only.
    """
    copy = deepcopy(network).eval()
    for part in copy.convolutions():
        if isinstance(part.norm, nn.BatchNorm2d):
            part.conv, part.norm = fuse_conv_bn_eval(part.conv, part.norm), nn.Identity()
    first = copy.in_block.conv
    places = torch.tensor(order).argsort()
    first.weight = nn.Parameter(first.weight.detach()[:, places].contiguous())
    return copy.requires_grad_(False)


def neighbours_then_centre(frames: int) -> list[int]:
    """Positions of `frames` ascending frames in the order that DeepVID's channels have (sheet A 2.3)."""
    centre = frames // 2
    return [k for k in range(frames) if k != centre] + [centre]
