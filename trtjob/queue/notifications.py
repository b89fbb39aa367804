"""Which web addresses want to hear of a job's end, and what they are told.

The move that ends a job writes the notice of it, in the same step (`trtjob.queue.scripts`): what it says and its
delivery id are of that end, whatever becomes of the job later. Who sends a notice takes it first, for longer than a
send can last.
"""

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from redis import ResponseError

from trtjob.errors import ConfigError
from trtjob.jobs.spec import JobSpec
from trtjob.jobs.states import TERMINAL, JobState
from trtjob.queue import replies
from trtjob.queue.events import EventKind, add_event
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import NOTICE, NOTICES, notices_key
from trtjob.queue.scripts import load
from trtjob.web_address import Address, parsed_address

FIRST_PAUSE_S, LAST_PAUSE_S = 5.0, 3600.0
GIVE_UP_S = 86_400.0
LEASE_S = 60.0  # longer than a send lasts: see trtjob.worker.webhooks
MOST_TRIES = 1000
MOST_URL = 2048
_DELIVERY = re.compile(r"[0-9a-f]{16}")
_EXPECTED = "expected a web address such as https://hooks.example/trtjob"


@dataclass(frozen=True, slots=True)
class Notice:
    """The end of a job that somebody waits to hear of. waiting: the set that it is in; since: when it ended, seconds
    since the epoch."""

    waiting: str
    delivery: str
    token: str
    job_id: str
    url: str
    tries: int
    since: float
    body: bytes

    @property
    def keys(self) -> list[str]:
        return [self.waiting, NOTICE + self.delivery]


# -- addresses ---------------------------------------------------------------------------------------------------------


def check_notify_url(url: str) -> str:
    """Return the address. Raises ConfigError, which shows no more of it than scheme, host and port: the rest may hold a
    secret."""
    address_from(url)
    return url


def address_from(url: str) -> Address:
    """Read an address. Raises ConfigError as `check_notify_url` does."""
    if len(url) > MOST_URL:
        raise ConfigError(f"--notify: the address has {len(url):,} characters: shorten it to {MOST_URL:,} at most")
    try:
        return parsed_address(url)
    except ValueError as err:
        raise ConfigError(f"--notify '{_shown(url)}': {err}; {_EXPECTED}") from None


def _shown(url: str) -> str:
    """Return scheme, host and port, where they can be told from a password."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*://)?([^/?#\\]*)", url)
    scheme, place = (match[1] or "", match[2]) if match else ("", "")
    if "@" in place:
        place = place.rpartition("@")[2]
    elif "@" in url or not scheme:  # a password with a slash in it ends what looks like the host
        place = ""
    rest = "/..." if len(url) > len(scheme) + len(place) else ""
    return (scheme + place).encode("unicode_escape").decode()[:200] + rest


# -- notices -----------------------------------------------------------------------------------------------------------


def ask_for_notice(store: JobStore, job_id: str, url: str) -> None:
    """Have an address told when the job ends the next time."""
    store.update(job_id, notify=url)


def take_due(store: JobStore, queue: str = "") -> Iterator[Notice]:
    """Take the notices that are due, one after another, each for LEASE_S: nobody else sends it meanwhile.

    queue: of its jobs, and of those that have no queue.
    """
    for waiting in sorted({NOTICES, notices_key(queue)}):
        for member in sorted(replies.guarded(waiting, partial(store.redis.smembers, waiting), ())):
            notice = _take(store, waiting, member)
            if notice is not None:
                yield notice


def _take(store: JobStore, waiting: str, member: bytes) -> Notice | None:
    delivery, token = member.decode(errors="replace"), secrets.token_hex(8)
    key = NOTICE + delivery
    try:
        replies.expect(_DELIVERY.fullmatch(delivery), f"the member '{replies.shown_key(member)}' is no delivery id")
        fields = store.redis.eval(load("take_notice"), 2, waiting, key, delivery, token, LEASE_S)
        return None if fields is None else _notice(waiting, delivery, token, fields)
    except (replies.Rubbish, ResponseError) as err:
        if isinstance(err, ResponseError) and not replies.is_of_key(err):
            raise
        replies.skip(key if _DELIVERY.fullmatch(delivery) else waiting, err)
        store.redis.srem(waiting, member)
        return None


def _notice(waiting: str, delivery: str, token: str, fields: list[bytes]) -> Notice:
    """Read a notice. Raises Rubbish."""
    found = replies.texts(dict(zip(fields[::2], fields[1::2], strict=True)), most=1 << 20)
    try:
        spec, state = JobSpec.model_validate_json(found["spec"]), JobState(found["state"])
        replies.expect(state in TERMINAL and spec.job_id == found["job_id"], "it is of no end of its job")
        document = {
            "schema_version": 1,
            "job_id": spec.job_id,
            "state": state.value,
            "message": found["message"],
            **{name: replies.integer(found[name]) for name in ("images", "ok", "failed", "skipped")},
            "output": spec.uri,
            "finished_at": replies.number(found["finished_at"] or found["since"]),
        }
        tries, since = replies.integer(found.get("tries", "0")), replies.number(found["since"])
        body = json.dumps(document).encode()
        return Notice(waiting, delivery, token, spec.job_id, found["url"], tries, since, body)
    except replies.Rubbish:
        raise
    except (KeyError, ValueError) as err:
        raise replies.Rubbish(f"it is no notice: {type(err).__name__}") from None


def end_notice(store: JobStore, notice: Notice, event: EventKind, detail: str) -> None:
    """Send a notice no more. detail: for the job's events, so without the address, which may hold a secret."""
    store.redis.eval(load("settle_notice"), 2, *notice.keys, notice.delivery, notice.token, "")
    _tell(store, notice, event, detail)


def put_off(store: JobStore, notice: Notice, detail: str) -> bool:
    """Try a notice again later, with growing pauses. Returns False where a day of that is over."""
    if time.time() - notice.since > GIVE_UP_S or notice.tries >= MOST_TRIES:
        end_notice(store, notice, EventKind.NOT_NOTIFIED, f"{detail}; given up")
        return False
    pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(notice.tries, 16))
    store.redis.eval(load("settle_notice"), 2, *notice.keys, notice.delivery, notice.token, pause_s)
    _tell(store, notice, EventKind.NOT_NOTIFIED, f"{detail}; again in {pause_s:.0f} s")
    return True


def _tell(store: JobStore, notice: Notice, event: EventKind, detail: str) -> None:
    add_event(store.redis, notice.job_id, event, detail)


def headers_of(notice: Notice, secret: str, now: float) -> dict[str, str]:
    """Return a notice's headers: one that is the same for each try, and where there is a secret, the signature.

    Signed is "<t>.<body>", by HMAC-SHA256: who knows the secret can tell that the notice is ours, and not an old one.
    """
    delivery = f"{notice.job_id}-{notice.delivery}"
    headers = {"Content-Type": "application/json", "X-Trtjob-Delivery": delivery}
    if secret:
        signed = f"{int(now)}.".encode() + notice.body
        digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
        headers["X-Trtjob-Signature"] = f"t={int(now)},v1={digest}"
    return headers
