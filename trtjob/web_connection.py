"""Connections to web addresses: to those alone that are of public machines, unless the settings allow others."""

import http.client
import ipaddress
import os
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

from trtjob.errors import TrtjobError
from trtjob.web_address import Address

# All that is given out of IPv6: not what holds an IPv4 address (::, ::ffff:0:0, 64:ff9b::), nor what is local (fc00::,
# fe80::, fec0::).
_UNICAST = ipaddress.ip_network("2000::/3")
_TRANSLATED = (
    ipaddress.ip_network("2002::/16"),  # 6to4: the IPv4 address is in it
    ipaddress.ip_network("2001::/32"),  # Teredo: so it is
    ipaddress.ip_network("192.88.99.0/24"),  # the relays of 6to4
    ipaddress.ip_network("192.0.0.0/24"),  # of the protocols themselves, such as 192.0.0.8
)

_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200")))  # AWS's over IPv6, Alibaba's

Resolve = Callable[[str, int], list[str]]


class Refused(TrtjobError):
    """A connection may not be made: the address leads to a machine that is not public."""


def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses that a name stands for. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked_address(host: str, addresses: list[str], *, allow_local: bool, setting: str) -> str:
    """Return the first address of a host. setting: what allows others than public ones, but for those of metadata.

    Raises Refused where one of them is not allowed, OSError where there is none.
    """
    if not addresses:
        raise OSError(f"{host} has no address")
    for address in addresses:
        if _is_of_metadata(address):
            raise Refused(f"{host} leads to {address}, where clouds give their machines credentials: it is never asked")
        if not (allow_local or _is_public(address)):
            raise Refused(f"{host} leads to {address}, which is no public address. {setting}=true allows it")
    return addresses[0]


def _is_of_metadata(address: str) -> bool:
    """Tell whether clouds have their metadata services there: any link-local address, and two that are not."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return any(each.is_link_local or each in _METADATA for each in (ip, *_translations(ip)))


def _translations(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the addresses that an IPv6 address may become on its way."""
    if ip.version == 6 and ip.sixtofour is not None:
        yield ip.sixtofour
    elif ip.version == 6 and ip not in _UNICAST:
        yield ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)


def _is_public(address: str) -> bool:
    """Tell whether an address is of one machine in the internet, and is not translated into another one on its way."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    is_unicast = ip.version == 4 or ip in _UNICAST
    return is_unicast and ip.is_global and not ip.is_multicast and not any(ip in network for network in _TRANSLATED)


def connected(
    address: Address, *, timeout_s: float, allow_local: bool, setting: str, resolve: Resolve = addresses_of
) -> socket.socket:
    """Connect to the address that was checked, whatever its name leads to a moment later.

    timeout_s: for the name, for the connection, and for each answer. A TLS socket has not shaken hands yet.
    Raises Refused where it is not public (setting: what allows that), OSError, TimeoutError.
    """
    found = _in_time(lambda: resolve(address.host, address.port), timeout_s)
    ip = checked_address(address.host, found, allow_local=allow_local, setting=setting)
    sock = socket.create_connection((ip, address.port), timeout_s)
    if not address.is_tls:
        return sock
    try:
        context = _tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        return context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
    except BaseException:
        sock.close()
        raise


@lru_cache(maxsize=1)
def _tls_context(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    """Return a context that trusts the authorities of OpenSSL's own variables, or the system's: to read them takes 20
    CPU-ms."""
    return ssl.create_default_context()


def http_over(sock: socket.socket, address: Address) -> http.client.HTTPConnection:
    """Return HTTP over a connection to an address, TLS's hands shaken. Raises OSError."""
    if isinstance(sock, ssl.SSLSocket):
        sock.do_handshake()
    connection = http.client.HTTPConnection(address.host, address.port)
    connection.auto_open = 0  # it would look the name up again, and ask whom that leads to
    connection.sock = sock
    return connection


@contextmanager
def hung_up_after(sock: socket.socket, timeout_s: float) -> Iterator[None]:
    """End a connection that is not done in time, even where its answer comes a byte at a time."""

    def hang_up() -> None:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which is for the thread that reads

    alarm = threading.Timer(timeout_s, hang_up)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def _in_time(resolve: Callable[[], list[str]], timeout_s: float) -> list[str]:
    """Return what a name stands for. Raises TimeoutError, and what `resolve` raises: it cannot be told to stop."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve())
        except Exception as err:  # noqa: BLE001 - raised where it is waited for
            answers.put(err)

    threading.Thread(target=ask, name="trtjob-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer
