"""Options that several verbs of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtdenoise import config
from rtdenoise.errors import ConfigError
from rtdenoise.settings import EngineSettings, RecordSettings

Model = Annotated[str, typer.Option("--model", "-m", help="Bundle name or folder, or an untrained filter.")]
Backend = Annotated[str, typer.Option("--engine", "-e", help="auto, openvino-bf16, openvino-fp32 or onnxruntime-cpu.")]
Latency = Annotated[
    str, typer.Option(help="full: best quality, waits for later frames. causal: for none. Or for how many.")
]
Hop = Annotated[int | None, typer.Option(help="New frames per network run; default: the smallest that keeps up.")]
Threads = Annotated[int, typer.Option(help="Threads of the engine; 0: all cores.")]
Norm = Annotated[str, typer.Option("--normalization", help="calibrate: on the first frames. bundle: as in training.")]
JsonPath = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]
Record = Annotated[Path | None, typer.Option(help="Keep the raw frames in this new folder.")]
RecordDenoised = Annotated[
    str | None,
    typer.Option(help="With --record: keep denoised frames too; float32, or raw: rounded to the camera's type."),
]
DEMO = "fast-simulated"


def engine_settings(
    model: str, backend: str, latency: str, hop: int | None, threads: int, normalization: str
) -> EngineSettings:
    """Checked settings of an engine. Raises ConfigError naming the option that is wrong."""
    asked = {"model": model, "backend": backend, "latency": latency, "hop": hop}
    return config.build(EngineSettings, asked | {"threads": threads, "normalization": normalization}, "command line")


def record_settings(folder: Path | None, denoised: str | None) -> RecordSettings | None:
    """Where to record, if anywhere. Raises ConfigError naming the option that is wrong."""
    if folder is None:
        if denoised is not None:
            raise ConfigError("--record-denoised: add --record FOLDER")
        return None
    return config.build(RecordSettings, {"folder": folder, "denoised": denoised}, "--record")
