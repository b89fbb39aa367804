"""Claims, leases and counters, against a real server: what two workers may and may not do to one unit of work."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from redis import Redis
from running_job import JOB, LEASE_S, lease, running_job
from samples import job_spec
from terminal import wait_for

from trtjob.errors import ForeignJobError, UnknownJobError
from trtjob.jobs.states import ACTIVE, TERMINAL, JobState
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import WORKERS, job_key, lease_key, worker_key
from trtjob.queue.leases import FREE_KILLS, Done, Lease, Refusal
from trtjob.queue.units import FINISH, PLAN, shard_unit
from trtjob.queue.worker_registry import WORKER_TTL_S

WORKER = {"host": "node", "pid": 7, "state": "busy"}


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return running_job(redis)


def expire(store: JobStore, lost: Lease) -> None:
    """Let a lease run out, as it does when its worker is suspended."""
    store.redis.pexpire(lease_key(lost.job_id, lost.unit), 1)
    wait_for(lambda: store.is_leased(lost.job_id, [lost.unit]) == [False], "the end of the lease")


def set_state(store: JobStore, state: JobState) -> None:
    store.update(JOB, state=state.value)


# -- one unit, two workers ---------------------------------------------------------------------------------------------


def test_a_unit_that_is_held_is_refused_to_another(store: JobStore) -> None:
    lease(store, "first")
    assert store.claim(JOB, shard_unit(0), "second", LEASE_S) == Refusal("busy")


def test_two_units_of_one_job_are_held_at_once(store: JobStore) -> None:
    lease(store, "first", shard_unit(0))
    assert lease(store, "second", shard_unit(1)).owner == "second"


def test_every_claim_has_a_larger_token_than_the_ones_before(store: JobStore) -> None:
    tokens = []
    for unit in (shard_unit(0), shard_unit(1), shard_unit(0)):
        held = lease(store, "worker", unit)
        tokens.append(held.token)
        store.release(held)
    assert all(earlier < later for earlier, later in pairwise(tokens))


def test_a_claim_that_ran_out_is_free_for_another(store: JobStore) -> None:
    expire(store, lease(store, "first"))
    assert lease(store, "second").attempt == 2


@pytest.mark.parametrize("renew", [pytest.param(False, id="check"), pytest.param(True, id="renew")])
def test_a_worker_that_slept_longer_than_its_lease_takes_it_back(store: JobStore, renew: bool) -> None:
    sleeper = lease(store, "sleeper")
    expire(store, sleeper)
    assert (store.renew(sleeper) if renew else store.check(sleeper, 0, 0)) in ("go", "running")
    assert store.claim(JOB, shard_unit(0), "other", LEASE_S) == Refusal("busy")
    assert LEASE_S - 1 < store.redis.pttl(lease_key(JOB, shard_unit(0))) / 1000 <= LEASE_S


@pytest.mark.parametrize(
    "new_owner_is",
    [
        pytest.param(lambda store, new: None, id="working"),
        pytest.param(lambda store, new: expire(store, new), id="asleep-too"),
        pytest.param(lambda store, new: store.release(new), id="gone-again"),
        pytest.param(lambda store, new: store.commit(new, 0, ok=4, failed=0), id="done"),
    ],
)
def test_a_worker_whose_unit_was_claimed_since_is_fenced_out(
    store: JobStore, new_owner_is: Callable[[JobStore, Lease], object]
) -> None:
    sleeper = lease(store, "sleeper")
    expire(store, sleeper)
    new_owner_is(store, lease(store, "other"))
    before = snapshot(store)
    assert store.check(sleeper, 1, 0) == "lost"
    assert store.renew(sleeper) == "lost"
    assert not store.release(sleeper, take_back=True)
    assert snapshot(store) == before


def test_the_same_worker_claiming_again_fences_its_own_earlier_claim_out(store: JobStore) -> None:
    earlier = lease(store, "worker")
    expire(store, earlier)
    later = lease(store, "worker")
    assert store.check(earlier, 0, 0) == "lost"
    assert store.check(later, 0, 0) == "go"


def test_a_released_claim_cannot_be_taken_back(store: JobStore) -> None:
    released = lease(store, "worker")
    store.release(released)
    assert store.renew(released) == "lost"
    assert store.check(released, 0, 0) == "lost"
    assert store.is_leased(JOB, [shard_unit(0)]) == [False]


def test_a_shard_that_another_committed_is_lost_to_its_sleeping_owner(store: JobStore) -> None:
    """The zombie's manifest is in the folder: whatever the present owner does, the shard is done."""
    zombie = lease(store, "zombie")
    expire(store, zombie)
    owner = lease(store, "owner")
    store.commit(zombie, 0, ok=4, failed=0)
    assert store.check(owner, 0, 0) == "lost"
    assert store.claim(JOB, shard_unit(0), "third", LEASE_S) == Refusal("committed")


