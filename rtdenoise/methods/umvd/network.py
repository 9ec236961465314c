"""The UMVD network: features of each frame, weighted by their distance in time, and a U-Net over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.bundle import StageFacts
from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Network

ENCODER_CONVS, DECODER_CONVS = 5, 6
"""Convolutions per level (sheet A 5.2)."""
MIN_SIDE = 4
"""Two 2x2 poolings."""


def temporal_filter(frames: int, level: float) -> Tensor:
    """(T,) weights 1 .. 0 .. 1, exactly 0 at the centre: 1 - (x/k)^level up to the centre k, then mirrored (sheet A
    5.2). Level 1 is the paper's straight line, 64 (upstream default) is 1 everywhere but at the centre.
    """
    centre = frames // 2
    position = torch.arange(frames, dtype=torch.float64)
    nearness = torch.minimum(position, 2 * centre - position) / centre
    return (1 - nearness**level).float()


class Conv(nn.Module):
    """3x3 convolution over replicated edges, without bias, and ReLU (sheet A 5.2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return convolved(x, self.conv.weight)


class FrameConv(nn.Module):
    """As `Conv`, under the name that published checkpoints use for the features of one frame."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthconv = nn.Conv2d(inputs, outputs, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return convolved(x, self.depthconv.weight)


class Level(nn.Module):
    """Convolutions in a row: conv1, conv2, ...; `widths` begins with the inputs of the first."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.conv1 = Conv(widths[0], widths[1])
        for i, (inputs, outputs) in enumerate(pairwise(widths[1:])):
            self.add_module(f"conv{i + 2}", Conv(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        for conv in self.children():
            x = conv(x)
        return x

    def weighted(self, x: Tensor, columns: Sequence[int], gains: Tensor) -> Tensor:
        """The level on the maps `x` times `gains`; `columns` says which inputs they are, every other input is 0.

        The weights take the gains, not the maps: the same sum for less work.
        """
        x = convolved(x, self.conv1.conv.weight[:, columns] * gains[:, None, None])
        for conv in list(self.children())[1:]:
            x = conv(x)
        return x


class UmvdNetwork(Network):
    """UMVD (CVPRW 2024, arXiv 2404.12163): T frames in, the centre frame out, which it never sees.

    1,786,191 parameters at the paper's 7 frames.  frames: T, odd.  level: the shape of `temporal_filter`.  features:
    maps of each frame.  width, decoder, head: maps of the encoder, the decoder and the widest of the last layers.
    No layer has a bias, so the output scales with the input. Raises ConfigError for a window without a centre.
    """

    min_side = MIN_SIDE
    filter: Tensor

    def __init__(
        self,
        frames: int = 7,
        level: float = 1.0,
        features: int = 21,
        width: int = 48,
        decoder: int = 96,
        head: int = 384,
        encoder_convs: int = ENCODER_CONVS,
        decoder_convs: int = DECODER_CONVS,
    ) -> None:
        super().__init__()
        if frames < 3 or frames % 2 == 0 or not level > 0:
            raise ConfigError(
                f"UMVD needs an odd number of frames, at least 3, and a level above 0; got {frames}, {level}"
            )
        centre = frames // 2
        self.window, self.unseen = WindowSpec(frames, (centre,)), (centre,)
        self.stages, self._features, self._decoder = StageFacts(span=1, maps=features), features, decoder
        self.facts = {"frames": frames, "level": level, "features": features, "width": width, "decoder": decoder}
        self.facts |= {"head": head, "encoder_convs": encoder_convs, "decoder_convs": decoder_convs}
        self.register_buffer("filter", temporal_filter(frames, level), persistent=False)
        self.conv1, self.conv2, self.conv3 = (FrameConv(n, features) for n in (1, features, features))
        self.enc1 = Level(features * frames, *[width] * encoder_convs)
        self.enc2 = Level(width, *[width] * encoder_convs)
        self.enc3 = Level(width, *[2 * width] * (encoder_convs - 1), width)
        self.dec2 = Level(2 * width, *[decoder] * decoder_convs)
        self.dec1 = Level(decoder + features * frames, *[decoder] * decoder_convs)
        self.out1 = nn.Conv2d(decoder, head, 1, bias=False)
        self.out2 = nn.Conv2d(head, decoder, 1, bias=False)
        self.out3 = nn.Conv2d(decoder, 1, 1, bias=False)
        self.apply(_he_uniform)

    def forward(self, frames: Tensor) -> Tensor:
        """See `Network`."""
        around = self._around()
        seen = torch.cat([frames[:, i : i + 1] for i in around], 1)
        return self.merge(self.each(seen), around, self.filter)

    def encode(self, frames: Tensor) -> Tensor:
        """See `Network`; one frame."""
        return self.conv3(self.conv2(self.conv1(frames)))  # type: ignore[no-any-return]

    def fuse(self, features: Tensor) -> Tensor:
        """See `Network`; the centre frame's features are left out."""
        start = self.window.size // 2 * self._features
        seen = torch.cat([features[:, :start], features[:, start + self._features :]], 1)
        return self.merge(seen, self._around(), self.filter)

    def each(self, frames: Tensor) -> Tensor:
        """`(B, n, Y, X)` frames -> `(B, n * maps, Y, X)`, the features of every frame, frame by frame."""
        batch, n, height, width = frames.shape
        features = self.encode(frames.reshape(batch * n, 1, height, width))
        # Not by reshape: on a CPU that turns maps which lie last into maps that lie first, a tenth of the network's time.
        return torch.cat([features[i::n] for i in range(n)], 1)

    def merge(self, features: Tensor, slots: Sequence[int], weights: Tensor) -> Tensor:
        """The U-Net on the features of the frames at the positions `slots`, times `weights` (T,) of all positions."""
        columns = [slot * self._features + i for slot in slots for i in range(self._features)]
        gains = torch.cat([weights[slot : slot + 1].expand(self._features) for slot in slots])
        x1 = F.max_pool2d(self.enc1.weighted(features, columns, gains), 2)
        x2 = F.max_pool2d(self.enc2(x1), 2)
        up = doubled(self.enc3(x2), x1)
        up = doubled(self.dec2(torch.cat([up, x1], 1)), features)
        below = self._decoder
        columns = [*range(below), *(below + column for column in columns)]
        gains = torch.cat([gains.new_ones(below), gains])
        x = self.dec1.weighted(torch.cat([up, features], 1), columns, gains)
        x = F.relu(self.out2(F.relu(self.out1(x), inplace=True)), inplace=True)
        return self.out3(x)  # type: ignore[no-any-return]

    def _around(self) -> list[int]:
        centre = self.window.size // 2
        return [i for i in range(self.window.size) if i != centre]


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution over replicated edges, and ReLU."""
    return F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight), inplace=True)


def doubled(x: Tensor, like: Tensor) -> Tensor:
    """`x` at twice the size, then zeros below and to the right up to the size of `like` (sheet A 5.2).

    Padded before it grows and cut afterwards, so that the exported graph has no branch for odd sizes.
    """
    grown = F.interpolate(F.pad(x, (0, 1, 0, 1)), scale_factor=2.0, mode="nearest")
    return grown[..., : like.shape[-2], : like.shape[-1]]


def _he_uniform(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
