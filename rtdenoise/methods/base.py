"""What a published method brings: a network, a task, and the way its own checkpoints come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rtdenoise import registry
from rtdenoise.errors import ConfigError
from rtdenoise.frame import WindowSpec

Facts = Mapping[str, int | float | str | bool]


@dataclass(slots=True, frozen=True)
class Deployment:
    """A network rewritten to run, without BatchNorm, by role (see `rtdenoise.bundle.Manifest.graphs`).

    newest_frames: frames that `newest` takes; 0 when only the whole `window` exists.
    """

    graphs: Mapping[str, nn.Module]
    newest_frames: int = 0


class Network(nn.Module):
    """`(B, T, Y, X)` normalised frames -> `(B, K, Y, X)`, T = `window.size`, K = `len(window.emits)`; any Y, X the
    method allows.

    `facts` rebuild it: `method.network(**network.facts)`.
    """

    window: WindowSpec
    facts: dict[str, int | float | str | bool]

    def deploy(self, **options: int) -> Deployment:
        """The same function in the form that is exported. Overridden by networks that fold or split.

        Raises ConfigError for an option that the network does not have.
        """
        if options:
            raise ConfigError(f"{type(self).__name__} has no deploy option {', '.join(options)}")
        return Deployment({"window": self})


@dataclass(slots=True, frozen=True)
class Losses:
    """One training step's loss and the terms it is the sum of, for the progress line."""

    total: Tensor
    terms: Mapping[str, float]


@runtime_checkable
class Task(Protocol):
    """How a network learns from noisy clips alone.

    clip_frames: consecutive frames that one loss needs.  min_crop: smallest crop side in pixels.
    `loss(network, clips, scale, generator)`: `clips` (B, clip_frames, Y, X) normalised, `scale` (B,) counts per
    normalised unit of the movie each clip comes from; all chance comes from `generator` (a CPU generator).
    `optimizer(network, learning_rate, scale)`: `scale` is the typical counts per normalised unit of the training data.
    """

    clip_frames: int
    min_crop: int

    def loss(self, network: Network, clips: Tensor, scale: Tensor, generator: torch.Generator) -> Losses:
        """One step's loss; see the class."""
        ...

    def optimizer(self, network: Network, learning_rate: float, scale: float) -> torch.optim.Optimizer:
        """The published optimiser; see the class."""
        ...


@dataclass(slots=True, frozen=True)
class Method:
    """A published network and its task.

    blind: an output pixel never sees its own input pixel.  merge: how overlapping windows become one frame
    (`halving`: each later window replaces a frame by the mean of old and new; see `Manifest.merge`).
    from_upstream: strict loader of the authors' state dict; `facts` are what their checkpoint does not store.
    """

    name: str
    title: str
    reference: str
    network: Callable[..., Network]
    task: Callable[..., Task]
    blind: bool = False
    merge: Literal["none", "halving"] = "none"
    from_upstream: Callable[..., Network] | None = None


def load(name: str) -> Method:
    """A registered method by name. Raises ConfigError when the name is unknown."""
    method: Any = registry.load(registry.METHODS, name)
    if not isinstance(method, Method):
        raise TypeError(f"entry point {name!r} of {registry.METHODS} is a {type(method).__name__}, not a Method")
    return method
