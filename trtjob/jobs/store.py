"""Where every job stands, kept in Redis. All of it can be made again from the job's folder."""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from trtjob.errors import ForeignJobError, UnknownJobError
from trtjob.jobs import scripts
from trtjob.jobs.events import Event, Happening, add_event, read_events
from trtjob.jobs.models import JobSpec
from trtjob.jobs.roster import PREFIX, WORKER_TTL_S, Roster, batches, worker_key
from trtjob.jobs.states import ACTIVE, JobState, Priority, origins
from trtjob.jobs.units import FINISH, PLAN, shard_of
from trtjob.jobs.views import JobView, job_view, node_of, units_held

log = logging.getLogger(__name__)

JOBS = PREFIX + "jobs"  # zset: job id -> created_at
FENCE = PREFIX + "fence"
FREE_KILLS = 10
_VIEWS_AT_ONCE = 500

_CLAIMABLE = {
    PLAN: (JobState.QUEUED, JobState.PLANNING),
    FINISH: (JobState.FINISHING,),
}
# A job's other keys.
_PARTS = ("done", "holders", "attempts", "blame", "kills", "live", "kinds", "events", "log", "aside", "crashes")
# The sets that jobs are counted by.
_COUNTED = (*map(str, JobState), "degraded")
# What a job's events call a move to a state; by default its message is the detail.
_HAPPENINGS = {
    JobState.QUEUED: Happening.CONTINUED,
    JobState.DONE: Happening.FINISHED,
    JobState.DONE_WITH_ERRORS: Happening.FINISHED,
    JobState.FAILED: Happening.FAILED,
    JobState.CANCELLED: Happening.CANCELLED,
}
_SHARD_CLAIMABLE = (JobState.PLANNING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one unit, until another claims it: `lease_s` without a word from its owner allow that.

    token: larger than that of every earlier claim; attempt: counts from 1; blame: what the last attempt's worker died
    of, empty where it did not, or where somebody ended it; crashed_on: the nodes whose workers died of this unit.
    """

    job_id: str
    unit: str
    owner: str
    token: int
    attempt: int
    lease_s: float
    blame: str = ""
    crashed_on: frozenset[str] = frozenset()

    @property
    def holder(self) -> str:
        return f"{self.token}|{self.owner}"

    @property
    def keys(self) -> list[str]:
        """The job's and the lease's: the keys that every script about a claim takes first."""
        return [job_key(self.job_id), lease_key(self.job_id, self.unit)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a unit may not be worked on: a state of the job, `committed`, `busy` (another holds it), `gone` (the job
    is) or `unknown` (the job has no such unit)."""

    reason: str


def job_key(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def lease_key(job_id: str, unit: str) -> str:
    return f"{PREFIX}lease:{job_id}:{unit}"


class JobStore(Roster):
    """All reads and writes of job state."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        register = redis.register_script
        self._claim = register(scripts.CLAIM)
        self._check = register(scripts.CHECK)
        self._renew = register(scripts.RENEW)
        self._commit = register(scripts.COMMIT)
        self._release = register(scripts.RELEASE)
        self._abandon = register(scripts.ABANDON)
        self._move = register(scripts.MOVE)
        self._degrade = register(scripts.DEGRADE)
        self._add_shards = register(scripts.ADD_SHARDS)
        self._sync = register(scripts.SYNC)
        self._planned = register(scripts.PLANNED)

    # -- jobs ---------------------------------------------------------------------------------------------------

    def create(self, spec: JobSpec, state: JobState = JobState.QUEUED, *, priority: Priority = Priority.NORMAL) -> bool:
        """Enter a job unless it is there. Returns whether this call did it."""
        key = job_key(spec.job_id)
        if not self.redis.hsetnx(key, "spec", spec.model_dump_json()):
            return False
        fields = {"message": "", "epoch": 0, "reason": "submit", "planned": 0, "images": 0, "ok": 0, "failed": 0}
        fields |= {"skipped": 0, "ignored": "{}", "shards": 0, "priority": priority.value, "model": spec.model.sha256}
        with self.redis.pipeline() as pipe:
            pipe.hset(key, mapping={**fields, "state": state.value})
            pipe.zadd(JOBS, {spec.job_id: spec.created_at})
            pipe.sadd(scripts.STATE + state.value, spec.job_id)
            add_event(pipe, key, Happening.SUBMITTED, f"{spec.source.root}, model {spec.model.name}")
            pipe.execute()
        return True

    def view(self, job_id: str) -> JobView:
        """Return a job as it stands. Raises UnknownJobError, ForeignJobError."""
        with self.redis.pipeline(transaction=False) as pipe:
            _ask_view(pipe, job_id)
            return _view(job_id, pipe.execute())

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs, the newest first."""
        return [job_id.decode() for job_id in self.redis.zrevrange(JOBS, 0, -1)]

    def views(self) -> list[JobView]:
        """Return all jobs that can be read, the newest first."""
        found = []
        for ids in batches(self.job_ids(), _VIEWS_AT_ONCE):
            with self.redis.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    _ask_view(pipe, job_id)
                replies = pipe.execute()
            for job_id, answer in zip(ids, batches(replies, len(replies) // len(ids)), strict=True):
                try:
                    found.append(_view(job_id, answer))
                except UnknownJobError:  # forgotten between the two reads
                    continue
                except ForeignJobError as err:
                    log.warning(str(err))
        return found

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are in each state, and under `degraded` how many wait for what fails outside.

        It costs the same for any number of jobs.
        """
        with self.redis.pipeline(transaction=False) as pipe:
            for name in _COUNTED:
                pipe.scard(scripts.STATE + name)
            return dict(zip(_COUNTED, pipe.execute(), strict=True))

    def active_ids(self) -> list[str]:
        """Return the ids of the jobs that still have something to do."""
        ids = self.job_ids()
        with self.redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hget(job_key(job_id), "state")
            states = pipe.execute()
        return [job_id for job_id, state in zip(ids, states, strict=True) if state and state.decode() in ACTIVE]

    def state(self, job_id: str) -> JobState:
        """Return a job's state. Raises UnknownJobError."""
        state = self.redis.hget(job_key(job_id), "state")
        if state is None:
            raise UnknownJobError(job_id)
        return JobState(state.decode())

    def model(self, job_id: str) -> str | None:
        """Return the sha256 of a job's model, None for a job that is not there."""
        value = self.redis.hget(job_key(job_id), "model")
        return None if value is None else str(value.decode())

    def move(self, job_id: str, target: JobState, *, detail: str | None = None, **fields: str | float) -> bool:
        """Change a job's state, and fields with it, where its present state allows. Returns whether it did.

        detail: what its events say of it; the message unless given.
        """
        allowed = f",{','.join(origins(target))},"
        told: list[str | float] = [_HAPPENINGS.get(target, ""), fields.get("message", "") if detail is None else detail]
        flat = [item for pair in fields.items() for item in pair]
        return bool(self._move(keys=[job_key(job_id)], args=[target.value, allowed, *told, *flat]))

    def update(self, job_id: str, **fields: str | float) -> None:
        self.redis.hset(job_key(job_id), mapping=dict(fields))

    def degrade(self, job_id: str, trouble: str) -> None:
        """Say what is failing outside a job, so that it waits; an empty sentence: nothing any more."""
        self._degrade(keys=[job_key(job_id)], args=[trouble])

    def set_priority(self, job_id: str, priority: Priority) -> None:
        """Change a job's priority; its waiting messages keep their places until the queue reorders them."""
        if self.redis.hget(job_key(job_id), "priority") == priority.encode():
            return
        with self.redis.pipeline() as pipe:
            pipe.hset(job_key(job_id), "priority", priority.value)
            add_event(pipe, job_key(job_id), Happening.PRIORITY, priority.value)
            pipe.execute()

    def restore_done(self, job_id: str, epoch: int) -> None:
        """Enter a new job as done, as its folder says that it is."""
        with self.redis.pipeline() as pipe:
            pipe.smove(scripts.STATE + JobState.QUEUED, scripts.STATE + JobState.DONE, job_id)
            pipe.hset(job_key(job_id), mapping={"state": JobState.DONE.value, "epoch": epoch})
            pipe.execute()

    def events(self, job_id: str, *, after: str = "", last: int | None = None) -> list[Event]:
        """Return what happened to a job, the oldest first: behind the event `after`, or the last so many."""
        return read_events(self.redis, job_key(job_id), after=after, last=last)

    def fail(self, job_id: str, message: str) -> bool:
        """End a job as failed; it can be submitted again once the cause is gone."""
        return self.move(job_id, JobState.FAILED, message=message, finished_at=time.time())

    def forget(self, job_id: str) -> None:
        """Remove every key of a job; its folder stays."""
        key = job_key(job_id)
        with self.redis.pipeline() as pipe:
            pipe.delete(key, *(f"{key}:{part}" for part in _PARTS))
            pipe.zrem(JOBS, job_id)
            for name in _COUNTED:
                pipe.srem(scripts.STATE + name, job_id)
            pipe.execute()

    # -- planning -----------------------------------------------------------------------------------------------

    def add_shards(self, claim: Claim, *, shards: int, images: int) -> bool:
        """Count shards that the planner has written. Returns False where another plans now."""
        return bool(self._add_shards(keys=claim.keys, args=[claim.holder, claim.unit, shards, images]))

    def sync(
        self,
        claim: Claim,
        *,
        shards: int,
        images: int,
        ok: int,
        failed: int,
        committed: Iterable[int],
        kinds: Mapping[str, int] | None = None,
    ) -> bool:
        """Set a job's counters and committed shards to what its folder says; kinds: the failed by kind.

        Returns False where another plans now.
        """
        keys = [*claim.keys, job_key(claim.job_id) + ":done"]
        counters: list[str | int] = [claim.holder, claim.unit, shards, images, ok, failed, json.dumps(kinds or {})]
        return bool(self._sync(keys=keys, args=[*counters, *committed]))

    def planned(self, claim: Claim) -> str:
        """Say that the plan is complete.

        Returns `lost` (another plans now) or the job's state: `finishing` where every shard is committed.
        """
        keys = [*claim.keys, job_key(claim.job_id) + ":done"]
        return str(self._planned(keys=keys, args=[claim.holder, claim.unit, claim.attempt]).decode())

    def open_shards(self, job_id: str, shards: int) -> list[int]:
        """Return the numbers of the shards below `shards` that are not committed."""
        bits = self.redis.get(job_key(job_id) + ":done") or b""
        return [n for n in range(shards) if n // 8 >= len(bits) or not bits[n // 8] & (0x80 >> n % 8)]

    # -- units of work ------------------------------------------------------------------------------------------

    def claim(self, job_id: str, unit: str, owner: str, lease_s: float) -> Claim | Refusal:
        """Take a unit of work, unless it is done, held by another, or not wanted in the job's state."""
        shard = shard_of(unit)
        allowed = _SHARD_CLAIMABLE if shard is not None else _CLAIMABLE.get(unit)
        if allowed is None:
            return Refusal("unknown")
        key = job_key(job_id)
        answer = self._claim(
            keys=[key, lease_key(job_id, unit), key + ":done", worker_key(owner), FENCE],
            args=[
                unit,
                -1 if shard is None else shard,
                owner,
                _ms(lease_s),
                f",{','.join(allowed)},",
                WORKER_TTL_S,
            ],
        )
        if answer[0] != b"go":
            return Refusal(answer[0].decode())
        _, token, attempt, blame, crashed_on = answer
        nodes = frozenset(filter(None, crashed_on.decode().split("|")))
        return Claim(job_id, unit, owner, token, attempt, lease_s, blame.decode(), nodes)

    def check(self, claim: Claim, done: int, failed: int, kinds: Mapping[str, int] | None = None) -> str:
        """Say how far a shard is; kinds: the failed images by kind.

        Returns `go`, `lost` (another worker has the shard) or the job's state, which forbids to go on.
        """
        args: list[str | int] = [claim.holder, claim.unit, _ms(claim.lease_s)]
        live = [str(done), str(failed), *(f"{kind}={count}" for kind, count in (kinds or {}).items())]
        return str(self._check(keys=claim.keys, args=[*args, ",".join(live)]).decode())

    def renew(self, claim: Claim) -> str:
        """Keep a claim, or take it back where its lease ran out and nobody came. Returns `lost` or the job's state."""
        return str(self._renew(keys=claim.keys, args=[claim.holder, claim.unit, _ms(claim.lease_s)]).decode())

    def commit(self, claim: Claim, shard: int, *, ok: int, failed: int, kinds: Mapping[str, int] | None = None) -> bool:
        """Count a shard whose manifest is written, once however often it is called; kinds: the failed by kind.

        Returns whether it was the job's last.
        """
        keys = [*claim.keys, job_key(claim.job_id) + ":done"]
        args: list[str | int] = [claim.holder, claim.unit, shard, ok, failed, claim.attempt, json.dumps(kinds or {})]
        return bool(self._commit(keys=keys, args=args) == 2)

    def release(self, claim: Claim, *, take_back: bool = False, why: str = "") -> bool:
        """Give a unit up. take_back: the attempt does not count; why: the unit is not done, for this reason.

        Returns False where it was lost before.
        """
        args = [claim.holder, claim.unit, "1" if take_back else "0", claim.attempt, why]
        return bool(self._release(keys=claim.keys, args=args))

    def set_aside(self, claim: Claim, image: str) -> None:
        """Note that an image ends image processes."""
        key = job_key(claim.job_id)
        add_event(self.redis, key, Happening.SET_ASIDE, image, unit=claim.unit, worker=claim.owner)

    def clear_attempts(self, claim: Claim) -> None:
        """Start counting a unit's attempts anew."""
        with self.redis.pipeline() as pipe:
            pipe.hset(job_key(claim.job_id) + ":attempts", claim.unit, 1)
            pipe.hdel(job_key(claim.job_id) + ":crashes", claim.unit)
            pipe.execute()

    def is_leased(self, job_id: str, units: list[str]) -> list[bool]:
        """Return, for each unit, whether a worker holds it."""
        if not units:
            return []
        return [value is not None for value in self.redis.mget([lease_key(job_id, unit) for unit in units])]

    # -- workers ------------------------------------------------------------------------------------------------

    def abandon(self, worker: str, blame: str = "", *, was_killed: bool = True) -> list[tuple[str, str]]:
        """Free what a dead worker held.

        blame: why its work is to blame, empty where it is not; was_killed: whether somebody ended it, which costs no
        attempt unless it happens FREE_KILLS times: perhaps for what its work needs.
        Returns the job and the unit of each that was freed.
        """
        held = units_held(self.redis.hkeys(worker_key(worker)))
        freed = []
        for job_id, unit in held:
            args = [worker, unit, blame, "1" if was_killed else "0", FREE_KILLS, node_of(worker)]
            if self._abandon(keys=[job_key(job_id), lease_key(job_id, unit)], args=args):
                freed.append((job_id, unit))
        self.remove_worker(worker)  # last: until here a lost connection leaves everything to be done again
        return freed


def _ask_view(pipe: Any, job_id: str) -> None:
    key = job_key(job_id)
    pipe.hgetall(key)
    pipe.hvals(key + ":live")
    pipe.bitcount(key + ":done")
    pipe.hgetall(key + ":kinds")


def _view(job_id: str, answer: Sequence[Any]) -> JobView:
    """Read the answers to what `_ask_view` asks. Raises UnknownJobError, ForeignJobError."""
    fields = answer[0]
    if b"spec" not in fields or b"state" not in fields:
        raise UnknownJobError(job_id)
    try:
        return job_view(*answer)
    except (ValueError, KeyError) as err:
        raise ForeignJobError(job_id) from err


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
