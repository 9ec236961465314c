"""How SN2N learns: the two diagonals of every 2x2 block are two noisy views of one image (sheet C 2.4)."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Batch, Losses, Network

LEARNING_RATE = 2e-4
BETAS = (0.5, 0.999)
"""Of Adam (sheet C 2.4)."""
CONSTRAINT = 1.0
"""Weight w of the self-constraint (sheet C 2.4)."""
MIN_CROP = 32
"""Two pixels at the lowest level, so that a norm has something to measure."""


class Sn2nTask:
    """Each view is the input of the other's prediction, and both shall give the same (sheet C 2.4).

    error: `mae` as published, or `mse`: photon noise is skewed, its median lies below its mean, and the absolute error
    learns the median. constraint: weight w of |f(x) - f(y)|; 0 leaves |f(x) - y| alone, as published.
    upsampling: `fourier` brings the half-size views back to full size, as published; `none`, the authors' option
    (`ifx2=False`), learns at half the size. Images from fluorescence microscopes of high resolution are smooth over
    several pixels; where they are not, a network that saw only upsampled images has never met noise of single pixels.
    pairs: `diagonals` as published, or `lines`: the means along each of the two lines of a block. Photomultiplier noise
    runs on into the next pixel of a line: in simulated movies the noise of the two diagonals has a correlation of 0.07,
    that of the two lines of 0.00. But lines lie a pixel apart, which diagonals do not. Turned by halves only, so that
    lines stay lines. After 100 steps lines were 0.7 dB ahead in a movie of 0 dB and 0.7 dB behind at 10 dB.
    """

    def __init__(
        self,
        network: Network,
        error: Literal["mae", "mse"] = "mae",
        constraint: float = CONSTRAINT,
        upsampling: Literal["fourier", "none"] = "fourier",
        pairs: Literal["diagonals", "lines"] = "diagonals",
    ) -> None:
        _check(error, constraint, upsampling, pairs)
        self.clip_frames = network.window.size
        self.doubled, self.across = upsampling == "fourier", pairs == "lines"
        self.min_crop = MIN_CROP if self.doubled else 2 * MIN_CROP
        self._error, self._constraint = error, constraint

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """[E(f(x), y) + E(f(y), x) + w E(f(x), f(y))] / (2 + w). Raises ConfigError for a crop that is odd or too
        small.
        """
        x, y = self.views(batch.clips, batch.generator)
        if self._constraint == 0:
            total = self._distance(network(x), y)
            return Losses(total, {self._error: float(total.detach())})
        # One call for both: the norms see twice the crops, and a processor works better.
        of_x, of_y = network(torch.cat([x, y])).chunk(2)
        crossed = self._distance(of_x, y) + self._distance(of_y, x)
        constraint = self._constraint * self._distance(of_x, of_y)
        whole = 2 + self._constraint
        terms = {self._error: crossed / whole, "constraint": constraint / whole}
        return Losses(torch.stack(list(terms.values())).sum(), {k: float(v.detach()) for k, v in terms.items()})

    def views(self, clips: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two noisy views of `clips` (B, T, Y, X), turned and mirrored alike."""
        sides = clips.shape[-2:]
        if min(sides) < self.min_crop or any(side % 2 for side in sides):
            raise ConfigError(f"SN2N trains on even crops of at least {self.min_crop} px, got {sides[0]} x {sides[1]}")
        x, y = lines(clips) if self.across else diagonals(clips)
        both = torch.stack([x, y], 1)
        if self.doubled:
            both = fourier_doubled(both)
        x, y = turned(both, generator, quarters=not self.across).unbind(1)
        return x, y

    def schedule(self, progress: float) -> float:
        """Constant. The authors halve the rate when the last batch's loss of an epoch has not fallen for ten epochs (sheet
        C 2.4): `schedule = "plateau"` of a recipe does so by the validation loss.
        """
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam (sheet C 2.4)."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=BETAS)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        return F.l1_loss(a, b) if self._error == "mae" else F.mse_loss(a, b)


def diagonals(clips: Tensor) -> tuple[Tensor, Tensor]:
    """`(..., Y, X)` -> two of `(..., Y/2, X/2)`: means of the falling and of the rising diagonal of every block."""
    left = (clips[..., 0::2, 0::2] + clips[..., 1::2, 1::2]) / 2
    right = (clips[..., 0::2, 1::2] + clips[..., 1::2, 0::2]) / 2
    return left, right


def lines(clips: Tensor) -> tuple[Tensor, Tensor]:
    """`(..., Y, X)` -> two of `(..., Y/2, X/2)`: means of the upper and of the lower line of every block."""
    pairs = (clips[..., 0::2] + clips[..., 1::2]) / 2
    return pairs[..., 0::2, :], pairs[..., 1::2, :]


def fourier_doubled(images: Tensor) -> Tensor:
    """`(..., Y, X)` -> `(..., 2Y, 2X)` by the authors' resampling (sheet C 2.4).

    They cut what falls below 0 afterwards, in images whose darkest pixel is 0; normalised frames have no such floor.
    """
    rows, columns = (doubling(side).to(images) for side in images.shape[-2:])
    return rows @ images @ columns.T


@lru_cache(maxsize=16)
def doubling(side: int) -> Tensor:
    """(2 * side, side) float64: what Fourier resampling does along one axis: mirrored by half a side at both ends, then 2n - 1
    samples where there were n, of which the middle is kept; sheet C 2.4 gives it for 64 px.
    """
    margin = side // 2
    padded = np.pad(np.eye(side), ((margin, margin), (0, 0)), mode="symmetric")
    n = len(padded)
    fine = np.fft.irfft(np.fft.rfft(padded, axis=0), n=2 * n - 1, axis=0) * (2 * n - 1) / n
    first = 2 * margin - 1
    return torch.from_numpy(fine[first : first + 2 * side])


def turned(views: Tensor, generator: torch.Generator, *, quarters: bool) -> Tensor:
    """Each item as one of the eight turned and mirrored copies of a square, or of the four without quarter turns."""
    step = 1 if quarters and views.shape[-2] == views.shape[-1] else 2
    draws = torch.randint(0, 8, (len(views),), generator=generator).tolist()
    made = [
        torch.rot90(item, draw // 2 * step, (-2, -1)).flip([-2] if draw % 2 else [])
        for item, draw in zip(views, draws, strict=True)
    ]
    return torch.stack(made)


def _check(error: str, constraint: float, upsampling: str, pairs: str) -> None:
    if error not in ("mae", "mse") or upsampling not in ("fourier", "none") or pairs not in ("diagonals", "lines"):
        raise ConfigError(
            "SN2N takes error `mae` or `mse`, upsampling `fourier` or `none` and pairs `diagonals` or `lines`, "
            f"not {error!r}, {upsampling!r} and {pairs!r}"
        )
    if not constraint >= 0:
        raise ConfigError(f"SN2N's constraint is a weight of at least 0, not {constraint}")
