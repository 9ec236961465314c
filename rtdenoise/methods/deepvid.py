"""DeepVID: seven frames, of which the centre one has pixels overwritten while it learns (Nat. Methods 2023).

Built from the published description (sheet A 2); weights that the authors' Keras code wrote load by name. Differences,
on purpose:

- the authors leave 10 % of the centre pixels overwritten when they denoise, so that a movie comes out different every
  time. Here the centre frame is left as it is, and the output is a function of the window;
- no trend is taken away: theirs is a quadratic fitted to the means of all frames, most of which lie in the future. Mean
  and sd are frozen at calibration, so bleaching stays in the output, as a slow offset of the network's input;
- crops from several movies make a batch, where the authors take whole frames of one; of every crop the ratio of pixels
  is overwritten, where the authors draw rows x rows whatever the columns, and never the last pixel;
- the last readout begins as the identity, theirs at random; all other layers begin as Keras begins them;
- at the start and end of a series the stream mirrors frames, where the authors drop 3 and 4; frames come out as float32,
  theirs as uint16, in which negatives wrap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Batch, Deployment, Losses, Method, Network
from rtdenoise.nn.replacement import elastic, least_side, masked_mse, replaced
from rtdenoise.nn.residual import ResidualNetwork, folded, neighbours_then_centre

EPS, SLOPE = 1e-3, 0.0
"""BatchNorm's, Keras's default, and PReLU's beginning (sheet A 2.2)."""
RATIO, PENALTY = 0.1, 0.01
"""Share of centre pixels overwritten, and the factor of both penalties (sheet A 2.4)."""
LAST = "out_block.1."
"""The only layer without penalty (sheet A 2.4)."""
LAYER = re.compile(r"(?:.*/)?(conv2d|batch_normalization|p_re_lu)(?:_(\d+))?/(\w+)(?::0)?")
"""Tensors of the authors' layers (sheet A 2.7); the number grows with every network of one Python session."""
PARTS = {
    "conv2d": {"kernel": "weight", "bias": "bias"},
    "batch_normalization": {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    },
    "p_re_lu": {"alpha": "weight"},
}
"""Keras's names of a layer's tensors and torch's."""
Layer = tuple[str, dict[str, Tensor]]


