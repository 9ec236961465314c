"""Who may connect with which key: the answering end of ZeroMQ's authentication (RFC 27, ZAP), with an allow-list.

Knowing a CURVE server's public key is enough to connect to it unless somebody looks at the client's key: this does. pyzmq has a
`ThreadAuthenticator` for it, which runs on asyncio and so does not start on Windows without tornado; what we need of it is this short.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import zmq
from zmq.utils import z85

from rtdenoise.keyring import Allowed

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
DOMAIN = b"rtdenoise"
LOOK_S = 0.5
"""How often the list is looked at for those who are connected already. Engineering choice."""
_VERSION = b"1.0"
_BELL = "inproc://rtdenoise-doorman"


class Doorman:
    """Answers every handshake in a context from a thread of its own, and calls `look` twice a second.

    Start it before a CURVE server binds, close it after the last socket of the context. `refused` counts the handshakes that failed.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: Allowed, look: Callable[[], None]) -> None:
        self.refused = 0
        self._allowed, self._look = allowed, look
        self._socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ZAP_ENDPOINT)
        self._bell: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._bell.bind(_BELL)
        self._bell_heard: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._bell_heard.connect(_BELL)
        self._thread = threading.Thread(target=self._serve, name="doorman", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let nobody in any more."""
        self._bell.send(b"")
        self._thread.join()
        for socket in (self._socket, self._bell, self._bell_heard):
            socket.close(linger=0)

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._bell_heard, zmq.POLLIN)
        while self._bell_heard not in (ready := dict(poller.poll(int(LOOK_S * 1000)))):
            if self._socket in ready:
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
            self._look()

    def _answer(self, request: list[bytes]) -> list[bytes]:
        """200 and the client's public key as its user id, or 400. A request: version, id, domain, address, identity, mechanism, key."""
        request_id = request[1] if len(request) > 1 else b""
        public = ""
        if len(request) == 7 and (request[0], request[2], request[5]) == (_VERSION, DOMAIN, b"CURVE"):
            public = z85.encode(request[6]).decode("ascii") if len(request[6]) == 32 else ""
        if public and public in self._allowed:
            return [_VERSION, request_id, b"200", b"OK", public.encode("ascii"), b""]
        self.refused += 1
        return [_VERSION, request_id, b"400", b"not on the list", b"", b""]
