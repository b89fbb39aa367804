"""Tell web addresses that jobs have ended: only public ones, unless the settings allow others."""

import http.client
import ipaddress
import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from redis import RedisError

from trtjob.config import Settings
from trtjob.errors import ConfigError, QueueError, TrtjobError
from trtjob.queue.events import EventKind
from trtjob.queue.job_store import JobStore
from trtjob.queue.notifications import Address, Notice, address_from, end_notice, headers_of, put_off, take_due

log = logging.getLogger(__name__)

# For its name, for the connection, and for the rest, whatever the server does: together less than a notice's lease.
TIMEOUT_S = 10.0
_GONE = 410

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
    """An address may not be told: it leads to a machine that is not public."""


def send_due(store: JobStore, settings: Settings, resolve: Resolve | None = None, *, for_s: float | None = None) -> int:
    """Send the notices that are due. for_s: begin no other after so many seconds. Returns how many were taken.

    Raises RedisError, QueueError; all else that goes wrong is that one notice's failure.
    """
    sent, began = 0, time.monotonic()
    for notice in take_due(store, settings.queue):
        sent += _sent(store, settings, notice, resolve or addresses_of)
        if for_s is not None and time.monotonic() - began > for_s:
            break
    return sent


def _sent(store: JobStore, settings: Settings, notice: Notice, resolve: Resolve) -> bool:
    """Send one notice, and settle what becomes of it. Returns whether it was taken."""
    about, host = {"job_id": notice.job_id}, "address"
    try:
        address = address_from(notice.url)
        host = address.host
        status = _send(settings, notice, address, resolve)
    except (Refused, ConfigError) as err:
        reason = "refused: no public address" if isinstance(err, Refused) else "cannot be one"
        end_notice(store, notice, EventKind.NOT_NOTIFIED, f"{host}: {reason}")
        log.error("notice refused", extra=about | {"event": "notice_refused", "error": str(err)})
        return False
    except (RedisError, QueueError):
        raise
    except Exception as err:  # noqa: BLE001 - a notice's failure ends nothing else; its text may hold the address
        status, reason = 0, type(err).__name__
    else:
        reason = f"status {status}"
    if 200 <= status < 300 or status == _GONE:
        event = EventKind.NOT_NOTIFIED if status == _GONE else EventKind.NOTIFIED
        end_notice(store, notice, event, f"{host}: {reason}")
        log.info("notice sent", extra=about | {"event": "notice_sent", "host": host, "status": status})
        return status != _GONE
    if put_off(store, notice, f"{host}: {reason}"):
        log.warning("notice not taken; it is sent again", extra=about | {"host": host, "reason": reason})
    else:
        log.error("notice given up", extra=about | {"event": "notice_given_up", "host": host})
    return False


def _send(settings: Settings, notice: Notice, address: Address, resolve: Resolve) -> int:
    """Post a notice to the address that was checked, whatever its name leads to a moment later. Returns the status."""
    found = _in_time(lambda: resolve(address.host, address.port))
    ip = checked_address(address.host, found, allow_local=settings.notify_allow_local)
    secret = settings.notify_secret.get_secret_value() if settings.notify_secret else ""
    headers = headers_of(notice, secret, time.time()) | {"Host": address.header}
    sock = socket.create_connection((ip, address.port), TIMEOUT_S)
    try:
        if address.is_tls:
            context = ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
        return _posted(sock, address, headers, notice.body)
    finally:
        sock.close()


def _posted(sock: socket.socket, address: Address, headers: dict[str, str], body: bytes) -> int:
    """Return the status that a server answers with, within TIMEOUT_S even where that comes a byte at a time."""

    def hang_up() -> None:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which is for the thread that reads

    alarm = threading.Timer(TIMEOUT_S, hang_up)
    alarm.daemon = True
    alarm.start()
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection = http.client.HTTPConnection(address.host, address.port)
        connection.sock = sock
        connection.request("POST", address.target, body, headers)
        return connection.getresponse().status
    finally:
        alarm.cancel()


def _in_time(resolve: Callable[[], list[str]]) -> list[str]:
    """Return what a name stands for. Raises TimeoutError, and what `resolve` raises: it cannot be told to stop."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve())
        except Exception as err:  # noqa: BLE001 - raised where it is waited for
            answers.put(err)

    threading.Thread(target=ask, name="trtjob-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT_S)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses that a name stands for. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _is_public(address: str) -> bool:
    """Tell whether an address is of one machine in the internet, and is not translated into another one on its way."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    is_unicast = ip.version == 4 or ip in _UNICAST
    return is_unicast and ip.is_global and not ip.is_multicast and not any(ip in network for network in _TRANSLATED)


def checked_address(host: str, addresses: list[str], *, allow_local: bool) -> str:
    """Return the first address of a host. Raises Refused where one of them is not public."""
    if not addresses:
        raise OSError(f"{host} has no address")
    for address in addresses:
        if not (allow_local or _is_public(address)):
            raise Refused(
                f"{host} leads to {address}, which is no public address. TRTJOB_NOTIFY_ALLOW_LOCAL=true allows it"
            )
    return addresses[0]
