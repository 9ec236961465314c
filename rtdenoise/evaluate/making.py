"""From words on the command line to a simulated folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from rtdenoise import config
from rtdenoise.errors import ConfigError
from rtdenoise.evaluate import folder as folders
from rtdenoise.simulate import PRESETS, SimParams, Simulated, preset, simulate


def listing() -> Table:
    """Every preset and what is special about it."""
    table = Table("preset", "frames", "Y x X", "Hz", "um/px", "input SNR", "detector", box=None, pad_edge=False)
    for name in PRESETS:
        made = preset(name)
        snr = f"{made.snr_db:g} dB" if made.snr_db is not None else f"{made.photons_per_px:g} photons/px"
        facts = (made.n_frames, f"{made.shape[0]} x {made.shape[1]}", f"{made.frame_rate_hz:g}", f"{made.um_per_px:g}")
        table.add_row(name, *map(str, facts), snr, made.detector)
    return table


def parameters(
    name: str | None,
    params: Path | None,
    *,
    seed: int | None = None,
    snr_db: float | None = None,
    size: int | None = None,
    frames: int | None = None,
    options: Sequence[str] = (),
) -> SimParams:
    """Of a preset or a `params.json`, with what was asked for changed. Raises ConfigError."""
    if name is not None and params is not None:
        raise ConfigError("--preset and --params exclude each other: a params.json says everything")
    shape = (size, size) if size else None
    asked = {"seed": seed, "snr_db": snr_db, "shape": shape, "n_frames": frames}
    changes = {key: value for key, value in asked.items() if value is not None} | dict(
        config.pair(text, "--option") for text in options
    )
    if params is None:
        return preset(name or "calcium", **changes)
    return config.build(SimParams, folders.read_params(params).model_dump() | changes, str(params))


def make(folder: Path, params: SimParams, file_format: str, *, overwrite: bool) -> tuple[list[Path], Simulated]:
    """The files, and the movie. Raises ConfigError or FileFormatError, before anything is simulated where it can."""
    folders.check_free(folder, file_format, overwrite=overwrite)
    movie = simulate(params)
    return folders.write(folder, movie, file_format, overwrite=overwrite), movie
