"""U-Nets that look in one direction only: up, left, down or right.

Each direction is the upward network on a turned frame. Here the frame stays and everything else turns: kernels,
padding, and where the 2x2 blocks of a pooling begin in frames of odd size.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1
"""Of the leaky ReLU (sheet A 6.2)."""
DIRECTIONS = range(4)
"""What is seen of a frame: above, left, below, right (the authors turn the frame by 0, 90, 180, 270 degrees)."""
UP, LEFT, DOWN, RIGHT = DIRECTIONS

_SIDES = {UP: (0, 0, 1, 0), LEFT: (1, 0, 0, 0), DOWN: (0, 0, 0, 1), RIGHT: (0, 1, 0, 0)}
"""The side that is looked to, in the order of padding: left, right, top, bottom."""


class BlindConv(nn.Module):
    """3x3 convolution and leaky ReLU, whose output sees its own row (or column) and those on one side only.

    Beyond that side there is 0, beyond the two sides next to it the border repeats (sheet A 6.2).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        # He's for the leaky ReLU: without biases and norms a smaller start would fade away. Engineering choice.
        nn.init.kaiming_normal_(self.weight, SLOPE)

    def forward(self, x: Tensor, direction: int) -> Tensor:
        """See the class."""
        aside = (0, 0, 1, 1) if direction in (LEFT, RIGHT) else (1, 1, 0, 0)
        ahead = [2 * side for side in _SIDES[direction]]
        x = F.pad(F.pad(x, aside, mode="replicate"), ahead)
        return F.leaky_relu(F.conv2d(x, self.kernel(direction)), SLOPE)

    def kernel(self, direction: int) -> Tensor:
        """The weights for one direction."""
        return torch.rot90(self.weight, direction, (2, 3))


class TurnedConv(BlindConv):
    """The same with kernels that were turned beforehand."""

    def __init__(self, conv: BlindConv) -> None:
        nn.Module.__init__(self)
        turned = [nn.Parameter(conv.kernel(d).detach().contiguous(), requires_grad=False) for d in DIRECTIONS]
        self.kernels = nn.ParameterList(turned)

    def kernel(self, direction: int) -> Tensor:
        """See the class."""
        return self.kernels[direction]  # type: ignore[no-any-return]


class BlindUNet(nn.Module):
    """`(B, inputs, Y, X)` -> `(B, outputs, Y, X)`, looking to one side; the own row counts as seen until `beyond`.

    width: maps of the encoder.  wide: of the bottom and the decoder.
    """

    def __init__(self, inputs: int, outputs: int, width: int, wide: int) -> None:
        super().__init__()
        self.enc1 = _chain(inputs, width, width, width)
        self.enc2 = _chain(width, width, width, width)
        self.enc3 = _chain(width, wide, wide, width)
        self.dec2 = _chain(2 * width, wide, wide, wide, wide)
        self.dec1 = _chain(wide + inputs, wide, wide, wide, outputs)

    def forward(self, x: Tensor, direction: int) -> Tensor:
        """See the class."""
        half = pooled(_run(self.enc1, x, direction), direction)
        quarter = pooled(_run(self.enc2, half, direction), direction)
        deep = _run(self.enc3, quarter, direction)
        middle = _run(self.dec2, torch.cat([doubled(deep, half, direction), half], 1), direction)
        return _run(self.dec1, torch.cat([doubled(middle, x, direction), x], 1), direction)


def turned_beforehand(unet: BlindUNet) -> BlindUNet:
    """The same network, its kernels turned once and for all."""
    unet = deepcopy(unet)
    for chain in unet.children():
        for name, conv in list(chain.named_children()):
            if isinstance(conv, BlindConv):
                setattr(chain, name, TurnedConv(conv))
    return unet


def beyond(x: Tensor, direction: int) -> Tensor:
    """Moved by one pixel, so that what saw its own row sees only those beyond; 0 comes in."""
    height, width = x.shape[-2:]
    left, right, top, bottom = _SIDES[direction]
    kept = x[..., bottom : height - top, right : width - left]
    return F.pad(kept, (left, right, top, bottom))


def pooled(x: Tensor, direction: int) -> Tensor:
    """Maxima of 2x2 blocks of what lies beyond; of an odd size the row or column that is last in the turned frame stays
    out.
    """
    height, width = x.shape[-2:]
    even_y, even_x = height // 2 * 2, width // 2 * 2
    moved = beyond(x, direction)
    # A turned frame begins at the corner that lies ahead on its left.
    rows = slice(height - even_y, None) if direction in (LEFT, DOWN) else slice(0, even_y)
    columns = slice(width - even_x, None) if direction in (DOWN, RIGHT) else slice(0, even_x)
    return F.max_pool2d(moved[..., rows, columns], 2)


def doubled(x: Tensor, like: Tensor, direction: int) -> Tensor:
    """Every pixel twice in both axes; 0 where `like` has a row or column more."""
    x = F.interpolate(x, scale_factor=2.0)
    more_y, more_x = like.shape[-2] - x.shape[-2], like.shape[-1] - x.shape[-1]
    top, bottom = (more_y, 0) if direction in (LEFT, DOWN) else (0, more_y)
    left, right = (more_x, 0) if direction in (DOWN, RIGHT) else (0, more_x)
    return F.pad(x, (left, right, top, bottom))


def _chain(*maps: int) -> nn.ModuleDict:
    """Blind convolutions under the names that published checkpoints use."""
    return nn.ModuleDict({f"conv{i}": BlindConv(a, b) for i, (a, b) in enumerate(pairwise(maps), 1)})


def _run(chain: nn.ModuleDict, x: Tensor, direction: int) -> Tensor:
    for conv in chain.values():
        x = conv(x, direction)
    return x