def test_renewing_moves_the_end_of_the_lease(store: JobStore) -> None:
    held = lease(store, "worker")
    store.redis.pexpire(lease_key(JOB, held.unit), 1000)
    assert store.renew(held) == JobState.RUNNING
    assert store.redis.pttl(lease_key(JOB, held.unit)) > 1000


def test_a_worker_learns_at_its_next_check_that_its_job_was_cancelled(store: JobStore) -> None:
    held = lease(store, "worker")
    set_state(store, JobState.CANCELLED)
    assert store.check(held, 0, 0) == JobState.CANCELLED
    assert store.renew(held) == JobState.CANCELLED


def test_a_worker_of_a_forgotten_job_is_stopped(store: JobStore) -> None:
    held = lease(store, "worker")
    store.forget(JOB)
    assert store.check(held, 0, 0) == "lost"
    assert store.claim(JOB, shard_unit(0), "worker", LEASE_S) == Refusal("gone")


# -- which states allow what -------------------------------------------------------------------------------------------

CLAIMABLE = {
    PLAN: {JobState.QUEUED, JobState.PLANNING},
    shard_unit(0): {JobState.PLANNING, JobState.RUNNING},
    FINISH: {JobState.FINISHING},
}


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("unit", CLAIMABLE)
def test_a_unit_is_claimed_only_in_the_states_that_want_it(store: JobStore, unit: str, state: JobState) -> None:
    set_state(store, state)
    answer = store.claim(JOB, unit, "worker", LEASE_S)
    if state in CLAIMABLE[unit]:
        assert isinstance(answer, Lease)
    else:
        assert answer == Refusal(state)
        assert store.is_leased(JOB, [unit]) == [False]


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_ended_job_moves_to_queued_and_nowhere_else(store: JobStore, state: JobState) -> None:
    allowed = {JobState.QUEUED, *([JobState.CANCELLED] if state is JobState.STOPPED else [])}
    for target in JobState:
        set_state(store, state)
        assert store.move(JOB, target, message="moved") == (target in allowed)
        assert store.state(JOB) == (target if target in allowed else state)


def test_a_move_that_is_for_one_runner_moves_no_job_of_another(store: JobStore) -> None:
    store.update(JOB, runner="mine")
    assert not store.move(JOB, JobState.STOPPED, of="another")
    assert store.state(JOB) == JobState.RUNNING
    assert store.move(JOB, JobState.STOPPED, of="mine")
    assert store.state(JOB) == JobState.STOPPED


def test_a_move_that_is_refused_changes_no_field(store: JobStore) -> None:
    set_state(store, JobState.DONE)
    assert not store.fail(JOB, "too late")
    assert store.view(JOB).message == ""


def test_active_jobs_are_those_that_have_something_to_do(store: JobStore) -> None:
    for state in JobState:
        set_state(store, state)
        assert store.active_ids() == ([JOB] if state in ACTIVE else [])


def test_a_job_that_nobody_knows_is_named_in_the_error(redis: Redis) -> None:
    with pytest.raises(UnknownJobError, match="no-such-job"):
        JobStore(redis).view("no-such-job")


