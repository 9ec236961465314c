"""DeepInterpolation: a frame predicted from its neighbours in time alone, Nat. Methods 2021.

Built from the published description (sheet A 1); weights written by the authors' Keras code load by shape. Differences
in training, on purpose:

- crops where the authors take whole frames, and each clip of a batch from a movie of its own;
- mean and sd of a movie come from frames spread over it, not from its first 1000; live they are frozen at calibration;
- the weights of the last step are kept, where the authors keep those of the best validation;
- torch adds RMSprop's epsilon outside the square root.

At sizes that 16 does not divide the authors' network stops with an error. Here the last row and column of a level pool
alone, and what is up-sampled is cut to the size of its skip: nothing shifts, and at multiples of 16 nothing changes.
At the start and end of a series the stream mirrors frames, where the authors drop those that lack neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Batch, Losses, Method, Network

RHO, EPSILON = 0.9, 1e-7
"""RMSprop as published (sheet A 1.4)."""
LAYER = re.compile(r"(?:.*/)?conv2d(?:_(\d+))?/(kernel|bias)(?::0)?")
"""Tensors of the authors' layers (sheet A 1.7); the number grows with every network of one Python session."""


class DeepInterpolationNetwork(Network):
    """(B, T, Y, X) -> (B, 1, Y, X): a 2-D U-Net whose channels are `pre` frames before and `post` frames after the one
    it predicts; 15,704,769 parameters by default (`unet_single_1024`, sheet A 1.2).

    omission: frames next to the predicted one, on each side, that are left out too.  down, bottom, up: filters of the
    3x3 convolutions before each pooling, below the last, and after each up-sampling, as text.  `up` may be one shorter
    than `down`: then the readout itself merges the first skip.  readout: side of the last kernel.
    Raises ConfigError for a network without frames, or widths that do not pair.
    """

    around: Tensor

    def __init__(
        self,
        pre: int = 30,
        post: int = 30,
        omission: int = 0,
        down: str = "64 128 256 512",
        bottom: str = "1024",
        up: str = "512 256 128 64",
        readout: int = 1,
    ) -> None:
        super().__init__()
        if min(pre, post, omission) < 0 or pre + post < 1:
            raise ConfigError(f"DeepInterpolation needs frames beside the predicted one, got {pre} + {post}")
        before, after = (n + omission if n else 0 for n in (pre, post))
        self.window = WindowSpec(before + 1 + after, (before,))
        self.unseen = tuple(range(pre, before + 1 + after - post))
        self.facts = {"pre": pre, "post": post, "omission": omission}
        self.facts |= {"down": down, "bottom": bottom, "up": up, "readout": readout}
        around = [*range(pre), *range(self.window.size - post, self.window.size)]
        self.register_buffer("around", torch.tensor(around), persistent=False)
        self._build(_filters(down), _filters(bottom), _filters(up), readout)

    def _build(self, down: list[int], bottom: list[int], up: list[int], readout: int) -> None:
        if not down or not bottom or len(down) - len(up) not in (0, 1):
            raise ConfigError(f"DeepInterpolation cannot join {len(up)} up-samplings to {len(down)} poolings")
        self.down, width = _chain(len(self.around), down)
        self.bottom, width = _chain(width, bottom)
        self.up = nn.ModuleList()
        for filters, skip in zip(up, reversed(down), strict=False):
            self.up.append(_convolution(width + skip, filters, 3))
            width = filters
        if len(up) < len(down):
            width += down[0]
        self.readout = _convolution(width, 1, readout)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        x = frames.index_select(1, self.around)  # slices would have OpenVINO reorder the whole window first
        skips = []
        for conv in self.down:
            skips.append(F.relu(conv(x)))
            x = F.max_pool2d(skips[-1], 2, ceil_mode=True)
        for conv in self.bottom:
            x = F.relu(conv(x))
        for conv in self.up:
            x = F.relu(conv(_merged(x, skips.pop())))
        if skips:
            x = _merged(x, skips.pop())
        return self.readout(x)  # type: ignore[no-any-return]


class DeepInterpolationTask:
    """The noisy frame itself is the target: what the network cannot know of it, its noise, it cannot learn.

    error: `mae` as in the paper (learns the median), or `mse` as the networks released in 2021 (learns the mean, which
    is what counts where few photons make the noise skewed).  Raises ConfigError for another.
    """

    def __init__(self, network: Network, error: Literal["mae", "mse"] = "mae") -> None:
        if error not in ("mae", "mse"):
            raise ConfigError(f"DeepInterpolation learns by error `mae` or `mse`, not {error!r}")
        self.clip_frames = network.window.size
        self.min_crop = 16
        self._emits, self._error = list(network.window.emits), error

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """Error of the predicted frame, normalised (sheet A 1.4)."""
        predicted, wanted = network(batch.clips), batch.clips[:, self._emits]
        measure = F.l1_loss if self._error == "mae" else F.mse_loss
        total = measure(predicted, wanted)
        return Losses(total, {self._error: float(total.detach())})

    def schedule(self, progress: float) -> float:
        """Constant: the authors' decay can never be switched on (sheet A 1.10)."""
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """RMSprop (sheet A 1.4; the paper's rate is 5e-4)."""
        return torch.optim.RMSprop(network.parameters(), lr=learning_rate, alpha=RHO, eps=EPSILON)


