"""Several processes train as one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from lightning_fabric import Fabric

from rtdenoise.errors import ConfigError, RtDenoiseError
from rtdenoise.methods import base
from rtdenoise.train import devices, movies, run, state
from rtdenoise.train.begin import begin
from rtdenoise.train.recipe import load

from . import plain_method, test_train

N_STEPS, LONG_S = 5, 300


def write_recipe(folder: Path) -> None:
    counts = np.random.default_rng(0).poisson(20, (40, 24, 28)).astype(np.uint16)
    tifffile.imwrite(folder / "movie.tif", counts)
    # Frozen: in training a BatchNorm normalises by the crops of its own process.
    text = plain_method.RECIPE + 'freeze_norm_at = 0\ndevice = "cpu"\n'
    (folder / "recipe.toml").write_text(text, encoding="utf-8")


def work(fabric: Fabric, folder: Path) -> None:
    """A few steps, in every process; what came of it is saved under the number of processes."""
    torch.set_num_threads(1)
    recipe, _ = load(folder)
    training = begin(recipe, plain_method.METHOD, movies.gather(recipe.data, folder), fabric)
    for _ in range(N_STEPS):
        training.advance()
    training.validate()
    state.save(training, folder / f"{fabric.world_size}.pt")


def work_that_fails_in_one_process(fabric: Fabric, folder: Path) -> None:
    work(fabric, folder)
    if fabric.global_rank == 1:
        raise ConfigError("this process cannot go on")
    fabric.barrier()


def test_two_processes_take_the_steps_that_one_takes_and_fail_as_one(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    settings = load(tmp_path)[0].train
    devices.launch(devices.connect(settings), work, tmp_path)
    pair = devices.connect(settings.model_copy(update={"devices": 2}))
    with pytest.raises(RtDenoiseError, match=r"^this process cannot go on$"):
        devices.launch(pair, work_that_fails_in_one_process, tmp_path)
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    for part in ("network", "task"):
        for name, value in one[part].items():
            # The same crops, halved and averaged: only the order of the sums differs.
            torch.testing.assert_close(two[part][name], value, rtol=0, atol=1e-6)
    assert two["best"]["loss"] == pytest.approx(one["best"]["loss"], rel=1e-6)
    assert two["best"]["step"] == N_STEPS


def test_the_command_under_torchrun_writes_one_bundle_and_learns_alike(tmp_path: Path) -> None:
    test_train.write_recipe(tmp_path)
    text = test_train.RECIPE.format(steps=8).replace("batch = 1", 'batch = 2\nvalidate_every = 4\ndevice = "cpu"')
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    made = subprocess.run(
        [*torchrun, "-m", "rtdenoise.cli", "train", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("tiny -> ") == 1
    curve = json.loads((tmp_path / run.CURVE).read_text(encoding="utf-8"))
    assert curve["processes"] == 2
    assert [entry["step"] for entry in curve["curve"]] == [4, 8]
    recipe, _ = load(tmp_path)
    alone = begin(recipe, base.load("fast"), movies.gather(recipe.data, tmp_path))
    while not alone.over:
        alone.advance()
    # Other pixels are dealt out in each process than in one: on these movies the losses of six seeds are within 0.5 %.
    assert curve["curve"][-1]["validation_loss"] == pytest.approx(alone.validate(), rel=0.015)
