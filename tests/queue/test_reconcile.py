"""What is wanted, held by nobody and waiting nowhere is asked for again, once."""

from collections.abc import Callable

import pytest
from redis import Redis
from running_job import JOB, lease
from samples import job_spec
from terminal import wait_for

from trtjob.errors import ForeignJobError
from trtjob.jobs.states import TERMINAL, JobState
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import done_key, lease_key
from trtjob.queue.leases import Lease
from trtjob.queue.reconcile import reconcile, reconcile_job
from trtjob.queue.rq_queue import WINDOW, WorkQueue
from trtjob.queue.units import FINISH, PLAN, shard_unit

SHARDS = [shard_unit(n) for n in range(3)]


@pytest.fixture
def store(redis: Redis) -> JobStore:
    """A store with a job of three shards, whose messages were all lost."""
    store = JobStore(redis)
    store.create(job_spec())
    plan = lease(store, unit=PLAN)
    store.add_shards(plan, shards=3, images=12)
    store.release(plan, take_back=True)
    return store


def units(queue: WorkQueue) -> list[str]:
    """Return the units that wait, the next one first."""
    messages = queue.redis.lrange("rq:queue:test", 0, -1)
    return [message.decode().split("--")[1] for message in messages]


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        pytest.param(JobState.QUEUED, [PLAN], id="queued"),
        pytest.param(JobState.PLANNING, [PLAN, *SHARDS], id="planning"),
        pytest.param(JobState.RUNNING, SHARDS, id="running"),
        pytest.param(JobState.FINISHING, [FINISH], id="finishing"),
        *(pytest.param(state, [], id=state) for state in sorted(TERMINAL)),
    ],
)
def test_each_state_wants_its_own_units(store: JobStore, queue: WorkQueue, state: JobState, wanted: list[str]) -> None:
    store.update(JOB, state=state.value)
    assert reconcile(store, queue) == len(wanted)
    assert sorted(units(queue)) == sorted(wanted)


@pytest.fixture
def running(store: JobStore) -> JobStore:
    store.update(JOB, state=JobState.RUNNING.value)
    return store


def test_what_waits_is_not_asked_for_twice(running: JobStore, queue: WorkQueue) -> None:
    queue.put(JOB, [SHARDS[1]])
    assert reconcile(running, queue) == 2
    assert reconcile(running, queue) == 0
    assert sorted(units(queue)) == SHARDS


def test_what_a_worker_holds_is_not_asked_for(running: JobStore, queue: WorkQueue) -> None:
    lease(running, unit=SHARDS[0])
    reconcile(running, queue)
    assert sorted(units(queue)) == SHARDS[1:]


def test_what_is_committed_is_not_asked_for(running: JobStore, queue: WorkQueue) -> None:
    running.commit(lease(running, unit=SHARDS[2]), 2, ok=4, failed=0)
    reconcile(running, queue)
    assert sorted(units(queue)) == SHARDS[:2]


def leave(store: JobStore, held: Lease) -> None:
    store.release(held, take_back=True)


def die(store: JobStore, held: Lease) -> None:
    store.abandon(held.owner)


def fall_silent(store: JobStore, held: Lease) -> None:
    store.redis.pexpire(lease_key(JOB, held.unit), 1)
    wait_for(lambda: store.is_leased(JOB, [held.unit]) == [False], "the end of the lease")


@pytest.mark.parametrize("lose", [leave, die, fall_silent])
def test_a_unit_that_its_worker_lost_is_asked_for_once(
    running: JobStore, queue: WorkQueue, lose: Callable[[JobStore, Lease], None]
) -> None:
    queue.put(JOB, SHARDS[1:3])
    held = lease(running, unit=SHARDS[0])
    assert reconcile(running, queue) == 0
    lose(running, held)
    assert reconcile(running, queue) == 1
    assert reconcile(running, queue) == 0
    assert units(queue) == SHARDS[:3]  # in front: it is older than what waits


def test_units_are_asked_for_in_their_order(running: JobStore, queue: WorkQueue) -> None:
    reconcile(running, queue)
    assert units(queue) == SHARDS


def test_only_the_named_job_is_reconciled(running: JobStore, queue: WorkQueue) -> None:
    running.create(job_spec(job_id="another-job"))
    assert reconcile_job(running, queue, JOB) == 3
    assert {job for job, _ in queue.pending()} == {JOB}
    assert reconcile(running, queue) == 1


# -- large jobs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def large(redis: Redis) -> JobStore:
    """A store with a job of a million images, planned and not begun."""
    store = JobStore(redis)
    store.create(job_spec())
    plan = lease(store, unit=PLAN)
    store.move(JOB, JobState.PLANNING)
    store.add_shards(plan, shards=3907, images=1_000_000)
    assert store.planned(plan) == JobState.RUNNING
    store.release(plan, take_back=True)
    return store


