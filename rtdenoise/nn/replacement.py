"""Learning from pixels that were overwritten: the rule that DeepVID and DeepVID v2 share (sheet A 2.4 and 3.4)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def replaced(frames: Tensor, ratio: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, Y, X) frames with a share `ratio` of the pixels of each overwritten by others of the same frame, and (B, n)
    where: flat places, each once. The values come from anywhere in the frame, each origin once, too.
    """
    flat = frames.flatten(1)
    n_pixels = flat.shape[1]
    draws = [torch.randperm(n_pixels, generator=generator)[: int(ratio * n_pixels)] for _ in range(2 * len(flat))]
    places, origins = torch.stack(draws).to(frames.device).reshape(2, len(flat), -1)
    return flat.scatter(1, places, flat.gather(1, origins)).view_as(frames), places


def masked_mse(predicted: Tensor, wanted: Tensor, places: Tensor) -> Tensor:
    """Mean squared error of (B, Y, X) frames at (B, n) flat places alone."""
    gap = predicted.flatten(1).gather(1, places) - wanted.flatten(1).gather(1, places)
    return gap.square().mean()


def elastic(parameters: Iterable[Tensor]) -> Tensor:
    """sum |p| + sum p^2 over all numbers, not their mean."""
    together = torch.cat([p.flatten() for p in parameters])
    return together.abs().sum() + together.square().sum()


def least_side(ratio: float) -> int:
    """Side in pixels of the smallest square frame of which `ratio` is a whole pixel."""
    return next(side for side in range(1, 10_000) if int(ratio * side * side))
