"""DeepCAD: a 3-D U-Net that learns every second frame from the frames between them, Nat. Methods 2021.

Built from the published description; the weights of the authors' code, and of DeepCAD-RT and DeepBID, which have the
same network, load by name. Differences, on purpose:

- frames are normalised by a frozen mean and standard deviation, where the authors subtract the movie's minimum: zeros
  beyond the frame then mean the mean brightness instead of darkness. Imported weights keep the counts they were
  trained on (see `from_upstream`);
- brightness is kept: the authors multiply each tile by a gain of its own and stretch the result to 16 bits;
- whole frames instead of tiles, so there are no seams;
- clips come from several movies and in batches of any size, with the spacing that the movies have: the authors cut
  one movie into patches on a regular grid;
- training starts from He's weights, see `_start`.

Precision: FP16 where the device has it. Of the output's sd, the small shipped network is 0.0005 off (rms; 0.006 at worst)
in FP16 and 0.005 (0.07) in bf16, which CPUs take because it is their fast one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.bundle import StepFacts
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Deployment, Method, Network
from rtdenoise.methods.view_pairs import ViewPairsTask
from rtdenoise.nn import continual
from rtdenoise.nn.continual import ContinualUNet3d
from rtdenoise.nn.unet3d import EIGHTH, UNet3d

FITS = ("pad", "resize")
WIDTH = 64
"""Maps of DeepCAD's first level (sheet B 3.2)."""
FRAMES = 32
"""Frames of a window: engineering choice, near the 40 of the authors' real-time mode (sheet B 4.3) and a multiple of 8."""
PREFIX = "Generator."
"""Of DeepCAD's and DeepCAD-RT's tensors; DeepBID's have none (sheet B 3.7, 5.7)."""
FIRST = "encoders.0.basic_module.SingleConv2.conv.weight"
THEIR_NAME = re.compile(r"((?:en|de)coders\.\d)\.basic_module\.SingleConv([12])\.conv\.(weight|bias)")


