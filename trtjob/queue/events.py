"""What happened to a job, step by step: a short stream in Redis beside the job's state.

Most events are written by the script that changes the state (`trtjob.queue.scripts`), so that there is no change
without its event; `add_event` writes those that change none. Only about the last `MOST_EVENTS` are kept.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from trtjob.errors import ForeignJobError
from trtjob.queue.keys import events_key, job_key
from trtjob.queue.replies import entries
from trtjob.queue.scripts import load
from trtjob.utf8 import escaped


class EventKind(StrEnum):
    """What may happen to a job, by the words that `trtjob events` shows."""

    SUBMITTED = "submitted"
    CONTINUED = "continued"  # by submitting again, by `resume` or by `retry`; the detail says which
    PLANNED = "planned"
    TAKEN = "taken"  # a worker has begun a unit of work
    COMMITTED = "committed"
    GIVEN_BACK = "given_back"  # a worker left a unit in order
    LOST = "lost"  # its worker died, or was not heard of for too long
    SET_ASIDE = "set_aside"  # an image that ends worker processes
    STOOD_ASIDE = "stood_aside"  # a node that cannot work on the job; the detail says what it lacks
    DEGRADED = "degraded"  # something outside fails, so that the job waits
    RECOVERED = "recovered"
    PRIORITY = "priority"
    STOPPED = "stopped"  # by the user of `trtjob run`
    CANCELLED = "cancelled"
    FAILED = "failed"
    FINISHED = "finished"
    NOTIFIED = "notified"
    NOT_NOTIFIED = "not_notified"


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a job. at: seconds since the epoch by the server's clock; event: an EventKind, or what another
    version calls it; unit, worker: empty, and attempt: 0, where none is meant."""

    id: str
    at: float
    event: str
    unit: str
    attempt: int
    worker: str
    detail: str

    def document(self) -> dict[str, Any]:
        """Return what `trtjob events --json` prints."""
        return {
            "at": self.at,
            "event": self.event,
            "unit": self.unit or None,
            "attempt": self.attempt or None,
            "worker": self.worker or None,
            "detail": self.detail,
        }


def add_event(redis: Any, job_id: str, event: EventKind, detail: str = "", *, unit: str = "", worker: str = "") -> None:
    """Write an event of a job, once, if the job is there."""
    redis.eval(load("tell"), 1, job_key(job_id), new_call(), event.value, unit, worker, escaped(detail))


def new_call() -> str:
    """Return a name for one call of a script."""
    return secrets.token_hex(8)


def read_events(redis: Any, job_id: str, *, after: str = "", last: int | None = None) -> list[Event]:
    """Return a job's events, the oldest first: those behind the event `after`, or the last so many.

    Raises ForeignJobError for what no version of ours has written.
    """
    try:
        return [_event(*entry) for entry in entries(redis, events_key(job_id), after=after, last=last)]
    except (KeyError, ValueError) as err:
        raise ForeignJobError(job_id) from err


def _event(entry_id: str, fields: Mapping[bytes, bytes]) -> Event:
    text = {name.decode(): value.decode() for name, value in fields.items()}
    return Event(
        id=entry_id,
        at=int(entry_id.partition("-")[0]) / 1000,
        event=text["event"],
        unit=text["unit"],
        attempt=int(text["attempt"] or 0),
        worker=text["worker"],
        detail=text["detail"],
    )
