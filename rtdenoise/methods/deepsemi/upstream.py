"""Checkpoints of the authors' DeepSeMi code (sheet B 2.7)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rtdenoise.errors import FileFormatError
from rtdenoise.methods.deepsemi.network import DeepSemiNetwork

FIRST = "Network_XY.input_block_1.0.weight"
UNREAD = "output_block_XY."
"""A head that the authors store and nothing reads (sheet B 2.2)."""


def from_upstream(
    state_dict: Mapping[str, Tensor],
    *,
    net_type: str = "T1XY1",
    scale: float = 1.0,
    depth: int = 32,
    keep: int = 16,
    fusion: str = "mean",
) -> DeepSemiNetwork:
    """The authors' weights, strictly; context and width are read from them.

    net_type: the file does not say it, the DeepSeMi_para.yaml beside it does. depth, keep, fusion: see
    `DeepSemiNetwork`.  scale: counts per unit of the frames that the network will get. Theirs live in raw counts, with
    nothing subtracted; all layers are convolutions with ReLU, so the same network for frames divided by `scale` has
    the same weights and its biases divided by it, exactly (sheet B, shared facts). Raises FileFormatError when a
    tensor is missing, foreign or of another shape, ConfigError for facts that do not exist.
    """
    first = state_dict.get(FIRST)
    if first is None or first.dim() != 5:
        raise FileFormatError(f"not a DeepSeMi checkpoint: it has no {FIRST} of (f, C, 3, 3, 3)")
    width, context = first.shape[:2]
    network = DeepSemiNetwork(depth, context, width, keep, net_type, fusion)
    read = {name: tensor for name, tensor in state_dict.items() if not name.startswith(UNREAD)}
    _check(read, network.state_dict())
    network.load_state_dict(read)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv3d) and module.bias is not None:
                module.bias.div_(scale)
    return network.eval()


def _check(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    missing, foreign = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or foreign:
        raise FileFormatError(f"not a DeepSeMi checkpoint: missing {missing[:3]}, unknown {foreign[:3]}")
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape:
            raise FileFormatError(f"{name} is {tuple(given[name].shape)}, DeepSeMi needs {tuple(tensor.shape)}")
