"""A 3-D U-Net that sees only what lies strictly on one side of a voxel, in any of six directions.

The authors turn the movie, run a net that looks to the left, and turn the result back (sheet B 2.2). Here the kernels
are turned instead: the movie stays as it is, so frames need not be square, and nothing is transposed (sheet B 2.9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pads = tuple[tuple[int, int], ...]
Layer = tuple[Tensor, Tensor]
"""Kernel and bias."""
Step = tuple[Layer, int]
"""A layer and how far it stands aside."""

LEVELS = 3
"""Poolings of 2 x 2 x 2, so depth, Y and X are multiples of 8 inside (sheet B 2.2)."""
SHIFTS: dict[str, tuple[int, ...]] = {
    "1": (1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0),
    "3": (1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0),
    "5": (1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
    "sim": (0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1),
}
"""Further steps aside of each of the 16 convolutions (sheet B 2.2 and its erratum). The last one is, as in the authors'
program, that of the second convolution, not its own: their weights were trained so."""


@dataclass(slots=True, frozen=True)
class View:
    """One direction of looking. axis: 0 T, 1 Y, 2 X.  later: towards higher indices.

    flips: axes of a kernel that are reversed after its X axis has changed places with `axis` (derived from the turns
    in sheet B 2.2).
    """

    name: str
    axis: int
    later: bool
    flips: tuple[int, ...]

    def turned(self, kernel: Tensor) -> Tensor:
        """`(out, in, 3, 3, 3)` that looks to the left -> the same kernel for this direction."""
        return kernel.transpose(self.axis - 3, -1).flip(self.flips)

    def pads(self, shift: int) -> Pads:
        """Zeros (before, after) on T, Y and X; a negative number cuts off."""
        around = [(1, 1)] * 3
        around[self.axis] = (-shift, 2 + shift) if self.later else (2 + shift, -shift)
        return tuple(around)


IN_TIME = (View("past", 0, False, (-1,)), View("future", 0, True, (-3,)))
IN_SPACE = (
    View("left", 2, False, ()),
    View("above", 1, False, (-1,)),
    View("right", 2, True, (-2, -1)),
    View("below", 1, True, (-2,)),
)
"""In the order in which the authors fuse them (sheet B 2.2)."""


class HalfSpaceWeights(nn.Module):
    """The 16 convolutions that all directions of one family share, under the names that published checkpoints use."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.input_block_1 = _pair(("0", "2"), inputs, width)
        self.encode_block_1 = _pair(("1", "3"), width, width)
        self.encode_block_2 = _pair(("1", "3"), width, width)
        self.encode_block_3 = _pair(("1", "3"), width, width)
        self.encode_block_6 = _pair(("0", "2"), width, width)
        self.decode_block_3 = _pair(("0", "2"), 2 * width, width)
        self.decode_block_2 = _pair(("0", "2"), 2 * width, width)
        self.decode_block_1 = _pair(("0", "2"), 2 * width, width)

    def layers(self, view: View, shifts: Sequence[int], depth: int) -> list[Layer]:
        """(kernel, bias) of all convolutions, turned, for `half_space`; the first one is a `frame_kernel`."""
        convs = [conv for block in self.children() for conv in block.children() if isinstance(conv, nn.Conv3d)]
        pairs = [(view.turned(conv.weight), conv.bias) for conv in convs if conv.bias is not None]
        (kernel, bias), *others = pairs
        before = view.pads(shifts[0])[0][0]
        return [(frame_kernel(kernel, depth, before), bias.repeat_interleave(depth)), *others]


def _pair(names: tuple[str, str], inputs: int, width: int) -> nn.ModuleDict:
    return nn.ModuleDict({names[0]: nn.Conv3d(inputs, width, 3), names[1]: nn.Conv3d(width, width, 3)})


