"""How TeD learns: Neighbor2Neighbor on 41 frames, one pixel of a pair for the stack, the other for the centre frame
(sheet A 4.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Batch, Losses, Network
from rtdenoise.methods.ted.gradient import temporal_gradient
from rtdenoise.methods.ted.network import TedNetwork
from rtdenoise.nn.sampling import NEIGHBOURS, view

PAIRS = ((0, 1), (1, 0), (1, 3), (3, 1), (0, 2), (2, 0), (2, 3), (3, 2))
"""Ordered pairs of a 2x2 block in the authors' order (sheet A errata to 4.4)."""
LEARNING_RATE = 1e-4
"""Published, constant (sheet A 4.4)."""
ABSOLUTE = 0.5
"""Weight of the mean absolute error; the mean squared error has the rest (sheet A 4.4)."""
BETAS = (0.5, 0.999)
"""Of Adam (sheet A 4.4)."""
CONSISTENCY = 1e-3
"""Weight of the Neighbor2Neighbor regulariser (sheet A 4.4)."""
SEEDS = 2**31

ACROSS = torch.tensor([i for i, (first, second) in enumerate(PAIRS) if abs(first - second) == 2])
"""Numbers of the pairs that lie along Y."""
_NUMBER = torch.tensor([NEIGHBOURS.index(pair) for pair in PAIRS])  # of each of PAIRS, for `view`


