"""The 3-D U-Net of DeepCAD, DeepCAD-RT and DeepBID (sheet B 3.2): convolutions and ReLU, no norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 3
"""Poolings; each halves T, Y and X (sheet B 3.2)."""
EIGHTH = 2**LEVELS


class DoubleConv(nn.Module):
    """Two 3x3x3 convolutions with zero padding and ReLU."""

    def __init__(self, inputs: int, between: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, between, 3, padding=1)
        self.second = nn.Conv3d(between, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, Y, X) -> (B, outputs, T, Y, X)."""
        return F.relu(self.second(F.relu(self.first(x))))


class UNet3d(nn.Module):
    """(B, 1, T, Y, X) -> the same; any size of at least 8 per axis: what is up-sampled takes the size of its skip.

    width: maps of the first level; 64 (DeepCAD) makes 16,315,585 parameters, 16 (DeepCAD-RT, DeepBID) 1,020,337.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        maps = [width * 2**level for level in range(LEVELS + 1)]
        inputs = [1, *maps[:-1]]
        self.encoders = nn.ModuleList(DoubleConv(a, max(b // 2, a), b) for a, b in zip(inputs, maps, strict=True))
        self.decoders = nn.ModuleList(
            DoubleConv(maps[level + 1] + maps[level], maps[level], maps[level]) for level in reversed(range(LEVELS))
        )
        self.final = nn.Conv3d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        skips = []
        for level, encoder in enumerate(self.encoders):
            x = encoder(F.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for decoder in self.decoders:
            skip = skips.pop()
            x = decoder(torch.cat([skip, F.interpolate(x, size=skip.shape[2:])], 1))
        return self.final(x)  # type: ignore[no-any-return]
