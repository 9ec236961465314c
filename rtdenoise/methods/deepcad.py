"""DeepCAD: a 3-D U-Net that learns every second frame from the frames between them, Nat. Methods 2021."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Network
from rtdenoise.nn.unet3d import EIGHTH, UNet3d

FITS = ("pad", "resize")
WIDTH = 64
"""Maps of DeepCAD's first level (sheet B 3.2)."""
FRAMES = 32
"""Frames of a window: engineering choice, near the 40 of the authors' real-time mode (sheet B 4.3) and a multiple of 8."""


class UNet3dNetwork(Network):
    """The network of DeepCAD, DeepCAD-RT and DeepBID: `(B, T, Y, X)` -> the same, any T; 1,020,337 parameters at the
    width 16 of the last two, 16,315,585 at DeepCAD's 64 (sheet B 3.2).

    width: maps of the first level.  frames: T of the window that is exported, the middle half of which is kept.
    fit: frames whose sides are no multiples of 8 are continued below and on the right with their last pixels (`pad`; T
    must be a multiple of 8), or, as upstream, every up-sampled map is resized to its skip's size (`resize`; T, Y, X of
    at least 8). At multiples of 8 both are the same. Raises ConfigError for facts that do not fit.
    """

    def __init__(self, width: int = WIDTH, frames: int = FRAMES, fit: str = "pad") -> None:
        super().__init__()
        _check(width, frames, fit)
        self.window = WindowSpec(frames, range(frames), hop=frames // 2)
        self.facts = {"width": width, "frames": frames, "fit": fit}
        self.min_side = 1 if fit == "pad" else EIGHTH
        self.fit = fit
        self.unet = UNet3d(width)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        if self.fit == "resize":
            return self.unet(frames.unsqueeze(1)).squeeze(1)  # type: ignore[no-any-return]
        return trimmed(self.unet(padded(frames).unsqueeze(1)).squeeze(1), frames)


def padded(frames: Tensor) -> Tensor:
    """`(B, T, Y, X)` with its last row and column repeated up to multiples of 8."""
    more = [(size + EIGHTH - 1) // EIGHTH * EIGHTH - size for size in frames.shape[-2:]]
    return F.pad(frames, (0, more[1], 0, more[0]), mode="replicate")


def trimmed(out: Tensor, frames: Tensor) -> Tensor:
    """Without what `padded` added to `frames`."""
    return out[..., : frames.shape[-2], : frames.shape[-1]]


def _check(width: int, frames: int, fit: str) -> None:
    if width < 1:
        raise ConfigError(f"the 3-D U-Net needs a width of 1 or more, got {width}")
    if fit not in FITS:
        raise ConfigError(f"the 3-D U-Net fits frames by {' or '.join(FITS)}, not by {fit!r}")
    if frames < EIGHTH or (fit == "pad" and frames % EIGHTH):
        raise ConfigError(f"the 3-D U-Net needs frames to be a multiple of {EIGHTH}, got {frames}; see also fit=resize")