def frame_kernel(kernel: Tensor, depth: int, before: int) -> Tensor:
    """`(f, C, 3, 3, 3)` for a clip that holds every frame C times -> `(f * depth, depth + C - 1, 3, 3)` for the frames.

    The authors' first layer reads A[i, t] = v[t + i] (sheet B 2.2); this is the same sum over the frames v themselves,
    as a 2-D convolution, 2 to 3 times faster on a CPU. `before` zeros stand before the first t, zeros after the last:
    the rows of the first and the last t leave out what the authors' zeros leave out.
    """
    context = kernel.shape[1]
    tap, t, i = torch.meshgrid(torch.arange(3), torch.arange(depth), torch.arange(context), indexing="ij")
    read = t + tap - before
    inside = (read >= 0) & (read < depth)
    place = torch.zeros(3, depth, context, depth + context - 1)
    place[tap[inside], t[inside], i[inside], (read + i)[inside]] = 1
    return torch.einsum("oikyx,ktin->otnyx", kernel, place.to(kernel)).flatten(0, 1)


def half_space(frames: Tensor, layers: Sequence[Layer], view: View, shifts: Sequence[int], kept: range) -> Tensor:
    """`(B, depth + C - 1, Y, X)` -> features `(B, f, len(kept), Y, X)` of the positions `kept` of 0 .. depth - 1.

    Y and X are multiples of 8. Only what the kept positions need is computed in the last two convolutions.
    """
    steps = list(zip(layers, shifts, strict=True))
    (kernel, bias), pads = layers[0], view.pads(shifts[0])
    width = layers[1][0].shape[1]
    flat = F.conv2d(F.pad(frames, _flat(pads[1:])), kernel, bias)
    fine = flat.view(len(flat), width, -1, *flat.shape[-2:])
    fine = F.relu(fine.contiguous(memory_format=torch.channels_last_3d), inplace=True)
    x = _convs(fine, steps[1:2], view)
    skips = [x]
    for level in range(1, LEVELS + 1):
        x = _convs(F.max_pool3d(x, 2), steps[2 * level : 2 * level + 2], view)
        skips.append(x)
    x = _convs(x, steps[8:10], view)
    for level in (2, 1):
        up = F.interpolate(x, scale_factor=2.0)
        x = _convs(torch.cat([up, skips[level]], dim=1), steps[14 - 2 * level : 16 - 2 * level], view)
    return _last_pair(skips[0], x, steps[14:], view, kept)


def _last_pair(fine: Tensor, x: Tensor, steps: Sequence[Step], view: View, kept: range) -> Tensor:
    depth = fine.shape[2]
    middle = _needed(kept, view.pads(steps[1][1])[0], depth)
    first = _needed(middle, view.pads(steps[0][1])[0], depth)
    first = range(first.start // 2 * 2, (first.stop + 1) // 2 * 2)
    up = F.interpolate(x[:, :, first.start // 2 : first.stop // 2], scale_factor=2.0)
    x = torch.cat([up, fine[:, :, first.start : first.stop]], dim=1)
    x = _conv(x, steps[0], view, first, middle)
    return _conv(x, steps[1], view, middle, kept)


def _convs(x: Tensor, steps: Sequence[Step], view: View) -> Tensor:
    whole = range(x.shape[2])
    for step in steps:
        x = _conv(x, step, view, whole, whole)
    return x


def _conv(x: Tensor, step: Step, view: View, given: range, wanted: range) -> Tensor:
    """Convolution and ReLU; `x` holds the positions `given` in time, the result `wanted`."""
    (kernel, bias), shift = step
    (before, after), rows, columns = view.pads(shift)
    in_time = (given.start - wanted.start + before, wanted.stop + after - given.stop)
    x = F.pad(x, _flat((in_time, rows, columns)))
    convolve = F.conv3d if torch.compiler.is_exporting() else _conv3d
    return F.relu(convolve(x, kernel, bias), inplace=True)


def _conv3d(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The same. For a single small clip torch chooses a form that is five times slower on a CPU than the one for two,
    so the clip goes in as its first and its second half.
    """
    half, odd = divmod(x.shape[2] - 2, 2)
    if len(x) > 1 or odd or half == 0:
        return F.conv3d(x, kernel, bias)
    halves = torch.cat([x[:, :, : half + 2], x[:, :, half:]])
    return torch.cat(F.conv3d(halves, kernel, bias).chunk(2), dim=2)


def _needed(wanted: range, pads: tuple[int, int], depth: int) -> range:
    return range(max(wanted.start - pads[0], 0), min(wanted.stop + pads[1], depth))


def _flat(pads: Pads) -> list[int]:
    return [zeros for pair in reversed(pads) for zeros in pair]
