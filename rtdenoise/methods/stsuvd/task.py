"""How STS-UVD learns: a frame from its neighbours, again and again, each time a cleaner reference (sheet C 4.2)."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Batch, Losses, Network
from rtdenoise.methods.stsuvd.fusion import velocity
from rtdenoise.methods.stsuvd.sampling import centre_weight, resampled
from rtdenoise.methods.umvd.task import published_schedule
from rtdenoise.nn.flow import optical_flow, warped

ETA = 3e-4
"""How fast motion raises kappa (sheet C 4.3, second-hand; there with the squared motion)."""
ALPHA = 3.0
"""How fast the odds of a neighbour fall with distance (sheet C 4.3, second-hand)."""
SHARE = 0.15
"""Of the pixels that are replaced (sheet C 4.3, second-hand: 10 to 20 %)."""
MIN_CROP = 16
"""The flow is found at 1/8 of the size."""


class StsUvdTask(nn.Module):
    """Two frames in a row are predicted, each from its window. `previous` is the network as it was when the present
    epoch began; it gives the references and the flow, and is saved with the training.

    epochs: of equal length, so many in a training.  recurrence: share of the previous output in the reference, the rest
    is the noisy frame; epoch 0 has the noisy frame alone.  error: of the output to the reference, `l1` as published or
    `mse` (half the squared error).  consistency: weight of the change along the flow.  eta, alpha, share: see the
    constants; a negative alpha prefers far neighbours. Raises ConfigError for values out of range.
    """

    epoch: Tensor

    def __init__(
        self,
        network: Network,
        epochs: int = 5,
        recurrence: float = 1.0,
        error: Literal["l1", "mse"] = "l1",
        consistency: float = 1.0,
        eta: float = ETA,
        alpha: float = ALPHA,
        share: float = SHARE,
    ) -> None:
        super().__init__()
        if epochs < 1 or not 0 <= recurrence <= 1 or not 0 <= share < 1 or error not in ("l1", "mse"):
            raise ConfigError(
                "STS-UVD needs epochs from 1, recurrence from 0 to 1, share from 0 to below 1 and error l1 or mse; "
                f"got {epochs}, {recurrence}, {share}, {error!r}"
            )
        self._epochs, self._recurrence, self._error = epochs, recurrence, error
        self._consistency, self._eta, self._alpha, self._share = consistency, eta, alpha, share
        self._centre = network.window.size // 2
        self.clip_frames, self.min_crop = network.window.size + 1, max(MIN_CROP, network.min_side)
        self._live = (network,)  # in a tuple, so that it is no part of this module
        self.previous = deepcopy(network).requires_grad_(False)
        self.previous.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """See `Task`. In eval mode the reference is the noisy frame and nothing is resampled, so that the loss of
        different epochs can be compared.
        """
        if self.training:
            self._begin_epoch(batch.progress)
        clips = batch.clips
        windows = torch.cat([clips[:, :-1], clips[:, 1:]])
        reference, motion = self._guides(clips, windows)
        kappa, places = self._samplings(windows, motion, batch.generator)
        given = network(windows, kappa, places)
        first, second = given.chunk(2)
        fit = F.l1_loss(given, reference) if self._error == "l1" else 0.5 * F.mse_loss(given, reference)
        change = F.mse_loss(warped(second, motion), first)
        terms = {self._error: float(fit.detach()), "consistency": float(change.detach())}
        return Losses(fit + self._consistency * change, terms | {"kappa": kappa})

    def schedule(self, progress: float) -> float:
        """UMVD's, by the same authors; none is given for STS-UVD."""
        return published_schedule(progress)

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam as for UMVD; none is given for STS-UVD."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate)

    def _begin_epoch(self, progress: float) -> None:
        epoch = min(int(progress * self._epochs), self._epochs - 1)
        if epoch != int(self.epoch):
            self.epoch.fill_(epoch)
            self.previous.load_state_dict(self._live[0].state_dict())

    @torch.no_grad()
    def _guides(self, clips: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """References (2B, 1, Y, X) of the earlier and the later frame, and the flow between them (B, 2, Y, X)."""
        noisy = torch.cat([clips[:, self._centre + i : self._centre + i + 1] for i in (0, 1)])
        if int(self.epoch) == 0:
            return noisy, velocity(clips[:, :-1])
        cleaner = self.previous(windows)
        motion = optical_flow(*cleaner.float().chunk(2))
        return torch.lerp(noisy, cleaner.to(noisy.dtype), self._recurrence) if self.training else noisy, motion

    def _samplings(self, windows: Tensor, motion: Tensor, generator: torch.Generator) -> tuple[float, Tensor | None]:
        if not self.training:
            return 0.0, None
        speed = motion.square().sum(1).sqrt().mean()
        kappa = float(centre_weight(speed, self._eta, int(self.epoch) / self._epochs))
        batch, frames, height, width = windows.shape
        places = resampled((batch * frames, height, width), self._share, self._alpha, generator)
        return kappa, places.to(windows.device)
