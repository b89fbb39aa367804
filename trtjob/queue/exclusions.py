"""Workers that stand aside from a job, because something is missing there, and what that means for the job.

What one node lacks, or one GPU of it, is no reason to end a job that others can do: its worker gives the unit back,
says why, leaves the job's messages to the others, and looks again some seconds later. Only where no worker is left the
job waits, or ends.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from trtjob.errors import ForeignJobError, PlaceError
from trtjob.jobs.states import ACTIVE
from trtjob.queue.events import EventKind, add_event
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import aside_key, job_key
from trtjob.queue.replies import Rubbish, answers, guarded, number
from trtjob.queue.views import WorkerView, node_of
from trtjob.utf8 import escaped

_MOST_REASON = 500
_MOST_NODES = 1000
_SINCE = "aside_since"  # a job's field: since when no node is left, by the server's clock


class Lack(StrEnum):
    """What a worker misses for a job."""

    PLACE = "place"  # the source or the output is not there: perhaps not mounted yet
    OUTAGE = "outage"  # storage does not answer it
    VERSION = "version"  # the job is another version's
    CRASH = "crash"  # a unit ends its processes
    FAULT = "fault"  # anything else: a secret, the clock, the model's file, the engine


# Of these a job only waits, however many nodes say so: storage comes back, and another version may start.
_WAITS_FOR_EVER = frozenset({Lack.OUTAGE, Lack.VERSION})


class Exclusion(BaseModel):
    """Why a worker stands aside, and since when (seconds since the epoch, by the server's clock)."""

    model_config = ConfigDict(frozen=True)

    lack: Lack
    reason: Annotated[str, StringConstraints(max_length=_MOST_REASON)]
    at: float


Outcome = Literal["goes on", "failed", "ended"]


def lack_of(err: BaseException) -> Lack:
    """Return what an error says that this worker lacks."""
    if isinstance(err, PlaceError):
        return Lack.PLACE
    return Lack.VERSION if isinstance(err, ForeignJobError) else Lack.FAULT


class Exclusions:
    """Who stands aside from which job. queue: the workers that count are those that serve it."""

    def __init__(self, store: JobStore, queue: str) -> None:
        self._store = store
        self._queue = queue

    def of(self, job_id: str) -> dict[str, Exclusion]:
        """Return the workers that stand aside from a job; some may be gone by now."""
        return exclusions_of(self._store, [job_id])[job_id]

    def stand_aside(self, job_id: str, worker: str, lack: Lack, reason: str, *, wait_s: float) -> Outcome:
        """Note that a worker cannot work on a job. Where no other can, the job waits or fails.

        wait_s: how long it waits for a place. Returns what became of the job: it may have `ended` before. To be called
        again while it lasts.
        """
        redis, key = self._store.redis, job_key(job_id)
        if (redis.hget(key, "state") or b"").decode(errors="replace") not in ACTIVE:
            return "ended"
        now = self._store.now()
        exclusion = Exclusion(lack=lack, reason=escaped(reason)[:_MOST_REASON], at=now)
        if self._write(job_id, worker, exclusion):
            add_event(redis, job_id, EventKind.STOOD_ASIDE, exclusion.reason, worker=worker)
        reasons = self._all_say(job_id, worker)
        if not reasons:
            self._go_on(job_id)
            return "goes on"
        lacks = {exclusion.lack for exclusion in reasons.values()}
        if lacks == {Lack.VERSION}:  # a job that nobody here can read is left as it is
            return "goes on"
        message = _message(reasons)
        has_waited = now - self._since(key, now) >= wait_s
        if lacks & _WAITS_FOR_EVER or (not has_waited and (len(lacks) > 1 or Lack.PLACE in lacks)):
            self._store.degrade(job_id, message)
            return "goes on"
        if lacks == {Lack.PLACE}:
            message += " Once it is, run the same command again: it does only what is missing"
        self._store.fail(job_id, message)  # which has every worker try again where somebody continues the job
        return "failed"

    def _write(self, job_id: str, worker: str, exclusion: Exclusion) -> bool:
        """Write why a worker stands aside, whatever stood there. Returns whether it is new."""
        key, redis = aside_key(job_id), self._store.redis
        is_new = guarded(key, lambda: redis.hset(key, worker, exclusion.model_dump_json()), None)
        if is_new is None:
            redis.delete(key)
            is_new = redis.hset(key, worker, exclusion.model_dump_json())
        return bool(is_new)

    def _since(self, key: str, now: float) -> float:
        """Return since when no worker is left."""
        redis = self._store.redis
        redis.hsetnx(key, _SINCE, now)
        try:
            return min(now, number(redis.hget(key, _SINCE) or str(now)))
        except Rubbish:
            redis.hset(key, _SINCE, now)
            return now

    def _all_say(self, job_id: str, worker: str) -> dict[str, Exclusion]:
        """Return why each live worker stands aside; nothing where one of them does not."""
        workers = self._live(job_id)
        # One that has a unit of the job in hand has come back, or is about to say that it has not.
        at_work = {other.name for other in workers if other.units_of(job_id)} - {worker}
        live = {other.name for other in workers} | {worker}
        if self._daemons(job_id) - {node_of(name) for name in live}:  # a node's workers are being started again
            return {}
        said = self.of(job_id)
        return {name: said[name] for name in sorted(live)} if live <= said.keys() - at_work else {}

    def come_back(self, job_id: str, worker: str) -> None:
        """Note that a worker has done its part of a job."""
        key = aside_key(job_id)
        if guarded(key, lambda: self._store.redis.hdel(key, worker), 0):
            self._go_on(job_id)

    def is_aside(self, job_id: str, worker: str) -> bool:
        key = aside_key(job_id)
        return bool(guarded(key, lambda: self._store.redis.hexists(key, worker), False))

    def others_work(self, job_ids: list[str], node: str) -> bool:
        """Return whether another node has a worker that nothing keeps from working on one of these jobs."""
        others = [worker for worker in self._store.workers() if not worker.trouble and worker.node != node]
        return any(
            {worker.name for worker in others if worker.may_do(self._queue, job_id)} - self.of(job_id).keys()
            for job_id in job_ids
        )

    def live_nodes(self, job_id: str) -> set[str]:
        """Return the nodes that may do a job and have reported lately, those too whose workers are just being started
        again."""
        return self._daemons(job_id) | {worker.node for worker in self._live(job_id)}

    def _daemons(self, job_id: str) -> set[str]:
        return {daemon.name for daemon in self._store.daemons() if daemon.may_do(self._queue, job_id)}

    def _live(self, job_id: str) -> list[WorkerView]:
        return [worker for worker in self._store.workers() if worker.may_do(self._queue, job_id)]

    def _go_on(self, job_id: str) -> None:
        """Note that somebody can work on a job."""
        if self._store.redis.hexists(job_key(job_id), _SINCE):
            self._store.degrade(job_id, "")  # which forgets it


def exclusions_of(store: JobStore, job_ids: list[str]) -> dict[str, dict[str, Exclusion]]:
    """Return who stands aside from each of these jobs."""
    with store.redis.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hgetall(aside_key(job_id))
        found = answers(pipe, map(aside_key, job_ids))
    return {job_id: read_exclusions(fields or {}) for job_id, fields in zip(job_ids, found, strict=True)}


def read_exclusions(fields: Mapping[bytes, bytes]) -> dict[str, Exclusion]:
    """Read a job's record of who stands aside; what is none of ours is left out."""
    found = {}
    for name, value in list(fields.items())[:_MOST_NODES]:
        try:
            found[name.decode()] = Exclusion.model_validate_json(value)
        except (ValidationError, UnicodeDecodeError):
            continue
    return found


def _message(reasons: Mapping[str, Exclusion]) -> str:
    """Say why nobody can work on a job: once, where all say the same."""
    texts = list(dict.fromkeys(exclusion.reason for exclusion in reasons.values()))
    if len(texts) == 1:
        return texts[0]
    return "; ".join(dict.fromkeys(f"{node_of(worker)}: {exclusion.reason}" for worker, exclusion in reasons.items()))
