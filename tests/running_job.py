"""A job that the queue's server knows, and its units in somebody's hands."""

from redis import Redis
from samples import job_spec

from trtjob.jobs.states import JobState
from trtjob.queue.job_store import JobStore
from trtjob.queue.leases import Lease
from trtjob.queue.units import PLAN, shard_unit

JOB = job_spec().job_id
FIRST = shard_unit(0)
LEASE_S = 10.0


def running_job(redis: Redis) -> JobStore:
    """Return a store with one job that runs: two shards of four images."""
    store = JobStore(redis)
    store.create(job_spec())
    store.move(JOB, JobState.PLANNING)
    plan = lease(store, "planner", PLAN)
    assert store.add_shards(plan, shards=2, images=8)
    store.planned(plan)
    store.release(plan, take_back=True)
    return store


def lease(store: JobStore, owner: str = "w", unit: str = FIRST) -> Lease:
    """Claim a unit that must be free."""
    granted = store.claim(JOB, unit, owner, LEASE_S)
    assert isinstance(granted, Lease), granted
    return granted
