"""The DeepSeMi network: six half-space U-Nets of two families, fused voxel by voxel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Deployment, Network
from rtdenoise.methods.deepsemi.half_space import (
    IN_SPACE,
    IN_TIME,
    LEVELS,
    SHIFTS,
    HalfSpaceWeights,
    Layer,
    View,
    half_space,
)

EIGHTH = 2**LEVELS
FUSIONS = ("mean", "identity")
PATTERN = "|".join(SHIFTS)


class DeepSemiNetwork(Network):
    """DeepSeMi (Nat. Methods 2023, s41592-023-02058-9): 73,395 published parameters at width 8 and context 31, of which
    the 153 of a head that nothing reads are left out.

    depth: frames of the 3-D block, a multiple of 8; 32 as published.  context: C, consecutive frames that each position
    of the block holds, odd; 31 as published.  width: maps f; 8, 16 and 32 were published.  keep: positions in the
    middle of the block that come out; half of them as published (sheet B 2.6), because those at its ends see no
    further than the block.  net_type: the shifts in time and in space, `T1XY1`, `T3XY3`, `T5XY5` or with `sim`; only
    `1` and `sim` are blind (sheet B 2.10).  fusion: the authors put the maps of the two time directions, and those of
    the four space directions, in random order at every call, in use too; `mean` is what that amounts to on average
    before the first ReLU (sheet B 2.9), always the same, `identity` is the order past, future, left, above, right,
    below, each with weights of its own.

    `frames` are padded with zeros below and on the right to multiples of 8, at least 16: any copy of pixels there would
    show a voxel to itself. Raises ConfigError for facts that do not fit.
    """

    min_side = EIGHTH

    def __init__(
        self,
        depth: int = 32,
        context: int = 31,
        width: int = 8,
        keep: int = 16,
        net_type: str = "T1XY1",
        fusion: str = "mean",
    ) -> None:
        super().__init__()
        self.shifts = _shifts(net_type)
        _check(depth, context, width, keep, fusion)
        first = (depth - keep) // 2
        self.kept, self.reach = range(first, first + keep), (context - 1) // 2
        self.window = WindowSpec(depth + context - 1, range(self.reach + first, self.reach + first + keep))
        self.facts = {"depth": depth, "context": context, "width": width, "keep": keep}
        self.facts |= {"net_type": net_type, "fusion": fusion}
        self.depth, self.fusion = depth, fusion
        self.Network_T = HalfSpaceWeights(self.reach + 1, width)
        self.Network_XY = HalfSpaceWeights(context, width)
        self.output_block = _head(6 * width, width)
        self.output_block_T = _head(width, width)

    def forward(self, frames: Tensor, heads: bool = False) -> Tensor:
        """See the class. heads: `(B, 3, K, Y, X)` with the past's and the future's own prediction after the network's,
        which training needs; an argument because only `forward` is used for gradients.
        """
        maps = maps_of(padded(frames), self.looks(), self.kept)
        outputs = [fused(maps, self.head())]
        if heads:
            alone = list(self.output_block_T.parameters())
            outputs += [fused([of_time], alone) for of_time in maps[: len(IN_TIME)]]
        out = torch.stack(outputs, 1) if heads else outputs[0]
        return trimmed(out, frames)

    def looks(self) -> list[Look]:
        """What each direction needs, in the order of the fusion."""
        time, space = self.shifts
        frames, half = self.window.size, self.depth + self.reach
        spans = (range(half), range(frames - half, frames))
        looks = [
            Look(view, time, span, self.Network_T.layers(view, time, self.depth))
            for view, span in zip(IN_TIME, spans, strict=True)
        ]
        for view in IN_SPACE:
            looks.append(Look(view, space, range(frames), self.Network_XY.layers(view, space, self.depth)))
        return looks

    def head(self) -> list[Tensor]:
        """Weight and bias of the three fusing layers."""
        weight, *others = self.output_block.parameters()
        if self.fusion == "identity":
            return [weight, *others]
        blocks = weight.chunk(len(IN_TIME) + len(IN_SPACE), dim=1)
        time, space = (torch.stack(family).mean(0) for family in (blocks[: len(IN_TIME)], blocks[len(IN_TIME) :]))
        return [torch.cat([time] * len(IN_TIME) + [space] * len(IN_SPACE), dim=1), *others]

    def deploy(self, **options: int) -> Deployment:
        """With the kernels turned and the training heads left out."""
        if options:
            return super().deploy(**options)
        return Deployment({"window": Turned(self)})


@dataclass(slots=True, frozen=True)
class Look:
    """One direction: the frames of the window that it gets, and its layers."""

    view: View
    shifts: Sequence[int]
    span: range
    layers: Sequence[Layer]


class Turned(nn.Module):
    """The network with ready kernels: `(B, T, Y, X)` -> `(B, K, Y, X)`."""

    def __init__(self, network: DeepSemiNetwork) -> None:
        super().__init__()
        self.kept, looks = network.kept, network.looks()
        self._plan = [(look.view, look.shifts, look.span) for look in looks]
        self.layers = nn.ModuleList([_frozen([t for layer in look.layers for t in layer]) for look in looks])
        self.head = _frozen(network.head())

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        looks = []
        for (view, shifts, span), stored in zip(self._plan, self.layers, strict=True):
            tensors = list(stored.buffers())
            looks.append(Look(view, shifts, span, list(zip(tensors[::2], tensors[1::2], strict=True))))
        maps = maps_of(padded(frames), looks, self.kept)
        return trimmed(fused(maps, list(self.head.buffers())), frames)


def maps_of(frames: Tensor, looks: Sequence[Look], kept: range) -> list[Tensor]:
    """`(B, f, K, Y, X)` of each direction; Y and X are multiples of 8."""
    return [
        half_space(frames[:, look.span.start : look.span.stop], look.layers, look.view, look.shifts, kept)
        for look in looks
    ]


def fused(maps: Sequence[Tensor], head: Sequence[Tensor]) -> Tensor:
    """Maps of some directions and weight and bias of three layers -> `(B, K, Y, X)`."""
    first, first_bias, middle, middle_bias, last, last_bias = head
    hidden = F.relu(F.conv3d(torch.cat(list(maps), dim=1), first, first_bias))
    hidden = F.relu(F.conv3d(hidden, middle, middle_bias))
    return F.conv3d(hidden, last, last_bias).squeeze(1)


def padded(frames: Tensor) -> Tensor:
    """Zeros below and on the right up to multiples of 8, at least 16."""
    # Written as 8 * n - size with n of at least 2, so that an exporter knows the padded size, its half, its quarter;
    # and without a quotient of a negative number, which ONNX rounds the other way.
    more = [_eighths(size) * EIGHTH - size for size in frames.shape[-2:]]
    return F.pad(frames, (0, more[1], 0, more[0]))


def _eighths(size: int) -> int:
    return torch.sym_max((size + EIGHTH - 1) // EIGHTH, 2)  # type: ignore[no-untyped-call,no-any-return]


def trimmed(out: Tensor, frames: Tensor) -> Tensor:
    """Without what `padded` added to `frames`."""
    # By padding with less than nothing: the exporter cannot prove that a slice would be inside.
    return F.pad(out, (0, frames.shape[-1] - out.shape[-1], 0, frames.shape[-2] - out.shape[-2]))


def _head(inputs: int, width: int) -> nn.Sequential:
    first, middle, last = nn.Conv3d(inputs, width, 1), nn.Conv3d(width, width, 1), nn.Conv3d(width, 1, 1)
    return nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), last)


def _frozen(tensors: Sequence[Tensor]) -> nn.Module:
    holder = nn.Module()
    for i, tensor in enumerate(tensors):
        holder.register_buffer(f"t{i:02d}", tensor.detach().clone())
    return holder


def _shifts(net_type: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    found = re.fullmatch(f"T({PATTERN})XY({PATTERN})", net_type)
    if found is None:
        raise ConfigError(f"DeepSeMi has no net_type {net_type!r}; choose T?XY? with each ? one of {', '.join(SHIFTS)}")
    return SHIFTS[found[1]], SHIFTS[found[2]]


def _check(depth: int, context: int, width: int, keep: int, fusion: str) -> None:
    if depth < EIGHTH or depth % EIGHTH:
        raise ConfigError(f"DeepSeMi needs depth to be a multiple of {EIGHTH}, got {depth}")
    if context < 1 or context % 2 == 0:
        raise ConfigError(f"DeepSeMi needs an odd context, got {context}")
    if not 1 <= keep <= depth or (depth - keep) % 2:
        raise ConfigError(f"DeepSeMi keeps an even share of its {depth} positions, as many on both sides; got {keep}")
    if width < 1 or fusion not in FUSIONS:
        raise ConfigError(
            f"DeepSeMi needs a width of 1 or more and fusion {' or '.join(FUSIONS)}, got {width}, {fusion}"
        )
