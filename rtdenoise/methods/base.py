"""What a published method brings: a network, a task, and the way its own checkpoints come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rtdenoise import registry
from rtdenoise.bundle import StageFacts, StepFacts
from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec

Facts = Mapping[str, int | float | str | bool]


@dataclass(slots=True, frozen=True)
class Deployment:
    """A network rewritten to run, without BatchNorm, by role (see `rtdenoise.bundle.Manifest.graphs`).

    newest_frames: frames that `newest` takes; 0 when only the whole `window` exists.
    step: what the graph `step` takes and carries, where the network runs as a stream.
    stages: what the graphs `encode` and `fuse` take, where the first stage runs once per new frame.
    """

    graphs: Mapping[str, nn.Module]
    newest_frames: int = 0
    step: StepFacts | None = None
    stages: StageFacts | None = None


class Network(nn.Module):
    """`(B, T, Y, X)` normalised frames -> `(B, K, Y, X)`, T = `window.size`, K = `len(window.emits)`; any Y and X of at
    least `min_side`.

    A network that gives all frames of its block says in `window.hop` how many a run should keep, those in the middle.
    `facts` rebuild it: `method.network(**network.facts)`.  unseen: positions of the window that no output depends on.
    stages: present when `forward` is `encode` and `fuse`.
    """

    window: WindowSpec
    facts: dict[str, int | float | str | bool]
    min_side: int = 1
    unseen: tuple[int, ...] = ()
    stages: StageFacts | None = None

    def encode(self, frames: Tensor) -> Tensor:
        """`(B, span, Y, X)` normalised frames -> `(B, maps, Y, X)` features. Raises ConfigError without stages."""
        raise ConfigError(f"{type(self).__name__} has no first stage of its own")

    def fuse(self, features: Tensor) -> Tensor:
        """Features of all `span` frames in the window, oldest first, `(B, (T - span + 1) * maps, Y, X)` ->
        `(B, K, Y, X)`. Raises ConfigError without stages.
        """
        raise ConfigError(f"{type(self).__name__} has no second stage of its own")

    def deploy(self, **options: int) -> Deployment:
        """The same function in the form that is exported. Overridden by networks that fold or split.

        Raises ConfigError for an option that the network does not have.
        """
        if options:
            raise ConfigError(f"{type(self).__name__} has no deploy option {', '.join(options)}")
        return whole_and_stages(self)


class FirstStage(nn.Module):
    """A network's `encode` alone."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        """See `Network.encode`."""
        return self.network.encode(frames)


class SecondStage(nn.Module):
    """A network's `fuse` alone."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """See `Network.fuse`."""
        return self.network.fuse(features)


def whole_and_stages(network: Network) -> Deployment:
    """A network as it is, and cut in two where it has stages."""
    if network.stages is None:
        return Deployment({"window": network})
    graphs = {"window": network, "encode": FirstStage(network), "fuse": SecondStage(network)}
    return Deployment(graphs, stages=network.stages)


@dataclass(slots=True, frozen=True)
class Losses:
    """One training step's loss and the terms it is the sum of, for the progress line."""

    total: Tensor
    terms: Mapping[str, float]


@dataclass(slots=True, frozen=True)
class Batch:
    """What one training step learns from.

    clips: (B, clip_frames, Y, X) normalised.  scale: (B,) counts per normalised unit of the movie each clip comes from.
    generator: a CPU generator, the only source of chance.  progress: share of the training that is done, 0 to 1.
    """

    clips: Tensor
    scale: Tensor
    generator: torch.Generator
    progress: float = 0.0


@runtime_checkable
class Task(Protocol):
    """How a network learns from noisy clips alone; made for one network. A task that remembers something from step to
    step is also an `nn.Module`: what its `state_dict` holds is saved with the training.

    clip_frames: consecutive frames that one loss needs.  min_crop: smallest crop side in pixels.
    `loss(network, batch)`: the network may be wrapped (several devices), so only its `forward` is used for gradients.
    `optimizer(network, learning_rate, scale)`: `scale` is the typical counts per normalised unit of the training data.
    `schedule(progress)`: the published factor on the learning rate when the share `progress` of the steps is done.
    """

    clip_frames: int
    min_crop: int

    def loss(self, network: nn.Module, batch: Batch) -> Losses:
        """One step's loss; see the class."""
        ...

    def schedule(self, progress: float) -> float:
        """The published course of the learning rate; see the class."""
        ...

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """The published optimiser; see the class."""
        ...


@dataclass(slots=True, frozen=True)
class Method:
    """A published network and its task.

    network: made of facts, the paper's by default.  task: made of the network and options of its own.
    narrow: facts of a network small enough to train on a CPU.  blind: an output pixel never sees its own input pixel.
    merge: how overlapping windows become one frame (`halving`: each later window replaces a frame by the mean of old
    and new; see `Manifest.merge`).
    from_upstream: strict loader of the authors' tensors; `facts` are what their checkpoint does not store.
    upstream_units: what the authors' networks eat: frames normalised by mean and sd as ours, by minimum and maximum
    (`min-max`), or camera counts times a fixed factor (`fixed`: such a bundle is never calibrated).
    terms: what the authors' licence or patents mean for their weights and for this method, one sentence.
    """

    name: str
    title: str
    reference: str
    network: Callable[..., Network]
    task: Callable[..., Task]
    narrow: Facts = field(default_factory=dict)
    blind: bool = False
    merge: Literal["none", "halving"] = "none"
    from_upstream: Callable[..., Network] | None = None
    upstream_units: Literal["mean-sd", "min-max", "fixed"] = "mean-sd"
    terms: str = ""


def load(name: str) -> Method:
    """A registered method by name. Raises ConfigError when the name is unknown."""
    method: Any = registry.load(registry.METHODS, name)
    if not isinstance(method, Method):
        raise TypeError(f"entry point {name!r} of {registry.METHODS} is a {type(method).__name__}, not a Method")
    return method
