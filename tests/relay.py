"""A TCP relay that counts: what really went over the line, below ZeroMQ."""

from __future__ import annotations

import selectors
import socket
import threading
from typing import Self


class Relay:
    """Passes bytes between whoever connects to `endpoint` and a server. from_server: bytes per connection, closed ones included."""

    def __init__(self, server: str) -> None:
        host, port = server.removeprefix("tcp://").rsplit(":", 1)
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.from_server: list[int] = []
        self.n_closed = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._over.is_set():
                for key, _ in selector.select(0.05):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif key.fd == key.fileobj.fileno():  # type: ignore[union-attr]  # not closed together with its other end
                        self._pass_on(selector, key.fileobj, *key.data)  # type: ignore[arg-type]
            for key in list(selector.get_map().values()):
                if key.fileobj is not self._listener:
                    key.fileobj.close()  # type: ignore[union-attr]

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._server)
        selector.register(client, selectors.EVENT_READ, (server, None))
        selector.register(server, selectors.EVENT_READ, (client, len(self.from_server)))
        self.from_server.append(0)

    def _pass_on(
        self, selector: selectors.BaseSelector, source: socket.socket, target: socket.socket, counted: int | None
    ) -> None:
        try:
            content = source.recv(65536)
            target.sendall(content)
        except OSError:
            content = b""
        if counted is not None:
            self.from_server[counted] += len(content)
        if not content:
            self.n_closed += 1
            for end in (source, target):
                selector.unregister(end)
                end.close()
