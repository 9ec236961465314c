"""The two weighted samplings of STS-UVD: frames by their distance in time, pixels by their neighbours (sheet C 4.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

REACH = 2
"""Neighbours come from the 5 x 5 square around a pixel (sheet C 4.3, second-hand)."""
KAPPA_MOST = 0.2
"""Weight of the centre frame at the first step, however fast things move (sheet C 4.2)."""


def centre_weight(motion: Tensor, eta: float, progress: float) -> Tensor:
    """kappa for each clip, (B,): 0.2 (1 - exp(-eta * motion)) (1 - progress), `motion` in pixels per frame (sheet C
    4.2).
    """
    return KAPPA_MOST * (1 - torch.exp(-eta * motion)) * max(0.0, 1 - progress)


def neighbour_odds(alpha: float) -> tuple[Tensor, Tensor]:
    """(24, 2) steps right and down within `REACH`, and (24,) how probable each is: exp(-alpha * L1 distance) over their
    sum. A negative alpha prefers the far ones.
    """
    span = range(-REACH, REACH + 1)
    steps = torch.tensor([(x, y) for y in span for x in span if x or y])
    return steps, torch.softmax(-alpha * steps.abs().sum(1).double(), 0)


def resampled(shape: tuple[int, int, int], share: float, alpha: float, generator: torch.Generator) -> Tensor:
    """(n, Y, X) flat places: each pixel's own, or, for a random `share` of the pixels, that of a neighbour.

    A neighbour beyond the edge is the edge pixel. `shape` is (n, Y, X).
    """
    n, height, width = shape
    own = torch.arange(height * width).reshape(1, height, width).repeat(n, 1, 1)
    chosen = torch.rand(shape, generator=generator) < share
    _, y, x = chosen.nonzero(as_tuple=True)
    steps, odds = neighbour_odds(alpha)
    if math.prod(x.shape):
        step = steps[torch.multinomial(odds, len(x), replacement=True, generator=generator)]
        x, y = (x + step[:, 0]).clamp(0, width - 1), (y + step[:, 1]).clamp(0, height - 1)
        own[chosen] = y * width + x
    return own


def taken(maps: Tensor, places: Tensor) -> Tensor:
    """(n, C, Y, X) `maps` at (n, Y, X) flat places, the same in every map."""
    index = places.flatten(1)[:, None].expand(-1, maps.shape[1], -1)
    return maps.flatten(2).gather(2, index).view_as(maps)
