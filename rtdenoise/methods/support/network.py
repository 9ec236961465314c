"""The SUPPORT network: a U-Net over the frames around, and a full-resolution branch that is blind to its own pixel."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Deployment, Network

LEVELS = 5
"""Levels of the U-Net (sheet B 1.2: depth = 5)."""
MIN_SIDE = 2 ** (LEVELS - 1)
BETWEEN = (32, 16)
"""Maps of the 1x1 convolutions behind the U-Net and behind the blind branch (sheet B 1.2: one_by_one_channels)."""
HEAD = (64, 32, 16)
"""Maps of the last 1x1 convolutions (sheet B 1.2: last_layer_channels)."""
DILATIONS = {3: (1, 2, 4, 8, 16), 5: (1, 3, 9)}
"""Of the blind branch's layers, by kernel size (sheet B 1.2); the last grows with the hole."""


class MaskedConv(nn.Conv2d):
    """A 'same' convolution, some taps of which stay 0; mask: of a shape that multiplies with the weights."""

    def __init__(self, inputs: int, outputs: int, size: int, mask: Tensor, dilation: tuple[int, int] = (1, 1)) -> None:
        padding = (size // 2 * dilation[0], size // 2 * dilation[1])
        super().__init__(inputs, outputs, size, padding=padding, dilation=dilation)
        self.register_buffer("mask", mask, persistent=False)
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding, dilation=self.dilation)

    def plain(self) -> nn.Conv2d:
        """The same as an ordinary convolution."""
        assert isinstance(self.padding, tuple)
        size, padding, dilation = self.kernel_size, self.padding, self.dilation
        conv = nn.Conv2d(self.in_channels, self.out_channels, size, padding=padding, dilation=dilation)  # type: ignore[arg-type]
        conv.weight = nn.Parameter((self.weight * self.mask).detach())
        conv.bias = self.bias
        return conv.requires_grad_(False)


