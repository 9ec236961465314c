"""UMVD: unsupervised microscopy video denoising with a temporal filter in feature space, CVPRW 2024, arXiv 2404.12163.

Built from the published description; the weights of the authors' code load by name. Differences, on purpose:

- frames are normalised by mean and sd instead of divided by 255. Without a single bias the output scales with the
  input, so the sd changes nothing; the mean makes background negative, which the first layer must learn to use;
- weights start He-uniform: PyTorch's own start fades by 0.4 per layer here, 12 layers deep, as there are no biases;
- losses are means over pixels instead of sums, which Adam does not see;
- random crops from several movies make a batch, where the authors take a dense grid of 128 px patches one at a time;
- no early stop: theirs looks at the last training batch;
- at the start and end of a series the window is filled with mirrored frames; the authors repeat the first and last. Both
  let a little of a frame's own noise in there: mirroring for the second and third frame, which then lie in the window
  once more, repeating for the first, which then lies there three times more.
"""

from rtdenoise.methods.base import Method
from rtdenoise.methods.umvd.network import UmvdNetwork
from rtdenoise.methods.umvd.task import UmvdTask
from rtdenoise.methods.umvd.upstream import from_upstream

METHOD = Method(
    name="umvd",
    title="UMVD: unsupervised microscopy video denoising",
    reference="10.48550/arXiv.2404.12163",
    network=UmvdNetwork,
    task=UmvdTask,
    narrow={"features": 8, "width": 24, "decoder": 32, "head": 64, "encoder_convs": 4, "decoder_convs": 3},
    blind=True,
    from_upstream=from_upstream,
    upstream_units="fixed",
    terms="The authors' repository has no licence file: their weights may be used only with their permission.",
)

__all__ = ["METHOD", "UmvdNetwork", "UmvdTask", "from_upstream"]
