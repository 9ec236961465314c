"""Who may look: a random token, and on anything but loopback the networks that were named."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress

from rtdenoise.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_TOKEN_BYTES = 24
"""192 random bits: nobody guesses it. Engineering choice."""


class Gate:
    """Admits requests that bring the token and come from this computer or an allowed network."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self.token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._allowed = (*_LOOPBACK, *allowed)

    def admits(self, token: str, peer: str | None) -> bool:
        """True for the right token from an address that may look. Takes as long for a wrong token as for the right one."""
        right = hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self.token.encode())
        return right and self._is_allowed(peer)

    def address_for(self, bind: str) -> str:
        """What to type into a browser for a server on `bind`: for all addresses the one that faces the last network allowed."""
        network = self._allowed[-1]
        if not ipaddress.ip_address(bind).is_unspecified:
            return bind
        family = socket.AF_INET if network.version == 4 else socket.AF_INET6
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(network.network_address), 9))  # finds the route; a datagram socket sends nothing by that
            return str(probe.getsockname()[0])
        return bind

    def _is_allowed(self, peer: str | None) -> bool:
        if peer is None:
            return False
        address = ipaddress.ip_address(peer.partition("%")[0])
        seen = getattr(address, "ipv4_mapped", None) or address
        return any(seen in network for network in self._allowed)


def gate_for(bind: str, allow: Sequence[str]) -> Gate:
    """The gate of a server on address `bind`. Raises ConfigError unless other computers were let in on purpose."""
    networks = [_network(text) for text in allow]
    try:
        address = ipaddress.ip_address(bind)
    except ValueError:
        raise ConfigError(f"--bind {bind}: not an IP address; 127.0.0.1 is this computer alone") from None
    if not address.is_loopback and not networks:
        raise ConfigError(
            f"--bind {bind} shows the pictures to other computers, unencrypted; say to which with --allow 192.168.1.0/24, "
            "or stay on 127.0.0.1 and use an SSH tunnel: ssh -L 8080:127.0.0.1:8080 this-computer"
        )
    return Gate(networks)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"--allow {text}: {error}; a network looks like 192.168.1.0/24") from None
