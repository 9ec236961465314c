"""Who is connected to a publisher, and what each has asked for: bounded, and shown the door where it asks for too much.

A subscription costs a publisher memory (a node per byte of the topic) and time on its own thread, so what a hostile or broken client
may send is limited. ZeroMQ cannot close one connection; the operating system can.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import zmq

MAX_GUESTS = 32
"""Connections to one publisher. Each may hold back `high_water_mark` frames of memory. Engineering choice."""
MAX_TOPIC_BYTES = 512
"""Longest topic; that of a stream with the longest name takes 300. Engineering choice."""
MAX_REQUESTS = 128
"""Messages from one connection in its life; a subscriber sends one. Engineering choice."""
_UNSUBSCRIBE, _SUBSCRIBE, _NOTHING = 0, 1, 255
"""First byte of a request (ZeroMQ RFC 29)."""


@dataclass(slots=True)
class _Guest:
    """A connection. address: of the other end; a file descriptor alone is used again by the next connection."""

    address: object
    user: str
    closed: bool = False
    n_requests: int = 0
    topics: set[bytes] = field(default_factory=set)


class Guests:
    """The connections of one bound socket.

    turned_out: connections that were closed because they asked for too much, were too many, or were taken off the list.
    `heard` belongs to the thread of the socket, `turn_out` may be called from any.
    """

    def __init__(self) -> None:
        self.turned_out = 0
        self._guests: dict[int, _Guest] = {}
        self._lock = threading.Lock()

    def heard(self, message: zmq.Frame) -> int:
        """By how much a message of an XPUB socket changes the number of subscriptions: 1, 0 or -1."""
        content = message.buffer
        verb = content[0] if len(content) else _NOTHING
        descriptor = _property(message, "__fd")
        if not descriptor:  # ZeroMQ says that a connection has ended, topic by topic; or it is of the first protocol
            return {_SUBSCRIBE: 1, _UNSUBSCRIBE: -1}.get(verb, 0)
        with self._lock:
            return self._heard(int(descriptor), _property(message, "User-Id"), verb, content)

    def turn_out(self, may_stay: Container[str]) -> None:
        """Close the connections of users that are not in `may_stay`; those that need no key stay."""
        with self._lock:
            for descriptor, guest in self._guests.items():
                if guest.user and guest.user not in may_stay:
                    self._close(descriptor, guest)

    def _heard(self, descriptor: int, user: str, verb: int, content: memoryview) -> int:
        guest = self._guest(descriptor, user)
        guest.n_requests += 1
        topic = bytes(content[1 : MAX_TOPIC_BYTES + 1])
        change = 0
        if verb == _SUBSCRIBE and topic not in guest.topics:
            guest.topics.add(topic)
            change = 1
        elif verb == _UNSUBSCRIBE and topic in guest.topics:
            guest.topics.remove(topic)
            change = -1
        if len(content) > MAX_TOPIC_BYTES or guest.n_requests > MAX_REQUESTS or len(self._guests) > MAX_GUESTS:
            self._close(descriptor, guest)
        return change

    def _guest(self, descriptor: int, user: str) -> _Guest:
        known, address = self._guests.get(descriptor), _address(descriptor)
        if known is not None and address in (None, known.address):  # None: gone, but not all that it sent is read
            return known
        if len(self._guests) >= MAX_GUESTS:
            self._guests = {at: one for at, one in self._guests.items() if _address(at) == one.address}
        self._guests[descriptor] = guest = _Guest(address, user)
        return guest

    def _close(self, descriptor: int, guest: _Guest) -> None:
        if not guest.closed and guest.address is not None and _address(descriptor) == guest.address:
            guest.closed = True
            self.turned_out += 1
            _shut_down(descriptor)


def _property(message: zmq.Frame, name: str) -> str:
    try:
        return str(message.get(name))
    except zmq.ZMQError:
        return ""


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A connection that ZeroMQ owns, without taking it over."""
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _address(descriptor: int) -> object:
    """Who is at the other end; None when it is gone."""
    try:
        with _borrowed(descriptor) as connection:
            return connection.getpeername()
    except OSError:
        return None


def _shut_down(descriptor: int) -> None:
    """End a connection; ZeroMQ notices, and closes it. One that has just ended by itself is as good."""
    with suppress(OSError), _borrowed(descriptor) as connection:
        connection.shutdown(socket.SHUT_RDWR)
