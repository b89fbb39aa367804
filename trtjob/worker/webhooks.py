"""Tell web addresses that jobs have ended: only public ones, unless the settings allow others."""

import logging
import time

from redis import RedisError

from trtjob.config import Settings
from trtjob.errors import ConfigError, QueueError
from trtjob.queue.events import EventKind
from trtjob.queue.job_store import JobStore
from trtjob.queue.notifications import Notice, address_from, end_notice, headers_of, put_off, take_due
from trtjob.web_address import Address
from trtjob.web_connection import Refused, Resolve, addresses_of, connected, http_over, hung_up_after

log = logging.getLogger(__name__)

# For its name, for the connection, and for the rest, whatever the server does: together less than a notice's lease.
TIMEOUT_S = 10.0
_GONE = 410


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
    """Post a notice to the address that was checked. Returns the status."""
    secret = settings.notify_secret.get_secret_value() if settings.notify_secret else ""
    headers = headers_of(notice, secret, time.time()) | {"Host": address.header}
    connection_made = connected(
        address,
        timeout_s=TIMEOUT_S,
        allow_local=settings.notify_allow_local,
        setting="TRTJOB_NOTIFY_ALLOW_LOCAL",
        resolve=resolve,
    )
    with connection_made as sock, hung_up_after(sock, TIMEOUT_S):
        connection = http_over(sock, address)
        connection.request("POST", address.target, notice.body, headers)
        return connection.getresponse().status
