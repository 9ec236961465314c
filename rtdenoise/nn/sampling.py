"""Two noisy views of one image from the pixels of its 2x2 blocks (Neighbor2Neighbor, CVPR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOURS = ((0, 1), (0, 2), (1, 3), (2, 3), (1, 0), (2, 0), (3, 1), (3, 2))
"""Ordered pairs of pixels that share a side in a block (0 top left, 1 top right, 2 bottom left, 3 bottom right);
sheet C 1.4.
"""

_PIXEL = torch.tensor(NEIGHBOURS).T.contiguous()  # (2, 8): [first or second view, pair]


def pairs_per_frame(frames: int, blocks: tuple[int, int], seed: int) -> Tensor:
    """(frames, *blocks) pair numbers 0..7; frame f draws from its own CPU generator seeded `seed + f`, row-major
    (sheet C 1.4).

    Seeding by frame keeps the pattern of a frame the same in every window that shows it.
    """
    draws = [torch.randint(0, 8, blocks, generator=torch.Generator().manual_seed(seed + f)) for f in range(frames)]
    return torch.stack(draws)


def view(images: Tensor, pairs: Tensor, which: int) -> Tensor:
    """(..., Y/2, X/2) sub-image: of every 2x2 block of `images` (..., Y, X) the first (0) or second (1) pixel of its
    pair.
    """
    *lead, height, width = images.shape
    blocks = images.reshape(*lead, height // 2, 2, width // 2, 2).transpose(-3, -2).flatten(-2)
    chosen = _PIXEL[which].to(images.device)[pairs].expand(*lead, height // 2, width // 2)
    return blocks.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
