"""Swin transformer blocks over every pixel of a frame (sheet A 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

APART = -100.0
"""Added to the score of two pixels that only the cyclic shift made neighbours (sheet A 4.2)."""
MLP_RATIO = 2
"""Hidden width of a block's MLP over its width (sheet A 4.2)."""


class DropPath(nn.Module):
    """In training leaves a whole branch out, per window of frames, with probability `share`."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if not self.training or self.share == 0:
            return x
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.share
        return x * kept.to(x.dtype) / (1 - self.share)


class WindowAttention(nn.Module):
    """`(windows, N, embed)` -> the same: the N = side^2 pixels of each window attend to each other.

    `seams`: (windows, N, 4) from `seam_marks`, or None. They ride along as four more channels of query and key, whose
    product is 0 or `APART` per crossed seam: the published mask without a (windows, N, N) tensor, exact in half precision
    too. Heads take turns, so that the scores of one head at a time are in memory.
    """

    def __init__(self, embed: int, heads: int, side: int, drop: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, drop
        self.qkv = nn.Linear(embed, 3 * embed)
        self.proj = nn.Linear(embed, embed)
        self.bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)  # as Swin transformers begin
        self.bias_index: Tensor
        self.register_buffer("bias_index", relative_index(side), persistent=False)

    def forward(self, tokens: Tensor, seams: Tensor | None) -> Tensor:
        """See the class."""
        per_head = tokens.shape[-1] // self.heads
        parts = self.qkv(tokens).split(per_head, dim=-1)
        queries, keys, values = (parts[i * self.heads : (i + 1) * self.heads] for i in range(3))
        bias = self.bias_table[self.bias_index].permute(2, 0, 1)
        heads = zip(queries, keys, values, bias, strict=True)
        return self.proj(torch.cat([self._mix(q, k, v, b, seams) for q, k, v, b in heads], dim=-1))  # type: ignore[no-any-return]

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, seams: Tensor | None) -> Tensor:
        query = query * query.shape[-1] ** -0.5
        if seams is not None:
            query, key = torch.cat([query, APART * seams], -1), torch.cat([key, 1 - seams], -1)
        shares = (query @ key.transpose(1, 2) + bias).softmax(-1)
        return F.dropout(shares, self.drop, self.training) @ value


class SwinBlock(nn.Module):
    """`(B, Y, X, embed)` -> the same, Y and X multiples of `side`; windows cyclically shifted by `shift` pixels."""

    def __init__(self, embed: int, heads: int, side: int, shift: int, drop: float, drop_path: float) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1, self.norm2 = nn.LayerNorm(embed), nn.LayerNorm(embed)
        self.attn = WindowAttention(embed, heads, side, drop)
        self.mlp = nn.Sequential(nn.Linear(embed, MLP_RATIO * embed), nn.GELU(), nn.Linear(MLP_RATIO * embed, embed))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, seams: Tensor) -> Tensor:
        """See the class; `seams` from `seam_marks`."""
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        marks = windowed(seams, self.side) if self.shift else None
        y = whole(self.attn(windowed(y, self.side), marks), x.shape, self.side)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


def windowed(x: Tensor, side: int) -> Tensor:
    """`(B, Y, X, C)` -> `(B * windows, side^2, C)`, row by row."""
    batch, height, width, channels = x.shape
    cut = x.view(batch, height // side, side, width // side, side, channels)
    return cut.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, channels)


def whole(windows: Tensor, shape: torch.Size, side: int) -> Tensor:
    """The inverse of `windowed`."""
    batch, height, width, channels = shape
    grid = windows.view(batch, height // side, width // side, side, side, channels)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)


def seam_marks(x: Tensor, shift: int) -> Tensor:
    """For tokens like `x` (B, Y, X, C), after the shift: (B, Y, X, 4) of which side of the seam a pixel is on.

    Channels: not beyond the seam in Y, beyond it, not beyond it in X, beyond it; 0 or 1 in the type of `x`.
    """
    batch, height, width, _ = x.shape
    beyond_y = (torch.arange(height, device=x.device) >= height - shift).to(x.dtype)[:, None].expand(height, width)
    beyond_x = (torch.arange(width, device=x.device) >= width - shift).to(x.dtype)[None].expand(height, width)
    marks = torch.stack([1 - beyond_y, beyond_y, 1 - beyond_x, beyond_x], dim=-1)
    return marks.expand(batch, height, width, 4)


def relative_index(side: int) -> Tensor:
    """(side^2, side^2) row of the bias table for each pair of pixels: by difference in Y, then in X."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    dy = y.flatten()[:, None] - y.flatten()[None]
    dx = x.flatten()[:, None] - x.flatten()[None]
    return (dy + side - 1) * (2 * side - 1) + dx + side - 1
