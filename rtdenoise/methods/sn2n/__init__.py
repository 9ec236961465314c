"""SN2N: self-inspired Noise2Noise for single frames, and for blocks of 16, Nat. Methods 2024.

Built from the published description; the weights of the authors' code load by name. Differences, on purpose:

- frames are normalised once for a field of view, not each to its own minimum and maximum: the authors lose absolute
  intensity and make movies flicker (sheet C 2.5). For the same reason no half image is spread over 0 to 1 or rounded to
  8 bits before training;
- networks of our own norm by running statistics and end without a sigmoid, so that a frame's own brightness changes
  nothing and a transient has no ceiling. Imported networks keep the statistics of each frame, as their authors use
  them; the level and gain of a frame that these lose are fitted back to the input (`intensity`);
- the upsampled halves are not cut at 0;
- crops are drawn evenly from all movies, in batches: the authors take only patches brighter than the image, one at a
  time, and swap regions between frames (Patch2Patch), which is left out;
- each crop is one of eight turned and mirrored copies; the authors always mirror and then turn;
- blocks keep their 12 middle frames where the authors blend 2 at each end, see `AT_EDGE`, and are whole frames: no
  tiles, so no seams.

The network for frames is purely spatial: it knows nothing of time and adds no latency.

Of the output's sd, the small shipped networks are 0.0005 off (rms; 0.006 at worst) in FP16 and 0.003 (0.04) in bf16.
In FP16 a network with the statistics of each frame needs a few pixels at its lowest level, a sixteenth of the frame: at 40 x
48 px, with six, it was 0.08 sd off at worst. In bf16 training in blocks did not stay finite.
"""

from __future__ import annotations

from functools import partial

from rtdenoise.methods.base import Method
from rtdenoise.methods.sn2n.network import Sn2nNetwork
from rtdenoise.methods.sn2n.task import Sn2nTask
from rtdenoise.methods.sn2n.upstream import from_upstream, from_upstream_3d

REFERENCE = "10.1038/s41592-024-02400-9"
TERMS = (
    "The authors' repository is under the Open Database License with a note that allows no commercial use, and their "
    "weights with it."
)

METHOD = Method(
    name="sn2n",
    title="SN2N: self-inspired Noise2Noise, frame by frame",
    reference=REFERENCE,
    network=Sn2nNetwork,
    task=Sn2nTask,
    narrow={"width": "16 32 64 64 64", "statistics": "running", "output": "linear"},
    from_upstream=from_upstream,
    upstream_units="min-max",
    terms=TERMS,
)

METHOD_3D = Method(
    name="sn2n3d",
    title="SN2N-3D: self-inspired Noise2Noise in blocks of 16 frames",
    reference=REFERENCE,
    network=partial(Sn2nNetwork, dims=3),
    task=Sn2nTask,
    narrow={"dims": 3, "width": "8 16 32 32 32", "statistics": "running", "output": "linear"},
    from_upstream=from_upstream_3d,
    upstream_units="min-max",
    terms=TERMS,
)

__all__ = ["METHOD", "METHOD_3D", "Sn2nNetwork", "Sn2nTask", "from_upstream", "from_upstream_3d"]
