"""A job and a worker as they stand: what the hashes in Redis say, typed."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trtjob.jobs.spec import JobSpec
from trtjob.jobs.states import JobState, Priority
from trtjob.queue import replies

_UNIT = re.compile(r"unit:([a-z0-9][a-z0-9-]{0,79}):(plan|finish|shard-[0-9]{5,9})")


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it stands. Times are seconds since the epoch, None where not reached.

    images: listed so far (all of them once `planned`); ok, failed, skipped: in committed shards;
    live_done, live_failed: in shards under way; kinds: all that failed, by kind of failure;
    retries: attempts at a unit after its first one was lost; degraded: what is failing outside, so that the job waits;
    queue: whose workers may do it, empty where any may; runner: the `trtjob run` that it belongs to and stops with, by
    its daemon's name; empty where it was handed in to the workers; is_known: False where an incomplete folder says no
    more, so that the state is not known.
    """

    spec: JobSpec
    state: JobState
    message: str
    epoch: int
    reason: str
    planned: bool
    images: int
    ok: int
    failed: int
    skipped: int
    ignored: Mapping[str, int]
    shards: int
    shards_done: int
    live_done: int
    live_failed: int
    started_at: float | None
    finished_at: float | None
    priority: Priority = Priority.NORMAL
    degraded: str = ""
    kinds: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    queue: str = ""
    runner: str = ""
    is_known: bool = True

    @property
    def job_id(self) -> str:
        return self.spec.job_id

    @property
    def done(self) -> int:
        return self.ok + self.failed + self.skipped + self.live_done

    @property
    def failures(self) -> int:
        return self.failed + self.live_failed


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker process as it last reported. state: `idle` or `busy`; rate: images per second; busy: share of its
    time by stage, 0 to 1.

    units: the job and the unit of all that it has in hand; doing: what keeps images waiting, empty where nothing does;
    trouble: the storage that fails there, empty where none does; queue: the one that it serves; job: the only one of
    its jobs that it does, empty where that is not handed in yet, None where it does all.
    """

    name: str
    host: str
    pid: int
    engine: str
    device: str
    state: str
    units: tuple[tuple[str, str], ...]
    beat_age_s: float
    rate: float
    busy: Mapping[str, float] = field(default_factory=dict)
    doing: str = ""
    trouble: str = ""
    queue: str = ""
    job: str | None = None

    @property
    def node(self) -> str:
        """The daemon that it belongs to."""
        return node_of(self.name)

    def units_of(self, job_id: str) -> list[str]:
        """Return the units of one job that it has in hand."""
        return [unit for job, unit in self.units if job == job_id]

    def may_do(self, queue: str, job_id: str | None = None) -> bool:
        """Return whether it may do a job of a queue; without an id: whatever waits there."""
        return _serves(self.queue, queue) and self.job in (None, job_id)

    def rate_of(self, job_id: str) -> float:
        """Return its images per second for one job: where it has two in hand, what it can do is shared."""
        return self.rate * len(self.units_of(job_id)) / len(self.units) if self.units else 0.0


@dataclass(frozen=True, slots=True)
class DaemonView:
    """A daemon as it last reported. processes: how many worker processes it keeps; restarts: how often one was started
    again since the daemon began, by what the last had died of; trouble: why one is not started at once, or empty;
    queue: the one that it serves; job: as a worker's.
    """

    name: str
    host: str
    pid: int
    engine: str
    processes: int
    restarts: Mapping[str, int]
    trouble: str
    beat_age_s: float
    queue: str = ""
    job: str | None = None

    def may_do(self, queue: str, job_id: str) -> bool:
        """Return whether its worker processes may do a job of a queue."""
        return _serves(self.queue, queue) and self.job in (None, job_id)


def _serves(own: str, queue: str) -> bool:
    return not queue or not own or queue == own


def job_view(fields: dict[bytes, bytes], live: list[bytes], shards_done: int, kinds: dict[bytes, bytes]) -> JobView:
    """Read a job's hash, its shards under way, each "done,failed,kind=count,...", and the failed of the others by kind.

    Raises ValueError, KeyError where it cannot: anybody may have written there.
    """
    text = replies.texts(fields)
    parts = [replies.text(value).split(",") for value in live]
    failures = Counter({kind: replies.integer(count) for kind, count in replies.texts(kinds).items()})
    for kind, count in (part.split("=") for _, _, *named in parts for part in named):
        failures[kind] += replies.integer(count)
    return JobView(
        spec=JobSpec.model_validate_json(text["spec"]),
        state=JobState(text["state"]),
        message=text["message"],
        epoch=replies.integer(text["epoch"], replies.MOST_SHARDS),
        reason=text["reason"],
        planned=text["planned"] == "1",
        images=replies.integer(text["images"]),
        ok=replies.integer(text["ok"]),
        failed=replies.integer(text["failed"]),
        skipped=replies.integer(text["skipped"]),
        ignored=replies.counts(text["ignored"]),
        shards=replies.integer(text["shards"], replies.MOST_SHARDS),
        shards_done=shards_done,
        live_done=sum(replies.integer(done) for done, *_ in parts),
        live_failed=sum(replies.integer(failed) for _, failed, *_ in parts),
        started_at=_time(text.get("started_at")),
        finished_at=_time(text.get("finished_at")),
        priority=Priority(text["priority"]),
        degraded=text.get("degraded", ""),
        kinds=dict(sorted(failures.items())),
        retries=replies.integer(text.get("retries", "0")),
        queue=text.get("queue", ""),
        runner=text.get("runner", ""),
    )


def _time(value: str | None) -> float | None:
    return replies.number(value) if value else None


def node_of(worker: str) -> str:
    """Return the daemon that a worker process belongs to: its name begins with the daemon's."""
    return worker.rpartition("-")[0] or worker


def units_held(fields: Iterable[bytes]) -> list[tuple[str, str]]:
    """Return the job and the unit of each that a worker's record says it holds; what is no unit is left out."""
    found = (_UNIT.fullmatch(field.decode(errors="replace")) for field in fields if field.startswith(b"unit:"))
    return sorted((match[1], match[2]) for match in found if match)


def worker_view(name: str, fields: dict[bytes, bytes], beat_age_s: float) -> WorkerView:
    """Read a worker's hash. Raises ValueError, KeyError."""
    text = replies.texts(fields)
    state = text.get("state", "idle")
    return WorkerView(
        name=name,
        host=text["host"],
        pid=replies.integer(text["pid"]),
        engine=text.get("engine", ""),
        device=text.get("device", ""),
        state=state,
        units=tuple(units_held(fields)) if state != "idle" else (),
        beat_age_s=beat_age_s,
        # Of the last seconds, in which it may have worked.
        rate=replies.number(text.get("rate", "0")) if state != "idle" else 0.0,
        busy=replies.shares(text.get("busy", "{}")),
        doing=text.get("doing", "") if state != "idle" else "",
        trouble=text.get("trouble", ""),
        queue=text.get("queue", ""),
        job=text.get("job"),
    )


def daemon_view(name: str, fields: dict[bytes, bytes], beat_age_s: float) -> DaemonView:
    """Read a daemon's hash. Raises ValueError, KeyError."""
    text = replies.texts(fields)
    return DaemonView(
        name=name,
        host=text["host"],
        pid=replies.integer(text["pid"]),
        engine=text["engine"],
        processes=replies.integer(text["processes"]),
        restarts=replies.counts(text["restarts"]),
        trouble=text["trouble"],
        beat_age_s=beat_age_s,
        queue=text.get("queue", ""),
        job=text.get("job"),
    )