class DeepVidNetwork(Network):
    """(B, T, Y, X) -> (B, 1, Y, X): `frames` frames, the centre one among them; 1,228,612 parameters by default
    (`fullyconv_mask`, sheet A 2.2).

    Raises ConfigError unless `frames` is odd.
    """

    def __init__(self, frames: int = 7, features: int = 64, blocks: int = 16) -> None:
        super().__init__()
        if frames < 1 or frames % 2 == 0:
            raise ConfigError(f"DeepVID takes an odd number of frames, got {frames}")
        if min(features, blocks) < 1:
            raise ConfigError(f"DeepVID needs features and blocks, got {features} and {blocks}")
        self.window = WindowSpec(frames, (frames // 2,))
        self.facts = {"frames": frames, "features": features, "blocks": blocks}
        self.order = neighbours_then_centre(frames)
        self.core = ResidualNetwork(frames, features, blocks, eps=EPS, slope=SLOPE)
        for part in self.core.convolutions()[:-1]:
            nn.init.xavier_uniform_(part.conv.weight)
            nn.init.zeros_(part.conv.bias)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        return self.core(frames[:, self.order])  # type: ignore[no-any-return]

    def deploy(self, **options: int) -> Deployment:
        """BatchNorm folded, and the frames taken as they come."""
        super().deploy(**options)
        return Deployment({"window": folded(self.core, self.order)})


class DeepVidTask:
    """Some pixels of the centre frame are overwritten by others of that frame; their true values are the target.

    loss = mean squared error of those pixels + penalty * (sum |p| + sum p^2) over weights and biases of all convolutions
    but the last (sheet A 2.4). The sums are over 1.2 million numbers, so at the published 0.01 they begin hundreds of
    times above the error; BatchNorm scales back what the penalty shrinks, so the network still learns. A frozen
    BatchNorm does not: a recipe with `freeze_norm_at` sets the penalty to 0, or its loss explodes.
    ratio: share of pixels overwritten.  Raises ConfigError unless it is between 0 and 1.
    """

    def __init__(self, network: Network, ratio: float = RATIO, penalty: float = PENALTY) -> None:
        if not 0 < ratio < 1 or penalty < 0:
            raise ConfigError(f"DeepVID learns with a ratio in 0..1 and a penalty of 0 or more, got {ratio} {penalty}")
        self.clip_frames, (self.centre,) = network.window.size, network.window.emits
        self.min_crop = least_side(ratio)
        self.ratio, self.penalty = ratio, penalty

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """See the class."""
        wanted, clips = batch.clips[:, self.centre], batch.clips.clone()
        clips[:, self.centre], places = replaced(wanted, self.ratio, batch.generator)
        error = masked_mse(network(clips)[:, 0], wanted, places)
        penalised = [p for name, p in network.named_parameters() if ".conv." in name and LAST not in name]
        penalty = self.penalty * elastic(penalised)
        return Losses(error + penalty, {"error": float(error.detach()), "penalty": float(penalty.detach())})

    def schedule(self, progress: float) -> float:
        """Constant. The authors halve the rate after 200 epochs of 360 batches without progress (sheet A 2.4): runs of
        a few thousand steps never come so far.
        """
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam (sheet A 2.4; the published rate is 5e-6)."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate)


def from_upstream(state_dict: Mapping[str, Tensor]) -> DeepVidNetwork:
    """The authors' weights, strictly: {"conv2d_3/kernel:0": (Y, X, inputs, outputs), "p_re_lu/alpha:0": (1, 1, maps), ...}.

    Layers of a kind are in the order of their numbers (sheet A 2.7); frames, features and blocks follow from the first
    kernel and the number of layers. Raises FileFormatError when a tensor is missing, foreign or of another shape.
    """
    layers = _layers(state_dict)
    network = _form(layers["conv2d"])
    for kind, modules in _modules(network.core).items():
        if len(layers[kind]) != len(modules):
            wanted = (
                f"{len(layers['conv2d'])} conv2d layers ask for {len(modules)} {kind} layers, not {len(layers[kind])}"
            )
            raise FileFormatError(f"not a DeepVID checkpoint: {wanted}")
        for module, (name, tensors) in zip(modules, layers[kind], strict=True):
            _fill(module, kind, name, tensors)
    return network.eval()


def _layers(state_dict: Mapping[str, Tensor]) -> dict[str, list[Layer]]:
    """Layers by kind, in the order of their numbers; no number is the lowest."""
    found: dict[str, dict[int, dict[str, Tensor]]] = {kind: {} for kind in PARTS}
    for name, tensor in state_dict.items():
        match = LAYER.fullmatch(name)
        if match is None or match[3] not in PARTS[match[1]]:
            raise FileFormatError(f"not a DeepVID checkpoint: unknown tensor {name}")
        found[match[1]].setdefault(int(match[2] or 0), {})[match[3]] = tensor
    return {
        kind: [(f"{kind}_{number}" if number else kind, tensors) for number, tensors in sorted(layers.items())]
        for kind, layers in found.items()
    }


def _form(convolutions: list[Layer]) -> DeepVidNetwork:
    """The network that the first kernel and the number of convolutions, 4 and 2 per block, ask for."""
    name, tensors = convolutions[0] if convolutions else ("conv2d", {})
    kernel = tensors.get("kernel")
    if kernel is None or kernel.ndim != 4 or kernel.shape[2] % 2 == 0:
        raise FileFormatError(f"not a DeepVID checkpoint: {name}/kernel:0 is no (3, 3, odd frames, features)")
    if len(convolutions) < 6 or len(convolutions) % 2:
        raise FileFormatError(
            f"not a DeepVID checkpoint: it has {len(convolutions)} conv2d layers, not 4 and 2 per block"
        )
    return DeepVidNetwork(kernel.shape[2], kernel.shape[3], len(convolutions) // 2 - 2)


def _modules(core: ResidualNetwork) -> dict[str, list[nn.Module]]:
    """Torch's layers by Keras's kind, from input to output."""
    parts = core.convolutions()
    pieces = {"conv2d": "conv", "batch_normalization": "norm", "p_re_lu": "activation"}
    found = {kind: [getattr(part, piece) for part in parts] for kind, piece in pieces.items()}
    return {kind: [m for m in modules if not isinstance(m, nn.Identity)] for kind, modules in found.items()}


def _fill(module: nn.Module, kind: str, name: str, tensors: dict[str, Tensor]) -> None:
    wanted = module.state_dict()
    for part, torch_name in PARTS[kind].items():
        if part not in tensors:
            raise FileFormatError(f"not a DeepVID checkpoint: {name}/{part}:0 is missing")
        shape = _keras_shape(part, wanted[torch_name])
        if tensors[part].shape != shape:
            raise FileFormatError(f"{name}/{part}:0 is {tuple(tensors[part].shape)}, DeepVID needs {tuple(shape)}")
        stored = tensors[part].permute(3, 2, 0, 1) if part == "kernel" else tensors[part].flatten()
        wanted[torch_name].copy_(stored)


def _keras_shape(part: str, tensor: Tensor) -> torch.Size:
    if part == "kernel":
        return tensor.permute(2, 3, 1, 0).shape
    return torch.Size((1, 1, *tensor.shape)) if part == "alpha" else tensor.shape


METHOD = Method(
    name="deepvid",
    title="DeepVID",
    reference="10.1038/s41592-023-01820-3",
    network=DeepVidNetwork,
    task=DeepVidTask,
    narrow={"features": 32, "blocks": 6},
    from_upstream=from_upstream,
    terms="The authors' code and weights come without a licence, so all rights are theirs: import weights only for your "
    "own use.",
)
