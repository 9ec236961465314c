"""Checkpoints of the authors' FAST code (sheet C 1.7)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rtdenoise.errors import FileFormatError
from rtdenoise.methods.fast.network import FastNetwork

COUNTER = "num_batches_tracked"


def from_upstream(state_dict: Mapping[str, Tensor], *, frames: int | None = None, scale: float = 1.0) -> FastNetwork:
    """The authors' weights, strictly.

    frames: C ("miniBatch_size" in the config.json beside a checkpoint); read from the weights when not given.
    scale: counts per normalised unit. Their networks live in counts with the mean removed; the standard deviation of
    their training movie here makes one for normalised frames, exactly: the first layer has no bias, so it takes the
    factor and the last gives it back (sheet C 1.5). Raises FileFormatError when a tensor is missing, foreign or of
    another shape, or when `frames` contradicts the weights.
    """
    bias = state_dict.get("final_conv.bias")
    if bias is None:
        raise FileFormatError("not a FAST checkpoint: it has no final_conv.bias")
    stored = int(bias.numel())
    if frames is not None and frames != stored:
        raise FileFormatError(f"the FAST checkpoint was trained on {stored} frames, not {frames}; leave `frames` out")
    network = FastNetwork(stored)
    _check(state_dict, network.state_dict())
    # strict=False only for the step counters, which inference never reads and some copies leave out.
    network.load_state_dict(dict(state_dict), strict=False)
    _rescale(network, scale)
    return network.eval()


def _check(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    missing = sorted(k for k in wanted.keys() - given.keys() if not k.endswith(COUNTER))
    foreign = sorted(given.keys() - wanted.keys())
    if missing or foreign:
        raise FileFormatError(f"not a FAST checkpoint: missing {missing[:3]}, unknown {foreign[:3]}")
    for name, tensor in wanted.items():
        if name in given and given[name].shape != tensor.shape:
            raise FileFormatError(f"{name} is {tuple(given[name].shape)}, FAST needs {tuple(tensor.shape)}")


def _rescale(network: FastNetwork, scale: float) -> None:
    network.convs()[0].conv.weight.data.mul_(scale)
    network.final_conv.weight.data.div_(scale)
    if network.final_conv.bias is not None:
        network.final_conv.bias.data.div_(scale)