class UNet3dNetwork(Network):
    """The network of DeepCAD, DeepCAD-RT and DeepBID: `(B, T, Y, X)` -> the same, any T; 1,020,337 parameters at the
    width 16 of the last two, 16,315,585 at DeepCAD's 64 (sheet B 3.2).

    width: maps of the first level.  frames: T of the window that is exported.  hop: how many frames in its middle a run
    keeps; half of them when 0 (the authors keep 60 to 90 of 150, and 24 to 35 of 40 in real time: sheet B 3.6, 4.6).
    fit: frames whose sides are no multiples of 8 are continued below and on the right with their last pixels (`pad`; T
    must be a multiple of 8), or, as upstream, every up-sampled map is resized to its skip's size (`resize`; T, Y, X of
    at least 8). At multiples of 8 both are the same. Raises ConfigError for facts that do not fit.
    """

    def __init__(self, width: int = WIDTH, frames: int = FRAMES, fit: str = "pad", hop: int = 0) -> None:
        super().__init__()
        _check(width, frames, fit, hop)
        self.window = WindowSpec(frames, range(frames), hop=hop or frames // 2)
        self.facts = {"width": width, "frames": frames, "fit": fit, "hop": hop}
        self.min_side = 1 if fit == "pad" else EIGHTH
        self.fit = fit
        self.unet = UNet3d(width)
        _start(self.unet)
        self.unet.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # bf16 steps take half the time

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        if self.fit == "resize":
            return self.unet(frames.unsqueeze(1)).squeeze(1)  # type: ignore[no-any-return]
        return trimmed(self.unet(padded(frames).unsqueeze(1)).squeeze(1), frames)

    def deploy(self, **options: int) -> Deployment:
        """The window, and the step that runs the same network as a stream; where frames are resized there is no step."""
        if options or self.fit == "resize":
            return super().deploy(**options)
        width = self.unet.final.in_channels
        step = StepFacts(
            size=continual.WINDOW,
            emits=tuple(continual.EMITS),
            inputs=(continual.NEWEST, continual.AROUND),
            states=continual.states_of(width),
            phase=continual.PHASE,
            multiple=EIGHTH,
        )
        return Deployment({"window": self, "step": ContinualUNet3d(self.unet)}, step=step)


def padded(frames: Tensor) -> Tensor:
    """`(B, T, Y, X)` with its last row and column repeated up to multiples of 8."""
    more = [(size + EIGHTH - 1) // EIGHTH * EIGHTH - size for size in frames.shape[-2:]]
    return F.pad(frames, (0, more[1], 0, more[0]), mode="replicate")


def trimmed(out: Tensor, frames: Tensor) -> Tensor:
    """Without what `padded` added to `frames`."""
    return out[..., : frames.shape[-2], : frames.shape[-1]]


def _start(unet: UNet3d) -> None:
    """Weights that keep the spread of what passes through ReLU. Engineering choice: with the upstream default the output
    hardly varies at first, and after 60 steps the error of a small movie is ten times larger.
    """
    for module in unet.modules():
        if isinstance(module, nn.Conv3d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is unet.final else "relu")
            nn.init.zeros_(module.bias)


def _check(width: int, frames: int, fit: str, hop: int) -> None:
    if width < 1:
        raise ConfigError(f"the 3-D U-Net needs a width of 1 or more, got {width}")
    if fit not in FITS:
        raise ConfigError(f"the 3-D U-Net fits frames by {' or '.join(FITS)}, not by {fit!r}")
    if frames < EIGHTH or (fit == "pad" and frames % EIGHTH):
        raise ConfigError(
            f"the 3-D U-Net needs frames to be a multiple of {EIGHTH}, got {frames}; fit=resize takes any"
        )
    if not 0 <= hop <= frames:
        raise ConfigError(f"the 3-D U-Net keeps at most its {frames} frames of a window, got hop {hop}")


def from_upstream(
    state_dict: Mapping[str, Tensor],
    *,
    scale: float = 1.0,
    frames: int = FRAMES,
    fit: str = "pad",
    hop: int = 0,
) -> UNet3dNetwork:
    """The weights of the authors of DeepCAD or DeepCAD-RT, strictly; the width is read from them.

    frames, fit, hop: see `UNet3dNetwork`; fit=resize frames=150 hop=60 is the authors' own way, without their gain per
    tile.  scale: counts per unit of the frames that the network will get. Theirs live in raw counts above the movie's
    minimum (DeepCAD, DeepCAD-RT until 2022-03-14) or around its mean (since then): the file does not say which. All
    layers are convolutions with ReLU, so the same network for frames divided by `scale` has the same weights and its
    biases divided by it, exactly (sheet B, shared facts). Raises FileFormatError when a tensor is missing, foreign or
    of another shape.
    """
    foreign = [name for name in state_dict if not name.startswith(PREFIX)]
    if foreign:
        raise FileFormatError(f"not a DeepCAD checkpoint: unknown {foreign[:3]}, expected names like {PREFIX}{FIRST}")
    theirs = {name.removeprefix(PREFIX): tensor for name, tensor in state_dict.items()}
    return network_of(theirs, "DeepCAD", scale=scale, frames=frames, fit=fit, hop=hop)


def network_of(
    theirs: Mapping[str, Tensor], title: str, *, scale: float, frames: int, fit: str, hop: int
) -> UNet3dNetwork:
    """A network of tensors named without `PREFIX`; see `from_upstream`. title: whose they should be."""
    first = theirs.get(FIRST)
    if first is None or first.dim() != 5:
        raise FileFormatError(f"not a {title} checkpoint: it has no {FIRST} of (width, maps, 3, 3, 3)")
    network = UNet3dNetwork(len(first), frames, fit, hop)
    ours = {our_name(name): tensor for name, tensor in theirs.items()}
    _check_tensors(title, ours, network.unet.state_dict())
    network.unet.load_state_dict(ours)
    with torch.no_grad():
        for module in network.unet.modules():
            if isinstance(module, nn.Conv3d) and module.bias is not None:
                module.bias.div_(scale)
    return network.eval()


def our_name(name: str) -> str:
    """The tensor of `UNet3d` that the authors' tensor `name` is; a foreign name stays as it is."""
    found = THEIR_NAME.fullmatch(name)
    if found is None:
        return re.sub(r"^final_conv\.", "final.", name)
    level, number, kind = found.groups()
    return f"{level}.{'first' if number == '1' else 'second'}.{kind}"


def _check_tensors(title: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    missing, foreign = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or foreign:
        raise FileFormatError(f"not a {title} checkpoint: missing {missing[:3]}, unknown {foreign[:3]}")
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape:
            raise FileFormatError(f"{name} is {tuple(given[name].shape)}, {title} needs {tuple(tensor.shape)}")


METHOD = Method(
    name="deepcad",
    title="DeepCAD: 3-D U-Net between interlaced frames",
    reference="10.1038/s41592-021-01225-0",
    network=partial(UNet3dNetwork, width=WIDTH),
    task=partial(ViewPairsTask, augment=False),
    narrow={"width": 8, "frames": 16},
    from_upstream=from_upstream,
    upstream_units="fixed",
    terms="The authors' weights come under GPL-2.0 or, with DeepCAD-RT, GPL-3.0: whoever passes them on passes them on "
    "under it.",
)
