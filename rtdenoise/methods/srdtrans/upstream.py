"""Checkpoints of the authors' SRDTrans code (sheet C 3.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rtdenoise.errors import FileFormatError
from rtdenoise.methods.srdtrans.network import HEADS, SrdTransNetwork
from rtdenoise.methods.srdtrans.transformer import SIDE
from rtdenoise.methods.ted.swin import relative_index

_TIME, _SPACE = "layers.0.timeTrans.", "layers.0.spaceTrans.transformer.blocks."
_RENAMES = (
    (r"^((?:en|de)coders\.\d+)\.conv([12])\.", r"\1.conv_net.SingleConv\2.Conv3d."),
    (r"^(encoders\.\d+)\.down\.", r"\1.down_sample."),
    (r"^(decoders\.\d+)\.up\.", r"\1.up_sample."),
    (r"^into\.", "conv_before_trans.Conv3d."),
    (r"^out_of\.", "conv_after_trans.Conv3d."),
    (r"^transformer\.time\.positions$", _TIME + "position_encoding.position_embeddings"),
    (r"^transformer\.time\.norm\.", _TIME + "pre_head_ln."),
    (r"^transformer\.space\.(\d+)\.mlp\.0\.", _SPACE + r"\1.mlp.fc1."),
    (r"^transformer\.space\.(\d+)\.mlp\.2\.", _SPACE + r"\1.mlp.fc2."),
    (r"^transformer\.space\.(\d+)\.", _SPACE + r"\1."),
    (r"\.bias_table$", ".relative_position_bias_table"),
)
_LAYER = re.compile(r"transformer\.time\.layers\.(\d+)\.(norm1|attn|norm2|mlp)\.(.+)")
_POSITIONS = _TIME + "position_encoding.position_embeddings"
_TABLE = _SPACE + "0.attn.relative_position_bias_table"
_HIDDEN = _SPACE + "0.mlp.fc1.weight"
_AXES = {_POSITIONS: 3, _TABLE: 2, _HIDDEN: 2}
_BACK = re.compile(r"(attn\.proj|mlp\.2)\.(weight|bias)$")
"""What gives back to the shortcut of the time transformer."""
_INDEX = ".relative_position_index"
"""What their checkpoints store and follows from the side of a window; checked where it is there."""


def from_upstream(state_dict: Mapping[str, Tensor], *, scale: float = 1.0) -> SrdTransNetwork:
    """The authors' weights, strictly; frames, widths, heads and hidden width are read from the tensors.

    scale: counts per unit of the frames that the network will get, see `rescale`.
    Raises FileFormatError when a tensor is missing, foreign or of another shape.
    """
    given = {name: tensor for name, tensor in state_dict.items() if not name.endswith(_INDEX)}
    network = SrdTransNetwork(**_facts(given))
    wanted = {upstream_name(name): (name, tensor) for name, tensor in network.state_dict().items()}
    _check_names(given, wanted)
    for theirs, (_, tensor) in wanted.items():
        if given[theirs].shape != tensor.shape:
            raise FileFormatError(f"{theirs} is {tuple(given[theirs].shape)}, SRDTrans needs {tuple(tensor.shape)}")
    _check_indices({name: tensor for name, tensor in state_dict.items() if name.endswith(_INDEX)})
    network.load_state_dict({ours: given[theirs] for theirs, (ours, _) in wanted.items()})
    rescale(network, scale)
    return network.eval()


def rescale(network: SrdTransNetwork, scale: float) -> None:
    """The same function for frames divided by `scale`, in place, exact but for the epsilon of the first norms.

    Their networks live in counts less the mean. Up to the time transformer's last norm everything that is added is
    additive in counts (biases, places, what attention and MLPs give back to the shortcut): over `scale`, it carries
    over `scale` what it carried before, and its norms undo that. What the last norm gives has no unit; what leaves
    the transformer is in counts again.
    """
    time, into_counts = network.transformer.time, network.out_of
    convs = [m for m in network.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)]
    divided: list[Tensor | None] = [conv.bias for conv in convs]
    divided += [time.positions, into_counts.weight]
    divided += [p for name, p in time.named_parameters() if _BACK.search(name)]
    with torch.no_grad():
        for tensor in divided:
            if tensor is not None:
                tensor.div_(scale)


def upstream_name(name: str) -> str:
    """The authors' name of one of our tensors."""
    found = _LAYER.fullmatch(name)
    if found:
        return _TIME + "transformer.net." + _half_layer(int(found[1]), found[2], found[3])
    for ours, theirs in _RENAMES:
        name = re.sub(ours, theirs, name)
    return name


def _half_layer(number: int, part: str, rest: str) -> str:
    """They count attention and MLP as layers of their own, and dropout inside the MLP too."""
    place = 2 * number + (part in ("norm2", "mlp"))
    if part.startswith("norm"):
        return f"{place}.fn.norm.{rest}"
    if part == "attn":
        return f"{place}.fn.fn.{rest}"
    linear, kind = rest.split(".")
    return f"{place}.fn.fn.net.{3 if linear == '2' else 0}.{kind}"


def _facts(given: Mapping[str, Tensor]) -> dict[str, Any]:
    for name, axes in _AXES.items():
        if name not in given or given[name].ndim != axes:
            raise FileFormatError(f"not an SRDTrans checkpoint: missing [{name!r}] of {axes} axes")
    numbers = [int(found[1]) for name in given if (found := re.match(r"encoders\.(\d+)\.down_sample\.bias$", name))]
    widths = [given[f"encoders.{i}.down_sample.bias"].numel() for i in sorted(numbers)]
    if not widths or min(widths) < 1:
        raise FileFormatError("not an SRDTrans checkpoint: missing ['encoders.0.down_sample.bias']")
    tokens, embed = given[_POSITIONS].shape[1:]
    heads = given[_TABLE].shape[1]
    if not heads or embed % heads:
        raise FileFormatError(f"{_TABLE} has {heads} heads, SRDTrans has {HEADS} or another divisor of {embed}")
    facts = {"frames": tokens * 2 ** len(widths), "embed": embed, "heads": heads, "hidden": len(given[_HIDDEN])}
    return {**facts, "widths": " ".join(map(str, widths))}


def _check_names(given: Mapping[str, Tensor], wanted: Mapping[str, object]) -> None:
    missing, foreign = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or foreign:
        raise FileFormatError(f"not an SRDTrans checkpoint: missing {missing[:3]}, unknown {foreign[:3]}")


def _check_indices(given: Mapping[str, Tensor]) -> None:
    index = relative_index(SIDE)
    for name, tensor in given.items():
        if not re.fullmatch(r"layers\.0\.spaceTrans\.transformer\.blocks\.[01]\.attn\.relative_position_index", name):
            raise FileFormatError(f"not an SRDTrans checkpoint: missing [], unknown {[name]}")
        if tensor.shape != index.shape or not torch.equal(tensor.long(), index):
            raise FileFormatError(f"{name} is not the index of windows of {SIDE} x {SIDE} px that SRDTrans has")