@pytest.mark.slow
def test_a_job_of_a_million_images_takes_under_a_megabyte_of_the_server(redis: Redis, queue: WorkQueue) -> None:
    before = bytes_of_keys(redis)
    store = JobStore(redis)
    store.create(job_spec())
    plan = lease(store, unit=PLAN)
    store.move(JOB, JobState.PLANNING)
    for first in range(0, 3907, 4):  # as it is planned
        store.add_shards(plan, shards=min(4, 3907 - first), images=1024)
        queue.put(JOB, map(shard_unit, range(first, min(first + 4, 3907))))
    store.planned(plan)
    store.release(plan)
    reconcile(store, queue)
    assert len(queue) == WINDOW
    assert 100_000 < bytes_of_keys(redis) - before < 1_000_000


def bytes_of_keys(redis: Redis) -> int:
    """What all keys take of the server's memory; its total would count the buffers of whoever else is connected."""
    return sum(redis.memory_usage(key, samples=0) or 0 for key in redis.scan_iter(count=1000))


def take(store: JobStore, queue: WorkQueue, count: int) -> list[Lease]:
    """Take the next shards, as a worker does."""
    taken = (queue.take_shard("") for _ in range(count))
    return [lease(store, unit=unit[1]) for unit in taken if unit is not None]


def test_the_window_is_filled_up_as_shards_are_taken(large: JobStore, queue: WorkQueue) -> None:
    assert reconcile(large, queue) == WINDOW
    assert reconcile(large, queue) == 0
    take(large, queue, 10)
    assert reconcile(large, queue) == 10
    assert units(queue) == [shard_unit(n) for n in range(10, WINDOW + 10)]


@pytest.mark.slow
def test_more_workers_than_a_window_holds_find_work(large: JobStore, queue: WorkQueue) -> None:
    for _ in range(4):
        reconcile(large, queue)
        take(large, queue, WINDOW)
    assert reconcile(large, queue) == WINDOW
    assert units(queue)[0] == shard_unit(4 * WINDOW)


@pytest.mark.slow
def test_many_lost_shards_come_back_in_their_order(large: JobStore, queue: WorkQueue) -> None:
    for _ in range(2):
        reconcile(large, queue)
        held = take(large, queue, WINDOW)
    queue.put(JOB, [shard_unit(3000)])
    large.abandon(held[0].owner)
    reconcile(large, queue)
    assert units(queue) == [*map(shard_unit, range(WINDOW - 1)), shard_unit(3000)]


def test_a_lost_shard_beyond_five_digits_is_younger_than_those_before(running: JobStore, queue: WorkQueue) -> None:
    running.update(JOB, shards=100_001)
    running.redis.set(done_key(JOB), b"\xff" * 12_499 + b"\xfc\x00")  # all before 99,998
    queue.put(JOB, [shard_unit(99_999)])
    reconcile(running, queue)
    assert units(queue) == [shard_unit(n) for n in (99_998, 99_999, 100_000)]


def test_a_lost_plan_is_asked_for_though_the_window_is_full(redis: Redis, large: JobStore, queue: WorkQueue) -> None:
    reconcile(large, queue)
    large.update(JOB, state=JobState.PLANNING.value)
    assert reconcile(large, queue) == 1
    assert units(queue)[0] == PLAN


@pytest.mark.parametrize("rubbish", [b"a b", b"\xff\xfe", b"rubbish", f"{JOB}--shard-x--0123abcd".encode()])
def test_rubbish_in_the_queue_does_not_keep_a_sweep_from_its_work(
    running: JobStore, queue: WorkQueue, rubbish: bytes
) -> None:
    running.redis.rpush("rq:queue:test", rubbish)
    assert reconcile(running, queue) == 3
    assert {(JOB, unit) for unit in SHARDS} <= queue.pending()


def test_without_a_job_there_is_nothing_to_ask_for(redis: Redis, queue: WorkQueue) -> None:
    assert reconcile(JobStore(redis), queue) == 0


def test_a_job_of_another_version_does_not_hold_up_the_others(running: JobStore, queue: WorkQueue) -> None:
    foreign = "another-version"
    running.create(job_spec(job_id=foreign).model_copy(update={"created_at": 9e9}))  # the newest comes first
    running.update(foreign, spec='{"schema_version": 2}')
    with pytest.raises(ForeignJobError, match=foreign):
        reconcile(running, queue)
    assert units(queue) == SHARDS
