"""Where every job stands, kept in Redis. All of it can be made again from the job's folder."""

import json
import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

from redis import Redis

from trtjob.errors import ForeignJobError, UnknownJobError
from trtjob.jobs.spec import JobSpec
from trtjob.jobs.states import ACTIVE, JobState, Priority, origins
from trtjob.queue import replies
from trtjob.queue.events import Event, EventKind, new_call, read_events
from trtjob.queue.keys import (
    DEGRADED,
    JOBS,
    QUEUE,
    STATE,
    done_key,
    ended_key,
    job_key,
    part_key,
    queue_state_key,
    state_key,
)
from trtjob.queue.leases import Leases, flat
from trtjob.queue.scripts import load
from trtjob.queue.views import JobView, job_view
from trtjob.utf8 import escaped

log = logging.getLogger(__name__)

JOBS_AT_ONCE = 500
_MOST_SPEC = 1 << 20  # bytes
# What a job's events call a move to a state.
_EVENT_OF = {
    JobState.QUEUED: EventKind.CONTINUED,
    JobState.STOPPED: EventKind.STOPPED,
    JobState.DONE: EventKind.FINISHED,
    JobState.DONE_WITH_ERRORS: EventKind.FINISHED,
    JobState.FAILED: EventKind.FAILED,
    JobState.CANCELLED: EventKind.CANCELLED,
}


