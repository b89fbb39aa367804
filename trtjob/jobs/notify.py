"""Which web addresses want to hear of a job's end, and what they are told."""

import hashlib
import hmac
import json
import time
from typing import Any
from urllib.parse import urlsplit

from trtjob.errors import ConfigError
from trtjob.jobs.events import Happening, add_event
from trtjob.jobs.store import JobStore, job_key
from trtjob.jobs.views import JobView

WAITING = "trtjob:notify"  # set: the jobs whose end somebody waits for
FIRST_PAUSE_S, LAST_PAUSE_S = 5.0, 3600.0
GIVE_UP_S = 86_400.0


def check_notify_url(url: str) -> str:
    """Return the address. Raises ConfigError, which shows no more of it than its host: it may hold a secret."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("--notify: expected a web address such as https://hooks.example/trtjob")
    if parts.username or parts.password:
        raise ConfigError(f"--notify: give {parts.hostname} no user and password in the address: it is signed instead")
    return url


def ask_for_notice(store: JobStore, job_id: str, url: str) -> None:
    """Have an address told when the job ends."""
    store.update(job_id, notify=url, notify_tries=0, notify_at=0, notify_since=0)
    store.redis.sadd(WAITING, job_id)


def due_notices(store: JobStore) -> list[tuple[str, str, int]]:
    """Return the job, the address and the number of tries so far of each notice that is due now."""
    due = []
    for job_id in sorted(store.redis.smembers(WAITING)):
        fields = ("notify", "notify_tries", "notify_at", "finished_at")
        url, tries, at, finished_at = store.redis.hmget(job_key(job_id.decode()), fields)
        if url is None:  # the job is forgotten
            store.redis.srem(WAITING, job_id)
        elif finished_at and float(at or 0) <= time.time():
            due.append((job_id.decode(), url.decode(), int(tries or 0)))
    return due


def end_notice(store: JobStore, job_id: str, event: Happening, detail: str) -> None:
    """Send a notice no more. detail: for the job's events, so without the address, which may hold a secret."""
    with store.redis.pipeline() as pipe:
        pipe.srem(WAITING, job_id)
        add_event(pipe, job_key(job_id), event, detail)
        pipe.execute()


def put_off(store: JobStore, job_id: str, tries: int, detail: str) -> bool:
    """Try a notice again later, with growing pauses. Returns False where a day of that is over."""
    since = float(store.redis.hget(job_key(job_id), "notify_since") or 0) or time.time()
    if time.time() - since > GIVE_UP_S:
        end_notice(store, job_id, Happening.NOT_NOTIFIED, f"{detail}; given up")
        return False
    pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0**tries)
    with store.redis.pipeline() as pipe:
        later = {"notify_tries": tries + 1, "notify_at": time.time() + pause_s, "notify_since": since}
        pipe.hset(job_key(job_id), mapping=later)
        add_event(pipe, job_key(job_id), Happening.NOT_NOTIFIED, f"{detail}; again in {pause_s:.0f} s")
        pipe.execute()
    return True


def notice_of(view: JobView) -> dict[str, Any]:
    """Return what an address is told of a job."""
    return {
        "schema_version": 1,
        "job_id": view.job_id,
        "state": view.state.value,
        "message": view.message,
        "images": view.images,
        "ok": view.ok,
        "failed": view.failed,
        "skipped": view.skipped,
        "output": view.spec.uri,
        "finished_at": view.finished_at,
    }


def headers_of(view: JobView, body: bytes, secret: str, now: float) -> dict[str, str]:
    """Return a notice's headers: one that is the same for each try, and where there is a secret, the signature.

    Signed is "<t>.<body>", by HMAC-SHA256: who knows the secret can tell that the notice is ours, and not an old one.
    """
    headers = {"Content-Type": "application/json", "X-Trtjob-Delivery": f"{view.job_id}-{view.epoch}-{view.state}"}
    if secret:
        signed = f"{int(now)}.".encode() + body
        headers["X-Trtjob-Signature"] = (
            f"t={int(now)},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
        )
    return headers


def body_of(view: JobView) -> bytes:
    return json.dumps(notice_of(view)).encode()
