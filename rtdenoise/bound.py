"""A bound socket that sends to many: open to this computer as it is, to other machines with keys only."""

from __future__ import annotations

import errno
from contextlib import suppress

import zmq

from rtdenoise import keyring
from rtdenoise.errors import WireError
from rtdenoise.guests import Guests
from rtdenoise.keyring import Allowed, ServerKeys
from rtdenoise.settings import Remote
from rtdenoise.zap import DOMAIN, Doorman

MAX_REQUEST_BYTES = 1024
"""Most that a subscriber may say at once; the longest part of a CURVE handshake takes 600 bytes. Engineering choice."""
REQUESTS_WAITING = 16
"""Requests of one connection that wait for us, so that a flood of them never holds up a frame. Engineering choice."""
RECEIVE_BUFFER_BYTES = 8 * 1024
"""What the system holds of a connection's requests; all of it is still read after the connection is closed. Engineering choice."""
REQUESTS_AT_ONCE = 64
"""Requests of all connections together that are answered between two frames: 0.5 ms at most. Engineering choice."""
HANDSHAKE_MS = 5_000
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 2_000, 15_000
"""How a machine that went away without a word is noticed. Engineering choice: the timeout is longer than a slow link takes for a frame."""
EVERYWHERE = ("*", "0.0.0.0", "::", "[::]")
Context = zmq.Context[zmq.Socket[bytes]]


class BoundSocket:
    """A bound XPUB socket, with a context of its own unless one is given, and a doorman where other machines may come in.

    subscriptions: how many there are, as of the last `hear`.  endpoint: where this computer reaches it.
    Bound to one address of this computer (`remote.bind`) it stays open on loopback as well, for programs without keys; bound to all
    of them it asks everybody for a key.
    Raises WireError when the endpoint is busy, malformed or reachable from other machines without `remote`, and ConfigError where
    there are no keys for `remote`.
    """

    def __init__(
        self,
        endpoint: str,
        send_mark: int,
        linger_ms: int,
        context: Context | None = None,
        remote: Remote | None = None,
    ) -> None:
        _require_this_machine(endpoint)
        keys = keyring.check(remote.keys_folder, remote.bind) if remote else None
        self.subscriptions = 0
        self.endpoint = endpoint
        self._guests = Guests()
        self._doorman: Doorman | None = None
        self._own_context: Context | None = None if context else zmq.Context()
        self._context = context or self._own_context or zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self._set_limits(send_mark, linger_ms)
        try:
            if remote is None or remote.bind not in EVERYWHERE:
                self.endpoint = self._bind(endpoint)
            if remote is not None and keys is not None:
                self._let_in(remote, keys)
        except BaseException:
            self.close()
            raise

    def hear(self) -> None:
        """Take in who came and went, a bounded number at a time.

        Asking also tells ZeroMQ at once what subscribers have read; by itself it looks only once per ms and would drop frames of a
        fast stream at a mark that is long free again.
        """
        if not int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            return
        with suppress(zmq.Again):
            for _ in range(REQUESTS_AT_ONCE):
                change = self._guests.heard(self.socket.recv(zmq.NOBLOCK, copy=False))
                self.subscriptions = max(0, self.subscriptions + change)

    @property
    def turned_out(self) -> int:
        """Connections that were closed because they asked for too much, or were taken off the list."""
        return self._guests.turned_out

    def close(self, linger_ms: int | None = None) -> None:
        """Close the socket and wait for what lingers; `linger_ms` in place of what it was opened with."""
        self.socket.close(linger=linger_ms)
        if self._doorman is not None:
            self._doorman.close()
        if self._own_context is not None:
            self._own_context.term()

    def _set_limits(self, send_mark: int, linger_ms: int) -> None:
        for option, value in (
            (zmq.SNDHWM, send_mark),
            (zmq.RCVHWM, REQUESTS_WAITING),
            (zmq.RCVBUF, RECEIVE_BUFFER_BYTES),
            (zmq.MAXMSGSIZE, MAX_REQUEST_BYTES),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
            (zmq.LINGER, linger_ms),
            (zmq.XPUB_VERBOSER, 1),
        ):
            self.socket.setsockopt(option, value)

    def _let_in(self, remote: Remote, keys: ServerKeys) -> None:
        """Bind where other machines are, for clients on the list only. What was bound before stays as it is."""
        allowed = Allowed(remote.keys_folder)
        self._doorman = Doorman(self._context, allowed, lambda: self._guests.turn_out(allowed))
        self.socket.setsockopt(zmq.CURVE_SERVER, 1)
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode("ascii"))
        self.socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it a missing doorman would let everybody in
        self.socket.setsockopt(zmq.IPV6, int(":" in remote.bind))
        set_heartbeat(self.socket)
        host = f"[{remote.bind.strip('[]')}]" if ":" in remote.bind else remote.bind
        bound = self._bind(f"tcp://{host}:{self.endpoint.rpartition(':')[2]}")
        if remote.bind in EVERYWHERE:
            self.endpoint = f"tcp://127.0.0.1:{bound.rpartition(':')[2]}"

    def _bind(self, endpoint: str) -> str:
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise WireError(_bind_problem(endpoint, error)) from None
        return self.socket.getsockopt_string(zmq.LAST_ENDPOINT)


def set_heartbeat(socket: zmq.Socket[bytes]) -> None:
    """Notice on what is connected from here on when the other machine went away without a word."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)


def _require_this_machine(endpoint: str) -> None:
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    if endpoint.startswith("tcp://") and not is_this_machine(host):
        raise WireError(
            f"{endpoint}: would let any machine read the stream; bind tcp://127.0.0.1:PORT and reach it through an SSH tunnel, "
            "or with keys (rtdenoise run --bind)"
        )


def is_this_machine(host: str) -> bool:
    """Whether no other machine reaches this one by that name."""
    return host.startswith("127.") or host in ("localhost", "::1", "[::1]")


def _bind_problem(endpoint: str, error: zmq.ZMQError) -> str:
    if error.errno in (zmq.EADDRINUSE, errno.EACCES):
        return (
            f"{endpoint}: the port is in use, probably by another rtdenoise run; stop that one or choose another port"
        )
    if error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL, zmq.EADDRNOTAVAIL):
        return f"{endpoint}: is no address of this computer; give one that it has, or 0.0.0.0 for all of them"
    return f"{endpoint}: cannot be bound ({error.strerror}); an endpoint looks like tcp://127.0.0.1:5560"
