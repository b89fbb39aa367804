"""What a client sends again, since the reply was lost, is done once: every script, and every other command."""

from collections import Counter
from collections.abc import Iterator

import pytest
from redis import Redis
from samples import job_spec
from twice import SCRIPTS, Twice

from trtjob.jobs.states import JobState, Priority
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.events import EventKind, add_event
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import lease_key
from trtjob.queue.leases import Done, Lease, Refusal
from trtjob.queue.notifications import ask_for_notice, end_notice, put_off, take_due
from trtjob.queue.reconcile import reconcile
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.submit import stop
from trtjob.queue.units import FINISH, PLAN, shard_unit
from trtjob.queue.worker_registry import WORKER_TTL_S

JOB = job_spec().job_id
# Those whose second answer is another one, and why that does no harm.
ANSWERS_DIFFER = {
    "RELEASE": "who stops asks for the unit at the front of the queue; a sweep does it where he does not",
    "ABANDON": "the daemon logs it, and asks for the unit at once; its sweep does so two seconds later",
    "CLEAR_RUBBISH": "how much was removed is logged",
}


@pytest.fixture
def client(server: EmbeddedServer, redis: Redis) -> Iterator[Twice]:
    client = Twice.from_url(server.url)
    assert isinstance(client, Twice)
    yield client.recording()
    client.close()


@pytest.fixture
def store(client: Twice) -> JobStore:
    return JobStore(client)


@pytest.fixture
def queue(client: Twice) -> WorkQueue:
    return WorkQueue(client, "test")


def lease(store: JobStore, unit: str, owner: str = "worker") -> Lease:
    granted = store.claim(JOB, unit, owner, 10.0, queue="test")
    assert isinstance(granted, Lease), granted
    return granted


def plan(store: JobStore, queue: WorkQueue, shards: int = 4) -> None:
    """Submit and plan the job."""
    assert store.create(job_spec(), queue="test")
    queue.put(JOB, [PLAN])
    store.move(JOB, JobState.PLANNING, started_at=1.0)
    held = lease(store, PLAN)
    assert store.sync(held, shards=0, images=0, ok=0, failed=0, committed=[])
    for shard in range(shards):
        assert store.add_shards(held, first=shard, shards=1, images=3)
        queue.put(JOB, [shard_unit(shard)])
    assert store.note(held, ignored="{}")
    assert store.planned(held) == JobState.RUNNING
    store.release(held, take_back=True)


def live(redis: Redis, store: JobStore, queue: WorkQueue) -> None:
    """Lead a job through all that can happen to one."""
    plan(store, queue)
    ask_for_notice(store, JOB, "https://hooks.example/")
    store.set_priority(JOB, Priority.HIGH)
    queue.reorder(JOB)
    store.list_again()
    store.report_worker("worker", {"host": "node", "pid": 7})
    store.degrade(JOB, "s3 fails")
    store.degrade(JOB, "")
    lost = lease(store, shard_unit(0), "dead")
    store.set_aside(lost, "a.jpg")
    assert store.check(lost, 1, 1, {"decode": 1}) == "go"
    assert store.renew(lost) == JobState.RUNNING
    store.abandon("dead", "SIGSEGV")
    given_back = lease(store, shard_unit(0))
    assert given_back.blame == "SIGSEGV"
    store.clear_attempts(given_back)
    store.release(given_back, take_back=True, why="the job is stopped", kept=Done(1, Counter(decode=1)))
    store.update(JOB, runner="node-7")
    assert stop(store, JOB, "node-7")
    store.move(JOB, JobState.QUEUED, runner="")
    store.update(JOB, state=JobState.RUNNING.value)
    redis.rpush("rq:queue:test", "a b")  # what RQ would end a worker for
    assert reconcile(store, queue) == 0
    for shard in range(4):
        store.commit(lease(store, shard_unit(shard)), shard, ok=2, failed=1, kinds={"decode": 1})
    store.update(JOB, ignored="{}")
    finish = lease(store, FINISH)
    assert store.end(finish, JobState.DONE_WITH_ERRORS, epoch=0, detail="8 ok, 4 failed", finished_at=2.0)
    store.release(finish, take_back=True)
    (notice,) = take_due(store, "test")
    assert put_off(store, notice, "status 500")
    end_notice(store, notice, EventKind.NOTIFIED, "status 200")
    redis.lpop("rq:queue:test")  # the plan's message, as RQ takes it
    assert queue.take_shard("") == (JOB, shard_unit(0))
    assert queue.take_unit_of(JOB) == shard_unit(1)
    assert queue.bring_forward(["another"])
    queue.put_convert("0123", {"model": "/m.weights"})
    queue.park("0123", "not ours")
    queue.clear_abandoned()


@pytest.mark.slow
def test_every_command_of_a_jobs_life_may_come_twice(redis: Redis, store: JobStore, queue: WorkQueue) -> None:
    live(redis, store, queue)
    view = store.view(JOB)
    assert (view.shards, view.images, view.ok, view.failed, view.retries) == (4, 12, 8, 4, 1)
    told = [(event.event, event.unit) for event in store.events(JOB)]
    assert len(told) == len(set(told)) + told.count(("taken", shard_unit(0))) - 1, "an event is told twice"
    assert store.forget_ended(JOB)
    assert not store.job_ids()


