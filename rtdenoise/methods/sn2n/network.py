"""The SN2N network: a plain U-Net, in two dimensions or three (sheet C 2.2)."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Deployment, Network

WIDTH = "64 128 256 512 512"
"""Maps of each level (sheet C 2.2)."""
LEVELS = 5
SIXTEENTH = 2 ** (LEVELS - 1)
"""Four 2x2 poolings."""
SLOPE = 0.02
"""Of LeakyReLU below 0 (sheet C 2.2)."""
DEPTH, AT_EDGE = 16, 2
"""Frames of a block; frames at each of its ends that overlap with the next one (sheet C 2.4 and 2.6). The authors step
by 14 frames and blend the 2 that two blocks share; here a run keeps the 12 in the middle of a block."""
FLATTEST = 1e-12
"""Variance below which an output counts as constant and takes the mean of its frame. Engineering choice."""


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution over zeros, norm, LeakyReLU (sheet C 2.2). own_statistics: see `Sn2nNetwork`."""

    def __init__(self, dims: int, inputs: int, middle: int, outputs: int, own_statistics: bool) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        layers: list[nn.Module] = []
        for before, after in ((inputs, middle), (middle, outputs)):
            layers += [conv(before, after, 3, padding=1), norm(after), nn.LeakyReLU(SLOPE)]
        self.double_conv = nn.Sequential(*layers)
        self._own = own_statistics

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        for layer in self.double_conv:
            own = self._own and isinstance(layer, nn.modules.batchnorm._BatchNorm)
            x = normed(x, layer) if own else layer(x)
        return x

    def fold(self) -> None:
        """Put the running statistics into the convolutions."""
        if self._own:
            return
        layers: list[Any] = list(self.double_conv)
        folded = [fuse_conv_bn_eval(layers[i], layers[i + 1]) for i in (0, 3)]
        self.double_conv = nn.Sequential(folded[0], nn.LeakyReLU(SLOPE), folded[1], nn.LeakyReLU(SLOPE))


class Down(nn.Module):
    """Halved, then `DoubleConv`."""

    def __init__(self, dims: int, inputs: int, outputs: int, own_statistics: bool) -> None:
        super().__init__()
        pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(2)
        self.maxpool_conv = nn.Sequential(pool, DoubleConv(dims, inputs, outputs, outputs, own_statistics))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.maxpool_conv(x)  # type: ignore[no-any-return]


