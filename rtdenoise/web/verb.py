"""The verb `rtdenoise web`: parse and serve."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rtdenoise.web.server import Server


def web(
    port: Annotated[int, typer.Option(help="Port of the denoised stream; raw and status are the next two.")] = 5560,
    host: Annotated[
        str, typer.Option(help="Machine that runs rtdenoise; another than this one needs --keys.")
    ] = "127.0.0.1",
    keys_file: Annotated[
        Path | None, typer.Option("--keys", help="The file that `rtdenoise keys add` wrote for this machine.")
    ] = None,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any free one.")] = 8080,
    bind: Annotated[str, typer.Option(help="Address to serve on; another than loopback needs --allow.")] = "127.0.0.1",
    allow: Annotated[
        list[str] | None, typer.Option(help="Network that may look, as 192.168.1.0/24; the token is needed too.")
    ] = None,
    fps: Annotated[float, typer.Option(min=0.1, max=60, help="Most pictures per second and browser.")] = 15.0,
    channel: Annotated[int | None, typer.Option(help="Channel to show; default: the first.")] = None,
    plane: Annotated[int, typer.Option(help="Plane to show, with --channel.")] = 0,
    seconds: Annotated[float | None, typer.Option(help="Close after so long.")] = None,
) -> None:
    """Watch raw and denoised frames in a browser, on this computer or, with --bind and --allow, on a phone."""
    from rtdenoise import keyring
    from rtdenoise.viewer.feed import Feed
    from rtdenoise.web.gate import gate_for
    from rtdenoise.web.server import Server

    gate = gate_for(bind, allow or ())
    if allow:
        typer.echo("not encrypted: for a network that you trust; from elsewhere use an SSH tunnel", err=True)
    raw, denoised, status = (f"tcp://{host}:{port + i}" for i in (1, 0, 2))
    feed = Feed(raw, denoised, status, keys=None if keys_file is None else keyring.client(keys_file))
    if channel is not None:
        feed.choose_key((channel, plane))
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(_serve(Server(feed, gate, max_fps=fps), bind, http_port, seconds))
    finally:
        feed.close()


async def _serve(server: Server, bind: str, http_port: int, seconds: float | None) -> None:
    print(f"open {await server.open(bind, http_port)}", flush=True)
    try:
        await server.wait(seconds)
    finally:
        await server.close()
