"""What a model is trained on and how, as committed in `models/<name>/recipe.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from rtdenoise import config
from rtdenoise.config import Settings
from rtdenoise.errors import ConfigError

FILE = "recipe.toml"
STEP = 4
"""Crops begin at multiples of this many pixels: FAST's output depends on the position modulo 4 (sheet C 1.2)."""


class SimulatedMovies(Settings):
    """Movies of one preset: one per seed, taking the input SNRs in turn. `change` overrides simulation parameters."""

    preset: str
    seeds: tuple[int, ...] = Field(min_length=1)
    snr_db: tuple[float, ...] = Field(min_length=1)
    shape: tuple[int, int] = (256, 256)
    n_frames: int = Field(default=300, ge=2)
    change: dict[str, Any] = {}


class DataSettings(Settings):
    """movies: TIFF files or Zarr folders by glob, relative to the recipe.  max_frames: read from each movie's start."""

    movies: tuple[str, ...] = ()
    max_frames: int = Field(default=2000, ge=2)
    simulated: tuple[SimulatedMovies, ...] = ()

    @model_validator(mode="after")
    def _something(self) -> DataSettings:
        if not self.movies and not self.simulated:
            raise ValueError("needs `movies` or `simulated`")
        return self


class TrainSettings(Settings):
    """steps: optimiser steps.  batch: crops per step, each of a movie of its own choice, shared among the processes.
    crop_px: side of a crop.

    schedule: as `published` for the method, `constant`, `cosine` from learning_rate to 0, or `plateau`: times
    `plateau_factor` after more than `plateau_patience` validations that were no better.
    freeze_norm_at: share of the steps after which BatchNorm keeps its running statistics, as it will live; 1 for never.
    held_out: share of each movie, its last frames, that is kept for the validation loss; 0 for no such loss.
    patience: validations without a better one after which training ends; 0 for never.
    keep: whether the weights of the `best` validation loss become the bundle, or the `last` ones.
    checkpoint_every, validate_every: steps.  threads: of each process; 0 leaves torch's choice.
    precision, device, devices: see `rtdenoise.train.devices`; `auto` is a GPU where torch sees one, devices how many.
    """

    steps: int = Field(ge=1)
    batch: int = Field(default=4, ge=1)
    crop_px: int = Field(default=128, ge=8, multiple_of=STEP)
    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["published", "constant", "cosine", "plateau"] = "published"
    plateau_factor: float = Field(default=0.5, gt=0, lt=1)
    plateau_patience: int = Field(default=5, ge=0)
    freeze_norm_at: float = Field(default=1.0, ge=0, le=1)
    held_out: float = Field(default=0.1, ge=0, le=0.5)
    patience: int = Field(default=0, ge=0)
    keep: Literal["best", "last"] = "best"
    seed: int = Field(default=123, ge=0)
    checkpoint_every: int = Field(default=1000, ge=1)
    validate_every: int = Field(default=2000, ge=1)
    threads: int = Field(default=0, ge=0)
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _something_to_watch(self) -> TrainSettings:
        if self.held_out == 0 and (self.patience or self.schedule == "plateau"):
            raise ValueError("`patience` and the schedule `plateau` follow the validation loss; give `held_out`")
        return self


class BundleSettings(Settings):
    """What the bundle says it was made for, and where it goes (relative to the recipe; beside it when empty)."""

    folder: str = "bundle"
    frame_rate_hz: float | None = None
    pixel_um: float | None = None
    indicator: str | None = None
    noise_gain: float | None = None


class CardSettings(Settings):
    """score_on: simulated movies of the card's table.  limits: what the model is not good for, one sentence each."""

    score_on: tuple[SimulatedMovies, ...] = ()
    limits: tuple[str, ...] = ("Only what the table shows was measured.",)
    licence: str = "As rtdenoise itself; the training data decide what else applies."


class Recipe(Settings):
    """One model. network, task: facts that the method's network takes, and options of its task.

    validate_on: simulated movies that training never sees, looked at as it goes on.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    method: str
    network: dict[str, int | float | str | bool] = {}
    task: dict[str, int | float | str | bool] = {}
    data: DataSettings
    train: TrainSettings
    validate_on: tuple[SimulatedMovies, ...] = ()
    bundle: BundleSettings = BundleSettings()
    card: CardSettings = CardSettings()


def load(path: Path) -> tuple[Recipe, Path]:
    """The recipe of a folder or file, and its folder. Raises ConfigError naming file and key."""
    file = path / FILE if path.is_dir() else path
    recipe = config.load(Recipe, file)
    used = {seed for group in recipe.data.simulated for seed in group.seeds}
    shared = used & {seed for group in (*recipe.validate_on, *recipe.card.score_on) for seed in group.seeds}
    if shared:
        raise ConfigError(f"{file}: seeds {sorted(shared)} are both in data and in validate_on or card; choose others")
    return recipe, file.parent
