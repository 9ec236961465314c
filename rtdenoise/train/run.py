"""From a recipe to a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rtdenoise.bundle import Bundle
from rtdenoise.errors import ConfigError
from rtdenoise.export import BundleFacts, export_bundle
from rtdenoise.methods import base
from rtdenoise.methods.base import Losses, Method
from rtdenoise.train import card, check, movies
from rtdenoise.train.loop import Training, typical_scale
from rtdenoise.train.movies import Crops, Movie
from rtdenoise.train.recipe import Recipe, load

CHECKPOINT = "training/checkpoint.pt"
LOG = "training/log.json"
SMOOTHING = 0.98
"""Weight of the past in the loss that the progress line shows."""


def train(recipe_path: Path, *, threads: int | None = None, restart: bool = False, quiet: bool = False) -> Bundle:
    """Train by the recipe in `recipe_path` (a folder or a TOML file), continuing an interrupted run, and write its
    bundle.

    The state is saved in `training/` beside the recipe. threads: overrides the recipe's.
    Raises ConfigError or FileFormatError for a recipe, movie or checkpoint that cannot be used, EngineError when the
    exported graphs differ from the network.
    """
    recipe, folder = load(recipe_path)
    if threads or recipe.train.threads:
        torch.set_num_threads(threads or recipe.train.threads)
    method = base.load(recipe.method)
    console = Console(quiet=quiet)
    with console.status("reading and simulating movies"):
        material = movies.gather(recipe.data, folder)
        held_out = list(movies.simulated(recipe.validate_on))
    training = begin(recipe, method, material)
    checkpoint = folder / CHECKPOINT
    if checkpoint.is_file() and not restart:
        training.restore(checkpoint)
    log = RunLog(folder / LOG, method, held_out)
    with _progress(console, training) as report:
        _advance_to_the_end(training, checkpoint, log, report)
    bundle = finish(training, method, material, folder, log)
    with console.status("scoring the bundle through the live stream"):
        card.write(folder, recipe, method, bundle, list(card.measure(bundle, recipe.card.score_on)))
    return bundle


def _advance_to_the_end(training: Training, checkpoint: Path, log: RunLog, report: _Report) -> None:
    settings = training.recipe.train
    try:
        while training.step < settings.steps:
            report(training.advance(), log)
            if _due(training, settings.checkpoint_every):
                training.save(checkpoint)
            if _due(training, settings.validate_every):
                log.add(training)
    except KeyboardInterrupt:  # perhaps inside a step: only the last checkpoint is whole
        raise ConfigError(f"stopped after {training.step} steps; run again to continue from {checkpoint}") from None


def begin(recipe: Recipe, method: Method, material: list[Movie]) -> Training:
    """The state before the first step; everything random follows from the recipe's seed."""
    torch.manual_seed(recipe.train.seed)
    try:
        network = method.network(**recipe.network)
        task = method.task(network, **recipe.task)
    except TypeError as error:
        raise ConfigError(f"recipe {recipe.name}: [network] or [task]: {error}") from None
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crop = recipe.train.crop_px
    if crop < task.min_crop:
        raise ConfigError(
            f"recipe {recipe.name}: train.crop_px {crop} is below what {method.name} needs, {task.min_crop}"
        )
    optimizer = task.optimizer(
        network, recipe.train.learning_rate, typical_scale([m.normalization.scale for m in material])
    )
    generator = torch.Generator().manual_seed(recipe.train.seed)
    return Training(recipe, network, task, Crops(material, task.clip_frames, crop), optimizer, generator)


def finish(training: Training, method: Method, material: list[Movie], folder: Path, log: RunLog) -> Bundle:
    """Export the trained network and write down where it came from."""
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
            "validation": log.entries,
        },
    )
    bundle, _ = export_bundle(method, training.network.eval(), folder / recipe.bundle.folder, facts)
    return bundle


@dataclass
class RunLog:
    """Validation results as the run goes on, kept in a JSON file beside the checkpoint."""

    path: Path
    method: Method
    held_out: list[Movie]
    entries: list[dict[str, float | dict[str, float]]] = field(default_factory=list)
    last: str = ""

    def __post_init__(self) -> None:
        if self.path.is_file():
            self.entries = json.loads(self.path.read_text(encoding="utf-8"))

    def add(self, training: Training) -> None:
        """Denoise the held-out movies with the network as it is; `gain_db` per movie."""
        if not self.held_out:
            return
        network = training.network
        gains = {m.name: check.gain_db(m, check.denoised(self.method, network, m)) for m in self.held_out}
        self.entries = [e for e in self.entries if e["step"] < training.step]  # type: ignore[operator]
        self.entries.append({"step": training.step, "gain_db": gains})
        self.last = "gain " + " ".join(f"{g:.1f}" for g in gains.values()) + " dB"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.entries, indent=1) + "\n", encoding="utf-8")


class _Report:
    def __init__(self, bar: Progress, row: TaskID, training: Training) -> None:
        self._bar, self._row, self._training = bar, row, training
        self._smooth: float | None = None

    def __call__(self, losses: Losses, log: RunLog) -> None:
        now = losses.total.item()
        self._smooth = now if self._smooth is None else SMOOTHING * self._smooth + (1 - SMOOTHING) * now
        note = f"loss {self._smooth:.4f}  {log.last}"
        self._bar.update(self._row, completed=self._training.step, description=note)


@contextmanager
def _progress(console: Console, training: Training) -> Iterator[_Report]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, refresh_per_second=2) as bar:
        row = bar.add_task("starting", total=training.recipe.train.steps, completed=training.step)
        yield _Report(bar, row, training)


def _due(training: Training, every: int) -> bool:
    return training.step % every == 0 or training.step == training.recipe.train.steps