class TedTask:
    """One pixel of each 2x2 block of all frames and of rTG is the input; a side neighbour in the centre frame is the
    target.

    absolute: weight of the absolute error. It pulls towards the median, and photon noise is skewed: in simulated movies of
    0 dB the published half makes the output 0.04 sd too dark, which costs 0.6 dB (a network of the recipe's size, 7,000
    steps). 0 leaves the squared error, which learns the mean.
    pairs: `any` of the eight, as published. `across` takes only pairs that lie across the scan lines (Y), and turns crops
    by halves only: photomultiplier noise runs on into the next pixel of a line (correlation 0.05 to 0.13 in raw
    two-photon movies), which is then input and target both. Worth 0.6 dB in a simulated movie of 0 dB and nothing at
    10 dB (1,200 steps of the recipe's task).
    trust: rTG of whole crops, as published, is `frame`. Its two smoothings carry some of the target's noise into the
    input (sheet A 4.10a). `input` takes it from the input pixels alone.
    consistency_every: the regulariser needs the network on whole crops, four times the input, for a term of weight
    1e-3. It is worked out in one step of so many, chosen by chance, and then counts so many times: its expectation is
    the published one.
    """

    def __init__(
        self,
        network: Network,
        absolute: float = ABSOLUTE,
        pairs: Literal["any", "across"] = "any",
        trust: Literal["frame", "input"] = "frame",
        consistency_every: int = 1,
    ) -> None:
        if not isinstance(network, TedNetwork):
            raise ConfigError(f"TeD's task needs TeD's network, got {type(network).__name__}")
        _check(absolute, pairs, trust, consistency_every)
        self.clip_frames, self.min_crop = network.window.size, 2 * network.side
        self.level, self.absolute, self.consistency_every = network.level, absolute, consistency_every
        self.across, self.trust = pairs == "across", trust

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """Turned, mirrored and sampled at random, then `loss_terms`. Raises ConfigError when the crop is odd or too
        small.
        """
        height, width = batch.clips.shape[-2:]
        if min(height, width) < self.min_crop or height % 2 or width % 2:
            raise ConfigError(f"TeD trains on even crops of at least {self.min_crop} px, got {height} x {width}")
        clips = turned(batch.clips, batch.generator, quarters=not self.across)
        pairs = pixel_pairs(len(clips), (height // 2, width // 2), batch.generator, across=self.across)
        trust = temporal_gradient(clips, self.level) if self.trust == "frame" else None
        chosen = int(torch.randint(0, self.consistency_every, (), generator=batch.generator)) == 0
        seed = int(torch.randint(0, SEEDS, (), generator=batch.generator))
        devices = [clips.device.index] if clips.is_cuda else []
        with torch.random.fork_rng(devices):  # dropout draws from torch's own generator
            torch.manual_seed(seed)
            weights = Weights(self.absolute, CONSISTENCY * self.consistency_every * chosen)
            return loss_terms(network, clips, trust, pairs, weights)

    def schedule(self, progress: float) -> float:
        """Constant (sheet A 4.4)."""
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam (sheet A 4.4)."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=BETAS)


@dataclass(slots=True, frozen=True)
class Weights:
    """Of the absolute error within a distance, and of the regulariser."""

    absolute: float = ABSOLUTE
    consistency: float = CONSISTENCY


def loss_terms(network: nn.Module, clips: Tensor, trust: Tensor | None, pairs: Tensor, weights: Weights) -> Losses:
    """distance(p - y) + consistency * distance(p - y - (d1 - d2)), distance = half L1, half MSE (sheet A 4.4).

    p: the network on the first view of `clips` (B, T, Y, X) and of rTG `trust`, its own where None; y: the second view
    of the centre frame; d1, d2: both views of the network on whole clips, without gradient. pairs: (B, Y/2, X/2).
    """
    pairs = pairs.unsqueeze(1)
    centre = clips.shape[1] // 2
    fitting = None if trust is None else view(trust, pairs, 0)
    gap = network(view(clips, pairs, 0), fitting) - view(clips[:, centre : centre + 1], pairs, 1)
    terms = {"noise2noise": _distance(gap, weights.absolute)}
    if weights.consistency:
        with torch.no_grad():
            denoised = network(clips, trust)
            wanted = view(denoised, pairs, 0) - view(denoised, pairs, 1)
        terms["consistency"] = weights.consistency * _distance(gap - wanted, weights.absolute)
    return Losses(torch.stack(list(terms.values())).sum(), {name: float(term.detach()) for name, term in terms.items()})


def pixel_pairs(n_clips: int, blocks: tuple[int, int], generator: torch.Generator, *, across: bool = False) -> Tensor:
    """(n_clips, *blocks) pairs for `view`, one for all frames of a clip; with `across` none that lie along X."""
    size = (n_clips, *blocks)
    if across:
        return numbered(ACROSS[torch.randint(0, len(ACROSS), size, generator=generator)])
    return numbered(torch.randint(0, len(PAIRS), size, generator=generator))


def numbered(pairs: Tensor) -> Tensor:
    """Numbers in `PAIRS` -> numbers in `rtdenoise.nn.sampling.NEIGHBOURS`."""
    return _NUMBER[pairs]


def turned(clips: Tensor, generator: torch.Generator, *, quarters: bool = True) -> Tensor:
    """Each clip turned by 0 to 3 quarters and flipped upside down with probability 1/2 (sheet A 4.4); oblong crops, and
    all without `quarters`, turn by halves only.
    """
    step = 1 if quarters and clips.shape[-2] == clips.shape[-1] else 2
    draws = torch.randint(0, 8, (len(clips),), generator=generator).tolist()
    made = [
        torch.rot90(c, draw // 2 * step, (-2, -1)).flip([-2] if draw % 2 else [])
        for c, draw in zip(clips, draws, strict=True)
    ]
    return torch.stack(made)


def _distance(gap: Tensor, absolute: float) -> Tensor:
    return absolute * gap.abs().mean() + (1 - absolute) * gap.square().mean()


def _check(absolute: float, pairs: str, trust: str, consistency_every: int) -> None:
    if pairs not in ("any", "across") or trust not in ("frame", "input"):
        raise ConfigError(
            f"TeD takes pairs `any` or `across` and trust `frame` or `input`, not {pairs!r} and {trust!r}"
        )
    if not 0 <= absolute <= 1 or consistency_every < 1:
        raise ConfigError(
            f"TeD needs absolute from 0 to 1 and consistency_every of at least 1, got {absolute} and {consistency_every}"
        )