def test_a_job_is_created_once(store: JobStore) -> None:
    assert not store.create(job_spec())
    assert store.state(JOB) == JobState.RUNNING


def test_the_newest_job_comes_first(redis: Redis) -> None:
    store = JobStore(redis)
    for age, job_id in enumerate(("new", "older", "oldest")):
        store.create(job_spec(job_id=job_id).model_copy(update={"created_at": 1000.0 - age}))
    assert [view.job_id for view in store.views()] == ["new", "older", "oldest"]


def test_forgetting_a_job_leaves_no_key_of_it(redis: Redis, store: JobStore) -> None:
    held = lease(store, "worker")
    store.check(held, 1, 0)
    store.commit(lease(store, "other", shard_unit(1)), 1, ok=4, failed=0)
    store.forget(JOB)
    assert redis.keys(job_key(JOB) + "*") == []
    assert store.job_ids() == []


# -- planning ----------------------------------------------------------------------------------------------------------


def test_a_planner_that_lost_its_unit_counts_nothing(redis: Redis) -> None:
    store = JobStore(redis)
    store.create(job_spec())
    zombie = lease(store, "zombie", PLAN)
    expire(store, zombie)
    planner = lease(store, "planner", PLAN)
    assert store.add_shards(planner, shards=1, images=4)
    assert not store.add_shards(zombie, shards=1, images=4)
    assert not store.sync(zombie, shards=9, images=9, ok=9, failed=9, committed=[0])
    assert store.planned(zombie) == "lost"
    view = store.view(JOB)
    assert (view.shards, view.images, view.ok, view.shards_done, view.planned) == (1, 4, 0, 0, False)


def test_fields_are_noted_by_the_holder_alone(redis: Redis) -> None:
    store = JobStore(redis)
    store.create(job_spec())
    zombie = lease(store, "zombie", PLAN)
    assert store.note(zombie, epoch=1, reason="retry")
    expire(store, zombie)
    lease(store, "planner", PLAN)
    assert not store.note(zombie, epoch=2)
    assert (store.view(JOB).epoch, store.view(JOB).reason) == (1, "retry")


def test_a_job_is_ended_by_the_holder_and_told_so_again_when_it_asks_again(redis: Redis) -> None:
    store = JobStore(redis)
    store.create(job_spec(), JobState.FINISHING)
    finisher = lease(store, "finisher", FINISH)
    for _ in range(2):
        assert store.end(finisher, JobState.DONE, epoch=0, detail="4 ok, 0 failed", ok=4)
    view = store.view(JOB)
    assert (view.state, view.ok) == (JobState.DONE, 4)
    assert [event.event for event in store.events(JOB)].count("finished") == 1
    assert store.counts()["done"] == 1


@pytest.mark.parametrize("meanwhile", ["taken", "done", "next round", "cancelled"])
def test_a_finisher_that_wakes_late_does_not_end_the_job(redis: Redis, meanwhile: str) -> None:
    store = JobStore(redis)
    store.create(job_spec(), JobState.FINISHING)
    zombie = lease(store, "zombie", FINISH)
    if meanwhile in ("taken", "done"):
        expire(store, zombie)
        finisher = lease(store, "finisher", FINISH)
        if meanwhile == "done":
            assert store.end(finisher, JobState.DONE, epoch=0, detail="")
    elif meanwhile == "next round":  # which nobody has begun to finish
        store.update(JOB, epoch=1)
    else:
        set_state(store, JobState.CANCELLED)
    before = store.view(JOB)
    assert not store.end(zombie, JobState.DONE_WITH_ERRORS, epoch=0, detail="", ok=1)
    assert store.view(JOB) == before


def test_a_plan_whose_shards_are_all_committed_is_ready_to_finish(redis: Redis) -> None:
    store = JobStore(redis)
    store.create(job_spec())
    store.move(JOB, JobState.PLANNING)
    plan = lease(store, "planner", PLAN)
    store.add_shards(plan, shards=1, images=4)
    store.commit(lease(store, "worker"), 0, ok=4, failed=0)
    assert store.state(JOB) == JobState.PLANNING
    assert store.planned(plan) == JobState.FINISHING
    assert store.state(JOB) == JobState.FINISHING


