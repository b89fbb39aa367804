"""Jobs that have ended: what they cost those that have not, and how they are forgotten."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from samples import job_spec

from trtjob.cli.ui.screens import jobs_lines, standing, status_document
from trtjob.jobs.states import ACTIVE, TERMINAL, JobState
from trtjob.queue.events import EventKind, add_event
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import ended_key
from trtjob.queue.notifications import ask_for_notice, take_due
from trtjob.queue.reconcile import reconcile
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.units import PLAN

QUEUE = "test"
MANY = 2000


@pytest.fixture
def queue(redis: Redis) -> WorkQueue:
    return WorkQueue(redis, QUEUE)


def name(number: int) -> str:
    return f"photos-{number:08x}"


def fill(store: JobStore, count: int, state: JobState = JobState.DONE, *, first: int = 0) -> None:
    """Enter jobs, each newer than the one before."""
    for number in range(first, first + count):
        spec = job_spec(job_id=name(number)).model_copy(update={"created_at": 1_000_000.0 + number})
        assert store.create(spec, state, queue=QUEUE)


def cost(redis: Redis, act: Callable[[], Any]) -> tuple[int, int]:
    """Return the commands that the server does for something, and the bytes that it answers."""
    before: Any = redis.info()
    act()
    after: Any = redis.info()
    return (
        after["total_commands_processed"] - before["total_commands_processed"],
        after["total_net_output_bytes"] - before["total_net_output_bytes"],
    )


@pytest.mark.slow
def test_a_sweep_costs_the_same_however_many_jobs_have_ended(redis: Redis, store: JobStore, queue: WorkQueue) -> None:
    fill(store, 3, JobState.QUEUED)
    queue.put(name(0), [PLAN])

    def sweep() -> None:
        store.forget_expired(QUEUE, 3600, 100)
        reconcile(store, queue)

    sweep()
    commands, sent = cost(redis, sweep)
    fill(store, MANY, first=3)
    more_commands, more_sent = cost(redis, sweep)
    assert more_commands == commands
    assert more_sent < sent + 2000  # INFO itself has longer numbers


@pytest.mark.slow
def test_status_reads_what_it_shows_and_no_more(redis: Redis, store: JobStore) -> None:
    fill(store, 1, JobState.RUNNING)
    fill(store, MANY, first=1)
    commands, sent = cost(redis, lambda: standing(store, None, 50))
    assert commands < 50 * 4 + 60
    assert sent < 51 * 3000 + 10_000
    now = standing(store, None, 50)
    shown = [view.job_id for view in now.jobs]
    assert shown == [*map(name, range(MANY, MANY - 50, -1)), name(0)], "the one under way is shown, however old it is"
    assert now.more == MANY + 1 - 51
    assert status_document(now)["more"] == now.more
    assert f"{now.more} older ones" in "\n".join(jobs_lines(now))


def test_jobs_are_listed_by_state_the_newest_first(store: JobStore) -> None:
    fill(store, 3, JobState.FAILED)
    fill(store, 3, JobState.DONE, first=3)
    assert store.job_ids(2, state=JobState.FAILED) == [name(2), name(1)]
    assert store.job_ids(state=JobState.FAILED) == [name(2), name(1), name(0)]
    assert store.job_ids(1) == [name(5)]
    assert store.job_ids(state=JobState.RUNNING) == []
    assert store.total() == 6


def test_pages_of_jobs_follow_each_other_without_a_gap(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtjob.queue.job_store.JOBS_AT_ONCE", 2)
    fill(store, 5)
    assert store.job_ids() == [*map(name, range(4, -1, -1))]
    assert store.job_ids(3, state=JobState.DONE) == [name(4), name(3), name(2)]


# -- how they are forgotten --------------------------------------------------------------------------------------------


def end_long_ago(store: JobStore, job_id: str, ago_s: float = 3601.0) -> None:
    at = store.redis.time()[0] - ago_s
    assert store.redis.zadd(ended_key(QUEUE), {job_id: at}, xx=True, ch=True) == 1


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_job_that_ended_long_ago_is_forgotten_with_all_its_keys(
    redis: Redis, store: JobStore, state: JobState
) -> None:
    fill(store, 1, JobState.RUNNING)
    store.update(name(0), state=state.value)
    add_event(redis, name(0), EventKind.NOTIFIED)
    assert store.forget_expired(QUEUE, 3600, 100) == 0
    end_long_ago(store, name(0))
    assert store.forget_expired(QUEUE, 3600, 100) == 1
    assert redis.keys("*") == []


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_a_job_that_was_continued_is_not_forgotten_for_its_earlier_end(store: JobStore, state: JobState) -> None:
    fill(store, 1)
    end_long_ago(store, name(0))
    store.update(name(0), state=state.value)
    assert store.forget_expired(QUEUE, 3600, 100) == 0
    assert not store.forget_ended(name(0))
    assert store.state(name(0)) == state


def test_a_sweep_forgets_so_many_at_a_time_the_oldest_first(store: JobStore) -> None:
    fill(store, 5)
    for number in range(5):
        end_long_ago(store, name(number), 4000.0 + number)
    assert store.forget_expired(QUEUE, 3600, 2) == 2
    assert sorted(store.job_ids()) == [name(0), name(1), name(2)]


def test_who_waits_for_an_end_is_told_of_it_though_the_job_is_forgotten(store: JobStore) -> None:
    fill(store, 1, JobState.RUNNING)
    ask_for_notice(store, name(0), "https://hooks.example/")
    store.fail(name(0), "the disk is full")
    end_long_ago(store, name(0))
    assert store.forget_expired(QUEUE, 3600, 100) == 1
    assert [notice.job_id for notice in take_due(store, QUEUE)] == [name(0)]


def test_the_jobs_of_another_queue_are_not_forgotten(store: JobStore) -> None:
    fill(store, 1)
    end_long_ago(store, name(0))
    assert store.forget_expired("other", 3600, 100) == 0
    assert store.job_ids() == [name(0)]


def test_a_forgotten_job_is_handed_in_again_from_its_folder(store: JobStore, tmp_path: Path) -> None:
    fill(store, 1)
    assert store.forget_ended(name(0))
    assert store.forget_ended(name(0)), "it is gone already"
    fill(store, 1)
    assert store.job_ids() == [name(0)]
