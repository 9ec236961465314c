"""Guided temporal fusion: the features around a frame, brought to where its objects are (sheet C 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdenoise.nn.flow import optical_flow, warped


def velocity(frames: Tensor) -> Tensor:
    """(B, 2, Y, X) pixels per frame at the centre of a window (B, T, Y, X), from the mean of the frames before it to the
    mean of those after it. The centre itself is not looked at.
    """
    centre = frames.shape[1] // 2
    before, after = frames[:, :centre].mean(1, keepdim=True), frames[:, centre + 1 :].mean(1, keepdim=True)
    return optical_flow(before, after) / (centre + 1)


class GuidedFusion(nn.Module):
    """W + sigmoid(gate(v, W, J)) * residual(v, J): W the mean of the weighted and warped features around, J the weighted
    features of the centre frame, v the velocity (sheet C 4.2). Live, J is 0.

    Layers as sheet C 4.4 suggests (two 3x3 convolutions for the gate, one for the residual); the slides give no sizes. They
    warp every frame by a flow of its own to the noisy centre frame. Here one velocity that has not seen the
    centre serves all: six flows would cost more than the network, and a flow to the centre carries its noise.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.gate = nn.Sequential(
            nn.Conv2d(2 + 2 * features, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
            nn.Sigmoid(),
        )
        self.residual = nn.Conv2d(2 + features, features, 3, padding=1)

    def forward(self, features: Tensor, motion: Tensor, weights: Tensor) -> Tensor:
        """(B, T * features, Y, X) features frame by frame, `motion` (B, 2, Y, X) in pixels per frame and `weights` (T,)
        -> the features, the fused ones in the place of the centre's.
        """
        batch, frames, (height, width) = len(features), len(weights), features.shape[-2:]
        centre = frames // 2
        each = features.reshape(batch, frames, self.features, height, width) * weights[:, None, None, None]
        around = torch.cat([each[:, :centre], each[:, centre + 1 :]], 1)
        steps = torch.tensor([float(i - centre) for i in range(frames) if i != centre], device=motion.device)
        flows = motion[:, None] * steps[:, None, None, None]
        mean = warped(around.flatten(0, 1), flows.flatten(0, 1)).reshape(around.shape).mean(1)
        own = each[:, centre]
        gate = self.gate(torch.cat([motion, mean, own], 1))
        fused = mean + gate * self.residual(torch.cat([motion, own], 1))
        start = centre * self.features
        return torch.cat([features[:, :start], fused, features[:, start + self.features :]], 1)