def test_a_plan_without_images_is_ready_to_finish(redis: Redis) -> None:
    store = JobStore(redis)
    store.create(job_spec())
    store.move(JOB, JobState.PLANNING)
    assert store.planned(lease(store, "planner", PLAN)) == JobState.FINISHING


def test_planning_does_not_bring_a_cancelled_job_back(redis: Redis) -> None:
    store = JobStore(redis)
    store.create(job_spec())
    plan = lease(store, "planner", PLAN)
    set_state(store, JobState.CANCELLED)
    assert store.planned(plan) == JobState.CANCELLED
    assert store.state(JOB) == JobState.CANCELLED


def test_syncing_sets_the_counters_and_the_committed_shards(redis: Redis) -> None:
    store = JobStore(redis)
    store.create(job_spec())
    plan = lease(store, "planner", PLAN)
    assert store.sync(plan, shards=12, images=48, ok=7, failed=1, committed=[0, 8])
    view = store.view(JOB)
    assert (view.shards, view.images, view.ok, view.failed, view.shards_done) == (12, 48, 7, 1, 2)
    assert list(store.open_shards(JOB, 12)) == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11]


# -- commits -----------------------------------------------------------------------------------------------------------


def test_a_commit_counts_once_however_often_it_is_made(store: JobStore) -> None:
    held = lease(store, "worker")
    for _ in range(3):
        store.commit(held, 0, ok=3, failed=1)
    view = store.view(JOB)
    assert (view.ok, view.failed, view.shards_done) == (3, 1, 1)


def test_a_zombies_commit_of_a_committed_shard_changes_nothing(store: JobStore) -> None:
    zombie = lease(store, "zombie")
    expire(store, zombie)
    store.commit(lease(store, "owner"), 0, ok=4, failed=0)
    before = snapshot(store)
    assert not store.commit(zombie, 0, ok=0, failed=4)
    assert snapshot(store) == before


def test_exactly_the_last_commit_says_so(store: JobStore) -> None:
    first, second = lease(store, "a", shard_unit(0)), lease(store, "b", shard_unit(1))
    assert not store.commit(second, 1, ok=4, failed=0)
    assert store.commit(first, 0, ok=4, failed=0)
    assert store.state(JOB) == JobState.FINISHING
    assert store.commit(first, 0, ok=4, failed=0), "it may not have heard of it"
    assert not store.commit(second, 1, ok=4, failed=0)


def test_the_last_commit_of_a_cancelled_job_does_not_finish_it(store: JobStore) -> None:
    first, second = lease(store, "a", shard_unit(0)), lease(store, "b", shard_unit(1))
    store.commit(first, 0, ok=4, failed=0)
    set_state(store, JobState.CANCELLED)
    assert not store.commit(second, 1, ok=4, failed=0)
    assert store.state(JOB) == JobState.CANCELLED
    assert store.view(JOB).ok == 8


def test_a_commit_for_a_forgotten_job_does_not_bring_it_back(redis: Redis, store: JobStore) -> None:
    held = lease(store, "worker")
    store.forget(JOB)
    assert not store.commit(held, 0, ok=4, failed=0)
    assert redis.keys(job_key(JOB) + "*") == []


def test_images_of_shards_under_way_count_until_the_commit_counts_them(store: JobStore) -> None:
    held = lease(store, "worker")
    store.check(held, 3, 1)
    assert (store.view(JOB).done, store.view(JOB).failures) == (3, 1)
    store.commit(held, 0, ok=3, failed=1)
    assert (store.view(JOB).done, store.view(JOB).failures) == (4, 1)


