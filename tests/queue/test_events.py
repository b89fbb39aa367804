"""What happened to a job, against a real server: each change with its event, and no event without its change."""

import pytest
from redis import Redis
from running_job import FIRST, JOB, lease, running_job
from samples import job_spec

from trtjob.errors import ForeignJobError
from trtjob.jobs.states import JobState, Priority
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import job_key, lease_key
from trtjob.queue.scripts import MOST_EVENTS
from trtjob.queue.units import PLAN, shard_unit

MOST_BYTES = 1_000_000


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return running_job(redis)


def told(store: JobStore, skip: int = 3) -> list[tuple[str, str, int, str, str]]:
    """Return the events after those of the planning."""
    return [(e.event, e.unit, e.attempt, e.worker, e.detail) for e in store.events(JOB)[skip:]]


def test_a_job_that_is_submitted_and_planned_says_so(store: JobStore) -> None:
    assert told(store, 0) == [
        ("submitted", "", 0, "", "/photos, model tiny"),
        ("taken", PLAN, 1, "planner", ""),
        ("planned", PLAN, 1, "planner", "8 images, 2 shards"),
    ]


def test_a_shard_is_taken_and_committed_once(store: JobStore) -> None:
    held = lease(store)
    for _ in range(2):
        store.commit(held, 0, ok=3, failed=1)
    assert told(store) == [("taken", FIRST, 1, "w", ""), ("committed", FIRST, 1, "w", "3 ok, 1 failed")]


def test_a_unit_that_is_left_says_why_and_one_that_is_done_does_not(store: JobStore) -> None:
    store.release(lease(store), take_back=True, why="the worker stops")
    store.release(lease(store), take_back=True)
    taken = ("taken", FIRST, 1, "w", "")
    assert told(store) == [taken, ("given_back", FIRST, 1, "w", "the worker stops"), taken]


@pytest.mark.parametrize(
    ("blame", "fault", "detail"),
    [("SIGSEGV", "", "SIGSEGV"), ("", "its GPU failed", "its GPU failed"), ("", "", "killed or ended")],
)
def test_a_unit_of_a_dead_worker_is_lost(store: JobStore, blame: str, fault: str, detail: str) -> None:
    lease(store)
    store.abandon("w", blame, fault=fault)
    assert told(store)[1:] == [("lost", FIRST, 1, "w", detail)]


def test_a_unit_whose_worker_was_not_heard_of_is_lost_when_another_takes_it(store: JobStore) -> None:
    lease(store)
    store.redis.delete(lease_key(JOB, FIRST))
    lease(store, "heir")
    assert told(store)[1:] == [("lost", FIRST, 1, "w", "its lease ran out"), ("taken", FIRST, 2, "heir", "")]


def test_what_is_refused_is_no_event(store: JobStore) -> None:
    held = lease(store)
    store.redis.delete(lease_key(JOB, FIRST))
    lease(store, "heir")
    before = told(store)
    assert not store.release(held, why="it is tired")
    assert store.claim(JOB, FIRST, "third", 10.0) != held
    assert store.abandon("w", "SIGSEGV") == []
    assert not store.move(JOB, JobState.DONE)
    assert told(store) == before


def test_an_image_that_is_set_aside_is_named_whatever_its_name(store: JobStore) -> None:
    store.set_aside(lease(store), "caf\udce9.jpg")
    assert told(store)[-1] == ("set_aside", FIRST, 0, "w", "caf\\udce9.jpg")


def test_trouble_outside_is_told_once_and_its_end_too(store: JobStore) -> None:
    held = lease(store)
    for _ in range(3):
        store.degrade(JOB, "s3://b fails")
    assert store.counts()["degraded"] == 1
    store.commit(held, 0, ok=4, failed=0)
    for _ in range(2):
        store.degrade(JOB, "")
    assert [event[0] for event in told(store)] == ["taken", "degraded", "recovered", "committed"]
    assert store.counts()["degraded"] == 0


def test_a_priority_is_told_where_it_changes(store: JobStore) -> None:
    store.set_priority(JOB, Priority.NORMAL)
    store.set_priority(JOB, Priority.HIGH)
    assert told(store) == [("priority", "", 0, "", "high")]
    assert store.view(JOB).priority is Priority.HIGH


