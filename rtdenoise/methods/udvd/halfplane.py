"""A U-Net that sees only what lies above, or only what lies to the left.

The published network looks up, on copies of the frame turned by 0, 90, 180 and 270 degrees. A quarter turn is a mirroring
and a transposition, and transposing the kernels serves as well as transposing the frame. So two copies of the frame
are looked at upwards and two to the left, all in the frame's own shape; `mirrored` makes them and takes them back.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1
"""Of the leaky ReLU (sheet A 6.2)."""
UP, LEFT = 2, 3
"""The axis along which a network looks, towards its beginning."""
DIRECTIONS = 4
"""Turns of 0, 90, 180 and 270 degrees: what is seen lies above, to the left, below, to the right."""
_MIRRORED: tuple[tuple[int, ...], ...] = ((), (2,), (2, 3), (3,))
"""Axes to mirror for each direction, before the network looks up, left, up, left."""


class BlindConv(nn.Module):
    """3x3 convolution and leaky ReLU, whose output sees its own row and the two above (or columns to the left).

    Beyond them there is 0, beyond the two borders next to that one the border repeats (sheet A 6.2).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        # He's for the leaky ReLU: without biases and norms a smaller start would fade away. Engineering choice.
        nn.init.kaiming_normal_(self.weight, SLOPE)

    def forward(self, x: Tensor, axis: int) -> Tensor:
        """See the class."""
        aside, ahead = ((1, 1, 0, 0), (0, 0, 2, 0)) if axis == UP else ((0, 0, 1, 1), (2, 0, 0, 0))
        x = F.pad(F.pad(x, aside, mode="replicate"), ahead)
        return F.leaky_relu(F.conv2d(x, self.kernel(axis)), SLOPE)

    def kernel(self, axis: int) -> Tensor:
        """The weights to look up or to the left."""
        return self.weight if axis == UP else self.weight.transpose(2, 3)


class ReadyConv(BlindConv):
    """The same with both kernels made beforehand."""

    def __init__(self, conv: BlindConv) -> None:
        nn.Module.__init__(self)
        kernels = [conv.kernel(axis).detach().clone(memory_format=torch.contiguous_format) for axis in (UP, LEFT)]
        self.kernels = nn.ParameterList(nn.Parameter(kernel, requires_grad=False) for kernel in kernels)

    def kernel(self, axis: int) -> Tensor:
        """See the class."""
        return self.kernels[axis - UP]  # type: ignore[no-any-return]


class BlindUNet(nn.Module):
    """`(B, inputs, Y, X)` -> `(B, outputs, Y, X)`; of its own row (column) all is seen.

    width: maps of the encoder.  wide: of the bottom and the decoder.
    """

    def __init__(self, inputs: int, outputs: int, width: int, wide: int) -> None:
        super().__init__()
        self.enc1 = _chain(inputs, width, width, width)
        self.enc2 = _chain(width, width, width, width)
        self.enc3 = _chain(width, wide, wide, width)
        self.dec2 = _chain(2 * width, wide, wide, wide, wide)
        self.dec1 = _chain(wide + inputs, wide, wide, wide, outputs)

    def forward(self, x: Tensor, axis: int) -> Tensor:
        """See the class."""
        half = _pooled(_run(self.enc1, x, axis), axis)
        deep = _run(self.enc3, _pooled(_run(self.enc2, half, axis), axis), axis)
        middle = _run(self.dec2, torch.cat([_doubled(deep, half), half], 1), axis)
        return _run(self.dec1, torch.cat([_doubled(middle, x), x], 1), axis)

    def ready(self) -> BlindUNet:
        """The same network, both kernels of every convolution made beforehand."""
        network = deepcopy(self)
        for chain in network.children():
            for name, conv in list(chain.named_children()):
                setattr(chain, name, ReadyConv(conv))  # type: ignore[arg-type]
        return network


def mirrored(x: Tensor, direction: int) -> Tensor:
    """The frame as the network of this direction takes it, and back again."""
    axes = _MIRRORED[direction]
    return x.flip(axes) if axes else x


def beyond(x: Tensor, axis: int) -> Tensor:
    """Moved on by one pixel, so that what saw its own row sees only those above; 0 comes in."""
    # Not by padding: ONNX Runtime merges it into a pooling that follows, which then ignores the 0.
    return torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x[..., :-1, :] if axis == UP else x[..., :-1]], axis)


def _pooled(x: Tensor, axis: int) -> Tensor:
    """Maxima of 2x2 blocks of what lies beyond; a last odd row or column is left out."""
    return F.max_pool2d(beyond(x, axis), 2)


def _doubled(x: Tensor, like: Tensor) -> Tensor:
    """Every pixel twice in both axes, and 0 where `like` has a row or column more."""
    height, width = like.shape[-2:]
    # Sizes are told as what `like` has less what is odd: the exporter can follow that, and not twice a half.
    odd_y, odd_x = height % 2, width % 2
    return F.pad(F.interpolate(x, size=(height - odd_y, width - odd_x)), (0, odd_x, 0, odd_y))


def _chain(*maps: int) -> nn.ModuleDict:
    """Blind convolutions under the names that published checkpoints use."""
    return nn.ModuleDict({f"conv{i}": BlindConv(a, b) for i, (a, b) in enumerate(pairwise(maps), 1)})


def _run(chain: nn.ModuleDict, x: Tensor, axis: int) -> Tensor:
    for conv in chain.values():
        x = conv(x, axis)
    return x
