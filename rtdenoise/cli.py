"""The verbs of the command line: parse, call, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rtdenoise import __version__, controlling, exporting, playback, running
from rtdenoise.errors import MissingExtraError, RtDenoiseError
from rtdenoise.evaluate import verbs
from rtdenoise.keys import keys
from rtdenoise.options import DEMO, Backend, Hop, JsonPath, Latency, Model, Norm, Threads, engine_settings
from rtdenoise.web import verb as browser

app = typer.Typer(
    name="rtdenoise",
    help="Real-time denoising of microscope movies, beside the microscope.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)


def main() -> None:
    """Entry point: every error of ours is one line and exit code 1."""
    try:
        app()
    except RtDenoiseError as error:
        err.print(f"rtdenoise: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="How long to run without a display.")] = 10.0,
    camera: Annotated[str, typer.Option(help="simulator, or micromanager for its DemoCamera.")] = "simulator",
    display: Annotated[bool, typer.Option(help="Open the viewer where there is a display.")] = True,
    port: Annotated[
        int, typer.Option(help="Denoised frames here, raw on the next port, status on the one after.")
    ] = 5560,
    png: Annotated[Path, typer.Option(help="Where the before/after picture goes without a display.")] = Path(
        "rtdenoise-demo.png"
    ),
) -> None:
    """Raw and denoised side by side, from a simulated two-photon microscope or Micro-Manager's demo camera."""
    from rtdenoise import demo as demonstration

    demonstration.run(out, seconds=seconds, camera=camera, display=display, port=port, png=png)


app.command()(running.run)
app.add_typer(controlling.app, name="control")
app.command()(playback.replay)
app.command()(playback.convert)
app.add_typer(keys)


@app.command()
def view(
    port: Annotated[int, typer.Option(help="Port of the denoised stream; raw and status are the next two.")] = 5560,
    host: Annotated[
        str, typer.Option(help="Machine that runs rtdenoise; another than this one needs --keys.")
    ] = "127.0.0.1",
    keys_file: Annotated[
        Path | None, typer.Option("--keys", help="The file that `rtdenoise keys add` wrote for this machine.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Close after so long.")] = None,
    screenshot: Annotated[Path | None, typer.Option(help="Save the window as PNG before it closes.")] = None,
) -> None:
    """Watch raw and denoised frames side by side."""
    from rtdenoise.viewer import app as viewer

    ends = [f"tcp://{host}:{port + i}" for i in range(3)]
    sys.exit(viewer.main(ends[1], ends[0], ends[2], keys_file, duration_s=seconds, screenshot=screenshot))


@app.command()
def denoise(
    movie: Annotated[Path, typer.Argument(help="TIFF, OME-Zarr, HDF5 or NWB; or a folder of TIFFs.")],
    output: Annotated[Path, typer.Argument(help="*.ome.tif or *.ome.zarr")],
    model: Model = DEMO,
    engine: Backend = "auto",
    latency: Latency = "full",
    hop: Hop = None,
    threads: Threads = 0,
    normalization: Norm = "calibrate",
    channels: Annotated[int | None, typer.Option(help="Interleaved channels, when the file does not say.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset inside an HDF5 or zarr file.")] = None,
    dtype: Annotated[
        str, typer.Option(help="Pixels of the output: float32, or 'input' (rounded, clipped).")
    ] = "float32",
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
) -> None:
    """Denoise a file: the same result as live."""
    from rtdenoise import offline

    settings = engine_settings(model, engine, latency, hop, threads, normalization)
    with _bar(f"denoising {movie.name}") as progress:
        n = offline.denoise_movie(
            movie,
            output,
            settings,
            channels=channels,
            dataset=dataset,
            dtype=None if dtype == "input" else dtype,
            overwrite=overwrite,
            progress=progress,
        )
    out.print(f"{n} frames -> {output}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Folder with a recipe.toml, or the recipe itself.")],
    threads: Annotated[int | None, typer.Option(help="Threads of each process; default: as the recipe says.")] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="GPUs, or processes on a CPU; default: as the recipe says.")
    ] = None,
    restart: Annotated[bool, typer.Option(help="Begin anew instead of going on from the last checkpoint.")] = False,
) -> None:
    """Train a model on noisy movies alone, and write its bundle. Interrupt it at will: it goes on where it was."""
    _need("torch", "train")
    from rtdenoise.train.run import train as training

    made = training(recipe, threads=threads, processes=devices, restart=restart)
    if made is not None:  # only the first of several processes writes it
        out.print(f"{made.name} -> {made.path}")


