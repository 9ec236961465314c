"""DeepSeMi: self-supervised denoising with half-space receptive fields, Nat. Methods 2023.

Built from the published description; the weights of the authors' code load by name. Differences, on purpose:

- frames are normalised by a frozen mean and standard deviation, where the authors feed raw counts; zeros beyond the
  frame then mean the mean brightness instead of darkness, and a model is not tied to one brightness. Imported
  checkpoints keep raw counts: they only fit the range that they were trained on (sheet B 2.8);
- the maps of the directions are fused the same way at every call, in training and in use: `fusion`, see
  `DeepSemiNetwork`. With `mean`, our default, all directions of a family share one set of fusing weights, which is
  what random order teaches them to, so there is nothing left to be averaged;
- the losses are taken at the positions that come out (the middle of the block), not at its ends too;
- clips come from several movies, normalised and in batches of any size, every clip with its own turn, where the
  authors draw a fixed list of 1000 patches from one movie and turn a batch as a whole;
- kernels are turned instead of movies, and frames may have any sides.

A look-ahead is part of the method: keep = depth / 2 frames of each block come out, the newest (context - 1) / 2 +
depth / 4 frames before the block's last input frame.
"""

from rtdenoise.methods.base import Method
from rtdenoise.methods.deepsemi.network import DeepSemiNetwork
from rtdenoise.methods.deepsemi.task import DeepSemiTask
from rtdenoise.methods.deepsemi.upstream import from_upstream

METHOD = Method(
    name="deepsemi",
    title="DeepSeMi: half-space 3-D blind-spot network",
    reference="10.1038/s41592-023-02058-9",
    network=DeepSemiNetwork,
    task=DeepSemiTask,
    narrow={"depth": 16, "context": 15, "width": 8, "keep": 8},
    blind=True,
    from_upstream=from_upstream,
    upstream_units="fixed",
    terms="The authors' repository has no licence: their weights may be used where the authors allow it, and not be "
    "passed on.",
)

__all__ = ["METHOD", "DeepSemiNetwork", "DeepSemiTask", "from_upstream"]
