"""Optical flow without training: Lucas and Kanade's least squares, coarse to fine, in torch operations that export."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LEVELS = 3
"""Sizes that the flow is found at: 1/2, 1/4, 1/8 of the images. Engineering choice: motion up to ~10 px."""
ITERATIONS = 2
"""Corrections per size. Engineering choice: a third follows the noise (0.43 instead of 0.33 px rms at 0 dB)."""
NEIGHBOURHOOD = 15
"""Side, in pixels of the size at hand, of the square over which motion is taken as one. Engineering choice."""
DAMPING = 0.5
"""Added to the least squares, as a share of the mean squared slope: where an image has less structure than this, the
flow stays near what the coarser size says. Engineering choice: at 0 dB it halves the error that noise makes.
"""
MOST = 1.0
"""Pixels that one correction may move. Engineering choice: beyond a pixel the linear model does not hold."""
TINY = 1e-12
"""Keeps a flat image from a division by zero."""


def optical_flow(first: Tensor, second: Tensor) -> Tensor:
    """(B, 2, Y, X) pixels to the right and down: what is at p in `first` is at p + flow(p) in `second`, both
    (B, 1, Y, X) of at least 16 x 16. The brightness unit does not matter.

    Full size is left out: three quarters of white noise live there, and little that moves smoothly.
    """
    pyramid = [(_halved(first), _halved(second))]
    for _ in range(LEVELS - 1):
        pyramid.append((_halved(pyramid[-1][0]), _halved(pyramid[-1][1])))
    flow = torch.zeros_like(pyramid[-1][0]).expand(-1, 2, -1, -1)
    for one, other in reversed(pyramid):
        flow, places = flow if one is pyramid[-1][0] else _grown(flow, one), _places(one)
        for _ in range(ITERATIONS):
            flow = flow + _correction(one, _taken(other, places + flow))
    return _grown(flow, first)


def warped(images: Tensor, flow: Tensor) -> Tensor:
    """(B, C, Y, X) `images` taken at p + flow(p), bilinear, the nearest edge pixel beyond the edges."""
    return _taken(images, _places(images) + flow)


def _places(images: Tensor) -> Tensor:
    """(1, 2, Y, X) pixels from the left and from the top."""
    height, width = images.shape[-2:]
    y = torch.arange(height, device=images.device, dtype=images.dtype)[:, None].expand(height, width)
    x = torch.arange(width, device=images.device, dtype=images.dtype)[None, :].expand(height, width)
    return torch.stack([x, y])[None]


def _taken(images: Tensor, places: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    grid = torch.stack([(2 * places[:, 0] + 1) / width - 1, (2 * places[:, 1] + 1) / height - 1], -1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def blurred(images: Tensor) -> Tensor:
    """(B, 1, Y, X) under the binomial 1 4 6 4 1 in Y and X, edges replicated: a slope of noise is no structure."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device, dtype=images.dtype) / 16
    kernel = (taps[:, None] * taps[None, :])[None, None]
    return functional.conv2d(functional.pad(images, (2, 2, 2, 2), mode="replicate"), kernel)


def _halved(images: Tensor) -> Tensor:
    return blurred(functional.avg_pool2d(images, 2))


def _grown(flow: Tensor, like: Tensor) -> Tensor:
    """`flow` at the size of `like`, twice its own, in its pixels."""
    return 2 * functional.interpolate(flow, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _correction(first: Tensor, second: Tensor) -> Tensor:
    """What the flow still lacks, at most `MOST` pixels: least squares of slope * motion = -change."""
    slopes, change = _slopes((first + second) / 2), second - first
    gx, gy = torch.split(slopes, 1, 1)
    products = torch.cat([slopes * slopes, gx * gy, slopes * change], 1)
    side = NEIGHBOURHOOD
    sums = functional.avg_pool2d(products, side, stride=1, padding=side // 2, count_include_pad=False)
    xx, yy, xy, xt, yt = torch.split(sums, 1, 1)
    damping = DAMPING * (xx + yy).mean((-2, -1), keepdim=True) + TINY
    xx, yy = xx + damping, yy + damping
    move = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], 1) / (xx * yy - xy * xy)
    return move.clamp(-MOST, MOST)


def _slopes(images: Tensor) -> Tensor:
    """(B, 2, Y, X) central differences of (B, 1, Y, X) in X and in Y, edges replicated."""
    across = [[0.0, 0.0, 0.0], [-0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]
    down = [[0.0, -0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.5, 0.0]]
    kernels = torch.tensor([[across], [down]], device=images.device, dtype=images.dtype)
    return functional.conv2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), kernels)
