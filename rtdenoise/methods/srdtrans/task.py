"""How SRDTrans learns: one pixel of each 2x2 block is the input, its two neighbours are the targets (sheet C 3.4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Batch, Losses, Network
from rtdenoise.methods.srdtrans.transformer import SIDE
from rtdenoise.methods.ted.task import turned

TRIPLES = ((0, 1, 2), (0, 2, 1), (1, 0, 3), (1, 3, 0), (2, 0, 3), (2, 3, 0), (3, 2, 1), (3, 1, 2))
"""Input pixel and its two side neighbours (0 top left, 1 top right, 2 bottom left, 3 bottom right), in the authors'
order (sheet C 3.4 and its erratum).
"""
ABSOLUTE = 0.5
"""Weight of the mean absolute error; the mean squared error has the rest (sheet C 3.4)."""
BETAS = (0.5, 0.999)
"""Of Adam; the published learning rate is 1e-4 (sheet C 3.4)."""
SEEDS = 2**31

_PIXELS = torch.tensor(TRIPLES)  # (8, 3)


class SrdTransTask:
    """The network sees one pixel of each 2x2 block, chosen anew for every block of every frame; both its side
    neighbours are targets.

    absolute: weight of the absolute error. It pulls towards the median, and photon noise is skewed; 0 leaves the squared
    error, which learns the mean.
    pairs: `both` neighbours, as published; `across` takes only the one in the other line and turns crops by halves only,
    because photomultiplier noise runs on into the next pixel of a line, which is then input and target both.
    Raises ConfigError for other options.
    """

    def __init__(self, network: Network, absolute: float = ABSOLUTE, pairs: Literal["both", "across"] = "both") -> None:
        if pairs not in ("both", "across"):
            raise ConfigError(f"SRDTrans takes pairs `both` or `across`, not {pairs!r}")
        if not 0 <= absolute <= 1:
            raise ConfigError(f"SRDTrans needs absolute from 0 to 1, got {absolute}")
        self.clip_frames, self.min_crop = network.window.size, 2 * SIDE
        self.absolute, self.across = absolute, pairs == "across"

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """Turned, mirrored and sampled at random; half of the distance to each target. Raises ConfigError when the crop
        is odd or too small.
        """
        height, width = batch.clips.shape[-2:]
        if min(height, width) < self.min_crop or height % 2 or width % 2:
            raise ConfigError(f"SRDTrans trains on even crops of at least {self.min_crop} px, got {height} x {width}")
        clips = turned(batch.clips, batch.generator, quarters=not self.across)
        triples = torch.randint(0, len(TRIPLES), blocks(clips), generator=batch.generator)
        given, *targets = sampled(clips, triples, across=self.across)
        seed = int(torch.randint(0, SEEDS, (), generator=batch.generator))
        devices = [clips.device.index] if clips.is_cuda else []
        with torch.random.fork_rng(devices):  # dropout draws from torch's own generator
            torch.manual_seed(seed)
            output = network(given)
        distances = [self._distance(output - target) for target in targets]
        total = torch.stack(distances).mean()
        return Losses(total, {"neighbours": float(total.detach())})

    def schedule(self, progress: float) -> float:
        """Constant (sheet C 3.4)."""
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam (sheet C 3.4)."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=BETAS)

    def _distance(self, gap: Tensor) -> Tensor:
        if self.absolute == 0:
            return gap.square().mean()
        return self.absolute * gap.abs().mean() + (1 - self.absolute) * gap.square().mean()


def blocks(clips: Tensor) -> tuple[int, ...]:
    """(B, T, Y/2, X/2): the 2x2 blocks of `clips`."""
    *lead, height, width = clips.shape
    return (*lead, height // 2, width // 2)


def sampled(clips: Tensor, triples: Tensor, *, across: bool = False) -> list[Tensor]:
    """The input and its two targets, each (B, T, Y/2, X/2), of `clips` (B, T, Y, X); triples: 0..7 for each block.

    across: the input and one target, the neighbour in the other line.
    """
    *lead, height, width = clips.shape
    pixels = clips.reshape(*lead, height // 2, 2, width // 2, 2).transpose(-3, -2).flatten(-2)
    chosen = _PIXELS[triples].to(clips.device)
    if across:
        centre = chosen[..., :1]
        chosen = torch.cat([centre, centre ^ 2], -1)  # 0 and 2, and 1 and 3, lie above each other
    return list(pixels.gather(-1, chosen).unbind(-1))
