"""Requests to a running session: one JSON object each way, from this machine only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import zmq

from rtdenoise.bound import is_this_machine
from rtdenoise.errors import WireError
from rtdenoise.settings import CONTROL_PORT, loopback

MAX_REQUEST_BYTES = 64 * 1024
"""Longest request that is read. Engineering choice: a mark is a line of text."""
REQUESTS_AT_ONCE = 16
"""Requests that are taken in one look, so that a flood never holds up the supervisor. Engineering choice."""
LINGER_MS = 500
ANSWER_TIMEOUT_S = 180.0
"""Longest that a client waits: another model is answered when its first frame is due, and an engine may be built first."""


@dataclass(slots=True, frozen=True)
class Ticket:
    """Whom to answer: the parts of a message that come before its body."""

    envelope: tuple[bytes, ...]


class ControlEndpoint:
    """A bound ROUTER socket: any number of REQ or DEALER clients, who may be answered at once or much later.

    bad: messages that were no request; whoever sent one is told, and nothing else happens.
    Raises WireError when the endpoint is busy or could be reached from another machine.
    """

    def __init__(self, endpoint: str) -> None:
        self.bad = 0
        host = endpoint.removeprefix("tcp://").rpartition(":")[0]
        if not endpoint.startswith("tcp://") or not is_this_machine(host):
            raise WireError(
                f"{endpoint}: requests are taken from this machine only; use tcp://127.0.0.1:{CONTROL_PORT}"
            )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.MAXMSGSIZE, MAX_REQUEST_BYTES),
            (zmq.RCVHWM, REQUESTS_AT_ONCE),
            (zmq.SNDHWM, REQUESTS_AT_ONCE),
            (zmq.LINGER, LINGER_MS),
        ):
            self._socket.setsockopt(option, value)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise WireError(
                f"{endpoint}: requests cannot be taken there ({error.strerror}); stop the other run, or choose another --port"
            ) from None
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def requests(self) -> Iterator[tuple[Ticket, dict[str, Any]]]:
        """What was asked since the last look, some at a time. (Any: whatever JSON can hold; it is checked by its model.)"""
        for _ in range(REQUESTS_AT_ONCE):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:  # nothing there, or a client that has gone meanwhile
                return
            ticket = Ticket(
                tuple(parts[:2] if len(parts) > 2 and not parts[1] else parts[:1])
            )  # REQ sends an empty part first
            try:
                yield ticket, _understood(parts)
            except WireError as error:
                self.bad += 1
                self.answer(ticket, ok=False, message=str(error))

    def answer(self, ticket: Ticket, *, ok: bool, message: str, **more: Any) -> None:
        """Answer a request; somebody who has left or does not listen gets nothing. (Any: JSON values.)"""
        body = json.dumps({"ok": ok, "message": message, **more}).encode()
        try:
            # Asking makes ZeroMQ look at what the client has read; by itself it looks once in some ms and drops at a mark long free.
            self._socket.getsockopt(zmq.EVENTS)
            self._socket.send_multipart([*ticket.envelope, body], zmq.NOBLOCK)
        except zmq.ZMQError:
            self.bad += 1  # an envelope that no client of ours makes

    def close(self) -> None:
        """Unbind, after at most half a second for the last answer to leave."""
        self._socket.close()
        self._context.term()


def _understood(parts: list[bytes]) -> dict[str, Any]:
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[1]):
        raise WireError('a request is one part: a JSON object such as {"request": "ping"}')
    try:
        asked = json.loads(parts[-1].decode())
    except (ValueError, RecursionError):
        raise WireError('a request is a JSON object such as {"request": "ping"}; this is no JSON') from None
    if not isinstance(asked, dict) or not isinstance(asked.get("request"), str):
        raise WireError('a request is a JSON object with a "request", such as {"request": "ping"}')
    return asked


@dataclass(slots=True, frozen=True)
class Reply:
    """What a run answered. ok: it was done.  message: a line for a person.  values: everything that came. (Any: JSON values.)"""

    ok: bool
    message: str
    values: dict[str, Any]


class ControlClient:
    """Asks a running session on this machine: `ask("mark", text="stimulus on")`.

    The same with nothing but pyzmq: `socket = zmq.Context().socket(zmq.REQ)`, `socket.connect("tcp://127.0.0.1:5563")`,
    `socket.send_json({"request": "mark", "text": "stimulus on"})`, `socket.recv_json()`.
    """

    def __init__(self, endpoint: str = loopback(CONTROL_PORT), timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.endpoint, self.timeout_s = endpoint, timeout_s
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._connected()

    def ask(self, request: str, **fields: Any) -> Reply:
        """Send one request and wait for its answer. (Any: JSON values.) Raises WireError when none comes within `timeout_s`."""
        self._socket.send(json.dumps({"request": request, **fields}).encode())
        if not self._socket.poll(int(self.timeout_s * 1000)):
            self._socket.close(linger=0)
            self._socket = self._connected()  # a late answer must not be taken for that of the next request
            raise WireError(
                f"{self.endpoint}: no answer within {self.timeout_s:g} s; is rtdenoise running there, with this --port?"
            )
        try:
            values = json.loads(self._socket.recv().decode())
            return Reply(bool(values["ok"]), str(values["message"]), values)
        except (ValueError, KeyError, TypeError):
            raise WireError(f"{self.endpoint}: this is no rtdenoise run; it answered something else") from None

    def close(self) -> None:
        """Disconnect."""
        self._socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _connected(self) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.REQ)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
        try:
            socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            self._context.term()
            raise WireError(f"{self.endpoint}: cannot be connected to ({error.strerror})") from None
        return socket
