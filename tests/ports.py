"""Ports of loopback for servers that a test starts."""

import secrets
import socket


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that are free now, and whose neighbours 10,000 above are too: those are for gRPC.

    None is of those that the kernel gives to whoever connects somewhere: one that is free may be taken in a moment.
    """
    found: list[int] = []
    while len(found) < count:
        port = 11_000 + secrets.randbelow(11_000)
        with socket.socket() as low, socket.socket() as high:
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def free_port() -> int:
    """Return one such port."""
    return free_ports(1)[0]
