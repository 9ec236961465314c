"""From a recipe and movies to a training before its first step."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch.optim.lr_scheduler import ReduceLROnPlateau

from rtdenoise.errors import ConfigError
from rtdenoise.methods.base import Method, Network, Task
from rtdenoise.train import devices
from rtdenoise.train.crops import Crops, hold_out
from rtdenoise.train.loop import Training
from rtdenoise.train.movies import Movie, typical_scale
from rtdenoise.train.recipe import Recipe, TrainSettings
from rtdenoise.train.watch import HeldOut


def begin(recipe: Recipe, method: Method, material: list[Movie], fabric: Fabric | None = None) -> Training:
    """The state before the first step; everything random follows from the recipe's seed.

    Raises ConfigError for facts or options that the method does not have, and for movies or crops too small for it.
    """
    fabric, settings = fabric or devices.connect(recipe.train), recipe.train
    torch.manual_seed(settings.seed)
    network, task = _made(recipe, method)
    learn, kept = hold_out(material, settings.held_out, task.clip_frames) if settings.held_out else (material, [])
    optimizer = task.optimizer(network, settings.learning_rate, typical_scale(material))
    plateau = ReduceLROnPlateau(optimizer, factor=settings.plateau_factor, patience=settings.plateau_patience)
    wrapped, stepper = fabric.setup(network, optimizer)
    if isinstance(task, torch.nn.Module):
        fabric.to_device(task)
    return Training(
        recipe=recipe,
        fabric=fabric,
        network=network,
        wrapped=wrapped,
        task=task,
        crops=Crops(learn, task.clip_frames, settings.crop_px),
        held_out=_held_out(kept, task, settings),
        optimizer=stepper,
        plateau=plateau,
    )


def _made(recipe: Recipe, method: Method) -> tuple[Network, Task]:
    try:
        network = method.network(**recipe.network)
        task = method.task(network, **recipe.task)
    except TypeError as error:
        raise ConfigError(f"recipe {recipe.name}: [network] or [task]: {error}") from None
    crop = recipe.train.crop_px
    if crop < task.min_crop:
        raise ConfigError(
            f"recipe {recipe.name}: train.crop_px {crop} is below what {method.name} needs, {task.min_crop}"
        )
    for weight in network.parameters():
        if weight.dim() == 4:  # the kernels of 3-D convolutions have no such layout
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network, task


def _held_out(movies: list[Movie], task: Task, settings: TrainSettings) -> HeldOut | None:
    if not movies:
        return None
    return HeldOut(Crops(movies, task.clip_frames, settings.crop_px), settings.batch, settings.seed)
