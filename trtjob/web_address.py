"""Web addresses: what they say."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


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
