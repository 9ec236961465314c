"""The 3-D U-Net run as a stream: the work of a frame is done once, and what later frames need of it is carried on.

A step takes 8 new frames and gives 8 old ones, equal to what one pass over the whole movie gives there (sheet B 4.9 and
appendix A). All poolings stay in phase when a step ends 6 frames after a multiple of 8: then every level has whole pairs
and nothing is held back. The frames `8k + 2 .. 8k + 9` come out when frame `8k + 53` is in, 44 to 51 frames later, which
is as far as the network looks. The first skip (50 frames of full-size maps) is not carried but made again from the
frames, which the stream keeps anyhow: some 10 % more multiplications for most of the memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.bundle import StateFacts
from rtdenoise.nn.unet3d import EIGHTH, LEVELS, DoubleConv, UNet3d

LOOKAHEAD = 44
WINDOW = 100
"""Frames that 8 outputs depend on: 48 before the first of them, 44 after the last (sheet B 3.2, measured)."""
EMITS = range(WINDOW - LOOKAHEAD - EIGHTH, WINDOW - LOOKAHEAD)
NEWEST = (WINDOW - EIGHTH - 4, WINDOW)
"""Frames of the window that enter: 8 new ones, and four that the first level, which carries nothing, takes again."""
AROUND = (EMITS.start - 2, EMITS.stop + 4)
"""Frames of the window that the first skip is made of."""
PHASE = 2
"""Frames before the window at which the poolings' first group of 8 begins."""
WAITS = (6, 18)
"""Frames, of their level, that the third and the second skip wait for what is up-sampled to meet them."""
DOUBLING = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
"""(4, 3) from a kernel after nearest-neighbour doubling to the same kernel as a transposed convolution of stride 2."""


def states_of(width: int) -> tuple[StateFacts, ...]:
    """What a network of this width carries, in the order in which a step takes and gives it; zeros at the start."""

    def state(maps_of_level: int, frames: int, level: int) -> StateFacts:
        return StateFacts(maps=width * 2**maps_of_level, frames=frames, level=level)

    states = [state(level - 1, 2, level) for level in range(1, LEVELS + 1) for _ in ("first", "second")]
    for level, wait in zip((2, 1), WAITS, strict=True):
        states += [state(level, wait, level), state(level + 1, 1, level + 1), state(level, 2, level)]
    return (*states, state(1, 1, 1), state(0, 2, 0))


class ContinualUNet3d(nn.Module):
    """One step of `UNet3d`: newest (1, 12, Y, X), around (1, 14, Y, X) and the states -> (1, 8, Y, X) and the new states.

    newest, around: frames `NEWEST` and `AROUND` of the window; Y and X are multiples of 8. In the states maps come last:
    that is how runtimes keep them, and turning them at every step took OpenVINO 40 % of its time.
    """

    def __init__(self, unet: UNet3d) -> None:
        super().__init__()
        self.encoders, self.final = unet.encoders, unet.final
        decoders: list[DoubleConv] = list(unet.decoders)  # type: ignore[arg-type]
        self.joins = nn.ModuleList(Join(decoder) for decoder in decoders)
        self.seconds = nn.ModuleList(decoder.second for decoder in decoders)

    def forward(self, newest: Tensor, around: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        carried, kept = (state.permute(0, 4, 1, 2, 3) for state in states), []
        x, skips = self._stem(newest), []
        for encoder in self.encoders[1:]:
            assert isinstance(encoder, DoubleConv)
            x = F.max_pool3d(x, 2)
            for conv in (encoder.first, encoder.second):
                x, rest = _advanced(conv, x, next(carried))
                kept.append(rest)
            skips.append(x)
        x = skips.pop()
        for join, second, wait in zip(self.joins, self.seconds, (*WAITS, 0), strict=True):
            if wait:
                skip = torch.cat([next(carried), skips.pop()], 2)
                kept.append(skip[:, :, -wait:])
            else:
                skip = self._stem(around)
            kept.append(x[:, :, -1:])
            x = join(skip, torch.cat([next(carried), x], 2))
            x, rest = _advanced(second, x, next(carried))
            kept.append(rest)
        return (self.final(x)[:, 0], *(state.permute(0, 2, 3, 4, 1) for state in kept))

    def _stem(self, frames: Tensor) -> Tensor:
        """(1, n + 4, Y, X) -> (1, width, n, Y, X): the first level, no frame made up."""
        stem = self.encoders[0]
        assert isinstance(stem, DoubleConv)
        return _valid(stem.second, _valid(stem.first, frames[:, None]))


class Join(nn.Module):
    """The first convolution after a skip, with what is up-sampled taken at its small size: a 3x3x3 kernel after doubling
    is a 4x4x4 transposed one of stride 2, with 8 multiplications for each of 27.
    """

    def __init__(self, decoder: DoubleConv) -> None:
        super().__init__()
        conv = decoder.first
        n_skip = conv.out_channels
        self.skip = nn.Parameter(conv.weight.detach()[:, :n_skip].clone())
        doubling = DOUBLING.to(conv.weight.dtype)
        small = torch.einsum("oityx,at,by,cx->ioabc", conv.weight.detach()[:, n_skip:], doubling, doubling, doubling)
        self.small = nn.Parameter(small.contiguous())
        self.bias = conv.bias

    def forward(self, skip: Tensor, small: Tensor) -> Tensor:
        """(1, maps, 2n + 2, Y, X) and (1, 2 maps, n + 1, Y / 2, X / 2) -> (1, maps, 2n, Y, X)."""
        beside = F.conv3d(skip[:, :, : 2 * small.shape[2]], self.skip, self.bias, padding=(0, 1, 1))
        return F.relu(beside + F.conv_transpose3d(small, self.small, stride=2, padding=(2, 1, 1)))


def _valid(conv: nn.Module, x: Tensor) -> Tensor:
    """Padded in space, not in time: two frames shorter."""
    assert isinstance(conv, nn.Conv3d)
    return F.relu(F.conv3d(x, conv.weight, conv.bias, padding=(0, 1, 1)))


def _advanced(conv: nn.Module, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """As many frames as came in, and the two that the next step needs again."""
    x = torch.cat([before, x], 2)
    return _valid(conv, x), x[:, :, -2:]
