"""The middle of SRDTrans: each pixel attends over time, then each point in time over space (sheet C 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.methods.ted.swin import WindowAttention, seam_marks, whole, windowed

SIDE = 7
"""Of an attention window in px (sheet C 3.2)."""
SHIFTS = (0, 3)
"""Pixels that the windows of the two space blocks are shifted by (sheet C 3.2)."""
TIME_LAYERS = 2
"""Of the time transformer (sheet C 3.2)."""


class TimeAttention(nn.Module):
    """`(P, N, C)` -> the same: the N tokens of each of P pixels attend to each other. No bias before the heads."""

    def __init__(self, embed: int, heads: int, drop: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, drop
        self.qkv = nn.Linear(embed, 3 * embed, bias=False)
        self.proj = nn.Linear(embed, embed)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        per_head = x.shape[-1] // self.heads
        parts = self.qkv(x).unflatten(-1, (3, self.heads, per_head)).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0] * per_head**-0.5, parts[1], parts[2]
        shares = F.dropout((query @ key.transpose(-2, -1)).softmax(-1), self.drop, self.training)
        mixed = (shares @ value).transpose(1, 2).flatten(-2)
        return F.dropout(self.proj(mixed), self.drop, self.training)


class TimeLayer(nn.Module):
    """Attention over the tokens of a pixel, then an MLP, each behind a norm and beside a shortcut."""

    def __init__(self, embed: int, heads: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(embed), nn.LayerNorm(embed)
        self.attn = TimeAttention(embed, heads, drop)
        self.mlp = mlp(embed, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class TimeTransformer(nn.Module):
    """`(P, N, C)` -> the same, for P pixels of N tokens in time, whose places the network learns."""

    def __init__(self, tokens: int, embed: int, heads: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, tokens, embed))
        nn.init.trunc_normal_(self.positions, std=0.02)  # as transformers commonly begin
        self.layers = nn.ModuleList([TimeLayer(embed, heads, hidden, drop) for _ in range(TIME_LAYERS)])
        self.norm = nn.LayerNorm(embed)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)  # type: ignore[no-any-return]


class SpaceBlock(nn.Module):
    """`(B, Y, X, C)` -> the same, any Y and X: attention in windows of 7 x 7 px, shifted cyclically by `shift`.

    Zeros fill Y and X up to whole windows after the norm. In the unshifted block pixels do attend to them, as
    published: it shows within 7 px of the lower and the right border (sheet C 3.2).
    """

    def __init__(self, embed: int, heads: int, hidden: int, shift: int, drop: float) -> None:
        super().__init__()
        self.shift = shift
        self.norm1, self.norm2 = nn.LayerNorm(embed), nn.LayerNorm(embed)
        self.attn = WindowAttention(embed, heads, SIDE, drop)
        self.mlp = mlp(embed, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        height, width = x.shape[1:3]
        y = filled(self.norm1(x))
        marks = windowed(seam_marks(y, self.shift), SIDE) if self.shift else None
        y = torch.roll(y, (-self.shift, -self.shift), (1, 2)) if self.shift else y
        y = whole(self.attn(windowed(y, SIDE), marks), y.shape, SIDE)
        y = torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y
        x = x + y[:, :height, :width]
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Maps `(B, C, N, Y, X)` -> the same: over time for every pixel, then over space for every N."""

    def __init__(self, tokens: int, embed: int, heads: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.time = TimeTransformer(tokens, embed, heads, hidden, drop)
        self.space = nn.ModuleList([SpaceBlock(embed, heads, hidden, shift, drop) for shift in SHIFTS])

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        batch, embed, tokens, height, width = maps.shape
        x = self.time(maps.permute(0, 3, 4, 2, 1).reshape(-1, tokens, embed))
        x = x.view(batch, height, width, tokens, embed).permute(0, 3, 1, 2, 4)
        x = x.reshape(batch * tokens, height, width, embed)
        for block in self.space:
            x = block(x)
        return x.view(batch, tokens, height, width, embed).permute(0, 4, 1, 2, 3)  # type: ignore[no-any-return]


def mlp(embed: int, hidden: int) -> nn.Sequential:
    """Two linear layers with GELU between."""
    return nn.Sequential(nn.Linear(embed, hidden), nn.GELU(), nn.Linear(hidden, embed))


def filled(tokens: Tensor) -> Tensor:
    """`(B, Y, X, C)` with zeros below and on the right up to whole windows."""
    height, width = ((side + SIDE - 1) // SIDE * SIDE for side in tokens.shape[1:3])
    # Padded by a fixed number and cut: sizes of pads that depend on the frame do not export well.
    return F.pad(tokens, (0, 0, 0, SIDE - 1, 0, SIDE - 1))[:, :height, :width]
