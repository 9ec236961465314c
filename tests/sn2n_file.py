"""Writes a whole SN2N network as its authors do: pickled, of classes in a module that readers do not have (sheet C 2.7)."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import torch
from torch import Tensor, nn

SMALL = (4, 6, 8, 8, 8)
"""Maps of the five levels."""


class Double(nn.Module):
    def __init__(self, dims: int, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        layers = [conv(inputs, middle, 3, padding=1), norm(middle), nn.LeakyReLU(0.02, inplace=True)]
        layers += [conv(middle, outputs, 3, padding=1), norm(outputs), nn.LeakyReLU(0.02, inplace=True)]
        self.double_conv = nn.Sequential(*layers)


class Down(nn.Module):
    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        pool = nn.MaxPool2d(2) if dims == 2 else nn.MaxPool3d(2)
        self.maxpool_conv = nn.Sequential(pool, Double(dims, inputs, outputs, outputs))


class Up(nn.Module):
    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        mode = "bilinear" if dims == 2 else "trilinear"
        self.up = nn.Upsample(scale_factor=2, mode=mode, align_corners=True)
        self.conv = Double(dims, inputs, inputs // 2, outputs)


class Out(nn.Module):
    def __init__(self, dims: int, inputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 1, 1) if dims == 2 else nn.Conv3d(inputs, 1, 1)


class Unet(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        a, b, c, d, e = SMALL
        self.n_channels, self.bilinear = 1, True
        self.inc = Double(dims, 1, a, a)
        for i, (inputs, outputs) in enumerate([(a, b), (b, c), (c, d), (d, e)]):
            self.add_module(f"down{i + 1}", Down(dims, inputs, outputs))
        for i, (inputs, outputs) in enumerate([(d + e, c), (2 * c, b), (2 * b, a), (2 * a, a)]):
            self.add_module(f"up{i + 1}", Up(dims, inputs, outputs))
        self.outc = Out(dims, a)


def write(path: Path, dims: int, **extra: object) -> dict[str, Tensor]:
    """Write a network with the attributes `extra` besides; its state dict. Their module is gone afterwards."""
    names = {Unet: "Unet", Double: "DoubleConv", Down: "Down", Up: "Up", Out: "OutConv"}
    own = {each: (each.__module__, each.__qualname__) for each in names}
    module = types.ModuleType("SN2N.models")
    sys.modules |= {"SN2N": types.ModuleType("SN2N"), "SN2N.models": module}
    try:
        for each, name in names.items():
            each.__module__, each.__qualname__ = "SN2N.models", f"{name}_{dims}d"
            setattr(module, f"{name}_{dims}d", each)
        torch.manual_seed(4)
        network = Unet(dims)
        for key, value in extra.items():
            setattr(network, key, value)
        torch.save(network, path)
    finally:
        for each, (home, name) in own.items():
            each.__module__, each.__qualname__ = home, name
        del sys.modules["SN2N"], sys.modules["SN2N.models"]
    return network.state_dict()
