"""The TeD network: pyramids of dilated convolutions over 41 frames, then Swin transformer blocks (sheet A 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Network
from rtdenoise.methods.ted.gradient import temporal_gradient
from rtdenoise.methods.ted.swin import SwinBlock, seam_marks

FRAMES = 41
"""t - 20 .. t + 20 (sheet A 4.3)."""
EMBED, HEADS, GROUPS, DEPTH, SIDE = 60, 6, 5, 2, 8
"""Token width, attention heads, residual groups, blocks in each, side of an attention window in px (sheet A 4.2)."""
SLOPE = 0.2
"""Of every leaky ReLU (sheet A 4.2)."""
DILATIONS = (1, 2, 3)
"""Of the parallel convolutions (sheet A 4.2)."""
SQUEEZE = 4
"""Bottlenecks have this factor fewer maps: 60 to 15 (sheet A 4.2)."""
DROP = 0.1
"""Dropout of attention, and the share of dropped branches at the deepest block, in training (sheet A 4.2)."""
LEVEL = 1.5
"""Mean over sd of a movie. Engineering choice: simulated two-photon movies have 0.9 at 0 dB and 2.0 at 10 dB."""


class Pyramid(nn.Module):
    """`(B, frames, Y, X)` -> `(B, embed, Y, X)`: convolutions of dilation 1, 2 and 3 side by side, then one over all."""

    def __init__(self, frames: int, stem: int, embed: int) -> None:
        super().__init__()
        self.dilated = nn.ModuleList([nn.Conv2d(frames, stem, 3, padding=d, dilation=d) for d in DILATIONS])
        self.merge = conv3(len(DILATIONS) * stem, embed)
        self.active = nn.LeakyReLU(SLOPE)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        if not self.training:
            return self._seen(frames)
        # On CPUs with bfloat16, weight gradients of dilated convolutions over 41 channels come out as NaN (torch 2.13).
        with torch.autocast(frames.device.type, enabled=False):
            return self._seen(frames.float())

    def _seen(self, frames: Tensor) -> Tensor:
        seen = [self.active(conv(frames)) for conv in self.dilated]
        return self.merge(torch.cat(seen, dim=1))  # type: ignore[no-any-return]


class Group(nn.Module):
    """`(B, Y, X, embed)` tokens: Swin blocks, every second one shifted, then a bottleneck, all beside a shortcut."""

    def __init__(self, embed: int, heads: int, side: int, drop: float, drop_paths: list[float]) -> None:
        super().__init__()
        shifts = [0 if i % 2 == 0 else side // 2 for i in range(len(drop_paths))]
        self.blocks = nn.ModuleList(
            [SwinBlock(embed, heads, side, s, drop, p) for s, p in zip(shifts, drop_paths, strict=True)]
        )
        self.bottleneck = bottleneck(embed)

    def forward(self, tokens: Tensor, seams: Tensor) -> Tensor:
        """See the class."""
        x = tokens
        for block in self.blocks:
            x = block(x, seams)
        return tokens + as_tokens(self.bottleneck(as_maps(x)))


class TedNetwork(Network):
    """TeD (PhotoniX 2025, s43074-025-00173-8): 41 frames in, the middle one out; 789,822 parameters by default.

    stem: maps of each dilated convolution, `embed` (published) when 0.  groups, depth: residual groups and the Swin
    blocks in each.  level: mean / sd of the movies in counts above zero light, for rTG (see `temporal_gradient`).
    drop: see `DROP`. Y and X are filled up to multiples of `side` inside, by reflection, and the output is cut back:
    the authors' code stops at such sizes (sheet A 4.2); it equals theirs at the others.
    Attention windows begin at the upper left corner, so the output depends on the position modulo `side`.
    Raises ConfigError for facts of which no network can be made.
    """

    def __init__(
        self,
        frames: int = FRAMES,
        embed: int = EMBED,
        stem: int = 0,
        heads: int = HEADS,
        groups: int = GROUPS,
        depth: int = DEPTH,
        side: int = SIDE,
        level: float = LEVEL,
        drop: float = DROP,
    ) -> None:
        super().__init__()
        _check(frames, embed, heads, side)
        stem = stem or embed
        self.window = WindowSpec(size=frames, emits=(frames // 2,))
        self.facts = {"frames": frames, "embed": embed, "stem": stem, "heads": heads, "groups": groups}
        self.facts |= {"depth": depth, "side": side, "level": level, "drop": drop}
        self.side, self.level = side, level
        self.frames_in = Pyramid(frames, stem, embed)
        self.gate = nn.Sequential(conv3(frames, stem), nn.LeakyReLU(SLOPE), conv3(stem, frames))
        self.trusted_in = Pyramid(frames, stem, embed)
        self.norm_in, self.norm_out = nn.LayerNorm(embed), nn.LayerNorm(embed)
        paths = torch.linspace(0, drop, groups * depth).tolist()
        self.groups = nn.ModuleList(
            [Group(embed, heads, side, drop, paths[i * depth : (i + 1) * depth]) for i in range(groups)]
        )
        self.bottleneck = bottleneck(embed)
        self.head = bottleneck(embed, outputs=1, middle=3)

    def forward(self, frames: Tensor, trust: Tensor | None = None) -> Tensor:
        """See the class. trust: rTG of the frames where it is not that of these pixels, as in training."""
        height, width = frames.shape[-2:]
        trust = temporal_gradient(frames, self.level) if trust is None else trust
        output = self.denoise(filled(frames, self.side), filled(trust, self.side))
        return output[..., :height, :width]

    def denoise(self, frames: Tensor, trust: Tensor) -> Tensor:
        """`(B, T, Y, X)` frames and their rTG, Y and X multiples of `side` -> `(B, 1, Y, X)`."""
        shallow = self.frames_in(frames) + self.trusted_in(frames * torch.sigmoid(self.gate(trust)))
        tokens = self.norm_in(as_tokens(shallow))
        seams = seam_marks(tokens, self.side // 2)
        for group in self.groups:
            tokens = group(tokens, seams)
        deep = self.bottleneck(as_maps(self.norm_out(tokens))) + shallow
        return self.head(deep)  # type: ignore[no-any-return]


def filled(frames: Tensor, side: int) -> Tensor:
    """Y and X up to the next multiples of `side`, mirrored at the lower and right border; a side too short for that
    repeats its first row or column.
    """
    for axis in (-2, -1):
        length = frames.shape[axis]
        at = torch.arange((length + side - 1) // side * side, device=frames.device)
        mirrored = torch.where(at < length, at, 2 * (length - 1) - at).clamp(min=0)
        frames = frames.index_select(axis, mirrored)
    return frames


def as_tokens(maps: Tensor) -> Tensor:
    """`(B, C, Y, X)` -> `(B, Y, X, C)`."""
    return maps.permute(0, 2, 3, 1)


def as_maps(tokens: Tensor) -> Tensor:
    """`(B, Y, X, C)` -> `(B, C, Y, X)`."""
    return tokens.permute(0, 3, 1, 2)


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    """3 x 3, zeros beyond the border."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def bottleneck(embed: int, *, outputs: int = 0, middle: int = 1) -> nn.Sequential:
    """`embed` maps over a quarter as many to `outputs` (`embed` when 0); the middle kernel is `middle` px wide."""
    few = embed // SQUEEZE
    centre = nn.Conv2d(few, few, middle, padding=middle // 2)
    return nn.Sequential(
        conv3(embed, few), nn.LeakyReLU(SLOPE), centre, nn.LeakyReLU(SLOPE), conv3(few, outputs or embed)
    )


def _check(frames: int, embed: int, heads: int, side: int) -> None:
    if frames < 3 or frames % 2 == 0:
        raise ConfigError(f"TeD denoises the middle of an odd number of frames, at least 3, not of {frames}")
    if embed < SQUEEZE or heads < 1 or embed % heads:
        raise ConfigError(f"TeD needs embed of at least {SQUEEZE} that {heads} heads can share, got {embed}")
    if side < 2 or side % 2:
        raise ConfigError(f"TeD shifts its attention windows by half: side must be even, got {side}")