@app.command()
def card(
    recipes: Annotated[list[Path], typer.Argument(help="Folders with a recipe.toml whose bundles are there.")],
) -> None:
    """Measure trained models again and write their cards, without training."""
    _need("torch", "train")
    from rtdenoise.train import card as cards

    for recipe in recipes:
        out.print(f"-> {cards.renew(recipe)}", highlight=False, soft_wrap=True)


@app.command("import")
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(help="The authors' weights: .pth, .pt or .ckpt of PyTorch, .h5 of Keras.")
    ],
    method: Annotated[str, typer.Option(help="Whose weights they are; rtdenoise info lists the methods.")],
    output: Annotated[Path, typer.Option("--out", help="Folder of the new bundle.")],
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A fact that the file does not store, as key=value.")
    ] = None,
    offset: Annotated[float | None, typer.Option(help="Counts that are 0 to the network; default 0.")] = None,
    scale: Annotated[
        float | None, typer.Option(help="Counts that are 1 to the network, as the sd of the movies it was trained on.")
    ] = None,
    movie: Annotated[
        Path | None, typer.Option(help="A TIFF or Zarr like those it was trained on: offset and scale from it.")
    ] = None,
) -> None:
    """Make a bundle of a published checkpoint; nothing in the file is executed.

    Most networks take frames of mean 0 and sd 1: their bundles are calibrated on every field of view, and need no numbers.
    Those of FAST live in counts: give --scale, or --movie. Those with fixed units (umvd, udvd: 8 bits / 255; deepsemi: counts)
    are never calibrated: --scale 4095 where 12-bit frames shall mean to them what 8-bit frames meant.
    """
    _need("torch", "train")
    from rtdenoise.importing import Counts, import_checkpoint

    line = import_checkpoint(checkpoint, method, output, Counts(offset, scale, movie), setting or ())
    out.print(line, markup=False, highlight=False, soft_wrap=True)


app.command()(exporting.export)
app.command()(verbs.evaluate)
app.command()(verbs.simulate)
app.command()(browser.web)


@app.command()
def bench(
    model: Model = DEMO,
    engine: Backend = "auto",
    latency: Latency = "full",
    hop: Hop = None,
    threads: Threads = 0,
    size: Annotated[int, typer.Option(help="Frames are size x size.")] = 512,
    fps: Annotated[float, typer.Option(help="Frames per second; 0: as fast as possible.")] = 30.0,
    seconds: Annotated[float, typer.Option(help="How long.")] = 10.0,
    json_path: JsonPath = None,
) -> None:
    """Frames per second and latency of every stage, on this machine."""
    from rtdenoise import bench as benchmark

    settings = engine_settings(model, engine, latency, hop, threads, "calibrate")
    benchmark.command(out, settings, size=size, fps=fps or None, seconds=seconds, json_path=json_path)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Also write one zip that others can diagnose from.")] = False,
    path: Annotated[Path | None, typer.Argument(help="With --report: the zip; default: a new one here.")] = None,
) -> None:
    """Open everything a run needs, and say what is bound, what is missing, and how to get it."""
    from rtdenoise import doctor as physician

    sys.exit(physician.command(out, as_json=as_json, report=physician.place_of(path, wanted=report)))


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """What is registered: methods, sources, engines, untrained filters, bundles."""
    from rtdenoise import catalogue

    facts = {"version": __version__, **catalogue.registered()}
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for kind, names in facts.items():
        out.print(f"[bold]{kind:8}[/bold] {names if isinstance(names, str) else ', '.join(names)}")


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _need(package: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingExtraError(package, extra)


def _bar(label: str) -> Any:
    from rtdenoise.live import bar

    return bar(err, label)


if __name__ == "__main__":
    main()
