"""Who may work on which unit of a job: claims, leases, what becomes of them, and what they count."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from redis import Redis

from trtjob.jobs.states import JobState
from trtjob.queue import replies
from trtjob.queue.events import EventKind, add_event, new_call
from trtjob.queue.keys import FENCE, done_key, job_key, lease_key, part_key, worker_key
from trtjob.queue.scripts import load
from trtjob.queue.units import FINISH, PLAN, shard_of
from trtjob.queue.views import node_of, units_held
from trtjob.queue.worker_registry import WORKER_TTL_S, WorkerRegistry

FREE_KILLS = 10

_CLAIMABLE = {
    PLAN: (JobState.QUEUED, JobState.PLANNING),
    FINISH: (JobState.FINISHING,),
}
_SHARD_CLAIMABLE = (JobState.PLANNING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one unit, until another claims it: `lease_s` without a word from its owner allow that.

    token: larger than that of every earlier claim, until the server loses what it knows; call: random, so that no two
    claims are the same even then; attempt: counts from 1; blame: what the last attempt's worker died of, empty where it
    did not, or where somebody ended it; crashed_on: the nodes whose workers died of this unit.
    """

    job_id: str
    unit: str
    owner: str
    token: int
    attempt: int
    lease_s: float
    blame: str = ""
    call: str = ""
    crashed_on: frozenset[str] = frozenset()

    @property
    def holder(self) -> str:
        return f"{self.token}.{self.call}|{self.owner}"

    @property
    def keys(self) -> list[str]:
        """The job's and the lease's: the keys that every script about a lease takes first."""
        return [job_key(self.job_id), lease_key(self.job_id, self.unit)]