def test_what_is_kept_of_a_shard_that_was_given_back_counts_until_another_begins_it(store: JobStore) -> None:
    held = lease(store, "worker")
    store.check(held, 3, 1, {"decode": 1})
    assert store.release(held, take_back=True, kept=Done(4, Counter(decode=1)))
    view = store.view(JOB)
    assert (view.done, view.failures, view.kinds) == (4, 1, {"decode": 1})
    store.check(lease(store, "heir"), 4, 1, {"decode": 1})
    assert store.view(JOB).done == 4


def test_what_is_kept_of_a_shard_that_was_committed_after_all_does_not_count_twice(store: JobStore) -> None:
    store.release(lease(store, "worker"), kept=Done(3, Counter()))
    set_state(store, JobState.PLANNING)
    assert store.sync(lease(store, "planner", PLAN), shards=2, images=8, ok=4, failed=0, committed=[0])
    assert store.view(JOB).done == 4


# -- attempts and blame ------------------------------------------------------------------------------------------------


def report(store: JobStore, held: Lease) -> None:
    store.report_worker(held.owner, WORKER)


def test_a_unit_given_back_does_not_spend_an_attempt(store: JobStore) -> None:
    store.release(lease(store, "worker"), take_back=True)
    assert lease(store, "worker").attempt == 1


def test_a_sleeper_gives_back_the_attempt_of_a_lease_that_ran_out(store: JobStore) -> None:
    sleeper = lease(store, "sleeper")
    expire(store, sleeper)
    assert store.release(sleeper, take_back=True)
    assert lease(store, "worker").attempt == 1


def test_the_next_worker_is_told_what_the_last_one_died_of(store: JobStore) -> None:
    lease(store, "dead")
    assert store.abandon("dead", "SIGSEGV") == [(JOB, shard_unit(0))]
    heir = lease(store, "heir")
    assert (heir.blame, heir.attempt) == ("SIGSEGV", 2)


def test_a_worker_that_was_killed_by_somebody_leaves_no_blame_and_no_attempt(store: JobStore) -> None:
    lease(store, "dead")
    assert store.abandon("dead") == [(JOB, shard_unit(0))]
    heir = lease(store, "heir")
    assert (heir.blame, heir.attempt) == ("", 1)


@pytest.mark.parametrize(("was_killed", "attempt", "blame"), [(True, 3, "SIGKILL"), (False, 1, "")])
def test_kills_cost_attempts_when_there_is_no_end_of_them_but_a_lost_server_never_does(
    store: JobStore, was_killed: bool, attempt: int, blame: str
) -> None:
    for number in range(FREE_KILLS + 2):
        dead = lease(store, f"worker-{number}")
        assert dead.attempt == (1 if not was_killed or number <= FREE_KILLS else 2)
        store.abandon(dead.owner, was_killed=was_killed)
    heir = lease(store, "heir")
    assert (heir.attempt, heir.blame) == (attempt, blame)


def test_a_planner_that_is_killed_leaves_nothing_behind(store: JobStore) -> None:
    store.update(JOB, state=JobState.PLANNING.value)
    before = set(store.redis.keys("*"))
    planner = store.claim(JOB, PLAN, "planner", 10.0)
    assert isinstance(planner, Lease)
    assert store.abandon("planner") == [(JOB, PLAN)]
    assert {key for key in set(store.redis.keys("*")) - before if b"fence" not in key and b"events" not in key} == set()


def test_a_fault_of_the_machine_costs_no_attempt_until_it_has_happened_often(store: JobStore) -> None:
    for number in range(1, FREE_KILLS + 2):
        held = lease(store, f"dead-{number}")
        assert (held.attempt, held.blame) == (1, "")
        store.abandon(held.owner, fault="its GPU failed")
    heir = lease(store, "heir")
    assert (heir.attempt, heir.blame) == (2, "its GPU failed")


def test_a_worker_that_froze_for_longer_than_its_lease_is_still_blamed(store: JobStore) -> None:
    """A frozen process is noticed by its silence, which may take longer than a lease."""
    frozen = lease(store, "frozen")
    expire(store, frozen)
    assert store.abandon("frozen", "it stopped responding") == [(JOB, shard_unit(0))]
    assert lease(store, "heir").blame == "it stopped responding"


