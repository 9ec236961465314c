"""SUPPORT: denoising by the spatiotemporal neighbourhood of every pixel, Nat. Methods 2023.

Built from the published description; the weights of the authors' code load by name. Differences, on purpose:

- the kernels with a hole are ordinary kernels times a mask, not lists of the other taps; the first convolution takes
  the whole window with zero weights for the frame that is predicted. Both give the same numbers;
- frames are normalised by a frozen mean and sd, not by those of the whole stack; the authors' program does the same
  with the first 61 frames;
- crops come from several movies, each turned and mirrored on its own; where the hole is oblong they turn by halves,
  where the authors leave them;
- whole frames are denoised at once, never in tiles: the network sees further than the tiles' margins.
"""

from rtdenoise.methods.base import Method
from rtdenoise.methods.support.network import SupportNetwork
from rtdenoise.methods.support.task import SupportTask
from rtdenoise.methods.support.upstream import from_upstream

METHOD = Method(
    name="support",
    title="SUPPORT: statistically unbiased prediction from the neighbourhood in space and time",
    reference="10.1038/s41592-023-02005-8",
    network=SupportNetwork,
    task=SupportTask,
    narrow={"first": 16, "most": 64, "blind_channels": 16},
    blind=True,
    from_upstream=from_upstream,
    terms="The authors' code and weights are under GPL-3.0; what is made from their weights may be shared under it only.",
)

__all__ = ["METHOD", "SupportNetwork", "SupportTask", "from_upstream"]
