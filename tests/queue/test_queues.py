"""Several queues on one server: nobody of one does, asks for, fails or counts the jobs of another."""

import pytest
from redis import Redis
from samples import job_spec

from trtjob.jobs.states import JobState
from trtjob.queue.events import EventKind
from trtjob.queue.job_store import JobStore
from trtjob.queue.leases import Lease, Refusal
from trtjob.queue.notifications import ask_for_notice, end_notice, take_due
from trtjob.queue.progress import describe_limit
from trtjob.queue.reconcile import reconcile, reconcile_job
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.units import FINISH, PLAN, shard_unit

JOB = job_spec().job_id


@pytest.fixture
def store(redis: Redis) -> JobStore:
    """A store with a job of `alpha`."""
    store = JobStore(redis)
    store.create(job_spec(), queue="alpha")
    return store


@pytest.fixture
def alpha(redis: Redis) -> WorkQueue:
    return WorkQueue(redis, "alpha")


@pytest.fixture
def beta(redis: Redis) -> WorkQueue:
    return WorkQueue(redis, "beta")


@pytest.mark.parametrize("state", JobState)
def test_what_is_missing_is_asked_for_in_the_jobs_own_queue_alone(
    store: JobStore, alpha: WorkQueue, beta: WorkQueue, state: JobState
) -> None:
    store.update(JOB, state=state.value, shards=2)
    assert reconcile(store, beta) == 0
    assert reconcile_job(store, beta, JOB) == 0
    assert len(beta) == 0
    assert reconcile(store, alpha) == len(alpha)


@pytest.mark.parametrize(
    ("state", "unit"),
    [(JobState.QUEUED, PLAN), (JobState.RUNNING, shard_unit(0)), (JobState.FINISHING, FINISH)],
)
def test_a_unit_of_another_queue_is_refused_whoever_sent_the_message(
    store: JobStore, state: JobState, unit: str
) -> None:
    store.update(JOB, state=state.value, shards=1)
    before = store.events(JOB)
    assert store.claim(JOB, unit, "worker", 10.0, queue="beta") == Refusal("elsewhere")
    assert store.events(JOB) == before
    assert isinstance(store.claim(JOB, unit, "worker", 10.0, queue="alpha"), Lease)


def test_jobs_are_counted_for_their_own_queue(store: JobStore) -> None:
    assert store.counts("alpha")["queued"] == store.counts()["queued"] == 1
    assert set(store.counts("beta").values()) == {0}
    store.degrade(JOB, "s3 fails")
    assert (store.counts("alpha")["degraded"], store.counts("beta")["degraded"]) == (1, 0)
    store.fail(JOB, "")
    assert {state: count for state, count in store.counts("alpha").items() if count} == {"failed": 1}
    assert set(store.counts("beta").values()) == {0}


def test_the_end_of_a_job_is_told_by_a_daemon_of_its_own_queue(store: JobStore) -> None:
    """Another's may have another secret, and other rules for addresses."""
    ask_for_notice(store, JOB, "https://hooks.example/")
    store.fail(JOB, "")
    assert list(take_due(store, "beta")) == []
    (notice,) = take_due(store, "alpha")
    end_notice(store, notice, EventKind.NOTIFIED, "status 200")
    assert store.redis.keys("trtjob:noti*") == []


def test_a_job_without_a_queue_is_everybodys(redis: Redis, store: JobStore, beta: WorkQueue) -> None:
    store.create(job_spec(job_id="another"))
    assert store.active_ids("beta") == ["another"]
    assert reconcile(store, beta) == 1


def test_a_job_waits_for_a_worker_of_its_own_queue(store: JobStore) -> None:
    view = store.view(JOB)
    assert view.queue == "alpha"
    assert describe_limit(view, store.workers()).endswith("TRTJOB_QUEUE=alpha trtjob worker")
    store.report_worker("b", {"host": "node", "pid": 1, "queue": "beta"})
    assert describe_limit(view, store.workers()) == (
        "No worker serves the queue 'alpha'. Start one with: TRTJOB_QUEUE=alpha trtjob worker"
    )
    store.report_worker("a", {"host": "node", "pid": 1, "queue": "alpha"})
    assert describe_limit(view, store.workers()) == ""