def from_upstream(
    state_dict: Mapping[str, Tensor], *, pre: int | None = None, post: int | None = None, omission: int = 0
) -> DeepInterpolationNetwork:
    """The authors' weights, strictly: {"conv2d_3/kernel:0": (Y, X, inputs, outputs), "conv2d_3/bias:0": ...}.

    The order of the layers is that of their numbers, the form of the network follows from the shapes (sheet A 1.7).
    pre, post: frames before and after; half of the first kernel's inputs each when not given.  omission: not stored.
    Raises FileFormatError when a tensor is missing, foreign or of a shape that does not fit.
    """
    layers = _layers(state_dict)
    widths, poolings, first_merge = _form(layers)
    before, after = _frames(widths[0][0], pre, post)
    outputs = [str(layer[1]) for layer in widths[:-1]]
    network = DeepInterpolationNetwork(
        before,
        after,
        omission,
        down=" ".join(outputs[:poolings]),
        bottom=" ".join(outputs[poolings:first_merge]),
        up=" ".join(outputs[first_merge:]),
        readout=layers[-1][1].shape[0],
    )
    convolutions = [*network.down, *network.bottom, *network.up, network.readout]
    for conv, (name, kernel, bias) in zip(convolutions, layers, strict=True):
        _fill(conv, name, kernel, bias)
    return network.eval()


def _filters(text: str) -> list[int]:
    try:
        found = [int(word) for word in str(text).split()]
    except ValueError:
        found = [0]
    if any(n < 1 for n in found):
        raise ConfigError(f'DeepInterpolation takes filters as positive numbers, like "64 128", not {text!r}')
    return found


def _convolution(inputs: int, outputs: int, side: int) -> nn.Conv2d:
    """Initialised as Keras does: Glorot uniform, no bias (the released files' own description)."""
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _chain(inputs: int, outputs: list[int]) -> tuple[nn.ModuleList, int]:
    sides = zip([inputs, *outputs[:-1]], outputs, strict=True)
    return nn.ModuleList([_convolution(a, b, 3) for a, b in sides]), outputs[-1]


def _merged(coarse: Tensor, skip: Tensor) -> Tensor:
    """`coarse` at twice its size before `skip`, in this order (sheet A 1.2)."""
    height, width = skip.shape[-2:]
    return torch.cat([F.interpolate(coarse, scale_factor=2.0)[..., :height, :width], skip], 1)


def _layers(state_dict: Mapping[str, Tensor]) -> list[tuple[str, Tensor, Tensor]]:
    """(name, kernel, bias) in the order of the layers' numbers; no number is the lowest."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state_dict.items():
        match = LAYER.fullmatch(name)
        if match is None:
            raise FileFormatError(f"not a DeepInterpolation checkpoint: unknown tensor {name}")
        found.setdefault(int(match[1] or 0), {})[match[2]] = tensor
    layers = []
    for number, parts in sorted(found.items()):
        name = f"conv2d_{number}" if number else "conv2d"
        missing = {"kernel", "bias"} - parts.keys()
        if missing:
            raise FileFormatError(f"not a DeepInterpolation checkpoint: {name}/{missing.pop()}:0 is missing")
        if parts["kernel"].ndim != 4:
            raise FileFormatError(f"{name}/kernel:0 is {tuple(parts['kernel'].shape)}, not (Y, X, inputs, outputs)")
        layers.append((name, parts["kernel"], parts["bias"]))
    return layers


def _form(layers: list[tuple[str, Tensor, Tensor]]) -> tuple[list[tuple[int, int]], int, int]:
    """(inputs, outputs) of every layer, the number of poolings, and the layer that first merges a skip.

    A layer that takes more than the one before gives merges a skip, and there is one skip for each pooling.
    """
    widths = [(kernel.shape[2], kernel.shape[3]) for _, kernel, _ in layers]
    merging = [i for i in range(1, len(widths)) if widths[i][0] != widths[i - 1][1]]
    n = len(merging)
    if not merging or merging != list(range(merging[0], merging[0] + n)) or not n < merging[0] or widths[-1][1] != 1:
        raise FileFormatError(f"not a DeepInterpolation checkpoint: layers of (inputs, outputs) {widths} are no U-Net")
    if merging[-1] < len(layers) - 2:
        raise FileFormatError(f"{layers[-1][0]}/kernel:0: DeepInterpolation has one layer after its last skip at most")
    return widths, n, merging[0]


def _frames(inputs: int, pre: int | None, post: int | None) -> tuple[int, int]:
    """Frames before and after; what is not given is the rest, or half."""
    if pre is None:
        pre = inputs - post if post is not None else inputs // 2
    post = inputs - pre if post is None else post
    if pre + post != inputs or min(pre, post) < 0:
        raise FileFormatError(f"the DeepInterpolation checkpoint sees {inputs} frames, not {pre} + {post}")
    return pre, post


def _fill(conv: nn.Module, name: str, kernel: Tensor, bias: Tensor) -> None:
    stored = {"weight": kernel.permute(3, 2, 0, 1), "bias": bias}
    for part, wanted in conv.state_dict().items():
        if stored[part].shape != wanted.shape:
            where = f"{name}/{'kernel' if part == 'weight' else 'bias'}:0"
            given, needed = tuple(stored[part].shape), tuple(wanted.shape)
            raise FileFormatError(f"{where} is {given} (kernels: outputs, inputs, Y, X), this form needs {needed}")
    conv.load_state_dict(stored)


METHOD = Method(
    name="deepinterpolation",
    title="DeepInterpolation",
    reference="10.1038/s41592-021-01285-2",
    network=DeepInterpolationNetwork,
    task=DeepInterpolationTask,
    narrow={"down": "32 32 32 32", "bottom": "32", "up": "32 32 32 32"},
    blind=True,
    from_upstream=from_upstream,
    terms="The authors' code and weights are for non-commercial use only (Allen Institute Software License), and a "
    "patent application covers the method (WO2021086562A1).",
)
