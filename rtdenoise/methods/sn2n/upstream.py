"""Checkpoints of the authors' SN2N code: whole networks, `Unet_2d` and `Unet_3d` (sheet C 2.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from rtdenoise.errors import FileFormatError
from rtdenoise.methods.sn2n.network import LEVELS, Sn2nNetwork

COUNTER = "num_batches_tracked"
"""Of every norm: how often it was used, which says nothing to us."""
LAST_OF_LEVEL = (
    "inc.double_conv.3.weight",
    *(f"down{i}.maxpool_conv.1.double_conv.3.weight" for i in range(1, LEVELS)),
)
"""Tensors whose sizes give the network's widths."""

Statistics = Literal["batch", "running"]
Intensity = Literal["fitted", "network"]


def from_upstream(
    state_dict: Mapping[str, Tensor], *, statistics: Statistics = "batch", intensity: Intensity = "fitted"
) -> Sn2nNetwork:
    """The authors' `Unet_2d`, strictly.

    statistics, intensity: see `Sn2nNetwork`. The authors use their networks with `batch` (sheet C 2.6), and spread every
    output over 0 to 255 afterwards; `network` is their output before that. Raises FileFormatError when a tensor is
    missing, foreign or of another shape.
    """
    return _loaded(state_dict, 2, statistics, intensity)


def from_upstream_3d(
    state_dict: Mapping[str, Tensor], *, statistics: Statistics = "batch", intensity: Intensity = "fitted"
) -> Sn2nNetwork:
    """The authors' `Unet_3d`, as `from_upstream`."""
    return _loaded(state_dict, 3, statistics, intensity)


def _loaded(state_dict: Mapping[str, Tensor], dims: int, statistics: str, intensity: str) -> Sn2nNetwork:
    name = f"SN2N-{dims}D"
    given = {key: tensor for key, tensor in state_dict.items() if not key.endswith(COUNTER)}
    network = Sn2nNetwork(dims, _width(given, dims, name), statistics, "sigmoid", intensity)
    wanted = {key: tensor for key, tensor in network.state_dict().items() if not key.endswith(COUNTER)}
    missing, foreign = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or foreign:
        raise FileFormatError(f"not a checkpoint of {name}: missing {missing[:3]}, unknown {foreign[:3]}")
    for key, tensor in wanted.items():
        if given[key].shape != tensor.shape:
            raise FileFormatError(f"{key} is {tuple(given[key].shape)}, {name} needs {tuple(tensor.shape)}")
    network.load_state_dict(given, strict=False)
    return network.eval()


def _width(state_dict: Mapping[str, Tensor], dims: int, name: str) -> str:
    for key in LAST_OF_LEVEL:
        if key not in state_dict or state_dict[key].ndim != dims + 2 or 0 in state_dict[key].shape:
            raise FileFormatError(f"not a checkpoint of {name}: it has no {dims + 2}-dimensional {key}")
    return " ".join(str(state_dict[key].shape[0]) for key in LAST_OF_LEVEL)
