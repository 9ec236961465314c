"""STS-UVD: unsupervised microscopy video denoising by weighted spatiotemporal sampling, CVPR 2025 Workshop CVMI.

The authors published neither code nor weights; this is built from the slides' equations (sheet C 4). Where sources
conflict or are silent:

- the network is UMVD's, by the same authors, with 7 frames;
- kappa grows with the mean motion, as the slides print it; second-hand code squares the motion. With the only eta that
  is known, 3e-4, either is below 0.01 for anything a microscope follows;
- neighbours are drawn with exp(-alpha * distance), as the slides print it; second-hand code says that the paper prefers
  far neighbours: a negative `alpha`. The pixel itself is never drawn, every frame is resampled on its own;
- the flow is Lucas and Kanade's (`rtdenoise.nn.flow`) instead of RAFT, found anew at every step: on the frames around in
  epoch 0, on the previous epoch's output after it;
- references are made at every step by a copy of the network as it was when the epoch began, which is what a denoised
  movie on disk would hold. `recurrence` below 1 mixes the noisy frame in, see below;
- the flow-consistency loss is a mean over one pair of frames per clip, the error to the reference a mean over pixels;
- the end of a training is the recipe's, not the moment when the consistency loss stands still;
- guided temporal fusion is an option (`fusion`), see `GuidedFusion`.

A reference that is nothing but the previous output stops all learning: the network that made it reproduces it without
error. With the share `recurrence` below 1 and a squared error, the reference is the noisy frame plus a pull towards the
previous output, in these shares; the pull's bias shrinks by `recurrence` with every epoch, and the clean frame remains
the best answer.
"""

from rtdenoise.methods.base import Method
from rtdenoise.methods.stsuvd.network import StsUvdNetwork
from rtdenoise.methods.stsuvd.task import StsUvdTask

METHOD = Method(
    name="stsuvd",
    title="STS-UVD: weighted spatiotemporal sampling",
    reference="CVPR 2025 Workshop CVMI, Aiyetigbo et al.",
    network=StsUvdNetwork,
    task=StsUvdTask,
    narrow={"features": 8, "width": 24, "decoder": 32, "head": 64, "encoder_convs": 4, "decoder_convs": 3},
    blind=True,
    terms="Nothing of the authors' is used: they published no code and no weights.",
)

__all__ = ["METHOD", "StsUvdNetwork", "StsUvdTask"]
