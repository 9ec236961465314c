"""Checkpoints of the authors' UMVD code (sheet A 5.7)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rtdenoise.errors import FileFormatError
from rtdenoise.methods.umvd.network import UmvdNetwork

UPSTREAM_LEVEL = 64.0
"""Upstream default of the training script that writes these files (sheet A 5.2)."""
SHAPE_FROM = ("conv1.depthconv.weight", "enc1.conv1.conv.weight", "dec2.conv1.conv.weight", "out1.weight")
"""Tensors whose sizes give the network's facts."""


def from_upstream(state_dict: Mapping[str, Tensor], *, level: float = UPSTREAM_LEVEL) -> UmvdNetwork:
    """The authors' weights, strictly.

    level: the shape of the temporal filter, which the tensors do not show; another one gives other images. Frames,
    features and widths are read from the tensors. The authors' networks eat 8-bit counts / 255; without biases the
    output scales with the input, so only the range of FP16 asks for a scale. Raises FileFormatError when a tensor is
    missing, foreign or of another shape.
    """
    network = UmvdNetwork(level=level, **_sizes(state_dict))
    wanted = network.state_dict()
    missing, foreign = sorted(wanted.keys() - state_dict.keys()), sorted(state_dict.keys() - wanted.keys())
    if missing or foreign:
        raise FileFormatError(f"not a UMVD checkpoint: missing {missing[:3]}, unknown {foreign[:3]}")
    for name, tensor in wanted.items():
        if state_dict[name].shape != tensor.shape:
            raise FileFormatError(f"{name} is {tuple(state_dict[name].shape)}, UMVD needs {tuple(tensor.shape)}")
    network.load_state_dict(dict(state_dict))
    return network.eval()


def _sizes(state_dict: Mapping[str, Tensor]) -> dict[str, int]:
    absent = [name for name in SHAPE_FROM if name not in state_dict or state_dict[name].ndim != 4]
    if absent:
        raise FileFormatError(f"not a UMVD checkpoint: it has no 4-dimensional {absent[0]}")
    first, merged, decoder, head = (state_dict[name].shape for name in SHAPE_FROM)
    features, inputs = first[0], first[1]
    if inputs != 1:
        raise FileFormatError(f"{SHAPE_FROM[0]} takes {inputs} colours; only UMVD for one channel (grey) is supported")
    frames = merged[1] // max(features, 1)
    if frames * features != merged[1] or frames < 3 or frames % 2 == 0:
        raise FileFormatError(
            f"{SHAPE_FROM[1]} takes {merged[1]} maps, UMVD needs {features} for each of an odd number of frames"
        )
    convs = {level: sum(name.startswith(f"{level}.conv") for name in state_dict) for level in ("enc1", "dec1")}
    sizes = {"frames": frames, "features": features, "width": merged[0], "decoder": decoder[0], "head": head[0]}
    return sizes | {"encoder_convs": convs["enc1"], "decoder_convs": convs["dec1"]}
