"""DeepVID v2: a short window for what changes and the edges of a long mean image for what stays (bioRxiv 2024).

Built from the published description (sheet A 3); the weights of the authors' code load by name. Differences, on purpose:

- the authors' mean image is that of the whole movie, most of which lies in the future. Here it is the mean of the
  window, `prior` frames that end where the 7 frames of the network end. So a frame's output depends on its window
  alone, live as offline, and a gap needs no thought. In their words `edge_pre_post_frame`, but only the past is long;
- while training, the mean image holds the overwritten centre frame, theirs the original: a trace of the target;
- the authors leave 0.5 % of the centre pixels overwritten when they denoise, so that a movie comes out different every
  time. Here the centre frame is left as it is, and the output is a function of the window;
- no trend is taken away: theirs is a quadratic fitted to the means of all frames. Mean and sd are frozen at
  calibration, so bleaching stays in the output, and a network that learned without it sees a slow offset;
- crops from several movies make a batch, where the authors take whole frames of one; any pixel may be overwritten,
  where the authors never draw the last; a crop too small to overwrite one is refused, where they use all pixels;
- at the start and end of a series the stream mirrors frames, where the authors drop 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.frame import WindowSpec
from rtdenoise.methods.base import Batch, Deployment, Losses, Method, Network
from rtdenoise.nn.replacement import elastic, least_side, masked_mse, replaced
from rtdenoise.nn.residual import ResidualNetwork, folded, neighbours_then_centre

EPS, SLOPE = 1e-5, 0.25
"""BatchNorm's and PReLU's beginning (sheet A 3.2)."""
BLUR_PX, BLUR_SD = 9, 1.0
"""The mean image is smoothed by a Gaussian before its edges are taken (sheet A 3.3)."""
EDGES = (
    ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    ((0, 1, 2), (-1, 0, 1), (-2, -1, 0)),
    ((-2, -1, 0), (-1, 0, 1), (0, 1, 2)),
)
"""Cross-correlated with the mean image (sheet A 3.3)."""
FLAT = 1e-6
"""Least sd of the edge maps: those of a perfectly flat image stay 0. Engineering choice."""
RATIO, PENALTY = 0.005, 0.01
"""Share of centre pixels overwritten, and the factor of both penalties (sheet A 3.4)."""
COUNTER = "num_batches_tracked"


class EdgeMaps(nn.Module):
    """`(B, T, Y, X)` frames -> `(B, 4, Y, X)` edges of their mean image, z-scored over all four maps of a window.

    Computed in float32 whatever the network's precision: the sums go over all pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        steps = torch.arange(BLUR_PX) - BLUR_PX // 2
        bell = torch.exp(-steps.square() / (2 * BLUR_SD**2))
        self.blur: Tensor
        self.edges: Tensor
        self.register_buffer("blur", (bell / bell.sum())[None, None, :, None], persistent=False)
        self.register_buffer("edges", torch.tensor(EDGES).float()[:, None], persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        image = frames.mean(1, keepdim=True, dtype=torch.float32)
        reach, blur = BLUR_PX // 2, self.blur.float()
        image = F.conv2d(F.pad(image, [reach] * 4, mode="reflect"), blur)
        image = F.conv2d(image, blur.transpose(2, 3))
        maps = F.conv2d(F.pad(image, [1] * 4, mode="reflect"), self.edges.float())
        maps = maps - _mean(maps)
        spread = _mean(maps.square()).sqrt().clamp(min=FLAT)
        return (maps / spread).to(frames.dtype)


def _mean(maps: Tensor) -> Tensor:
    """(B, 1, 1, 1) mean of each item, axis by axis: over all pixels of 512 x 512 at once, ONNX Runtime's sum is off by 3e-4."""
    for axis in (3, 2, 1):
        maps = maps.mean(axis, keepdim=True)
    return maps


class DeepVidV2Network(Network):
    """(B, T, Y, X) -> (B, 1, Y, X): the last `frames` of a window of `prior` frames, and the edges of the mean of all;
    340,804 parameters by default (sheet A 3.2).

    Raises ConfigError unless `frames` is odd and `prior` at least as many.
    """

    min_side = BLUR_PX // 2 + 1  # a mirrored margin is narrower than the image

    def __init__(self, frames: int = 7, prior: int = 61, features: int = 64, blocks: int = 4) -> None:
        super().__init__()
        if frames % 2 == 0 or not 0 < frames <= prior:
            raise ConfigError(f"DeepVID v2 takes an odd number of frames out of `prior`, got {frames} of {prior}")
        if min(features, blocks) < 1:
            raise ConfigError(f"DeepVID v2 needs features and blocks, got {features} and {blocks}")
        self.window = WindowSpec(prior, (prior - 1 - frames // 2,))
        self.facts = {"frames": frames, "prior": prior, "features": features, "blocks": blocks}
        self.order = neighbours_then_centre(frames)
        self.maps = EdgeMaps()
        self.core = ResidualNetwork(frames + len(EDGES), features, blocks, eps=EPS, slope=SLOPE)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        near = frames[:, -len(self.order) :]
        return self.core(torch.cat([near[:, self.order], self.maps(frames)], 1))  # type: ignore[no-any-return]

    def deploy(self, **options: int) -> Deployment:
        """BatchNorm folded, and the frames taken as they come."""
        super().deploy(**options)
        return Deployment({"window": _Deployed(self)})


class _Deployed(nn.Module):
    near: Tensor

    def __init__(self, network: DeepVidV2Network) -> None:
        super().__init__()
        n, size = len(network.order), network.window.size
        self.register_buffer("near", torch.arange(size - n, size), persistent=False)
        self.maps = EdgeMaps()
        self.core = folded(network.core, [*network.order, *range(n, n + len(EDGES))])

    def forward(self, frames: Tensor) -> Tensor:
        near = frames.index_select(1, self.near)  # a slice would have OpenVINO reorder the whole window first
        return self.core(torch.cat([near, self.maps(frames)], 1))  # type: ignore[no-any-return]


class DeepVidV2Task:
    """Some pixels of the centre frame are overwritten by others of that frame; their true values are the target.

    loss = mean squared error of those pixels + penalty * (sum |p| + sum p^2) over all weights and biases of the
    convolutions (sheet A 3.4). The sums are over 340,000 numbers, so at the published 0.01 they begin a hundred times
    above the error; BatchNorm scales back what the penalty shrinks, so the network still learns. A frozen BatchNorm
    does not: a recipe with `freeze_norm_at` sets the penalty to 0, or its loss explodes within some hundred steps.
    ratio: share of pixels overwritten.  Raises ConfigError unless it is between 0 and 1.
    """

    def __init__(self, network: Network, ratio: float = RATIO, penalty: float = PENALTY) -> None:
        if not 0 < ratio < 1 or penalty < 0:
            raise ConfigError(
                f"DeepVID v2 learns with a ratio in 0..1 and a penalty of 0 or more, got {ratio} {penalty}"
            )
        self.clip_frames, (self.centre,) = network.window.size, network.window.emits
        self.min_crop = max(network.min_side, least_side(ratio))
        self.ratio, self.penalty = ratio, penalty

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """See the class."""
        wanted, clips = batch.clips[:, self.centre], batch.clips.clone()
        clips[:, self.centre], places = replaced(wanted, self.ratio, batch.generator)
        error = masked_mse(network(clips)[:, 0], wanted, places)
        penalty = self.penalty * elastic(p for name, p in network.named_parameters() if ".conv." in name)
        return Losses(error + penalty, {"error": float(error.detach()), "penalty": float(penalty.detach())})

    def schedule(self, progress: float) -> float:
        """Constant. The authors halve the rate after 200 x 360 batches without progress (sheet A 3.4): runs of a few
        thousand steps never come so far.
        """
        return 1.0

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """Adam (sheet A 3.4; published rates are 5e-6, and 1e-4 for a single movie)."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate)


def from_upstream(state_dict: Mapping[str, Tensor], *, prior: int = 61) -> DeepVidV2Network:
    """The authors' weights ("model" in their checkpoint), strictly. prior: frames of our mean image, not stored.

    Raises FileFormatError when a tensor is missing, foreign or of another shape than the first layer and the number of
    blocks ask for.
    """
    first = state_dict.get("in_block.conv.weight")
    if first is None or first.ndim != 4:
        raise FileFormatError("not a DeepVID v2 checkpoint: it has no in_block.conv.weight of four dimensions")
    features, frames = first.shape[0], first.shape[1] - len(EDGES)
    if frames < 1 or frames % 2 == 0:
        wanted = f"an odd number of frames and {len(EDGES)} edge maps"
        raise FileFormatError(f"in_block.conv.weight takes {first.shape[1]} maps, DeepVID v2 needs {wanted}")
    blocks = {name.split(".")[1] for name in state_dict if name.startswith("model.")}
    network = DeepVidV2Network(frames, max(prior, frames), features, max(1, len(blocks)))
    _check(state_dict, network.core.state_dict())
    # strict=False only for the step counters, which inference never reads and some copies leave out.
    network.core.load_state_dict(dict(state_dict), strict=False)
    return network.eval()


def _check(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    missing = sorted(name for name in wanted.keys() - given.keys() if not name.endswith(COUNTER))
    foreign = sorted(given.keys() - wanted.keys())
    if missing or foreign:
        raise FileFormatError(f"not a DeepVID v2 checkpoint: missing {missing[:3]}, unknown {foreign[:3]}")
    for name, tensor in wanted.items():
        if name in given and given[name].shape != tensor.shape:
            shapes = f"{tuple(given[name].shape)}, DeepVID v2 needs {tuple(tensor.shape)}"
            raise FileFormatError(f"{name} is {shapes}")


METHOD = Method(
    name="deepvidv2",
    title="DeepVID v2",
    reference="10.1101/2024.05.16.594448",
    network=DeepVidV2Network,
    task=DeepVidV2Task,
    narrow={"features": 32},
    from_upstream=from_upstream,
    terms="The authors' code is under GPL-3.0; they publish no weights.",
)
