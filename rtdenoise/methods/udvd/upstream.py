"""Checkpoints of the authors' UDVD code (sheet A 6.7)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rtdenoise.errors import FileFormatError
from rtdenoise.methods.udvd.network import UdvdNetwork

STAGES = {"first": "denoiser_1", "second": "denoiser_2"}
READOUT = ("nin_A", "nin_B", "nin_C")


def from_upstream(state_dict: Mapping[str, Tensor]) -> UdvdNetwork:
    """The authors' weights for frames of one channel (`fluoro_micro.pt`, `raw_video.pt`), strictly; widths are read
    from them.

    Give the dictionary under "model" of their file, without `module.`. Raises FileFormatError when a tensor is missing,
    foreign or of another shape: networks for colour, for one frame, with biases or with a noise estimate of their own.
    """
    first, deep, last = (
        _get(state_dict, f"denoiser_1.{layer}.conv.weight") for layer in ("enc1.conv1", "enc3.conv1", "dec1.conv4")
    )
    outputs = int(_get(state_dict, "nin_C.weight").shape[0])
    network = UdvdNetwork(int(first.shape[0]), int(deep.shape[0]), int(last.shape[0]), outputs)
    given, state = dict(state_dict), {}
    for ours, wanted in network.state_dict().items():
        theirs = _theirs(ours)
        tensor = state[ours] = _get(given, theirs)
        if tensor.shape != wanted.shape:
            raise FileFormatError(f"{theirs} is {tuple(tensor.shape)}, UDVD needs {tuple(wanted.shape)}")
        del given[theirs]
    if given:
        raise FileFormatError(f"not a UDVD checkpoint for frames of one channel: unknown {sorted(given)[:3]}")
    network.load_state_dict(state)
    return network.eval()


def _get(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise FileFormatError(f"not a UDVD checkpoint: it has no {name}")
    return state[name]


def _theirs(ours: str) -> str:
    part, rest = ours.split(".", 1)
    if part in STAGES:
        return f"{STAGES[part]}.{rest.removesuffix('weight')}conv.weight"
    return f"{READOUT[int(rest.split('.')[0])]}.weight"
