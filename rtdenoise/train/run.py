"""From a recipe to a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric
from rich.console import Console

from rtdenoise import bundle as bundles
from rtdenoise.bundle import Bundle
from rtdenoise.errors import ConfigError
from rtdenoise.export import BundleFacts, export_bundle
from rtdenoise.export.clips import stored
from rtdenoise.methods import base
from rtdenoise.methods.base import Method
from rtdenoise.train import card, check, devices, movies, state
from rtdenoise.train.begin import begin
from rtdenoise.train.log import RunLog, write_curve
from rtdenoise.train.loop import Training
from rtdenoise.train.movies import Movie
from rtdenoise.train.progress import Report, progress
from rtdenoise.train.recipe import Recipe, load

CHECKPOINT = "training/checkpoint.pt"
LOG = "training/log.json"
CURVE = "training.json"
WINDOWS_ON_A_GPU = 8
"""Windows that a GPU denoises at a time for `gain_db`. Engineering choice; a processor core gains nothing from more
than one.
"""


def train(
    recipe_path: Path,
    *,
    threads: int | None = None,
    processes: int | None = None,
    restart: bool = False,
    quiet: bool = False,
) -> Bundle | None:
    """Train by the recipe in `recipe_path` (a folder or a TOML file), continuing an interrupted run, and write its
    bundle, its card and its curve (`training.json`).

    The state is saved in `training/` beside the recipe. threads, processes: override the recipe's threads and devices.
    None in the processes of torchrun that are not the first. Raises ConfigError or FileFormatError for a recipe, movie
    or checkpoint that cannot be used, EngineError when the exported graphs differ from the network.
    """
    recipe, folder = load(recipe_path)
    asked = {"threads": threads or recipe.train.threads, "devices": processes or recipe.train.devices}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=asked)})
    fabric = devices.connect(recipe.train)
    devices.launch(fabric, _train, recipe, folder, restart, quiet)
    return bundles.read(folder / recipe.bundle.folder) if fabric.is_global_zero else None


def _train(fabric: Fabric, recipe: Recipe, folder: Path, restart: bool, quiet: bool) -> None:
    """The work of one process."""
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    method = base.load(recipe.method)
    console = Console(quiet=quiet or not fabric.is_global_zero)
    with console.status("reading and simulating movies"):
        material = movies.gather(recipe.data, folder)
        with_truth = list(movies.simulated(recipe.validate_on)) if fabric.is_global_zero else []
    training = begin(recipe, method, material, fabric)
    _refuse_short(with_truth, training)
    checkpoint, log = folder / CHECKPOINT, RunLog(folder / LOG)
    if checkpoint.is_file() and not restart:
        state.restore(training, checkpoint)
    log.begin(training)
    with progress(console, training) as report:
        _advance_to_the_end(training, checkpoint, _Validation(method, with_truth, log), report)
    if fabric.is_global_zero:
        bundle = finish(training, method, material, folder, log)
        with console.status("scoring the bundle through the live stream"):
            card.write(folder, recipe, method, bundle, list(card.measure(bundle, recipe.card.score_on)))


class _Validation:
    """What happens every `validate_every` steps: the held-out loss in all processes, gains and the log in the first."""

    def __init__(self, method: Method, with_truth: Sequence[Movie], log: RunLog) -> None:
        self._method, self._with_truth, self.log = method, with_truth, log

    def __call__(self, training: Training) -> None:
        loss = training.validate()
        if training.fabric.is_global_zero:
            batch = WINDOWS_ON_A_GPU if training.fabric.device.type == "cuda" else 1
            self.log.add(training, loss, check.gains(self._method, training.network, self._with_truth, batch))


def _advance_to_the_end(training: Training, checkpoint: Path, validation: _Validation, report: Report) -> None:
    settings = training.recipe.train
    try:
        while not training.over:
            training.advance()
            if _due(training, settings.validate_every):
                validation(training)
            if training.over or _due(training, settings.checkpoint_every):
                state.save(training, checkpoint)
            report.show(training, validation.log.last())
    except KeyboardInterrupt:  # perhaps inside a step: only the last checkpoint is whole
        raise ConfigError(f"stopped after {training.step} steps; run again to continue from {checkpoint}") from None


def finish(training: Training, method: Method, material: list[Movie], folder: Path, log: RunLog) -> Bundle:
    """Export the network with the weights that are kept, and write down where it came from."""
    recipe = training.recipe
    facts = BundleFacts(
        name=recipe.name,
        normalization=material[0].normalization,
        frame_rate_hz=recipe.bundle.frame_rate_hz,
        pixel_um=recipe.bundle.pixel_um,
        indicator=recipe.bundle.indicator,
        noise_gain=recipe.bundle.noise_gain,
        provenance={
            "recipe": recipe.model_dump(mode="json", exclude={"card", "bundle"}),
            "steps": training.step,
            "kept_step": training.kept_step,
            "validation": log.entries,
        },
        files={} if recipe.data.simulated else stored([m.counts for m in material], training.network.window.size),
    )
    if training.kept_step != training.step:
        training.network.load_state_dict(training.best.weights)
    bundle, _ = export_bundle(method, training.network.cpu().eval(), folder / recipe.bundle.folder, facts)
    write_curve(folder / CURVE, training, log.entries)
    return bundle


def _refuse_short(with_truth: Sequence[Movie], training: Training) -> None:
    window = training.network.window.size
    for movie in with_truth:
        if len(movie.counts) < window:
            need = f"has {len(movie.counts)} frames, fewer than one window of {window}"
            raise ConfigError(f"validate_on: {movie.name} {need}; raise its n_frames")


def _due(training: Training, every: int) -> bool:
    return training.step % every == 0 or training.step == training.recipe.train.steps
