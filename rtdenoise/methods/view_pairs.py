"""How DeepCAD, DeepCAD-RT and DeepBID learn: one noisy view of a scene is the input, another is the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Batch, Losses, Network
from rtdenoise.nn.unet3d import EIGHTH

LEARNING_RATE = 5e-5
"""Published for all three, constant (sheet B 3.4, 4.4, 5.4)."""
BETAS = (0.5, 0.999)
"""Of Adam, published for all three (sheet B 3.4, 4.4, 5.4)."""
ABSOLUTE = 0.5
"""Weight of the mean absolute error; the mean squared error has the rest (sheet B 3.4, 4.4, 5.4)."""
PUBLISHED_FRAMES = {"deepcad": 150, "deepcadrt": 150, "deepbid": 100}
"""Frames of one view in the authors' training: too many for a CPU (sheet B 3.3, 4.3, 5.3)."""
MIN_CROP = 32
"""Engineering choice: four pixels a side at the coarsest level."""

Views = tuple[Tensor, Tensor]


def frames(clips: Tensor) -> Views:
    """`(..., 2 S, Y, X)` -> even and odd frames, both `(..., S, Y, X)` (sheet B 3.1)."""
    return clips[..., 0::2, :, :], clips[..., 1::2, :, :]


def scans(clips: Tensor) -> Views:
    """`(..., S, Y, X)` -> even and odd rows, both `(..., S, Y / 2, X)`: the two sweeps over each line of a bidirectional
    recording whose raw frames have Y = 2 X (sheet B 5.4 a).
    """
    return clips[..., 0::2, :], clips[..., 1::2, :]


def lines(clips: Tensor) -> Views:
    """`(..., 2 S, Y, X)` -> even and odd rows, both `(..., S, Y, X)`: those of frame 2 i + 1 stand below those of 2 i
    (sheet B 5.4 b).
    """
    even, odd = scans(clips)
    return _stacked(even), _stacked(odd)


def _stacked(halves: Tensor) -> Tensor:
    return torch.cat(frames(halves), dim=-2)


VIEWS: Mapping[str, Callable[[Tensor], Views]] = {"frame": frames, "biscan": scans, "line": lines}


class ViewPairsTask:
    """0.5 L1 + 0.5 MSE between the network on one view and the other view (sheet B 3.4).

    The authors train in counts. Frames here are divided by `scale`, so the same loss, over scale^2, has its absolute
    part over scale once more: the squared error decides, as it does for them.

    On a CPU `bf16-mixed` needs 24 frames or more in a view: torch 2.13 makes weight gradients of two frames, which is
    what the coarsest level has of 16, not a number, and the training stops.

    views: `frame`, `biscan` or `line`, see the functions above.  frames: of one view; the network's window when 0.
    absolute: weight of the absolute error. It pulls towards the median, and photon noise is skewed; 0 leaves the
    squared error, which learns the mean.  augment: views change places with probability 1/2, and each clip is turned by
    one of the 8 symmetries of a square (sheet B 4.4, 5.4); the clips of a step are transposed all or none, since
    `biscan` views are oblong.
    """

    min_crop = MIN_CROP

    def __init__(
        self,
        network: Network,
        views: str = "frame",
        frames: int = 0,
        absolute: float = ABSOLUTE,
        augment: bool = True,
    ) -> None:
        size = frames or network.window.size
        _check(views, size, absolute)
        self.clip_frames = size if views == "biscan" else 2 * size
        self.views, self.absolute, self.augment = VIEWS[views], absolute, augment

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """See the class. Raises ConfigError for crops with an odd number of rows."""
        if batch.clips.shape[-2] % 2:
            raise ConfigError(f"views are taken from crops of even height, got {batch.clips.shape[-2]} rows")
        given, wanted = self.views(batch.clips)
        if self.augment:
            given, wanted = turned(torch.stack(exchanged(given, wanted, batch.generator)), batch.generator)
        gap = network(given) - wanted
        scale = batch.scale.to(gap)[:, None, None, None]
        parts = {"squared": (1 - self.absolute) * gap.square().mean()}
        if self.absolute:
            parts["absolute"] = self.absolute * (gap.abs() / scale).mean()
        return Losses(torch.stack(list(parts.values())).sum(), {name: part.item() for name, part in parts.items()})

    def schedule(self, progress: float) -> float:
        """Constant (sheet B 3.4, 4.4, 5.4)."""
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam with the published betas."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=BETAS)


def exchanged(given: Tensor, wanted: Tensor, generator: torch.Generator) -> Views:
    """Both `(B, S, Y, X)`, the views of each clip in the order that a coin says."""
    coins = torch.randint(0, 2, (len(given), 1, 1, 1), generator=generator).bool().to(given.device)
    return torch.where(coins, wanted, given), torch.where(coins, given, wanted)


def turned(pairs: Tensor, generator: torch.Generator) -> Tensor:
    """`(2, B, S, Y, X)`, both views of a clip mirrored in Y, X, both or none; all of them transposed or none."""
    *draws, transposed = torch.randint(0, 4, (pairs.shape[1] + 1,), generator=generator).tolist()
    flips = [[axis for axis, bit in ((-1, 1), (-2, 2)) if draw & bit] for draw in draws]
    mirrored = torch.stack([pair.flip(axes) for pair, axes in zip(pairs.unbind(1), flips, strict=True)], 1)
    return mirrored.transpose(-1, -2) if transposed % 2 else mirrored


def _check(views: str, size: int, absolute: float) -> None:
    if views not in VIEWS:
        raise ConfigError(f"there are no views {views!r}; choose one of {', '.join(VIEWS)}")
    if size < EIGHTH or size % EIGHTH:
        raise ConfigError(f"the frames of a view must be a multiple of {EIGHTH}, got {size}")
    if not 0 <= absolute <= 1:
        raise ConfigError(f"absolute is a share from 0 to 1, got {absolute}")
