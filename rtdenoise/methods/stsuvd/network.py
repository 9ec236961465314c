"""The STS-UVD network: UMVD's, with samplings for its training, and with the frames around aligned if asked."""

from __future__ import annotations

import torch
from torch import Tensor

from rtdenoise.methods.stsuvd.fusion import GuidedFusion, velocity
from rtdenoise.methods.stsuvd.sampling import taken
from rtdenoise.methods.umvd.network import DECODER_CONVS, ENCODER_CONVS, UmvdNetwork

FUSION_MIN_SIDE = 16
"""The flow is found at 1/8 of the size, on at least 2 x 2 pixels."""


class StsUvdNetwork(UmvdNetwork):
    """STS-UVD (CVPR 2025 Workshop CVMI): T frames in, the centre frame out. Facts as of `UmvdNetwork`.

    Live, the centre frame's weight kappa is 0, so the output does not depend on it.  fusion: the empty place of the
    centre takes the frames around, aligned by their flow (`GuidedFusion`); costs a flow and T - 1 warps per frame.
    """

    def __init__(
        self,
        frames: int = 7,
        level: float = 1.0,
        features: int = 21,
        width: int = 48,
        decoder: int = 96,
        head: int = 384,
        encoder_convs: int = ENCODER_CONVS,
        decoder_convs: int = DECODER_CONVS,
        fusion: bool = False,
    ) -> None:
        super().__init__(frames, level, features, width, decoder, head, encoder_convs, decoder_convs)
        self.facts["fusion"] = fusion
        self.guided: GuidedFusion | None = None
        if fusion:
            self.guided, self.stages, self.min_side = GuidedFusion(features), None, FUSION_MIN_SIDE

    def forward(self, frames: Tensor, kappa: float = 0.0, places: Tensor | None = None) -> Tensor:
        """See `Network`. kappa: weight of the centre frame.  places: (B * T, Y, X) where each frame's features are
        taken from (see `resampled`). Both are for training only.
        """
        if kappa == 0 and places is None and self.guided is None:
            return super().forward(frames)
        slots = range(self.window.size)
        weights = kappa + (1 - kappa) * self.filter
        features = self.each(frames)
        if places is not None:
            single = features.reshape(-1, self._features, *features.shape[-2:])
            features = taken(single, places).reshape(features.shape)
        if self.guided is not None:
            centre = self.window.size // 2
            features = self.guided(features, velocity(frames), weights)
            weights = torch.cat([weights[:centre], torch.ones_like(weights[:1]), weights[centre + 1 :]])
        return self.merge(features, slots, weights)