@dataclass(frozen=True, slots=True)
class Done:
    """What is done of a unit: how many images, and how many of these have failed, by kind."""

    images: int
    kinds: Counter[str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a unit may not be worked on: a state of the job, `committed`, `busy` (another holds it), `gone` (the job
    is), `elsewhere` (the job is another queue's) or `unknown` (the job has no such unit)."""

    reason: str


class Leases(WorkerRegistry):
    """Gives units of work out and takes them back; the scripts of `trtjob.queue.scripts` say how."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._claim = replies.script(redis, load("claim"), [b"unreadable"])
        self._renew = replies.script(redis, load("renew"), b"lost")
        self._commit = replies.script(redis, load("commit"), 0)
        self._release = replies.script(redis, load("release"), 0)
        self._abandon = replies.script(redis, load("abandon"), 0)
        self._add_shards = replies.script(redis, load("add_shards"), 0)
        self._sync = replies.script(redis, load("sync"), 0)
        self._planned = replies.script(redis, load("planned"), b"lost")
        self._note = replies.script(redis, load("note"), 0)
        self._end = replies.script(redis, load("end"), 0)

    # -- planning -----------------------------------------------------------------------------------------------

    def add_shards(self, lease: Lease, *, first: int = 0, shards: int, images: int) -> bool:
        """Count shards that the planner has written, from the number `first` on, unless they are counted.

        images: in these shards. Returns False where another plans now.
        """
        return bool(self._add_shards(keys=lease.keys, args=[lease.holder, lease.unit, first, shards, images]))

    def sync(
        self,
        lease: Lease,
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
        keys = [*lease.keys, done_key(lease.job_id)]
        counters: list[str | int] = [lease.holder, lease.unit, new_call(), shards, images, ok, failed]
        return bool(self._sync(keys=keys, args=[*counters, json.dumps(kinds or {}), *committed]))

    def planned(self, lease: Lease) -> str:
        """Say that the plan is complete.

        Returns `lost` (another plans now) or the job's state: `finishing` where every shard is committed.
        """
        keys = [*lease.keys, done_key(lease.job_id)]
        return str(self._planned(keys=keys, args=[lease.holder, lease.unit, lease.attempt]).decode(errors="replace"))

    def note(self, lease: Lease, **fields: str | float) -> bool:
        """Set fields of a job. Returns False where another has the unit now."""
        return bool(self._note(keys=lease.keys, args=[lease.holder, lease.unit, *flat(fields)]))

    def end(self, lease: Lease, target: JobState, *, epoch: int, detail: str, **fields: str | float) -> bool:
        """End a job that its owner finished, in the round `epoch`. Returns False where another has the unit now."""
        args = [lease.holder, lease.unit, epoch, target.value, detail, *flat(fields)]
        return bool(self._end(keys=lease.keys, args=args))

    def open_shards(self, job_id: str, shards: int) -> Iterator[int]:
        """Yield the numbers of the shards below `shards` that are not committed."""
        key = done_key(job_id)
        bits = replies.guarded(key, lambda: self.redis.getrange(key, 0, shards // 8), b"")
        return (n for n in range(shards) if n // 8 >= len(bits) or not bits[n // 8] & (0x80 >> n % 8))

    # -- units of work ------------------------------------------------------------------------------------------

    def claim(self, job_id: str, unit: str, owner: str, lease_s: float, *, queue: str = "") -> Lease | Refusal:
        """Take a unit of work, unless it is done, held by another, or not wanted in the job's state.

        queue: the one that the owner serves; a job of another is refused. Empty: whatever the job's is.
        """
        shard = shard_of(unit)
        allowed = _SHARD_CLAIMABLE if shard is not None else _CLAIMABLE.get(unit)
        if allowed is None:
            return Refusal("unknown")
        key, call = job_key(job_id), new_call()
        answer = self._claim(
            keys=[key, lease_key(job_id, unit), done_key(job_id), worker_key(owner), FENCE],
            args=[
                unit,
                -1 if shard is None else shard,
                owner,
                _ms(lease_s),
                f",{','.join(allowed)},",
                WORKER_TTL_S,
                call,
                queue,
            ],
        )
        if answer[0] != b"go":
            return Refusal(answer[0].decode(errors="replace"))
        _, token, attempt, blame, crashed_on = answer
        nodes = frozenset(filter(None, crashed_on.decode(errors="replace").split("|")))
        return Lease(job_id, unit, owner, token, attempt, lease_s, blame.decode(errors="replace"), call, nodes)

    def check(self, lease: Lease, done: int, failed: int, kinds: Mapping[str, int] | None = None) -> str:
        """Keep a shard's lease, and say how far it is; kinds: the failed images by kind.

        Returns `go`, `lost` (another worker has the shard) or the job's state, which forbids to go on.
        """
        answer = self.renew(lease, _live(done, failed, kinds or {}))
        return "go" if answer in _SHARD_CLAIMABLE else answer

    def renew(self, lease: Lease, live: str = "") -> str:
        """Keep a lease, or take it back where its lease ran out and nobody came; live: how far the unit is.

        Returns `lost` or the job's state.
        """
        answer = self._renew(keys=lease.keys, args=[lease.holder, lease.unit, _ms(lease.lease_s), live])
        return str(answer.decode(errors="replace"))

    def commit(self, lease: Lease, shard: int, *, ok: int, failed: int, kinds: Mapping[str, int] | None = None) -> bool:
        """Count a shard whose manifest is written, once however often it is called; kinds: the failed by kind.

        Returns whether it was the job's last; while the job is finishing, the same lease is told so again.
        """
        keys = [*lease.keys, done_key(lease.job_id)]
        args: list[str | int] = [lease.holder, lease.unit, shard, ok, failed, lease.attempt, json.dumps(kinds or {})]
        return bool(self._commit(keys=keys, args=args) == 2)

    def release(self, lease: Lease, *, take_back: bool = False, why: str = "", kept: Done | None = None) -> bool:
        """Give a unit up. take_back: the attempt does not count; why: the unit is not done, for this reason; kept: what
        of it is, and is not done again.

        Returns False where it was lost before.
        """
        live = "" if kept is None else _live(kept.images, kept.kinds.total(), kept.kinds)
        args = [lease.holder, lease.unit, "1" if take_back else "0", lease.attempt, why, live]
        return bool(self._release(keys=lease.keys, args=args))

    def set_aside(self, lease: Lease, image: str) -> None:
        """Note that an image ends image processes."""
        add_event(self.redis, lease.job_id, EventKind.SET_ASIDE, image, unit=lease.unit, worker=lease.owner)

    def clear_attempts(self, lease: Lease) -> None:
        """Start counting a unit's attempts anew."""
        with self.redis.pipeline() as pipe:
            pipe.hset(part_key(lease.job_id, "attempts"), lease.unit, 1)
            pipe.hdel(part_key(lease.job_id, "crashes"), lease.unit)
            pipe.execute()

    def is_leased(self, job_id: str, units: list[str]) -> list[bool]:
        """Return, for each unit, whether a worker holds it."""
        if not units:
            return []
        with self.redis.pipeline(transaction=False) as pipe:
            for unit in units:
                pipe.pttl(lease_key(job_id, unit))
            return [ttl_ms >= 0 for ttl_ms in pipe.execute()]  # none of ours is without an end

    def held(self, job_id: str) -> list[str]:
        """Return the units of a job that workers hold."""
        units = [unit.decode(errors="replace") for unit in self.redis.hkeys(part_key(job_id, "holders"))]
        return [unit for unit, is_leased in zip(units, self.is_leased(job_id, units), strict=True) if is_leased]

    # -- workers ------------------------------------------------------------------------------------------------

    def abandon(
        self, worker: str, blame: str = "", *, was_killed: bool = True, fault: str = ""
    ) -> list[tuple[str, str]]:
        """Free what a dead worker held.

        blame: why its work is to blame, empty where it is not; was_killed: whether it was ended from outside, which
        costs no attempt unless it happens FREE_KILLS times: perhaps for what its work needs; fault: what it was of the
        machine that ended it.
        Returns the job and the unit of each that was freed.
        """
        key = worker_key(worker)
        held = units_held(replies.guarded(key, lambda: self.redis.hkeys(key), ()))
        freed = []
        for job_id, unit in held:
            args = [worker, unit, blame, "1" if was_killed else "0", FREE_KILLS, node_of(worker), fault]
            if self._abandon(keys=[job_key(job_id), lease_key(job_id, unit)], args=args):
                freed.append((job_id, unit))
        self.remove_worker(worker)  # last: until here a lost connection leaves everything to be done again
        return freed


def flat(fields: Mapping[str, str | float]) -> list[str | float]:
    """Return a job's fields as scripts take them: name, value, name, value.

    >>> flat({"state": "done", "images": 3})
    ['state', 'done', 'images', 3]
    """
    return [item for pair in fields.items() for item in pair]


def _live(done: int, failed: int, kinds: Mapping[str, int]) -> str:
    """Return how far a unit is, as `trtjob.queue.views` reads it."""
    return ",".join([str(done), str(failed), *(f"{kind}={count}" for kind, count in kinds.items())])


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
