"""DeepBID: DeepCAD-RT's network, learning one scan line from the line beside it, PhotoniX 2024.

Built from the published description; the weights of the authors' code load by name. Differences, on purpose, beside
DeepCAD's (see `rtdenoise.methods.deepcad`): frames of any depth, where the authors convert to 8 bits; a constant
learning rate as their schedule amounts to.

`biscan`, the published way and the default, wants the raw lines of a bidirectional scan before the microscope merges
the two sweeps: frames with twice as many rows as columns (sheet B 5.9). On ordinary frames it pairs neighbouring lines
and learns from half-height images, as `line` does; both rely on lines that are finely sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from rtdenoise.errors import FileFormatError
from rtdenoise.methods.base import Method
from rtdenoise.methods.deepcad import FRAMES, PREFIX, UNet3dNetwork, network_of
from rtdenoise.methods.view_pairs import ViewPairsTask

WIDTH = 16
"""Maps of the first level (sheet B 5.2)."""


def from_upstream(
    state_dict: Mapping[str, Tensor],
    *,
    scale: float = 1.0,
    frames: int = FRAMES,
    fit: str = "pad",
    hop: int = 0,
) -> UNet3dNetwork:
    """The authors' weights, strictly; as for DeepCAD, whose tensors have a prefix. Theirs live in counts of 8-bit movies
    around the mean (sheet B 5.5). Raises FileFormatError when a tensor is missing, foreign or of another shape.
    """
    if any(name.startswith(PREFIX) for name in state_dict):
        raise FileFormatError(f"not a DeepBID checkpoint: names begin with {PREFIX}; import it as deepcadrt or deepcad")
    return network_of(state_dict, "DeepBID", scale=scale, frames=frames, fit=fit, hop=hop)


METHOD = Method(
    name="deepbid",
    title="DeepBID: 3-D U-Net between neighbouring scan lines",
    reference="10.1186/s43074-023-00117-0",
    network=partial(UNet3dNetwork, width=WIDTH),
    task=partial(ViewPairsTask, views="biscan"),
    narrow={"width": 8, "frames": 16},
    from_upstream=from_upstream,
    upstream_units="fixed",
    terms="The authors state Apache-2.0 for their repository, but their U-Net descends from DeepCAD-RT's, which is "
    "GPL-3.0: ask before passing their weights on.",
)
