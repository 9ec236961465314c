"""SRDTrans: spatial redundancy denoising transformer, Nat. Comput. Sci. 2023.

Built from the published description; the weights of the authors' code load by name. Differences, on purpose:

- frames are normalised by a frozen mean and standard deviation, where the authors subtract the mean of the stack and
  stay in counts, and nothing is done to the output but to undo that: no square root of the ratio of brightness per
  tile, no clipping. Imported weights are rewritten for frames over `scale`, exactly but for the epsilon of two norms
  (see `upstream.rescale`), so their bundles are calibrated on every field of view like our own;
- whole frames instead of tiles of 128 px of which the middle half is kept: one grid of attention windows. In time the
  central half of each block is kept as published, as far as a run leaves it so;
- the pixels of the training pairs are drawn on the CPU; clips come from several movies, in batches of any size, each
  with a turn of its own, from any place and time, where the authors cut a fixed list of overlapping patches;
- dropout follows the batch's own chance; the mask of shifted windows is carried by query and key, as for TeD;
- facts and options, off by default: no activation after the last convolution (`final`), squared error alone
  (`absolute`), targets across the scan lines alone (`pairs`).

Precision: FP16 where the device has it, norms and softmax included. Of the output's sd, the small shipped network is
0.0008 off (rms; 0.008 at worst) in FP16 and 0.003 (0.04) in bf16, which CPUs take because it is their fast one.
"""

from rtdenoise.methods.base import Method
from rtdenoise.methods.srdtrans.network import SrdTransNetwork
from rtdenoise.methods.srdtrans.task import SrdTransTask
from rtdenoise.methods.srdtrans.upstream import from_upstream

METHOD = Method(
    name="srdtrans",
    title="SRDTrans: spatial redundancy and a transformer over time and space",
    reference="10.1038/s43588-023-00568-2",
    network=SrdTransNetwork,
    task=SrdTransTask,
    narrow={
        "frames": 32,
        "widths": "4 8 16 16",
        "embed": 32,
        "heads": 4,
        "hidden": 64,
        "drop": 0.0,
        "final": "linear",
    },
    from_upstream=from_upstream,
    terms="The authors' code is GPL-3.0 and their weights come without a licence of their own: ask them before you pass "
    "their weights on.",
)

__all__ = ["METHOD", "SrdTransNetwork", "SrdTransTask", "from_upstream"]
