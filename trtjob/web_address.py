"""Web addresses: what they say, and connections to those alone that are of public machines."""

import ipaddress
import queue
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from trtjob.errors import TrtjobError

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

# All that is given out of IPv6: not what holds an IPv4 address (::, ::ffff:0:0, 64:ff9b::), nor what is local (fc00::,
# fe80::, fec0::).
_UNICAST = ipaddress.ip_network("2000::/3")
_TRANSLATED = (
    ipaddress.ip_network("2002::/16"),  # 6to4: the IPv4 address is in it
    ipaddress.ip_network("2001::/32"),  # Teredo: so it is
    ipaddress.ip_network("192.88.99.0/24"),  # the relays of 6to4
    ipaddress.ip_network("192.0.0.0/24"),  # of the protocols themselves, such as 192.0.0.8
)

Resolve = Callable[[str, int], list[str]]


class Refused(TrtjobError):
    """A connection may not be made: the address leads to a machine that is not public."""


@dataclass(frozen=True, slots=True)
class Address:
    """A web address. host: a name in ASCII, or an IP address without brackets; target: path and query."""

    host: str
    port: int
    is_tls: bool
    target: str
    header: str  # what the server is called by


def quoted(url: str) -> str:
    """Return an address as a request has it: what may not stand in its path and query is percent-encoded.

    >>> quoted("https://host/a b.jpg?x=%20")
    'https://host/a%20b.jpg?x=%20'
    """
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return scheme + separator + host + slash + quote(path, safe="%/:?[]@!$&'()*+,;=-._~", errors="surrogateescape")


def parsed_address(url: str) -> Address:
    """Return what an address says. Raises ValueError with what is wrong with it, and nothing of what it says."""
    if re.search(r"[\s\x00-\x1f\x7f-\x9f\\]", url):
        raise ValueError("it has a space, a backslash or a control character in it. Write them as %20, %5C and so on")
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets, or a host that is another one by Unicode's rules
        raise ValueError("its host cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.netloc.rpartition("@")[2]:
        raise ValueError("it does not begin with http:// or https:// and a host")
    if "@" in parts.netloc:
        raise ValueError("give no user and password in it")
    if not (parts.path + parts.query).isascii():
        raise ValueError("its path and query must be ASCII: percent-encode them")
    host, port, is_tls = _host(parts), _port(parts), parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    named = f"[{host}]" if ":" in host else host
    return Address(host, port or (443 if is_tls else 80), is_tls, target, named if port is None else f"{named}:{port}")


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("its port must be a number from 1 to 65535")
    return port


def _host(parts: SplitResult) -> str:
    """Return the host in ASCII: an IP address, or a name that a server could have."""
    host = parts.hostname or ""
    if "[" in parts.netloc:
        try:
            return str(ipaddress.IPv6Address(host if "%" not in host else ""))
        except ValueError:
            raise ValueError("what is in its brackets is no IPv6 address") from None
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        raise ValueError("its host is no name that a server can have") from None
    if len(name) > 253 or not all(map(_LABEL.fullmatch, name.removesuffix(".").split("."))):
        raise ValueError("its host is no name that a server can have")
    return name


# -- connections -------------------------------------------------------------------------------------------------------


def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses that a name stands for. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked_address(host: str, addresses: list[str], *, allow_local: bool, setting: str) -> str:
    """Return the first address of a host. setting: what allows others.

    Raises Refused where one of them is not public, OSError where there is none.
    """
    if not addresses:
        raise OSError(f"{host} has no address")
    for address in addresses:
        if not (allow_local or _is_public(address)):
            raise Refused(f"{host} leads to {address}, which is no public address. {setting}=true allows it")
    return addresses[0]


def _is_public(address: str) -> bool:
    """Tell whether an address is of one machine in the internet, and is not translated into another one on its way."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    is_unicast = ip.version == 4 or ip in _UNICAST
    return is_unicast and ip.is_global and not ip.is_multicast and not any(ip in network for network in _TRANSLATED)


@contextmanager
def connected(
    address: Address, *, timeout_s: float, allow_local: bool, setting: str, resolve: Resolve = addresses_of
) -> Iterator[socket.socket]:
    """Connect to the address that was checked, whatever its name leads to a moment later.

    timeout_s: for the name, for the connection, and for each answer. A TLS socket has not shaken hands yet.
    Raises Refused where it is not public (setting: what allows that), OSError, TimeoutError.
    """
    found = _in_time(lambda: resolve(address.host, address.port), timeout_s)
    ip = checked_address(address.host, found, allow_local=allow_local, setting=setting)
    sock = socket.create_connection((ip, address.port), timeout_s)
    try:
        if address.is_tls:
            sock = _tls_context().wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
        yield sock
    finally:
        sock.close()


def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


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
