"""rTG: how far a window's frames are from its centre frame in brightness, as a trust map per frame (sheet A 4.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 1e-3
"""Brightest smoothed pixel, in the units of the frames, below which a window counts as dark. Engineering choice: the
authors divide by it whatever it is (sheet A 4.10e).
"""


def temporal_gradient(frames: Tensor, level: float = 0.0) -> Tensor:
    """`(B, T, Y, X)` frames, T odd -> rTG of the same shape: 1 at the centre frame, lower where the picture has grown
    brighter on the way from the centre to a frame.

    level: what zero light is below zero in the units of `frames`; 0 for counts, mean / sd for normalised frames, which
    then give the rTG of the counts. The divisor is the brightest smoothed pixel of the whole window, all its frames and
    all of each frame; in a window without light (see `FLOOR`) every frame is trusted, rTG is 1.
    """
    centre = frames.shape[1] // 2
    smooth = box(frames)
    steps = smooth[:, 1:] - smooth[:, :-1]
    later = running_max(steps[:, centre:])
    earlier = running_max(-steps[:, :centre].flip(1)).flip(1)
    growth = torch.cat([earlier, torch.zeros_like(smooth[:, :1]), later], dim=1)
    brightest = smooth.amax((1, 2, 3), keepdim=True) + level
    share = torch.where(brightest > FLOOR, growth / brightest.clamp(min=FLOOR), torch.zeros_like(growth))
    return 1 - box(share)


def box(frames: Tensor) -> Tensor:
    """Mean of 3 x 3 pixels, the border repeated outwards (sheet A 4.3)."""
    x = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    x = x[..., :-2] + x[..., 1:-1] + x[..., 2:]  # sums: torch's pooling takes 20 times as long on a CPU
    return (x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]) / 9


def running_max(frames: Tensor) -> Tensor:
    """`(B, T, Y, X)` -> frame t is the maximum of frames 0 to t.

    By doubling strides: log2(T) steps, in a form that ONNX has.
    """
    stride = 1
    while stride < frames.shape[1]:
        grown = torch.maximum(frames[:, stride:], frames[:, :-stride])
        frames, stride = torch.cat([frames[:, :stride], grown], dim=1), 2 * stride
    return frames
