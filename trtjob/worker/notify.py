"""Tell web addresses that jobs have ended: only public ones, unless the settings allow others."""

import ipaddress
import logging
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from trtjob.config import Settings
from trtjob.errors import TrtjobError
from trtjob.jobs.events import Happening
from trtjob.jobs.notify import body_of, due_notices, end_notice, headers_of, put_off
from trtjob.jobs.store import JobStore

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
_GONE = 410

Resolve = Callable[[str, int], list[str]]


class Refused(TrtjobError):
    """An address may not be told: it leads to a machine that is not public."""


def send_due(store: JobStore, settings: Settings, resolve: Resolve | None = None) -> int:
    """Send the notices that are due. Returns how many were taken."""
    sent = 0
    for job_id, url, tries in due_notices(store):
        host = urlsplit(url).hostname or ""
        try:
            status = _send(store, settings, job_id, url, resolve or addresses_of)
        except Refused as err:
            end_notice(store, job_id, Happening.NOT_NOTIFIED, f"{host}: refused: no public address")
            log.error("notice refused", extra={"job_id": job_id, "event": "notice_refused", "error": str(err)})
            continue
        except (TrtjobError, OSError) as err:
            status, reason = 0, str(err) if isinstance(err, TrtjobError) else type(err).__name__
        else:
            reason = f"status {status}"
        if 200 <= status < 300 or status == _GONE:
            event = Happening.NOT_NOTIFIED if status == _GONE else Happening.NOTIFIED
            end_notice(store, job_id, event, f"{host}: {reason}")
            sent += status != _GONE
            log.info("notice sent", extra={"job_id": job_id, "event": "notice_sent", "host": host, "status": status})
        elif not put_off(store, job_id, tries, f"{host}: {reason}"):
            log.error("notice given up", extra={"job_id": job_id, "event": "notice_given_up", "host": host})
        else:
            log.warning("notice not taken; it is sent again", extra={"job_id": job_id, "host": host, "reason": reason})
    return sent


def _send(store: JobStore, settings: Settings, job_id: str, url: str, resolve: Resolve) -> int:
    """Post a notice to the address that was checked, whatever its name leads to a moment later. Returns the status."""
    import urllib3

    view = store.view(job_id)
    parts = urlsplit(url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    address = checked_address(host, resolve(host, port), allow_local=settings.notify_allow_local)
    body, now = body_of(view), time.time()
    secret = settings.notify_secret.get_secret_value() if settings.notify_secret else ""
    headers = headers_of(view, body, secret, now) | {"Host": host if parts.port is None else f"{host}:{port}"}
    timeout = urllib3.Timeout(total=TIMEOUT_S)
    pool: urllib3.HTTPConnectionPool
    if is_tls:
        pool = urllib3.HTTPSConnectionPool(address, port, timeout=timeout, server_hostname=host, assert_hostname=host)
    else:
        pool = urllib3.HTTPConnectionPool(address, port, timeout=timeout)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with pool:
        try:
            answer = pool.request(
                "POST", target, body=body, headers=headers, redirect=False, retries=False, preload_content=False
            )
        except urllib3.exceptions.HTTPError as err:
            raise OSError(type(err).__name__) from None  # its text has the whole address
        answer.close()
        return int(answer.status)


def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses that a name stands for. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked_address(host: str, addresses: list[str], *, allow_local: bool) -> str:
    """Return the first address of a host. Raises Refused where one of them is not public."""
    if not addresses:
        raise OSError(f"{host} has no address")
    for address in addresses:
        ip = ipaddress.ip_address(address.partition("%")[0])
        inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or ip
        if not allow_local and not (ip.is_global and inner.is_global and not ip.is_multicast):
            raise Refused(
                f"{host} leads to {address}, which is no public address. TRTJOB_NOTIFY_ALLOW_LOCAL=true allows it"
            )
    return addresses[0]