@pytest.mark.parametrize(
    ("state", "event"),
    [(JobState.CANCELLED, "cancelled"), (JobState.FAILED, "failed")],
)
def test_an_end_says_why(store: JobStore, state: JobState, event: str) -> None:
    store.move(JOB, state, message="the disk is full")
    store.move(JOB, JobState.QUEUED, detail="what is missing", message="")
    assert told(store) == [(event, "", 0, "", "the disk is full"), ("continued", "", 0, "", "what is missing")]


def test_a_job_that_is_forgotten_leaves_nothing(store: JobStore) -> None:
    store.degrade(JOB, "s3://b fails")
    store.commit(lease(store), 0, ok=3, failed=1, kinds={"decode": 1})
    store.forget(JOB)
    store.degrade(JOB, "s3://b fails")
    assert [key for key in store.redis.keys("*") if JOB.encode() in key] == []
    assert set(store.counts().values()) == {0}


def test_only_what_is_new_is_read(store: JobStore) -> None:
    last = store.events(JOB)[-1]
    assert store.events(JOB, after=last.id) == []
    lease(store)
    assert [event.event for event in store.events(JOB, after=last.id)] == ["taken"]
    assert [event.event for event in store.events(JOB, last=2)] == ["planned", "taken"]


def test_an_event_has_the_servers_time(store: JobStore) -> None:
    seconds, _ = store.redis.time()
    assert abs(store.events(JOB)[0].at - seconds) < 10


@pytest.mark.slow
def test_the_events_of_thousands_of_shards_stay_small(store: JobStore) -> None:
    store.update(JOB, shards=6000)
    for number in range(5500):
        store.commit(lease(store, unit=shard_unit(number)), number, ok=256, failed=0)
    count = store.redis.xlen(job_key(JOB) + ":events")
    assert MOST_EVENTS <= count <= MOST_EVENTS + 100
    assert store.redis.memory_usage(job_key(JOB) + ":events") < MOST_BYTES


def test_what_is_no_event_of_ours_is_named_as_such(store: JobStore) -> None:
    store.redis.xadd(job_key(JOB) + ":events", {"what": "is this"})
    with pytest.raises(ForeignJobError):
        store.events(JOB)


@pytest.mark.parametrize("target", [JobState.FAILED, JobState.CANCELLED])
def test_a_job_that_has_ended_waits_for_nothing(store: JobStore, target: JobState) -> None:
    store.degrade(JOB, "s3://bucket fails")
    store.move(JOB, target, message="")
    store.degrade(JOB, "s3://bucket fails")  # by a worker that has not heard of it yet
    assert (store.view(JOB).degraded, store.counts()["degraded"]) == ("", 0)
    assert [event.event for event in store.events(JOB)][-2:] == ["degraded", target]


# -- counts ------------------------------------------------------------------------------------------------------------


def test_jobs_are_counted_by_state_wherever_they_go(store: JobStore) -> None:
    assert store.counts()["running"] == 1
    store.create(job_spec(job_id="other"), JobState.DONE)
    for number in range(2):
        store.commit(lease(store, unit=shard_unit(number)), number, ok=4, failed=0)
    assert {state: count for state, count in store.counts().items() if count} == {"finishing": 1, "done": 1}
    store.move(JOB, JobState.FAILED, message="")
    assert {state: count for state, count in store.counts().items() if count} == {"failed": 1, "done": 1}


def test_failures_are_counted_by_kind_once(store: JobStore) -> None:
    held, other = lease(store), lease(store, unit=shard_unit(1))
    store.check(other, 3, 2, {"decode": 1, "missing": 1})
    for _ in range(2):
        store.commit(held, 0, ok=3, failed=1, kinds={"decode": 1})
    view = store.view(JOB)
    assert (view.failures, view.kinds) == (3, {"decode": 2, "missing": 1})
    store.release(other, take_back=True)
    assert store.view(JOB).kinds == {"decode": 1}


def test_only_attempts_after_a_loss_are_retries(store: JobStore) -> None:
    store.release(lease(store), take_back=True)
    lease(store)
    store.abandon("w")
    assert store.view(JOB).retries == 0
    lease(store)
    store.abandon("w", "SIGSEGV")
    lease(store)
    assert store.view(JOB).retries == 1
