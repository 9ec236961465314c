"""The verb `rtdenoise run`: parse and call."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from rtdenoise import keys
from rtdenoise.options import (
    DEMO,
    Backend,
    Hop,
    JsonPath,
    Latency,
    Model,
    Norm,
    Record,
    RecordDenoised,
    Threads,
    engine_settings,
    record_settings,
)


def run(
    source: Annotated[
        str, typer.Option("--source", "-s", help="Where frames come from; rtdenoise info lists them.")
    ] = "micromanager",
    path: Annotated[str | None, typer.Option(help="Movie to replay.")] = None,
    fps: Annotated[str | None, typer.Option(help="Frames per second (replay: also 'file' or 'max').")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames per series; default: until stopped.")] = None,
    series: Annotated[int, typer.Option(help="Series to take one after the other.")] = 1,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="A source setting, as key=value.")] = None,
    model: Model = DEMO,
    engine: Backend = "auto",
    latency: Latency = "full",
    hop: Hop = None,
    threads: Threads = 0,
    normalization: Norm = "calibrate",
    policy: Annotated[
        str, typer.Option(help="latest: never hold up the camera, skip what is too old. lossless: wait, drop nothing.")
    ] = "latest",
    lossless: Annotated[bool, typer.Option("--lossless", help="The same as --policy lossless.")] = False,
    wait_for: Annotated[list[str] | None, typer.Option(help="raw=N or denoised=N subscribers to wait for.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so long.")] = None,
    port: Annotated[
        int, typer.Option(help="Denoised frames here, raw on the next port, then status, then control.")
    ] = 5560,
    bind: Annotated[
        str | None, typer.Option(help="Let other machines watch: an address of this one, or 0.0.0.0. Needs keys.")
    ] = None,
    keys_folder: keys.Folder = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Answer Prometheus on this port of this machine, 9464 by custom.")
    ] = None,
    log_dir: Annotated[
        str, typer.Option(help="Folder for the log; default: this user's (doctor names it); none: keep none.")
    ] = "",
    record: Record = None,
    record_denoised: RecordDenoised = None,
    json_path: JsonPath = None,
) -> None:
    """Acquire, denoise and publish, live."""
    from rtdenoise import live

    rule = live.policy_of(policy, lossless=lossless)
    asked = live.Asked(
        source,
        path,
        fps,
        frames,
        series,
        tuple(option or ()),
        rule,
        tuple(wait_for or ()),
        seconds,
        port,
        keys.remote_of(bind, keys_folder),
        metrics_port,
        log_dir,
        record_settings(record, record_denoised),
    )
    asked_engine = engine_settings(model, engine, latency, hop, threads, normalization)
    live.run(Console(), asked, asked_engine, json_path)
