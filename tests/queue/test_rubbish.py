"""What anybody may have written to Redis is read within bounds: it is said once, skipped, and hurts nothing else."""

import logging
import resource
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from redis import Redis
from samples import job_spec
from terminal import wait_for

from trtjob.cli.ui.screens import job_lines, jobs_lines, standing, status_document
from trtjob.errors import ForeignJobError, JobError, UnknownJobError
from trtjob.jobs.states import JobState
from trtjob.queue import replies
from trtjob.queue.job_log import JobLog, read_log
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import (
    FENCE,
    JOBS,
    PARTS,
    daemon_key,
    job_key,
    lease_key,
    log_key,
    queue_state_key,
    state_key,
    types_of,
    worker_key,
)
from trtjob.queue.leases import Lease
from trtjob.queue.notifications import ask_for_notice, take_due
from trtjob.queue.reconcile import reconcile, reconcile_job
from trtjob.queue.replies import MOST_SHARDS, Rubbish, drop_foreign
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.units import PLAN, shard_unit

JOB, WELL = "bad-1234abcd", "well-1234abcd"
FIELDS = (
    *("spec", "state", "message", "epoch", "reason", "planned", "images", "ok", "failed", "skipped", "ignored"),
    *("shards", "priority", "model", "queue", "created_at", "started_at", "finished_at", "retries", "degraded"),
)
VALUES = [
    *(b"", b"\xff\xfe\x00", b"rubbish", b"-1", b"150000000", b"9" * 400, b"nan", b"1e400", b"{}", b"[]", b"null"),
    *(b"[" * 5000, b'{"a": "b"}', b"\xd9\xa3", b"running\n", "näher".encode(), b"x" * 100_000),
]
KINDS: dict[str, tuple[Any, ...]] = {
    "string": ("SET", b"\xff"),
    "list": ("RPUSH", b"\xff"),
    "set": ("SADD", b"\xff"),
    "zset": ("ZADD", 1, b"\xff"),
    "hash": ("HSET", b"\xff", b"\xff"),
    "stream": ("XADD", "*", b"\xff", b"\xff"),
}


LEASE_S = 0.3  # of who is at work, in case its name is lost


@pytest.fixture(autouse=True)
def _nothing_said_before() -> Iterator[None]:
    replies.told.clear()
    yield
    replies.told.clear()


def live(store: JobStore, queue: WorkQueue, job_id: str) -> None:
    """Have a job in the middle of its life: planned, a shard done, one under way, one waiting."""
    store.create(job_spec(job_id=job_id), queue=queue.name)
    plan = store.claim(job_id, PLAN, "planner", 30)
    assert isinstance(plan, Lease)
    store.move(job_id, JobState.PLANNING, started_at=1.0)
    store.add_shards(plan, first=0, shards=3, images=12)
    store.planned(plan)
    store.release(plan, take_back=True)
    done, running = (store.claim(job_id, shard_unit(n), f"worker-{n}", LEASE_S) for n in range(2))
    assert isinstance(done, Lease)
    assert isinstance(running, Lease)
    store.commit(done, 0, ok=3, failed=1, kinds={"decode": 1})
    store.check(running, 2, 1, {"decode": 1})
    ask_for_notice(store, job_id, "https://hooks.example/")
    store.report_worker("worker-1", {"host": "node", "pid": 7, "state": "busy", "queue": queue.name})
    reconcile_job(store, queue, job_id)


def put(redis: Redis, key: str, kind: str) -> None:
    """Replace a key by one of another kind."""
    command, *rest = KINDS[kind]
    redis.delete(key)
    redis.execute_command(command, key, *rest)  # type: ignore[no-untyped-call]


def look(store: JobStore, queue: WorkQueue, bad: Iterable[str] = (JOB,)) -> None:
    """Do what daemons, workers and people do all day, with all jobs. Raises nothing, whatever stands there."""
    for _ in range(2):
        with suppress(JobError):  # said once, after all other jobs have had their turn
            reconcile(store, queue)
    now = standing(store, None)
    status_document(now)
    jobs_lines(now)
    job_lines(standing(store, WELL))
    store.counts()
    store.counts(queue.name)
    store.forget_expired(queue.name, 1e6, 100)
    list(take_due(store))
    for job_id in bad:
        look_at(store, job_id)
    store.abandon("worker-1", "SIGSEGV")
    for job_id in bad:
        store.degrade(job_id, "s3 fails")
    len(queue)


def look_at(store: JobStore, job_id: str) -> None:
    with suppress(JobError):
        job_lines(standing(store, job_id))
    read_log(store.redis, job_id)
    with suppress(ForeignJobError):
        store.events(job_id, last=3)
    for unit in (PLAN, shard_unit(1), shard_unit(2)):
        lease = store.claim(job_id, unit, "another", 30)
        if isinstance(lease, Lease):
            store.check(lease, 1, 0)
            store.renew(lease)
            store.release(lease, take_back=True, why="for the test")


