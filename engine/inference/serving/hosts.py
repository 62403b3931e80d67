"""Decides by the Host header whether a request means this server, which other machines cannot reach.

A page of another site may point a name of its own at 127.0.0.1 (DNS rebinding). To the browser it is then of the same
origin as the server, and reads every answer. Only the Host header still tells that name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit


class OwnHosts:
    """Holds the names and addresses that a server answers to.

    A server that others can reach answers to every name, and so does one whose answers any page may read.
    """

    def __init__(self, *, addresses: Iterable[str], host: str, origins: Iterable[str]) -> None:
        """Decides what names there are.

        Args:
            addresses: Addresses that the server listens on.
            host: The name or address that it was told to listen on.
            origins: Origins whose pages may read the answers; "*" stands for all.
        """
        self._is_open = "*" in origins or not all(map(is_loopback, addresses))
        self._names = {host.lower(), *(urlsplit(origin).hostname or "" for origin in origins)} - {""}

    def __contains__(self, name: str) -> bool:
        return self._is_open or name in self._names or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Returns whether a host's name or address, of a header or a socket, is that of the loopback device."""
    name = name.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: never looked up
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