@pytest.mark.slow
def test_every_script_is_among_them(redis: Redis, client: Twice, store: JobStore, queue: WorkQueue) -> None:
    """A new script belongs into `live`, and its reason into the comment that opens its file."""
    live(redis, store, queue)
    store.forget(JOB)
    client.eval(SCRIPTS["SIZE"], 1, "rq:job:none", 64)  # which RQ's worker asks for
    assert {call.name for call in client.calls} == set(SCRIPTS)
    assert [name for name, text in SCRIPTS.items() if "\n-- Sent twice: " not in text] == []


@pytest.mark.slow
def test_a_command_that_comes_twice_is_answered_as_at_first(
    redis: Redis, client: Twice, store: JobStore, queue: WorkQueue
) -> None:
    live(redis, store, queue)
    differ = {call.name for call in client.calls if call.told[0] != call.told[1]}
    assert differ == set(ANSWERS_DIFFER)


# -- and later, when something else has happened in between ------------------------------------------------------------


def test_a_claim_that_comes_again_late_is_refused_where_another_has_the_unit(
    client: Twice, store: JobStore, queue: WorkQueue
) -> None:
    plan(store, queue)
    lease(store, shard_unit(0), "sleeper")
    late = client.last("CLAIM")
    client.delete(lease_key(JOB, shard_unit(0)))
    heir = lease(store, shard_unit(0), "heir")
    assert client.again(late) == [b"busy"]
    assert store.check(heir, 0, 0) == "go"


def test_a_claim_that_comes_again_late_is_as_long_as_a_new_one(
    client: Twice, store: JobStore, queue: WorkQueue
) -> None:
    plan(store, queue)
    held = lease(store, shard_unit(0))
    client.delete(lease_key(JOB, held.unit))
    assert client.again(client.last("CLAIM"))[:3] == [b"go", held.token, 1]
    assert store.claim(JOB, held.unit, "another", 10.0) == Refusal("busy")


def test_a_cancellation_that_comes_again_does_not_stop_the_job_that_was_continued_since(
    client: Twice, store: JobStore, queue: WorkQueue
) -> None:
    plan(store, queue)
    store.move(JOB, JobState.CANCELLED, message="cancelled")
    late = client.last("MOVE")
    store.move(JOB, JobState.QUEUED)
    assert client.again(late) == 1
    assert store.state(JOB) == JobState.QUEUED


def test_a_plans_count_that_comes_again_takes_no_commit_back(client: Twice, store: JobStore, queue: WorkQueue) -> None:
    store.create(job_spec())
    store.move(JOB, JobState.PLANNING)
    planner = lease(store, PLAN)
    store.sync(planner, shards=2, images=6, ok=0, failed=0, committed=[])
    late = client.last("SYNC")
    store.commit(lease(store, shard_unit(0)), 0, ok=3, failed=0)
    assert client.again(late) == 1
    assert store.view(JOB).ok == 3


def test_a_shard_that_was_taken_is_given_out_again_to_the_call_that_took_it_alone(
    redis: Redis, client: Twice, store: JobStore, queue: WorkQueue
) -> None:
    plan(store, queue)
    redis.lpop("rq:queue:test")  # the plan's message
    assert queue.take_shard("") == (JOB, shard_unit(0))
    late = client.last("TAKE")
    WorkQueue(client, "test").take_shard("")
    assert client.again(late) == [JOB.encode(), b"shard-00000"]
    assert queue.take_shard("") == (JOB, shard_unit(2))


def test_a_unit_of_one_job_is_given_out_again_to_the_call_that_took_it_alone(
    client: Twice, store: JobStore, queue: WorkQueue
) -> None:
    plan(store, queue)
    assert queue.take_unit_of(JOB) == PLAN
    late = client.last("TAKE_OF")
    WorkQueue(client, "test").take_unit_of(JOB)
    assert client.again(late) == PLAN.encode()
    assert queue.take_unit_of(JOB) == shard_unit(1)


def test_what_a_worker_took_last_is_not_kept_for_ever(
    redis: Redis, client: Twice, store: JobStore, queue: WorkQueue
) -> None:
    plan(store, queue)
    redis.lpop("rq:queue:test")
    queue.take_shard("")
    (key,) = client.keys("trtjob:taken:*")
    assert WORKER_TTL_S < client.ttl(key) <= 300


def test_the_claims_of_a_server_that_has_forgotten_everything_are_others(
    client: Twice, store: JobStore, queue: WorkQueue
) -> None:
    plan(store, queue)
    before = lease(store, shard_unit(0))
    client.flushall()
    plan(store, queue)
    after = lease(store, shard_unit(0))
    assert after.holder != before.holder
    assert store.renew(before) == "lost"


def test_nothing_is_told_of_a_job_that_is_gone(client: Twice) -> None:
    add_event(client, JOB, EventKind.NOTIFIED)
    assert client.keys("*") == []