def test_a_blame_is_told_to_the_next_worker_only(store: JobStore) -> None:
    """A node that loses power leaves no blame: that of an earlier death is not its."""
    lease(store, "dead")
    store.abandon("dead", "SIGSEGV")
    expire(store, lease(store, "heir"))
    assert lease(store, "another").blame == ""


def test_a_dead_worker_frees_nothing_that_another_has_taken_since(store: JobStore) -> None:
    dead = lease(store, "dead")
    expire(store, dead)
    heir = lease(store, "heir")
    assert store.abandon("dead", "SIGSEGV") == []
    assert store.check(heir, 0, 0) == "go"


def test_a_dead_worker_that_held_nothing_frees_nothing(store: JobStore) -> None:
    held = lease(store, "dead")
    store.commit(held, 0, ok=4, failed=0)
    assert store.abandon("dead", "SIGSEGV") == []
    assert store.abandon("never seen") == []


def test_once_the_culprit_is_found_attempts_count_anew(store: JobStore) -> None:
    for _ in range(3):
        lease(store, "dead")
        store.abandon("dead", "SIGSEGV")
    heir = lease(store, "heir")
    assert heir.attempt == 4
    store.clear_attempts(heir)
    store.abandon("heir", "SIGSEGV")
    assert lease(store, "next").attempt == 2


def test_a_finished_shard_leaves_nothing_of_its_attempts(store: JobStore) -> None:
    dead = lease(store, "dead")
    store.check(dead, 0, 0)
    store.abandon("dead", "SIGSEGV")
    store.commit(lease(store, "heir"), 0, ok=3, failed=1)
    assert {key for key in store.redis.keys("*") if names(store, key, shard_unit(0))} == set()


# -- workers -----------------------------------------------------------------------------------------------------------


def test_a_worker_shows_what_it_works_on(store: JobStore) -> None:
    held = lease(store, "worker")
    report(store, held)
    (view,) = store.workers()
    assert (view.name, view.host, view.pid, view.units) == ("worker", "node", 7, ((JOB, shard_unit(0)),))
    assert 0 <= view.beat_age_s < 5


def test_a_worker_may_be_at_a_file_whose_name_is_no_utf8(store: JobStore) -> None:
    store.report_worker("worker", WORKER | {"state": "busy", "doing": "writing caf\udce9.mp4"})
    assert [worker.doing for worker in store.workers()] == ["writing caf\\udce9.mp4"]


def test_a_worker_that_does_not_report_is_forgotten(redis: Redis, store: JobStore) -> None:
    store.report_worker("worker", WORKER)
    assert 0 < redis.ttl(worker_key("worker")) <= WORKER_TTL_S
    redis.delete(worker_key("worker"))
    assert store.workers() == []
    assert redis.smembers(WORKERS) == set()


def snapshot(store: JobStore) -> dict[str, Any]:
    """Return everything that the server holds of the job, but for the time that leases still have.

    What a worker holds is in its own record, which goes with it.
    """
    found: dict[str, Any] = {}
    for key in sorted(set(store.redis.keys("*")) - set(store.redis.keys(worker_key("*")))):
        kind = store.redis.type(key)
        found[key] = store.redis.hgetall(key) if kind == b"hash" else store.redis.dump(key)
    return found


def names(store: JobStore, key: bytes, unit: str) -> bool:
    """Return whether a key, or what it holds, is about a unit."""
    held = store.redis.hgetall(key) if store.redis.type(key) == b"hash" else {}
    return any(unit.encode() in text for text in (key, *held, *held.values()))


def test_a_job_of_another_version_is_named_as_such(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    store.update(JOB, spec='{"schema_version": 2}')
    with pytest.raises(ForeignJobError, match="another version"):
        store.view(JOB)
    assert store.views() == []
    assert "another version" in caplog.text
