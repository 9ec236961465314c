"""FAST as it runs: BatchNorm folded, convolutions regrouped, two-frame branches that add up.

No grouped layer mixes frames of different pairs (0, 1), (2, 3), ...; only the last, linear layer does (sheet C 1.2).
So any set of branches is a network of its own, and the outputs of disjoint sets add up to the output of all.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import EngineError
from rtdenoise.methods.fast.network import FIRST, WIDTH, ConvNormRelu, FastNetwork


class Branches(nn.Module):
    """`(B, 2n, Y, X)` frames of n branches -> their `(B, C, Y, X)` share of the network's output; eval mode only.

    groups_per_branch: convolution groups that remain in each branch; fewer means more multiplications by zero but a
    form that runs faster on vector units. At 512 x 512 in OpenVINO bf16, one core with AVX-512: for C = 4 the `newest`
    part takes 44, 35, 40 and 47 ms at 1, 2, 4 and 8 groups, for C = 8 it takes 22, 21, 24 and 27 (minima of 6 runs).
    bias: whether this share carries the network's output bias.
    """

    def __init__(self, network: FastNetwork, branches: range, groups_per_branch: int, *, bias: bool) -> None:
        super().__init__()
        total = network.window.size // 2
        first, width = _maps(branches, FIRST // total), _maps(branches, WIDTH // total)
        half = _maps(branches, WIDTH // 2 // total)  # of the last decoder, fed by the skip; the rest is fed from below
        groups = groups_per_branch * len(branches)
        convs = network.convs()
        lower = [i + WIDTH // 2 for i in half]
        self.fine = _stack(convs[0:2], [first, width], groups)
        self.middle = _stack(convs[2:4], [width, width], groups)
        self.deep = _stack(convs[4:6], [width, width], groups)
        self.up = _stack(convs[6:8], [width, width], groups)
        self.skip_head = _stack(convs[8:10], [half, half], groups)
        self.up_head = _stack(convs[8:10], [lower, lower], groups)
        self.read_skip = _readout(network.final_conv, half, bias=bias)
        self.read_up = _readout(network.final_conv, lower, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        fine = self.fine(frames)
        middle = self.middle(F.max_pool2d(fine, 2))
        deep = self.deep(F.max_pool2d(middle, 2))
        up = self.up(F.interpolate(deep, size=middle.shape[-2:]))
        up = F.interpolate(up, size=fine.shape[-2:])
        return self.read_skip(self.skip_head(fine)) + self.read_up(self.up_head(up))  # type: ignore[no-any-return]


class Newest(nn.Module):
    """`(B, 2, Y, X)` newest frames + `(B, C, Y, X)` share of the older ones -> what the whole window gives."""

    def __init__(self, branch: Branches) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, frames: Tensor, partial: Tensor) -> Tensor:
        """See the class."""
        return partial + self.branch(frames)  # type: ignore[no-any-return]


def _maps(branches: range, per_branch: int) -> list[int]:
    return list(range(branches.start * per_branch, branches.stop * per_branch))


def _stack(layers: list[ConvNormRelu], outputs: list[list[int]], groups: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer, rows in zip(layers, outputs, strict=True):
        modules += [_regrouped(*_folded(layer), rows, layer.conv.groups, groups), nn.ReLU(inplace=True)]
    return nn.Sequential(*modules)


def _folded(layer: ConvNormRelu) -> tuple[Tensor, Tensor]:
    """(weight, bias) of a bias-free convolution with its BatchNorm's running statistics folded in."""
    norm = layer.batchnorm
    if norm.running_var is None or norm.running_mean is None:
        raise EngineError("a BatchNorm without running statistics cannot be folded; train with them")
    gain = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = layer.conv.weight.detach().double() * gain[:, None, None, None]
    return weight, norm.bias.detach().double() - norm.running_mean.double() * gain


def _regrouped(weight: Tensor, bias: Tensor, rows: list[int], old_groups: int, groups: int) -> nn.Conv2d:
    """The output maps `rows` of a grouped convolution, from the input maps they see, in `groups` groups or as few as
    exist.
    """
    per_group = weight.shape[0] // old_groups  # outputs
    seen = weight.shape[1]
    group_of = [row // per_group for row in rows]
    kept = sorted(set(group_of))
    groups = math.gcd(groups, len(kept))
    outputs, inputs = len(rows) // groups, len(kept) * seen // groups
    dense = torch.zeros(len(rows), inputs, 3, 3)
    for i, row in enumerate(rows):
        at = (group_of[i] - kept[0]) * seen % inputs
        dense[i, at : at + seen] = weight[row].float()
    conv = nn.Conv2d(inputs * groups, outputs * groups, 3, padding=1, groups=groups)
    conv.weight = nn.Parameter(dense)
    conv.bias = nn.Parameter(bias[rows].float())
    return conv.requires_grad_(False)


def _readout(final: nn.Conv2d, columns: list[int], *, bias: bool) -> nn.Conv2d:
    conv = nn.Conv2d(len(columns), final.out_channels, 1, bias=bias)
    conv.weight = nn.Parameter(final.weight.detach()[:, columns].float())
    if bias and final.bias is not None:
        conv.bias = nn.Parameter(final.bias.detach().float())
    return conv.requires_grad_(False)