class Up(nn.Module):
    """Doubled, joined with the skip, then `DoubleConv`; half of the maps in between (sheet C 2.2)."""

    def __init__(self, dims: int, inputs: int, outputs: int, own_statistics: bool) -> None:
        super().__init__()
        self.conv = DoubleConv(dims, inputs, inputs // 2, outputs, own_statistics)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """See the class."""
        return self.conv(torch.cat([skip, doubled(x, skip)], 1))  # type: ignore[no-any-return]


class OutConv(nn.Module):
    """The last layer, 1x1."""

    def __init__(self, dims: int, inputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 1, 1) if dims == 2 else nn.Conv3d(inputs, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.conv(x)  # type: ignore[no-any-return]


class Sn2nNetwork(Network):
    """SN2N (Nat. Methods 2024, s41592-024-02400-9): a frame in, the same frame out; 17,266,241 parameters. With dims 3 a
    block of 16 frames, 51,772,097 parameters.

    width: maps of the five levels.  statistics: what the norms go by. `batch`: each frame (block) itself, as published,
    in training and in use; the output then follows neither the level nor the gain of the input. `running`: the
    average over the training, as is usual in use.
    output: `sigmoid`, 0 to 1 as published, or `linear`, which has no ceiling.
    intensity: `network`, as it comes out, or `fitted`: scaled and shifted, frame by frame, to the least squared distance
    from the input frame (`fitted`, the function), which gives back the level and the gain that `batch` loses.

    Sides of a block are mirrored up to multiples of 16 and cut afterwards; the authors refuse other sizes, and `batch`
    sees the mirrored pixels too. Frames (dims 2) may have any sides, as published.
    Raises ConfigError for facts that do not fit.
    """

    def __init__(
        self,
        dims: int = 2,
        width: str = WIDTH,
        statistics: str = "batch",
        output: str = "sigmoid",
        intensity: str = "network",
    ) -> None:
        super().__init__()
        _check(dims, statistics, output, intensity)
        widths, own = _widths(width), statistics == "batch"
        self.facts = {"dims": dims, "width": width, "statistics": statistics, "output": output, "intensity": intensity}
        self.window = WindowSpec(1) if dims == 2 else WindowSpec(DEPTH, range(DEPTH), DEPTH - 2 * AT_EDGE)
        self.min_side = 2 * SIXTEENTH if own else SIXTEENTH  # a single pixel at the lowest level has no variance
        self._dims, self._sigmoid, self._fitted = dims, output == "sigmoid", intensity == "fitted"
        self.inc = DoubleConv(dims, 1, widths[0], widths[0], own)
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            self.add_module(f"down{i + 1}", Down(dims, inputs, outputs, own))
        below = widths[-1]
        for i, skip in enumerate(reversed(widths[:-1])):
            outputs = widths[max(LEVELS - 3 - i, 0)]
            self.add_module(f"up{i + 1}", Up(dims, skip + below, outputs, own))
            below = outputs
        self.outc = OutConv(dims, below)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        out = self._of_frame(frames) if self._dims == 2 else self._of_block(frames)
        if self._sigmoid:
            out = torch.sigmoid(out)
        return fitted(out, frames) if self._fitted else out

    def deploy(self, **options: int) -> Deployment:
        """With running statistics folded into the convolutions."""
        if options:
            return super().deploy(**options)
        folded = deepcopy(self).eval()
        for module in folded.modules():
            if isinstance(module, DoubleConv):
                module.fold()
        return Deployment({"window": folded})

    def _of_frame(self, frames: Tensor) -> Tensor:
        skips = [self.inc(frames)]
        for i in range(1, LEVELS):
            skips.append(self.get_submodule(f"down{i}")(skips[-1]))
        x = skips.pop()
        for i in range(1, LEVELS):
            x = self.get_submodule(f"up{i}")(x, skips.pop())
        return self.outc(x)  # type: ignore[no-any-return]

    def _of_block(self, frames: Tensor) -> Tensor:
        out = self._of_frame(mirrored(frames).unsqueeze(1)).squeeze(1)
        # By padding with less than nothing: the exporter cannot prove that a slice would be inside.
        return F.pad(out, (0, frames.shape[-1] - out.shape[-1], 0, frames.shape[-2] - out.shape[-2]))


def normed(x: Tensor, norm: Any) -> Tensor:
    """`x` by the mean and (biased) variance of its own item and map, with gain and bias of the BatchNorm `norm`.

    norm: Any, because BatchNorm of 2 and of 3 dimensions share no public type.
    """
    axes = list(range(2, x.dim()))
    wide = x.float()  # sums over a frame are beyond half precision
    wide = wide - wide.mean(axes, keepdim=True)
    gain = torch.rsqrt(wide.square().mean(axes, keepdim=True) + norm.eps)
    shape = (-1, *[1] * len(axes))
    out: Tensor = (wide * gain).to(x.dtype) * norm.weight.reshape(shape) + norm.bias.reshape(shape)
    return out


def doubled(x: Tensor, like: Tensor) -> Tensor:
    """`x` at twice its size with the corners kept, then zeros below and to the right up to the size of `like` (2-D: sheet
    C 2.2; a block's sides always fit).
    """
    mode = "bilinear" if x.dim() == 4 else "trilinear"
    grown = F.interpolate(x, scale_factor=2.0, mode=mode, align_corners=True)
    if x.dim() == 5:
        return grown
    # One row and column of zeros, cut where they are too many: the graph has no branch for odd sizes.
    return F.pad(grown, (0, 1, 0, 1))[..., : like.shape[-2], : like.shape[-1]]


def mirrored(frames: Tensor) -> Tensor:
    """Mirrored below and on the right up to multiples of 16."""
    height, width = frames.shape[-2:]
    rows = torch.arange((height + SIXTEENTH - 1) // SIXTEENTH * SIXTEENTH, device=frames.device)
    columns = torch.arange((width + SIXTEENTH - 1) // SIXTEENTH * SIXTEENTH, device=frames.device)
    # The smaller of two, not an absolute value: OpenVINO 2026.4 gets the indices of that wrong.
    rows, columns = torch.minimum(rows, 2 * (height - 1) - rows), torch.minimum(columns, 2 * (width - 1) - columns)
    return frames.index_select(-2, rows).index_select(-1, columns)


def fitted(out: Tensor, frames: Tensor) -> Tensor:
    """gain * out + level, both of each frame, with the least squared distance from `frames` (B, T, Y, X).

    The mean of a frame stays exactly as it came in. Our addition: the authors spread every output over 0 to 255
    (sheet C 2.5), which loses the same two numbers.
    """
    wide, given = out.float(), frames.float()
    level = given.mean((-2, -1), keepdim=True)
    wide = wide - wide.mean((-2, -1), keepdim=True)
    gain = (wide * (given - level)).mean((-2, -1), keepdim=True)
    gain = gain / (wide.square().mean((-2, -1), keepdim=True) + FLATTEST)
    return (gain * wide + level).to(out.dtype)


def _check(dims: int, statistics: str, output: str, intensity: str) -> None:
    wanted = {"statistics": ("batch", "running"), "output": ("sigmoid", "linear"), "intensity": ("network", "fitted")}
    given = {"statistics": statistics, "output": output, "intensity": intensity}
    for name, value in given.items():
        if value not in wanted[name]:
            raise ConfigError(f"SN2N's {name} is `{wanted[name][0]}` or `{wanted[name][1]}`, not {value!r}")
    if dims not in (2, 3):
        raise ConfigError(f"SN2N has 2 or 3 dims, not {dims}")


def _widths(width: str) -> list[int]:
    parts = width.split()
    if len(parts) != LEVELS or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"SN2N's width is {LEVELS} numbers above 0 such as {WIDTH!r}, not {width!r}")
    return [int(part) for part in parts]