class JobStore(Leases):
    """All reads and writes of job state."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        register = redis.register_script
        self._warned_of: set[str] = set()  # jobs that cannot be read
        self._create = register(load("create"))
        self._move = replies.script(redis, load("move"), 0)
        self._update = replies.script(redis, load("update"), 0)
        self._prioritize = replies.script(redis, load("prioritize"), None)
        self._enlist = register(load("enlist"))
        self._forget = register(load("forget"))
        self._degrade = replies.script(redis, load("degrade"), None)

    # -- a job's life -------------------------------------------------------------------------------------------

    def create(
        self,
        spec: JobSpec,
        state: JobState = JobState.QUEUED,
        *,
        priority: Priority = Priority.NORMAL,
        queue: str = "",
        epoch: int = 0,
        reason: str = "submit",
        failed: int = 0,
        is_new: bool = False,
        runner: str = "",
    ) -> bool:
        """Enter a job unless it is there. Returns whether this call did it.

        A job that was submitted at another time had another folder, and gives way to this one; is_new: its folder was
        made just now, so that one that has ended gives way too.
        queue: whose workers may do it; empty: any worker. epoch, reason: of the round of planning that it is in;
        failed: images, where it is done; runner: as of `JobView`.
        """
        fields: dict[str, str | float] = {"message": "", "epoch": epoch, "reason": reason, "planned": 0, "images": 0}
        fields |= {"ok": 0, "failed": failed, "skipped": 0, "ignored": "{}", "shards": 0, "priority": priority.value}
        fields |= {"model": spec.warm_key, "runner": runner}
        args = [new_call(), spec.model_dump_json(), repr(spec.created_at), state.value, queue, "1" if is_new else "0"]
        detail = escaped(f"{spec.source.shown}, model {spec.model.name}")
        return bool(self._create(keys=[job_key(spec.job_id)], args=[*args, detail, *flat(fields)]))

    def move(
        self, job_id: str, target: JobState, *, detail: str | None = None, of: str = "", **fields: str | float
    ) -> bool:
        """Change a job's state, and fields with it, where its present state allows. Returns whether it did.

        detail: what its events say of it; the message unless given; of: the runner that must have it, empty: whichever.
        """
        allowed = f",{','.join(origins(target))},"
        told = [_EVENT_OF.get(target, ""), str(fields.get("message", "") if detail is None else detail)]
        args = [new_call(), target.value, allowed, *told, of, *flat(fields)]
        return bool(self._move(keys=[job_key(job_id)], args=args))

    def fail(self, job_id: str, message: str) -> bool:
        """End a job as failed; it can be submitted again once the cause is gone."""
        return self.move(job_id, JobState.FAILED, message=message, finished_at=self.now())

    def now(self) -> float:
        """Return the server's time, seconds since the epoch: a node's clock may be wrong."""
        seconds, microseconds = self.redis.time()
        return int(seconds) + int(microseconds) / 1e6

    def update(self, job_id: str, **fields: str | float) -> bool:
        """Set fields of a job, `state` among them whatever it was before. Returns False where the job is gone."""
        return bool(self._update(keys=[job_key(job_id)], args=flat(fields)))

    def degrade(self, job_id: str, trouble: str) -> None:
        """Say what is failing outside a job, so that it waits; an empty sentence: nothing any more."""
        self._degrade(keys=[job_key(job_id)], args=[trouble])

    def set_priority(self, job_id: str, priority: Priority) -> None:
        """Change a job's priority; its waiting messages keep their places until the queue reorders them."""
        self._prioritize(keys=[job_key(job_id)], args=[priority.value])

    def forget(self, job_id: str) -> None:
        """Remove every key of a job; its folder stays."""
        self._forget(keys=[job_key(job_id)], args=[""])

    def forget_ended(self, job_id: str) -> bool:
        """Remove every key of a job that has ended; its folder stays. Returns False where it is under way."""
        return bool(self._forget(keys=[job_key(job_id)], args=["1e300"]))

    def forget_expired(self, queue: str, keep_s: float, most: int) -> int:
        """Remove the keys of a queue's jobs that ended more than `keep_s` seconds ago, the oldest first.

        Looks at `most` jobs at most. Returns how many went.
        """
        until = int(self.redis.time()[0] - keep_s)
        expired: list[str] = []
        for key in {ended_key(queue), ended_key("")}:
            found = replies.guarded(key, partial(self.redis.zrangebyscore, key, "-inf", until, 0, most), ())
            expired += replies.names(key, found, replies.JOB_ID)
        return sum(int(self._forget(keys=[job_key(job_id)], args=[until])) for job_id in expired[:most])

    # -- one job ------------------------------------------------------------------------------------------------

    def view(self, job_id: str) -> JobView:
        """Return a job as it stands. Raises UnknownJobError, ForeignJobError."""
        with self.redis.pipeline(transaction=False) as pipe:
            _ask_view(pipe, job_id)
            return _view(job_id, pipe.execute(raise_on_error=False))

    def knows(self, spec: JobSpec) -> bool:
        """Return whether the server knows a job, and not one of the same id that was submitted at another time."""
        return bool(self._field_of(spec.job_id, "created_at") == repr(spec.created_at).encode())

    def has(self, job_id: str) -> bool:
        """Return whether the server knows a job of this id."""
        return self._field_of(job_id, "state") is not None

    def state(self, job_id: str) -> JobState:
        """Return a job's state. Raises UnknownJobError, ForeignJobError."""
        state = self._field_of(job_id, "state")
        if state is None:
            raise UnknownJobError(job_id)
        try:
            return JobState(replies.text(state))
        except ValueError as err:
            raise ForeignJobError(job_id) from err

    def queue_of(self, job_id: str) -> str:
        """Return the queue whose workers may do a job, empty where any may, or where the job is not there."""
        return (self._field_of(job_id, "queue") or b"").decode(errors="replace")

    def model(self, job_id: str) -> str | None:
        """Return what a worker has warm for a job (`warm_key`), None for a job that is not there."""
        value = self._field_of(job_id, "model")
        return None if value is None else value.decode(errors="replace")

    def _field_of(self, job_id: str, field: str) -> bytes | None:
        (value,) = self._field([job_id], field)
        return value

    def events(self, job_id: str, *, after: str = "", last: int | None = None) -> list[Event]:
        """Return what happened to a job, the oldest first: behind the event `after`, or the last so many."""
        return read_events(self.redis, job_id, after=after, last=last)

    # -- all jobs -----------------------------------------------------------------------------------------------

    def total(self) -> int:
        """Return how many jobs the server knows."""
        return int(self.redis.zcard(JOBS))

    def job_ids(self, most: int | None = None, *, state: JobState | None = None) -> list[str]:
        """Return the ids of the newest jobs, or of those in one state, the newest first."""
        size = JOBS_AT_ONCE if most is None or state is not None else min(most, JOBS_AT_ONCE)  # few may be in the state
        found = (job_id for page in self._pages(size) for job_id in self._in_state(page, state))
        return list(islice(found, most))

    def _pages(self, size: int) -> Iterable[list[str]]:
        start = 0
        while page := replies.guarded(JOBS, partial(self.redis.zrevrange, JOBS, start, start + size - 1), ()):
            yield replies.names(JOBS, page, replies.JOB_ID)
            start += size

    def _in_state(self, job_ids: list[str], state: JobState | None) -> list[str]:
        if state is None:
            return job_ids
        states = self._field(job_ids, "state")
        return [job_id for job_id, found in zip(job_ids, states, strict=True) if found == state.encode()]

    def _field(self, job_ids: list[str], field: str) -> list[bytes | None]:
        with self.redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(job_key(job_id), field)
            return replies.answers(pipe, map(job_key, job_ids))

    def active_ids(self, queue: str | None = None) -> list[str]:
        """Return the ids of the jobs that still have something to do, the newest first.

        queue: of those alone that its workers may do. It costs the same for any number of jobs that have ended.
        """
        if queue is None:
            sets = [state_key(state) for state in ACTIVE]
        else:
            sets = [queue_state_key(name, state) for state in ACTIVE for name in {queue, ""}]
        ids = sorted(self._in_sets(sets))
        scores = replies.guarded(JOBS, partial(self.redis.zmscore, JOBS, ids), [None] * len(ids)) if ids else ()
        submitted = dict(zip(ids, scores, strict=True))
        return sorted(ids, key=lambda job_id: (-(submitted[job_id] or 0.0), job_id))

    def list_again(self) -> None:
        """Enter each job that is in one of the lists in all where it belongs: one may have been lost."""
        for job_id in {*self.job_ids(), *self._in_sets([state_key(state) for state in JobState])}:
            replies.guarded(job_key(job_id), partial(self._enlist, keys=[job_key(job_id)]), None)

    def _in_sets(self, sets: list[str]) -> set[str]:
        """Return the ids of the jobs that are in any of these sets."""
        with self.redis.pipeline(transaction=False) as pipe:
            for key in sets:
                pipe.smembers(key)
            found = zip(sets, replies.answers(pipe, sets), strict=True)
        return {job_id for key, members in found for job_id in replies.names(key, members or (), replies.JOB_ID)}

    def recent_ids(self, most: int) -> list[str]:
        """Return the ids of the newest jobs, and of the newest of those that have something to do, the newest first."""
        newest = self.job_ids(most)
        return [job_id for job_id in self.active_ids()[:most] if job_id not in newest] + newest

    def views(self, job_ids: Iterable[str] | None = None) -> list[JobView]:
        """Return the jobs that can be read, the newest first; of all, unless ids are given."""
        found = []
        for ids in replies.chunks(list(self.job_ids() if job_ids is None else job_ids), JOBS_AT_ONCE):
            with self.redis.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    _ask_view(pipe, job_id)
                found_of = pipe.execute(raise_on_error=False)
            for job_id, answer in zip(ids, replies.chunks(found_of, len(found_of) // len(ids)), strict=True):
                try:
                    found.append(_view(job_id, answer))
                except UnknownJobError:  # forgotten between the two reads
                    continue
                except ForeignJobError as err:
                    if job_id not in self._warned_of:
                        log.warning(str(err), extra={"why": str(err.__cause__ or "")[:200]})
                    self._warned_of.add(job_id)
        return sorted(found, key=lambda view: -view.spec.created_at)

    def counts(self, queue: str | None = None) -> dict[str, int]:
        """Return how many jobs there are in each state, and under `degraded` how many wait for what fails outside.

        queue: of those alone that its workers may do. It costs the same for any number of jobs that have ended.
        """
        prefixes = [STATE] if queue is None else [f"{QUEUE}{name}:" for name in sorted({queue, ""})]
        sets = [prefix + state for state in JobState for prefix in prefixes]
        with self.redis.pipeline(transaction=False) as pipe:
            for key in sets:
                pipe.scard(key)
            pipe.smembers(DEGRADED)
            *sizes, degraded = replies.answers(pipe, [*sets, DEGRADED])
        sizes = [size or 0 for size in sizes]
        degraded = degraded or set()
        by_state = zip(JobState, replies.chunks(sizes, len(prefixes)), strict=True)
        counts = {state.value: sum(found) for state, found in by_state}
        if queue is not None and degraded:
            degraded = set(replies.names(DEGRADED, degraded, replies.JOB_ID)) & set(self.active_ids(queue))
        return counts | {"degraded": len(degraded)}


def _ask_view(pipe: Any, job_id: str) -> None:
    key = job_key(job_id)
    pipe.hgetall(key)
    pipe.hvals(part_key(job_id, "live"))
    pipe.bitcount(done_key(job_id))
    pipe.hgetall(part_key(job_id, "kinds"))


def _view(job_id: str, answer: Sequence[Any]) -> JobView:
    """Read the answers to what `_ask_view` asks. Raises UnknownJobError, ForeignJobError."""
    for err in answer:
        if isinstance(err, Exception):
            if not replies.is_of_key(err):
                raise err
            raise ForeignJobError(job_id) from err
    fields = answer[0]
    if b"spec" not in fields or b"state" not in fields:
        raise UnknownJobError(job_id)
    try:
        return job_view(*answer)
    except (ValueError, KeyError) as err:
        raise ForeignJobError(job_id, _version_of(fields[b"spec"])) from err


def _version_of(spec: bytes) -> str:
    """Return which trtjob has submitted a job, as far as its specification still says so."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        version = json.loads(spec[:_MOST_SPEC])["versions"]["trtjob"]
        if re.fullmatch(r"[0-9a-zA-Z.+-]{1,30}", version):
            return str(version)
    return ""
