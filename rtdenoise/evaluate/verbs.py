"""`rtdenoise evaluate` and `rtdenoise simulate`: parse, call, print."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rtdenoise.errors import ConfigError

out = Console()
err = Console(stderr=True)

Backend = Annotated[str, typer.Option("--engine", "-e", help="auto, openvino-bf16, openvino-fp32 or onnxruntime-cpu.")]
JsonPath = Annotated[Path | None, typer.Option("--json", help="Also write every figure to this file.")]


def evaluate(
    movie: Annotated[
        Path | None, typer.Argument(help="A recording without truth; without one, simulated movies.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Bundle or filter; may be given again.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every bundle that ships with rtdenoise.")] = False,
    preset: Annotated[list[str] | None, typer.Option(help="Simulated: default: what the models are meant for.")] = None,
    snr_db: Annotated[list[float] | None, typer.Option(help="Simulated: input SNR; may be given again.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Simulated: movies per input SNR, default 2; 1 with --latency-sweep.")
    ] = None,
    first_seed: Annotated[int, typer.Option(min=0, help="Simulated: recipes leave those from 101 on alone.")] = 101,
    size: Annotated[int | None, typer.Option(min=16, help="Simulated: pixels on each side.")] = None,
    frames: Annotated[
        int | None,
        typer.Option(min=2, help="Simulated: per movie, default 800. A recording: the first so many, default 500."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Simulated: models measured at the same time.")] = 2,
    against: Annotated[Path | None, typer.Option(help="A file in which another program denoised the movie.")] = None,
    truth: Annotated[Path | None, typer.Option(help="With --against: the folder of `rtdenoise simulate`.")] = None,
    first_frame: Annotated[int | None, typer.Option(help="With --against: raw frame that it begins with.")] = None,
    fps: Annotated[
        float | None, typer.Option(help="A recording: frames per second, where the file does not say.")
    ] = None,
    channel: Annotated[int, typer.Option(help="A recording: which channel, from 0.")] = 0,
    channels: Annotated[int | None, typer.Option(help="Interleaved channels, when the file does not say.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset inside an HDF5 or zarr file.")] = None,
    engine: Backend = "auto",
    latency_sweep: Annotated[
        bool, typer.Option("--latency-sweep", help="Simulated: what each shorter look-ahead of a model costs.")
    ] = False,
    annotate: Annotated[
        bool, typer.Option("--annotate", help="With --latency-sweep: store the cost in the bundle, for live runs.")
    ] = False,
    wide: Annotated[bool, typer.Option(help="A second table: SNR, correlations, precision, recall.")] = False,
    json_path: JsonPath = None,
    png: Annotated[Path | None, typer.Option(help="Draw it; with several presets, one picture each.")] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the leaderboard as a Markdown page, pictures beside it.")
    ] = None,
) -> None:
    """How good a model is: on simulated movies beside every untrained filter, or on your recording."""
    from rtdenoise.evaluate import commands, sweep

    saved = commands.Outputs(json_path, png, write)
    reading = commands.Reading(frames, fps, channel, channels, dataset)
    names, presets, levels = tuple(model or ()), tuple(preset or ()), tuple(snr_db or ())
    _refuse(annotate and not latency_sweep, "--annotate goes with --latency-sweep")
    if movie is None:
        _refuse(against or truth, "--against and --truth need the raw MOVIE too")
        n_seeds = seeds or (1 if latency_sweep else 2)
        asked = commands.Asked(
            names, every, presets, levels, n_seeds, first_seed, size, frames, engine, processes, wide
        )
        if latency_sweep:
            _refuse(
                png or write or wide, "--latency-sweep gives a table and --json; leave --png, --write and --wide out"
            )
            _refuse(annotate and len(presets) > 1, "--annotate stores one cost per look-ahead; give one --preset")
            sweep.sweep(out, err, asked, saved, annotate=annotate)
            return
        commands.leaderboard(out, err, asked, saved)
        return
    simulated = every or presets or levels or write or wide or latency_sweep
    words = "--all, --preset, --snr-db, --wide, --write and --latency-sweep"
    _refuse(simulated, f"{words} are for simulated movies; leave MOVIE out")
    if against is not None:
        _refuse(names, "--against scores a file; leave -m out")
        commands.against(out, movie, against, reading, saved, truth=truth, first_frame=first_frame)
        return
    _refuse(truth, "--truth goes with --against; to score a model on simulated movies leave MOVIE out")
    reading = replace(reading, frames=frames or commands.RECORDED_FRAMES)
    commands.recording(out, err, movie, names, reading, saved, backend=engine)


def _refuse(given: object, why: str) -> None:
    """Raises ConfigError for options that would be overlooked."""
    if given:
        raise ConfigError(why)


def simulate(
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for noisy and clean movie, truth, parameters.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="What to simulate; --list shows all.")] = None,
    snr_db: Annotated[float | None, typer.Option(help="Input SNR; default: the preset's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed, another movie; default 0.")] = None,
    size: Annotated[int | None, typer.Option(min=16, help="Pixels on each side; default: the preset's.")] = None,
    frames: Annotated[int | None, typer.Option(min=2, help="Default: the preset's.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="Any parameter, as key=value.")] = None,
    params: Annotated[Path | None, typer.Option(help="A params.json: make that movie again.")] = None,
    file_format: Annotated[str, typer.Option("--format", help="tiff or zarr.")] = "tiff",
    overwrite: Annotated[bool, typer.Option(help="Replace what is in the folder.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show the presets and stop.")] = False,
) -> None:
    """Make a movie whose truth is known: two-photon calcium, voltage or flow."""
    from rtdenoise.evaluate import making

    if listed:
        out.print(making.listing())
        return
    if folder is None:
        raise ConfigError("say with --out where the movie goes, or --list to see the presets")
    asked = making.parameters(preset, params, seed=seed, snr_db=snr_db, size=size, frames=frames, options=option or ())
    with err.status(f"simulating {asked.n_frames} frames of {asked.shape[0]} x {asked.shape[1]}"):
        files, movie = making.make(folder, asked, file_format, overwrite=overwrite)
    cells = f"{len(movie.masks)} cells, {sum(map(len, movie.spikes))} spikes"
    out.print(f"{movie.snr_in_db:.1f} dB in, {movie.photons_per_px:.2f} photons per pixel, {cells}", highlight=False)
    for file in files:
        out.print(str(file), highlight=False, soft_wrap=True)
