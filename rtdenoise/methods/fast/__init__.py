"""FAST: FrAme-multiplexed SpatioTemporal learning, Nat. Commun. 2025.

Built from the published description; the weights of the authors' code load by name. Differences in training, on
purpose:

- frames are normalised per movie, not only shifted (see `FastTask`); both dealt stacks share one offset instead of
  their own means;
- all frames of a window share one pattern of pixels unless the recipe says `pattern = "frame"` (see `FastTask`);
- crops from several movies make a batch, where the authors take whole frames one window at a time;
- BatchNorm freezes when the recipe says so; the authors' script stops updating it by accident, at the first validation;
- the authors' gradient clipping never took effect and is left out.
"""

from rtdenoise.methods.base import Method
from rtdenoise.methods.fast.network import FastNetwork
from rtdenoise.methods.fast.task import FastTask
from rtdenoise.methods.fast.upstream import from_upstream

METHOD = Method(
    name="fast",
    title="FAST: frame-multiplexed spatiotemporal learning",
    reference="10.1038/s41467-025-64681-8",
    network=FastNetwork,
    task=FastTask,
    merge="halving",
    from_upstream=from_upstream,
)

__all__ = ["METHOD", "FastNetwork", "FastTask", "from_upstream"]
