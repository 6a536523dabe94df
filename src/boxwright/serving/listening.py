"""Addresses to listen at."""

from __future__ import annotations

import ipaddress
import socket

_BACKLOG = 1024
"""Connections that wait to be taken."""


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Raises:
        ValueError: that is not possible.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port is from 0 to 65,535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ValueError(f"there is no address {host!r} to listen at: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ValueError(
            f"{host}:{port} cannot be listened at: {error.strerror}; give another --port or --host"
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address of the page."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_loopback(listener: socket.socket) -> bool:
    """Tell whether only this machine can reach a listener."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback
