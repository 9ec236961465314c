"""Turn an authors' checkpoint into a bundle: python tools/import_upstream.py fast E_100.pth out --config config.json
--scale 110

A FAST network lives in camera counts with the mean removed: give the standard deviation of the movies it was trained
on as --scale and their mean as --offset, or a TIFF of them as --movie. Checkpoints are read with weights_only=True;
nothing in them is executed.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from rtdenoise.errors import ConfigError, FileFormatError, RtDenoiseError
from rtdenoise.export import BundleFacts, export_bundle
from rtdenoise.methods import base
from rtdenoise.normalize import Normalization
from rtdenoise.train import movies

FRAMES_KEY = "miniBatch_size"  # what the authors call C (sheet C 1.7)


def main(
    method: str,
    checkpoint: Path,
    out: Path,
    config: Annotated[Path | None, typer.Option(help="the authors' config.json beside the checkpoint")] = None,
    movie: Annotated[
        Path | None, typer.Option(help="a TIFF or Zarr the network was trained on, for mean and sd")
    ] = None,
    offset: Annotated[float, typer.Option(help="mean of the training movies, counts")] = 0.0,
    scale: Annotated[float, typer.Option(help="sd of the training movies, counts")] = 0.0,
) -> None:
    """Import one checkpoint."""
    try:
        normalization = movies.from_file(movie, 2000).normalization if movie else _given(offset, scale)
        facts: dict[str, Any] = {"scale": normalization.scale} | _frames(config)
        _import(method, checkpoint, out, normalization, facts)
    except RtDenoiseError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _import(name: str, checkpoint: Path, out: Path, normalization: Normalization, facts: dict[str, Any]) -> None:
    method = base.load(name)
    if method.from_upstream is None:
        raise ConfigError(f"{name} has no published checkpoints to import")
    network = method.from_upstream(_state_dict(checkpoint), **facts)
    provenance = {"imported": checkpoint.name, "facts": facts}
    bundle, report = export_bundle(method, network, out, BundleFacts(out.name, normalization, provenance=provenance))
    worst = max(gap.worst for gap in report.gaps)
    typer.echo(f"{bundle.path}: {method.title}, worst error against PyTorch {worst:.1e} sd")


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    try:
        stored = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise FileFormatError(f"{path}: not a PyTorch checkpoint of plain tensors: {error}") from None
    state = stored.get("state_dict", stored) if isinstance(stored, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise FileFormatError(f"{path}: holds no state dict")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _frames(config: Path | None) -> dict[str, int]:
    if config is None:
        return {}
    values = json.loads(config.read_text(encoding="utf-8"))
    if FRAMES_KEY not in values:
        raise FileFormatError(f"{config}: has no {FRAMES_KEY}; leave --config out to read the frames from the weights")
    return {"frames": int(values[FRAMES_KEY])}


def _given(offset: float, scale: float) -> Normalization:
    if scale <= 0:
        raise ConfigError("give --scale (sd of the training movies, counts) or --movie to measure it")
    return Normalization(offset, scale)


if __name__ == "__main__":
    typer.run(main)
