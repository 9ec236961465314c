"""Connecting to the core of a running Micro-Manager, and letting go of it even when it died.

pyjavaz 1.2.8 waits for ever for a server that is gone, and registers one exit hook per object it makes (so one per frame).
The private names of pyjavaz that this needs are all in this file.
"""

from __future__ import annotations

import atexit
import json
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import zmq

from rtdenoise.errors import MissingExtraError, SourceBusy, SourceDisconnected, SourceError
from rtdenoise.frame import Pixels
from rtdenoise.sources.micromanager.base import Core
from rtdenoise.sources.micromanager.camera import first_line

GREETING_MS = 2000
"""Wait for the first answer. Engineering choice: a busy Micro-Manager answers within a few hundred milliseconds."""
_ours = threading.local()


def port_answers(host: str, port: int) -> bool:
    """True when something listens there."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


def greet(host: str, port: int) -> None:
    """Say hello the way pycromanager does, with a deadline. Raises SourceDisconnected when nobody or somebody else answers."""
    if not port_answers(host, port):
        raise SourceDisconnected(
            f"no Micro-Manager server on {host}:{port}; start Micro-Manager and tick Tools > Options > Run server on port {port}"
        )
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(f"tcp://{host}:{port}")
        client.send(json.dumps({"command": "connect", "debug": False}).encode("iso-8859-1"))
        reply = client.recv() if client.poll(GREETING_MS) else b""
    if b'"type"' not in reply:
        raise SourceDisconnected(
            f"{host}:{port} is open but does not answer as Micro-Manager's server; is it busy, or another program?"
        )


def connect(host: str, port: int) -> Core:
    """A `pycromanager.Core()` over the bridge, made and used by the calling thread only. Call `greet` first."""
    try:
        import pycromanager
        from mmpycorex import is_pymmcore_active
        from pyjavaz.bridge import Bridge
    except ImportError as error:
        raise MissingExtraError(error.name or "pycromanager", "live") from None
    if is_pymmcore_active():
        raise SourceBusy(
            "a Micro-Manager core runs in this process (backend python); close it before connecting to another program"
        )
    _own_exit_hooks()
    Bridge._ports_with_terminated_servers.discard(port)
    bridge = Bridge.create_or_get_existing_bridge(port=port, ip_address=host, timeout=GREETING_MS)
    try:
        return cast(Core, pycromanager.Core(port=port))
    except Exception as error:
        raise SourceError(f"{host}:{port}: Micro-Manager's core cannot be reached: {first_line(error)}") from error
    finally:
        del bridge


def take(core: Core) -> tuple[Pixels, Mapping[str, Any]]:
    """Pop one image. Every attribute access is a transfer of the whole array, so each is read once."""
    image = core.pop_next_tagged_image()
    try:
        return image.pix, image.tags
    finally:
        release(image)


def release(shadow: Any) -> None:
    """Let the server forget an object now, instead of whenever the garbage collector gets to it. Any: a class made by pyjavaz."""
    try:
        shadow._close()
    except Exception:  # the server is gone, and with it the object; its __del__ must not ask again
        shadow._closed = True


def abandon(core: Core | None, port: int) -> None:
    """Free every thread that waits for a server that is gone, and make a new connection to this port possible."""
    import pyjavaz
    from pyjavaz.bridge import Bridge

    pyjavaz.server_terminated(port)
    cached = Bridge._cached_bridges_by_port.pop(port, None)
    bridge = cached() if cached is not None else None
    if bridge is not None:
        bridge._closed = True
        bridge._shutdown_event.set()
    if core is not None:
        cast(Any, core)._closed = True


def quiet_state(core: Core) -> Callable[[], None]:
    """Leave the state of every other device out of the tags (23 instead of 145 of them: twice as fast); returns how to undo it."""
    remote = cast(Any, core)
    before = bool(remote.get_include_system_state_cache())
    remote.set_include_system_state_cache(False)
    return lambda: remote.set_include_system_state_cache(before)


class _ExitHooks:
    """Stands in for `atexit` inside pyjavaz: no hooks for what our own threads make, because they release it themselves."""

    @staticmethod
    def register(hook: Callable[[], None]) -> None:
        if not getattr(_ours, "here", False):
            atexit.register(hook)


def _own_exit_hooks() -> None:
    import pyjavaz.bridge

    _ours.here = True
    pyjavaz.bridge.atexit = _ExitHooks
