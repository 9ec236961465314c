"""The verbs `rtdenoise control ...`: parse, ask the running session, print its answer."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from rtdenoise.control import ANSWER_TIMEOUT_S, ControlClient
from rtdenoise.errors import WireError
from rtdenoise.settings import CONTROL_PORT, loopback

app = typer.Typer(help="Ask a session that runs on this machine.", no_args_is_help=True)
Port = Annotated[int, typer.Option(help="The run's --port plus 3.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the answer.")]


@app.command()
def mark(
    text: Annotated[str, typer.Argument(help="What happened, such as 'stimulus on'.")],
    port: Port = CONTROL_PORT,
    timeout_s: Timeout = 5.0,
) -> None:
    """Mark the newest frame: in the next status message, and beside the recording."""
    _ask(port, timeout_s, "mark", text=text)


@app.command()
def recalibrate(port: Port = CONTROL_PORT, timeout_s: Timeout = 5.0) -> None:
    """Take offset and scale anew from the next frames."""
    _ask(port, timeout_s, "recalibrate")


@app.command()
def latency(
    latency: Annotated[str, typer.Argument(help="full, causal, or a look-ahead in frames.")],
    port: Port = CONTROL_PORT,
    timeout_s: Timeout = ANSWER_TIMEOUT_S,
) -> None:
    """Go on with another look-ahead of the running model."""
    _ask(port, timeout_s, "latency", latency=int(latency) if latency.isdigit() else latency)


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="Bundle name or folder, or an untrained filter.")],
    engine: Annotated[str, typer.Option("--engine", "-e", help="As for rtdenoise run.")] = "auto",
    latency: Annotated[str, typer.Option(help="full, causal, or a look-ahead in frames.")] = "full",
    port: Port = CONTROL_PORT,
    timeout_s: Timeout = ANSWER_TIMEOUT_S,
) -> None:
    """Go on with another model, at a frame; the running one works until the new one is ready."""
    late = int(latency) if latency.isdigit() else latency
    _ask(port, timeout_s, "model", model=name, engine=engine, latency=late)


@app.command()
def stop(port: Port = CONTROL_PORT, timeout_s: Timeout = 5.0) -> None:
    """End the run in order."""
    _ask(port, timeout_s, "stop")


@app.command()
def status(
    port: Port = CONTROL_PORT,
    timeout_s: Timeout = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """How the run is doing."""
    values = _ask(port, timeout_s, "status", quiet=as_json)
    if as_json:
        print(json.dumps(values, indent=2))


def _ask(port: int, timeout_s: float, request: str, *, quiet: bool = False, **fields: Any) -> dict[str, Any]:
    """Ask, and print the answer. Raises WireError when the run refuses, or nobody answers. (Any: JSON values.)"""
    with ControlClient(loopback(port), timeout_s) as client:
        reply = client.ask(request, **fields)
    if not reply.ok:
        raise WireError(reply.message)
    if not quiet:
        print(reply.message)
    return reply.values
