"""The verbs `rtdenoise replay` and `rtdenoise convert`: what becomes of a recording. Parse and call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rtdenoise.errors import FileFormatError
from rtdenoise.options import DEMO, Backend, Hop, JsonPath, Latency, Model, Norm, Threads, engine_settings

UNDENOISED = "identity"
"""The filter that hands frames on as they are."""


def replay(
    folder: Annotated[Path, typer.Argument(help="Folder of a recorded run; or a movie.")],
    series: Annotated[
        str | None, typer.Option(help="Only this one, such as raw-001; default: all, one after the other.")
    ] = None,
    fps: Annotated[str, typer.Option(help="file: as it was recorded. max: as fast as possible. Or a number.")] = "file",
    raw: Annotated[bool, typer.Option("--raw", help="Do not denoise again.")] = False,
    model: Model = DEMO,
    engine: Backend = "auto",
    latency: Latency = "full",
    hop: Hop = None,
    threads: Threads = 0,
    normalization: Norm = "calibrate",
    lossless: Annotated[bool, typer.Option("--lossless", help="Wait for a subscriber, and drop nothing.")] = False,
    port: Annotated[
        int, typer.Option(help="Denoised frames here, raw on the next port, then status, then control.")
    ] = 5560,
    json_path: JsonPath = None,
) -> None:
    """Play a recorded run as if it were taken now: its own timing, stamps and holes."""
    from rtdenoise import live
    from rtdenoise.recording import layout

    if not folder.exists():
        raise FileFormatError(f"{folder}: no such file or folder")
    n_series = max(1, len(layout.series_names(folder))) if layout.is_recording(folder) and series is None else 1
    options = (f"dataset={series}",) if series else ()
    rule = live.policy_of("latest", lossless=lossless)
    asked = live.Asked("replay", str(folder), fps, None, n_series, options, rule, (), None, port)
    again = engine_settings(UNDENOISED if raw else model, engine, latency, hop, threads, normalization)
    live.run(Console(), asked, again, json_path)


def convert(
    movie: Annotated[Path, typer.Argument(help="Folder of a recorded run, OME-Zarr, TIFF, HDF5 or NWB.")],
    output: Annotated[Path, typer.Argument(help="*.ome.tif (BigTIFF) or *.ome.zarr")],
    series: Annotated[
        str | None, typer.Option(help="Series of a run, such as raw-001 or denoised-000; default: the first raw one.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
) -> None:
    """Write a recording, or any movie, to another format; pixels stay bit for bit."""
    from rtdenoise.files.convert import convert_movie
    from rtdenoise.live import bar

    with bar(Console(stderr=True), f"converting {movie.name}") as progress:
        n = convert_movie(movie, output, series=series, overwrite=overwrite, progress=progress)
    Console().print(f"{n} frames -> {output}", markup=False, highlight=False, soft_wrap=True)
