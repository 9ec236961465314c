"""UDVD: unsupervised deep video denoising, ICCV 2021.

Built from the published description; the weights of the authors' code load by name. Differences, on purpose:

- frames are mirrored and kernels transposed, no frame is turned: any frame size runs as it is, where the authors mirror
  frames out to a square and turn four copies of them. On square frames both give the same numbers;
- frames are normalised by a frozen mean and sd; the authors divide 8-bit frames by 255, and so do bundles made from
  their weights;
- crops from several movies make a batch, each mirrored and reversed in time on its own (the authors do so for single
  videos only);
- the loss is the authors' for an unknown noise, as in microscopy: the squared error. Their other one is for Gaussian
  noise of a known sd, which no camera has. Networks trained with it can be imported; they then give their mean, and the
  pixel's own count is not mixed back in.
"""

from rtdenoise.methods.base import Method
from rtdenoise.methods.udvd.network import UdvdNetwork
from rtdenoise.methods.udvd.task import UdvdTask
from rtdenoise.methods.udvd.upstream import from_upstream

METHOD = Method(
    name="udvd",
    title="UDVD: unsupervised deep video denoising",
    reference="10.48550/arXiv.2011.15045",
    network=UdvdNetwork,
    task=UdvdTask,
    narrow={"width": 8, "wide": 8, "maps": 8},
    blind=True,
    from_upstream=from_upstream,
    upstream_units="fixed",
    terms="The authors' code and weights are under the MIT licence.",
)

__all__ = ["METHOD", "UdvdNetwork", "UdvdTask", "from_upstream"]