class BlindPath(nn.Module):
    """Dilated convolutions with a hole, from the frame itself, told by the U-Net what the frames around show.

    `(B, 1, Y, X)` frame, `(B, 16, Y, X)` of the U-Net -> the output of every layer.
    """

    def __init__(self, channels: int, size: int, hole: tuple[int, int]) -> None:
        super().__init__()
        dilations = [(d, d) for d in DILATIONS[size]]
        last = dilations[-1][0]
        dilations[-1] = (last + hole[0] // 2, last + hole[1] // 2)
        mask = torch.ones(1, 1, size, size)
        mask[..., size // 2, size // 2] = 0
        inputs = [1] + [channels] * (len(dilations) - 1)
        self.around = nn.Conv2d(BETWEEN[-1], channels, size, padding=size // 2)
        self.holed = nn.ModuleList(
            MaskedConv(n, channels, size, mask, d) for n, d in zip(inputs, dilations, strict=True)
        )
        # Start at 1: engineering choice. The first is one number for all maps (sheet B 1.2).
        gains = [1] + [channels] * (len(dilations) - 2)
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(1, n, 1, 1)) for n in gains)

    def forward(self, frame: Tensor, around: Tensor) -> list[Tensor]:
        """See the class."""
        seen = F.relu(self.holed[0](frame)) + F.relu(self.around(around))
        outputs = [seen]
        for gain, holed in zip(self.gains, list(self.holed)[1:], strict=True):
            seen = F.relu(holed(seen + gain * frame))
            outputs.append(seen)
        return outputs


class SupportNetwork(Network):
    """SUPPORT (Nat. Methods 2023, s41592-023-02005-8): 61 frames in, one out; 1,376,771 free parameters as published.

    frames: of the window.  lookahead: how many of them come after the one that is predicted; half when not given, as
    published. first, most: maps of the U-Net's first level, doubled from level to level up to `most` (16 and 256, or
    64 and 1024 in the authors' newer default).  blind_channels: maps of the blind branch.
    hole_y, hole_x: odd sides of the patch around a pixel that its prediction does not see in its own frame; 1 for
    noise that is independent from pixel to pixel.  plane: the whole frame is hidden, the blind branch is left out.
    """

    min_side = MIN_SIDE

    def __init__(
        self,
        frames: int = 61,
        first: int = 16,
        most: int = 256,
        blind_channels: int = 64,
        hole_y: int = 1,
        hole_x: int = 1,
        plane: bool = False,
        lookahead: int | None = None,
    ) -> None:
        super().__init__()
        lookahead = frames // 2 if lookahead is None else lookahead
        _check(frames, lookahead, (hole_y, hole_x))
        self._own = frames - 1 - lookahead
        self.window = WindowSpec(size=frames, emits=(self._own,))
        self.unseen = (self._own,) if plane else ()
        self.facts = {"frames": frames, "first": first, "most": most, "blind_channels": blind_channels}
        self.facts |= {"hole_y": hole_y, "hole_x": hole_x, "plane": plane, "lookahead": lookahead}
        widths = [min(first * 2**level, most) for level in range(LEVELS)]
        others = torch.ones(1, frames, 1, 1)
        others[:, self._own] = 0
        deeper = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
        self.encoders = nn.ModuleList([MaskedConv(frames, first, 3, others), *deeper])
        self.decoders = nn.ModuleList(nn.Conv2d(a + b, b, 3, padding=1) for b, a in pairwise(widths))[::-1]
        self.around = _pointwise(first, *BETWEEN)
        self.head = _pointwise(BETWEEN[-1] * (1 if plane else 2), *HEAD)
        self.readout = nn.Conv2d(HEAD[-1], 1, 1)
        self._dense = hole_y == hole_x == 1  # all layers of the blind branch are read, not only the last
        if not plane:
            self.paths = nn.ModuleList(BlindPath(blind_channels, size, (hole_y, hole_x)) for size in DILATIONS)
            layers = sum(map(len, DILATIONS.values())) if self._dense else len(DILATIONS)
            self.own = _pointwise(layers * blind_channels, *BETWEEN)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        seen = self.around(self._neighbours(frames))
        if not self.unseen:
            frame = frames[:, self._own : self._own + 1]
            layers = [path(frame, seen) for path in self.paths]
            read = [layer for outputs in layers for layer in (outputs if self._dense else outputs[-1:])]
            seen = torch.cat([seen, self.own(torch.cat(read, 1))], 1)
        return self.readout(self.head(seen))  # type: ignore[no-any-return]

    def _neighbours(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for encoder in self.encoders:
            x = F.relu(encoder(F.max_pool2d(x, 2) if skips else x))
            skips.append(x)
        skips.pop()
        for decoder in self.decoders:
            skip = skips.pop()
            x = F.relu(decoder(torch.cat([F.interpolate(x, size=skip.shape[-2:]), skip], 1)))
        return x

    def deploy(self, **options: int) -> Deployment:
        """The same with the masks multiplied in, so that ordinary convolutions remain."""
        if options:
            raise ConfigError(f"SUPPORT has no deploy option {', '.join(options)}")
        network = deepcopy(self)
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, MaskedConv):
                    setattr(parent, name, child.plain())
        return Deployment({"window": network})


def _pointwise(*maps: int) -> nn.Sequential:
    """1x1 convolutions, each with its ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(maps):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _check(frames: int, lookahead: int, hole: tuple[int, int]) -> None:
    if frames < 2 or not 0 <= lookahead < frames:
        raise ConfigError(f"SUPPORT needs 2 frames or more and a lookahead below them, got {frames} and {lookahead}")
    if min(hole) < 1 or hole[0] % 2 == 0 or hole[1] % 2 == 0:
        raise ConfigError(f"SUPPORT's hole_y and hole_x are odd and 1 or more, got {hole[0]} and {hole[1]}")
