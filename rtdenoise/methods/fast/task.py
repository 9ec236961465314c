"""How FAST learns: Noise2Noise in space and time (sheet C 1.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Batch, Losses, Network
from rtdenoise.nn.sampling import pairs_per_frame, view

LEARNING_RATE = 1e-4
"""Published, constant (sheet C 1.4)."""
WEIGHT_DECAY = 0.9
"""Published, as an L2 term of Adam's gradient, against a loss in squared counts (sheet C 1.4)."""
PATCHES = 10
PATCH_PX = 20
"""The projection term compares the means of ten random 20 x 20 patches (sheet C 1.4)."""
SEEDS = 2**31


class FastTask:
    """Every input pixel is one of a 2x2 block in one of two adjacent frames; its target is a side neighbour in the
    other frame.

    The authors train on counts with the mean removed; here frames are also divided by `scale`, so the same objective
    reads, after dividing it by scale^2: both squared terms unchanged, the projection (an absolute error) over scale,
    the weight decay over scale^2. For the first and the last convolution this is an approximation: counts leave
    their scale in those weights, which BatchNorm and the readout undo.

    pattern: `frame` chooses pixels for every frame anew, as published. A frame that is target in one position is mostly
    input in another, and its target pixel is then input one time in four: the network learns to let noise through, more
    with every step. `window` chooses the same pixels in all frames of a window, so no target pixel is ever an input.
    """

    def __init__(self, network: Network, pattern: Literal["window", "frame"] = "window") -> None:
        if pattern not in ("window", "frame"):
            raise ConfigError(f"FAST deals pixels by `window` or by `frame`, not by {pattern!r}")
        self.frames, self.pattern = network.window.size, pattern
        self.clip_frames = self.frames + 1
        self.min_crop = 2 * PATCH_PX

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """Turned, mirrored and dealt out at random, then `loss_terms`. Raises ConfigError when the crop is too small
        or odd.
        """
        clips, generator = batch.clips, batch.generator
        height, width = clips.shape[-2:]
        if min(height, width) < self.min_crop or height % 2 or width % 2:
            raise ConfigError(f"FAST trains on even crops of at least {self.min_crop} px, got {height} x {width}")
        inputs, targets = deal(_turned(clips, generator), generator)
        seed = int(torch.randint(0, SEEDS, (), generator=generator))
        patterns = self.frames if self.pattern == "frame" else 1
        pairs = pairs_per_frame(len(clips) * patterns, (height // 2, width // 2), seed)
        pairs = pairs.reshape(len(clips), patterns, height // 2, width // 2)
        draw = Draw(pairs.expand(-1, self.frames, -1, -1), _corners(pairs.shape[-2:], generator))
        return loss_terms(network, inputs, targets, draw, batch.scale)

    def schedule(self, progress: float) -> float:
        """Constant (sheet C 1.4)."""
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam with amsgrad (sheet C 1.4); the decay follows the units, see the class."""
        decay = WEIGHT_DECAY / scale**2
        return torch.optim.Adam(network.parameters(), lr=learning_rate, amsgrad=True, weight_decay=decay)


def deal(clips: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two (B, C, Y, X) windows from (B, C + 1, Y, X) clips: of frames i and i + 1 a coin says which is input i and
    which is target i.
    """
    coins = torch.randint(0, 2, (clips.shape[0], clips.shape[1] - 1, 1, 1), generator=generator).bool().to(clips.device)
    now, later = clips[:, :-1], clips[:, 1:]
    return torch.where(coins, later, now), torch.where(coins, now, later)


@dataclass(slots=True, frozen=True)
class Draw:
    """What chance decides in one step: pixel pairs (B, C, Y/2, X/2) and upper left corners (n, 2) of the patches."""

    pairs: Tensor
    corners: Tensor


def loss_terms(network: nn.Module, inputs: Tensor, targets: Tensor, draw: Draw, scale: Tensor) -> Losses:
    """MSE(p, y) + projection(p, y) / scale + MSE(p, q), all of weight 1 (sheet C 1.4).

    p: the network on the first view of `inputs`; y: the second view of `targets`; q: the first view of the network
    on whole `inputs`, a target only. inputs, targets: (B, C, Y, X); scale: (B,).
    """
    predicted = network(view(inputs, draw.pairs, 0))
    with torch.no_grad():
        whole = view(network(inputs), draw.pairs, 0)
    wanted = view(targets, draw.pairs, 1)
    noise2noise = F.mse_loss(predicted, wanted)
    projection = projection_loss(predicted, wanted, draw.corners, scale)
    consistency = F.mse_loss(predicted, whole)
    terms = {"noise2noise": noise2noise, "projection": projection, "consistency": consistency}
    total = noise2noise + projection + consistency
    return Losses(total, {name: float(term.detach()) for name, term in terms.items()})


def projection_loss(predicted: Tensor, wanted: Tensor, corners: Tensor, scale: Tensor) -> Tensor:
    """Sum over patches of the mean, over batch and channels, of |difference of patch means| / scale."""
    gap = predicted - wanted
    patches = [gap[..., y : y + PATCH_PX, x : x + PATCH_PX].mean((-2, -1)) for y, x in corners.tolist()]
    return (torch.stack(patches).abs() / scale[None, :, None]).mean((1, 2)).sum()


def _corners(blocks: torch.Size, generator: torch.Generator) -> Tensor:
    draws = [torch.randint(0, side - PATCH_PX + 1, (PATCHES,), generator=generator) for side in blocks]
    return torch.stack(draws, dim=1)


def _turned(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Each clip turned by a quarter 0 to 3 times and mirrored in X and Y with probability 1/2; oblong crops turn by
    halves only.
    """
    square = clips.shape[-2] == clips.shape[-1]
    draws = torch.randint(0, 4, (len(clips), 2), generator=generator).tolist()
    turned = []
    for clip, (quarters, mirrors) in zip(clips, draws, strict=True):
        flips = [axis for axis, bit in ((-1, 1), (-2, 2)) if mirrors & bit]
        turned.append(torch.rot90(clip, quarters if square else 2 * (quarters % 2), (-2, -1)).flip(flips))
    return torch.stack(turned)
