"""Checkpoints of the authors' SUPPORT code (sheet B 1.7)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rtdenoise.errors import FileFormatError
from rtdenoise.methods.support.network import BETWEEN, DILATIONS, HEAD, LEVELS, SupportNetwork

SPOT = "._spot"
"""The taps in the holes, stored apart and always 0."""


def from_upstream(
    state_dict: Mapping[str, Tensor], *, hole_y: int | None = None, hole_x: int | None = None
) -> SupportNetwork:
    """The authors' weights, strictly. Frames and widths are read from them, and whether the hole is one pixel.

    hole_y, hole_x: sides of a larger hole (`bs_size`), which the file does not store; 3 when not given, as the
    authors' own program assumes. Raises FileFormatError when a tensor is missing, foreign or of another shape, or when
    the hole contradicts the weights.
    """
    first, deepest = (_get(state_dict, f"enc_layers.{level}.weight") for level in (0, LEVELS - 1))
    plane = "out_convs.0.weight" not in state_dict
    blind = 0 if plane else int(_get(state_dict, "out_convs.0.weight").shape[1])
    channels = 64 if plane else int(_get(state_dict, "conv3x3.0.weight").shape[0])
    single = plane or blind == channels * sum(map(len, DILATIONS.values()))
    hole = _hole(hole_y, single), _hole(hole_x, single)
    if not single and hole == (1, 1):
        raise FileFormatError("the SUPPORT checkpoint has a hole of more than one pixel; give hole_y and hole_x")
    network = SupportNetwork(
        frames=int(first.shape[1]) + 1,
        first=int(first.shape[0]),
        most=int(deepest.shape[0]),
        blind_channels=channels,
        hole_y=hole[0],
        hole_x=hole[1],
        plane=plane,
    )
    _fill(network, dict(state_dict))
    return network.eval()


def _get(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise FileFormatError(f"not a SUPPORT checkpoint: it has no {name}")
    return state[name]


def _hole(asked: int | None, single: bool) -> int:
    if single and asked not in (None, 1):
        raise FileFormatError(f"the SUPPORT checkpoint has a hole of one pixel, not {asked}; leave hole_y, hole_x out")
    return asked or (1 if single else 3)


def _names(network: SupportNetwork) -> dict[str, str]:
    """Our names of layers -> theirs, without `.weight` and `.bias`."""
    names = {f"encoders.{i}": f"enc_layers.{i}" for i in range(LEVELS)}
    names |= {f"decoders.{i}": f"dec_layers.{i}" for i in range(LEVELS - 1)}
    names |= {f"around.{2 * i}": f"unet_1_convs.{i}" for i in range(len(BETWEEN))}
    names |= {f"head.{2 * i}": f"last_layers.{i}" for i in range(len(HEAD))}
    names["readout"] = f"last_layers.{len(HEAD)}"
    if network.unseen:
        return names
    for path, (size, dilations) in enumerate(DILATIONS.items()):
        kind = f"{size}x{size}"
        names[f"paths.{path}.around"] = f"conv{kind}.0"
        names |= {f"paths.{path}.holed.{i}": f"blind_convs{kind}.{2 * i}" for i in range(len(dilations))}
        names |= {f"paths.{path}.gains.{i}": f"scalars_{kind}.{i}" for i in range(len(dilations) - 1)}
    return names | {f"own.{2 * i}": f"out_convs.{2 * i}" for i in range(len(BETWEEN))}


def _fill(network: SupportNetwork, given: dict[str, Tensor]) -> None:
    names, state = _names(network), {}
    for ours, wanted in network.state_dict().items():
        layer, _, kind = ours.rpartition(".")
        theirs = f"{names[layer]}.{kind}" if layer in names else names[ours]
        tensor = _get(given, theirs)
        del given[theirs]
        holed = given.pop(names[layer] + SPOT, None) if layer in names else None
        if holed is not None and holed.count_nonzero():
            raise FileFormatError(f"{names[layer]}{SPOT} of the SUPPORT checkpoint is not 0; its hole is filled")
        if ours == "encoders.0.weight":
            own = network.window.emits[0]
            tensor = torch.cat([tensor[:, :own], torch.zeros_like(tensor[:, :1]), tensor[:, own:]], 1)
        elif ".holed." in ours and kind == "weight":
            tensor = _square(tensor, theirs)
        elif ".gains." in ours:
            tensor = tensor.reshape(1, -1, 1, 1)
        if tensor.shape != wanted.shape:
            raise FileFormatError(f"{theirs} is {tuple(tensor.shape)}, SUPPORT needs {tuple(wanted.shape)}")
        state[ours] = tensor
    if given:
        raise FileFormatError(f"not a SUPPORT checkpoint: unknown {sorted(given)[:3]}")
    network.load_state_dict(state)


def _square(taps: Tensor, name: str) -> Tensor:
    """(O, I, k * k - 1) taps around a hole, row by row -> (O, I, k, k)."""
    side = round((taps.shape[-1] + 1) ** 0.5)
    if taps.ndim != 3 or side**2 != taps.shape[-1] + 1:
        raise FileFormatError(f"{name} is {tuple(taps.shape)}, SUPPORT needs (outputs, inputs, 8 or 24)")
    half = taps.shape[-1] // 2
    whole = torch.cat([taps[..., :half], torch.zeros_like(taps[..., :1]), taps[..., half:]], -1)
    return whole.reshape(*taps.shape[:2], side, side)
