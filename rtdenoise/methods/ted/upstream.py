"""Checkpoints of the authors' TeD code (sheet A 4.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from rtdenoise.errors import FileFormatError
from rtdenoise.methods.ted.network import LEVEL, TedNetwork

_RENAMES = (
    (r"^groups\.(\d+)\.blocks\.(\d+)\.mlp\.0\.", r"layers.\1.residual_group.blocks.\2.mlp.fc1."),
    (r"^groups\.(\d+)\.blocks\.(\d+)\.mlp\.2\.", r"layers.\1.residual_group.blocks.\2.mlp.fc2."),
    (r"^groups\.(\d+)\.blocks\.", r"layers.\1.residual_group.blocks."),
    (r"\.attn\.bias_table$", ".attn.relative_position_bias_table"),
    (r"^groups\.(\d+)\.bottleneck\.", r"layers.\1.ConvAfterSwin.conv."),
    (r"^bottleneck\.", "ConvAfterBody.conv."),
    (r"^head\.", "ImageReconstruction.conv."),
    (r"^gate\.", "ShallowTemporalFeatureExtraction.conv1."),
    (r"^norm_in\.", "patch_embed.norm."),
    (r"^norm_out\.", "norm."),
)
_PYRAMIDS = {"frames_in": ("ShallowFeatureExtraction", 1), "trusted_in": ("ShallowTemporalFeatureExtraction", 2)}
"""The authors' name of a pyramid and the number of its first convolution."""
_DERIVED = ("attn_mask", "relative_position_index")
"""What their checkpoints store and follows from the frame size (sheet A 4.7)."""
_TABLE = "layers.0.residual_group.blocks.0.attn.relative_position_bias_table"
_FIRST = "ShallowFeatureExtraction.conv1.conv.weight"


def from_upstream(state_dict: Mapping[str, Tensor], *, level: float = LEVEL) -> TedNetwork:
    """The authors' weights, strictly; frames, widths, heads and depths are read from the tensors.

    level: mean / sd of the movies to be denoised, in counts, which the authors take from each movie (sheet A 4.5).
    Raises FileFormatError when a tensor is missing, foreign or of another shape.
    """
    given = {name: tensor for name, tensor in state_dict.items() if not name.endswith(_DERIVED)}
    network = TedNetwork(**_facts(given), level=level)
    wanted = {upstream_name(name): (name, tensor) for name, tensor in network.state_dict().items()}
    missing, foreign = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or foreign:
        raise FileFormatError(f"not a TeD checkpoint: missing {missing[:3]}, unknown {foreign[:3]}")
    for theirs, (_, tensor) in wanted.items():
        if given[theirs].shape != tensor.shape:
            raise FileFormatError(f"{theirs} is {tuple(given[theirs].shape)}, TeD needs {tuple(tensor.shape)}")
    network.load_state_dict({ours: given[theirs] for theirs, (ours, _) in wanted.items()})
    return network.eval()


def upstream_name(name: str) -> str:
    """The authors' name of one of our tensors."""
    part, _, rest = name.partition(".")
    if part in _PYRAMIDS:
        theirs, first = _PYRAMIDS[part]
        layer, _, kind = rest.rpartition(".")
        number = first + 3 if layer == "merge" else first + int(layer.removeprefix("dilated."))
        return f"{theirs}.conv{number}.conv.{kind}"
    for ours, theirs in _RENAMES:
        name = re.sub(ours, theirs, name)
    return re.sub(r"(conv1?)\.([024])\.(weight|bias)$", _layer, name)


def _layer(found: re.Match[str]) -> str:
    """Our activations count as layers, theirs do not."""
    return f"{found[1]}.{int(found[2]) // 2}.conv.{found[3]}"


def _facts(given: Mapping[str, Tensor]) -> dict[str, int]:
    for name, axes in ((_FIRST, 4), (_TABLE, 2), ("norm.weight", 1)):
        if name not in given or given[name].ndim != axes:
            raise FileFormatError(f"not a TeD checkpoint: missing ['{name}'] of {axes} axes")
    blocks = [re.match(r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.", name) for name in given]
    places = [(int(found[1]), int(found[2])) for found in blocks if found]
    return {
        "frames": given[_FIRST].shape[1],
        "stem": given[_FIRST].shape[0],
        "embed": given["norm.weight"].shape[0],
        "heads": given[_TABLE].shape[1],
        "side": (round(given[_TABLE].shape[0] ** 0.5) + 1) // 2,
        "groups": 1 + max(group for group, _ in places),
        "depth": 1 + max(block for _, block in places),
    }