def goes_on(store: JobStore, queue: WorkQueue) -> None:
    """The healthy job can be seen and done to its end."""
    assert WELL in {view.job_id for view in store.views()}
    assert store.view(WELL).state == JobState.RUNNING
    for number in (1, 2):
        lease = wait_for(partial(take, store, shard_unit(number)), "the end of a lease")
        assert store.check(lease, 1, 0) == "go"
        store.commit(lease, number, ok=4, failed=0)
    assert store.state(WELL) == JobState.FINISHING
    assert store.move(WELL, JobState.DONE, finished_at=2.0)


def take(store: JobStore, unit: str) -> Lease | None:
    lease = store.claim(WELL, unit, "a-third", 30, queue="test")
    return lease if isinstance(lease, Lease) else None


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{vars(r)['key']}: {vars(r)['why']}" for r in caplog.records if r.message.startswith("skipped")]


def bad_jobs(store: JobStore, queue: WorkQueue, count: int) -> list[str]:
    """Have so many jobs to spoil, and a healthy one, in the middle of their lives. Returns which to spoil."""
    jobs = [f"bad-{number:08x}" for number in range(count)]
    for job_id in (*jobs, WELL):
        live(store, queue, job_id)
    return jobs


@pytest.mark.slow
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_a_job_that_is_rubbish_hurts_no_other_job(
    redis: Redis, store: JobStore, queue: WorkQueue, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = bad_jobs(store, queue, len(VALUES))
    for job_id, value in zip(jobs, VALUES, strict=True):
        redis.hset(job_key(job_id), field, value)
    look(store, queue, jobs)
    goes_on(store, queue)
    lines = said(caplog)
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("part", ["", *PARTS])
def test_a_key_of_a_job_that_is_of_another_kind_hurts_no_other_job(
    redis: Redis, store: JobStore, queue: WorkQueue, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = bad_jobs(store, queue, len(KINDS))
    keys = {job_id: f"{job_key(job_id)}:{part}" if part else job_key(job_id) for job_id in jobs}
    for key, kind in zip(keys.values(), KINDS, strict=True):
        put(redis, key, kind)
    look(store, queue, jobs)
    goes_on(store, queue)
    lines = said(caplog)
    assert len(lines) == len(set(lines))
    for job_id, key in keys.items():
        store.forget(job_id)
        assert not redis.exists(key), "a job that cannot be read cannot be removed"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["live", "kinds", "attempts", "holders", "blame", "kills", "crashes", "aside"])
def test_a_value_in_a_jobs_other_keys_hurts_no_other_job(
    redis: Redis, store: JobStore, queue: WorkQueue, part: str
) -> None:
    values = VALUES[:10]
    jobs = bad_jobs(store, queue, len(values))
    for job_id, value in zip(jobs, values, strict=True):
        for name in (shard_unit(1).encode(), b"decode", b"\xff", PLAN.encode()):
            redis.hset(f"{job_key(job_id)}:{part}", name, value)
    look(store, queue, jobs)
    goes_on(store, queue)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_that_nobody_of_ours_has_written_does_not_hold_a_unit_for_ever(
    redis: Redis, store: JobStore, queue: WorkQueue, kind: str
) -> None:
    live(store, queue, WELL)
    put(redis, lease_key(WELL, shard_unit(2)), kind)
    assert store.is_leased(WELL, [shard_unit(2)]) == [False]
    goes_on(store, queue)


def all_keys() -> list[str]:
    own = [*types_of("test"), FENCE, worker_key("worker-1"), daemon_key("node-1"), "rq:queue:test"]
    rqs = ["rq:queue:test:intermediate", "rq:wip:test", "rq:queues", "rq:workers", "rq:failed:test", "rq:workers:test"]
    return sorted({*own, *rqs})


@pytest.mark.slow
@pytest.mark.parametrize("key", all_keys())
def test_a_key_of_all_jobs_that_is_of_another_kind_is_named_and_jobs_go_on(
    redis: Redis, store: JobStore, queue: WorkQueue, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in KINDS:
        redis.flushall()
        replies.told.clear()
        caplog.clear()
        live(store, queue, JOB)
        live(store, queue, WELL)
        expected = redis.type(key)
        if expected == kind.encode():
            continue
        put(redis, key, kind)
        look(store, queue)
        store.report_daemon("node-1", {"host": "node", "pid": 7, "engine": "cpu", "processes": 1, "restarts": "{}"})
        store.report_worker("worker-1", {"host": "node", "pid": 7})
        goes_on(store, queue)
        lines = said(caplog)
        assert len(lines) == len(set(lines))
        if expected not in (b"none", b"string"):
            assert any(line.startswith(key) for line in lines), lines


@pytest.mark.parametrize(
    "member", [b"\xff\xfe", b"", b"../../etc", b"UPPER", b"x" * 100_000, b"a\nb", b"nobody-1234abcd"]
)
def test_a_name_that_is_no_jobs_is_skipped(redis: Redis, store: JobStore, queue: WorkQueue, member: bytes) -> None:
    live(store, queue, WELL)
    for key, kind in types_of(queue.name).items():
        redis.sadd(key, member) if kind == "set" else redis.zadd(key, {member: 1})
    for key in ("rq:wip:test", "rq:failed:test"):
        redis.zadd(key, {member: 1})
    redis.rpush("rq:queue:test", member)
    look(store, queue)
    goes_on(store, queue)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_worker_or_a_daemon_whose_report_is_rubbish_is_left_out(redis: Redis, store: JobStore, value: bytes) -> None:
    well: dict[str, str | int] = {
        "host": "node",
        "pid": 7,
        "engine": "cpu",
        "processes": 1,
        "restarts": "{}",
        "trouble": "",
    }
    for field in ("pid", "host", "rate", "busy", "state", "unit:x", "processes", "restarts", "\udcff"):
        name = field.encode(errors="surrogateescape")
        redis.flushall()
        for who in ("bad-1", "well-1"):
            store.report_worker(who, well)
            store.report_daemon(who, well)
        for key in (worker_key("bad-1"), daemon_key("bad-1")):
            redis.hset(key, name, value)
        assert "well-1" in {worker.name for worker in store.workers()}
        assert "well-1" in {daemon.name for daemon in store.daemons()}
        status_document(standing(store, None))


def test_a_number_of_shards_beyond_all_bounds_takes_no_memory(redis: Redis, store: JobStore, queue: WorkQueue) -> None:
    live(store, queue, JOB)
    for shards in (150_000_000, MOST_SHARDS):
        redis.hset(job_key(JOB), "shards", shards)
        redis.setbit(job_key(JOB) + ":done", 80_000_000, 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with suppress(JobError):
            reconcile(store, queue)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KB"


def test_what_is_wrong_is_said_once_and_not_every_time(
    redis: Redis, store: JobStore, queue: WorkQueue, caplog: pytest.LogCaptureFixture
) -> None:
    redis.zadd(JOBS, {b"\xff": 1})
    for _ in range(5):
        store.views()
    assert said(caplog) == [r"trtjob:jobs: the member '\udcff' is no name of ours"]


def test_what_is_said_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3000):
        replies.skip(f"key-{number}" + "x" * 1000, "y" * 10_000)
    assert max(len(str(vars(record)["why"])) for record in caplog.records) < 500
    assert len(replies.told) <= replies.MOST_TOLD


def test_lines_of_a_job_whose_log_is_something_else_hold_up_no_others(redis: Redis, store: JobStore) -> None:
    logger, job_log = logging.getLogger("test.rubbish"), JobLog()
    logger.addHandler(job_log)
    try:
        for job_id in (JOB, WELL):
            store.create(job_spec(job_id=job_id))
            logger.warning("a line", extra={"job_id": job_id})
        redis.set(log_key(JOB), "rubbish")
        job_log.ship(redis)
    finally:
        logger.removeHandler(job_log)
    assert len(read_log(redis, WELL)) == 1
    assert read_log(redis, JOB) == []


def test_a_state_that_is_none_is_no_unknown_job(redis: Redis, store: JobStore) -> None:
    store.create(job_spec(job_id=JOB))
    redis.hset(job_key(JOB), "state", b"\xff")
    with pytest.raises(ForeignJobError):
        store.state(JOB)
    with pytest.raises(UnknownJobError):
        store.state(WELL)


def test_a_lost_list_is_made_again(redis: Redis, store: JobStore, queue: WorkQueue) -> None:
    live(store, queue, WELL)
    for key in (JOBS, state_key("running"), queue_state_key("test", "running")):
        put(redis, key, "string")
        reconcile(store, queue)
        assert store.active_ids(queue.name) == store.job_ids() == [WELL]
        assert store.counts(queue.name)["running"] == 1


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"0x10", b"\xff", b"1_000", b" 1", b"+1", b"9" * 13])
def test_what_is_no_whole_number_is_rubbish(value: bytes) -> None:
    with pytest.raises(Rubbish):
        replies.integer(value)


def test_keys_of_the_right_kind_stay(redis: Redis) -> None:
    redis.sadd("a", 1)
    redis.rpush("b", 1)
    assert drop_foreign(redis, {"a": "set", "b": "set", "c": "set"})
    assert redis.keys() == [b"a"]
    assert not drop_foreign(redis, {"a": "set", "b": "set"})
