"""From what a user names to a job that waits; and what the same command does the second time."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from at_once import all_at_once
from redis import Redis
from samples import job_spec, made, touch
from twice import Dying, Killed, Twice, keyspace

from trtjob.errors import JobError, StorageError, UnknownJobError
from trtjob.jobs.folder import JOB, SOURCE_LIST, JobFolder, PlanEpoch
from trtjob.jobs.plan import source_images
from trtjob.jobs.spec import JobSpec
from trtjob.jobs.states import FINISHED, TERMINAL, JobState, Priority
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import done_key, job_key
from trtjob.queue.leases import Refusal
from trtjob.queue.reconcile import reconcile
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.submit import cancel, resume, retry, stop, submit
from trtjob.queue.units import PLAN
from trtjob.storage import LocalStorage
from trtjob.storage.listing import Entry

# -- submit ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return job_spec(touch(tmp_path / "photos", "a.jpg", "b.jpg"), tmp_path / "out")


def planned(spec: JobSpec, epoch: int = 0) -> None:
    """Leave a job's folder as a finished round of planning does."""
    reason = "submit" if epoch == 0 else "update"
    JobFolder.of(spec).open_round(epoch, reason)
    plan = PlanEpoch.model_validate({"epoch": epoch, "reason": reason, "first_shard": 0, "shards": 1, "images": 2})
    made(JobFolder.of(spec)).commit_epoch(plan)


def test_a_new_job_asks_for_its_plan(store: JobStore, queue: WorkQueue, spec: JobSpec) -> None:
    assert submit(store, queue, spec) == (spec, "queued")
    assert queue.pending() == {(spec.job_id, PLAN)}
    assert store.state(spec.job_id) == JobState.QUEUED
    assert JobFolder.of(spec).spec() == spec


def test_submitting_a_job_under_way_asks_for_nothing_twice(store: JobStore, queue: WorkQueue, spec: JobSpec) -> None:
    submit(store, queue, spec)
    assert submit(store, queue, spec)[1] == "running"
    assert len(queue) == 1


def test_submitting_a_job_whose_message_was_lost_asks_again(
    redis: Redis, store: JobStore, queue: WorkQueue, spec: JobSpec
) -> None:
    submit(store, queue, spec)
    redis.delete("rq:queue:test")
    assert submit(store, queue, spec)[1] == "running"
    assert queue.pending() == {(spec.job_id, PLAN)}


def test_the_first_submissions_specification_stays_in_force(store: JobStore, queue: WorkQueue, spec: JobSpec) -> None:
    submit(store, queue, spec)
    other = spec.model_copy(update={"created_at": 1.0, "versions": {"trtjob": "99"}})
    assert submit(store, queue, other)[0] == spec


def test_a_list_is_kept_with_the_job(tmp_path: Path, store: JobStore, queue: WorkQueue) -> None:
    touch(tmp_path, "b.jpg")
    spec = job_spec(tmp_path, tmp_path / "out", kind="list")
    submit(store, queue, spec, ["b.jpg", "gone \udce9.jpg"])
    entries = list(source_images(JobFolder.of(spec), spec, LocalStorage(tmp_path)))
    assert [entry.key for entry in entries] == ["b.jpg", "gone \udce9.jpg"]
    assert entries[1] == Entry("gone \udce9.jpg", 0, "")


@pytest.mark.parametrize("write", range(4))
def test_a_submission_of_a_list_that_is_killed_at_any_write_can_be_made_again(
    tmp_path: Path, store: JobStore, queue: WorkQueue, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    spec = job_spec(touch(tmp_path / "photos", "b.jpg"), tmp_path / "out", kind="list")
    left = [write]

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", before(os.link))
        patch.setattr(Path, "replace", before(Path.replace))
        with suppress(KeyboardInterrupt):
            submit(store, queue, spec, ["b.jpg"])
    folder = JobFolder.of(spec)
    if folder.storage.exists(JOB):
        assert folder.storage.exists(SOURCE_LIST)
    submit(store, queue, spec, ["b.jpg"])
    assert [entry.key for entry in source_images(folder, spec, LocalStorage(tmp_path / "photos"))] == ["b.jpg"]


def test_a_list_that_is_gone_is_written_again(tmp_path: Path, store: JobStore, queue: WorkQueue) -> None:
    spec = job_spec(touch(tmp_path / "photos", "b.jpg"), tmp_path / "out", kind="list")
    submit(store, queue, spec, ["b.jpg"])
    JobFolder.of(spec).storage.delete(SOURCE_LIST)
    submit(store, queue, spec, ["b.jpg"])
    assert JobFolder.of(spec).storage.exists(SOURCE_LIST)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED, JobState.STOPPED])
def test_submitting_a_job_that_stopped_continues_it(
    store: JobStore, queue: WorkQueue, spec: JobSpec, state: JobState
) -> None:
    store.create(spec)
    store.update(spec.job_id, state=state.value, message="the disk is full")
    made(JobFolder.of(spec)).storage.create(JOB, spec.model_dump_json().encode())
    assert submit(store, queue, spec)[1] == "resumed"
    view = store.view(spec.job_id)
    assert (view.state, view.message, view.epoch) == (JobState.QUEUED, "", 0)
    assert queue.pending() == {(spec.job_id, PLAN)}


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_submitting_a_finished_job_looks_for_what_is_new(
    store: JobStore, queue: WorkQueue, spec: JobSpec, state: JobState
) -> None:
    submit(store, queue, spec)
    store.update(spec.job_id, state=state.value)
    assert submit(store, queue, spec)[1] == "updating"
    view = store.view(spec.job_id)
    assert (view.state, view.epoch, view.reason, view.planned) == (JobState.QUEUED, 1, "update", False)


def test_a_job_continues_on_a_server_that_never_heard_of_it(
    redis: Redis, store: JobStore, queue: WorkQueue, spec: JobSpec
) -> None:
    submit(store, queue, spec)
    planned(spec)
    redis.flushall()
    assert submit(store, queue, spec)[1] == "resumed"
    assert queue.pending() == {(spec.job_id, PLAN)}


def test_a_finished_job_is_updated_on_a_server_that_never_heard_of_it(
    redis: Redis, store: JobStore, queue: WorkQueue, spec: JobSpec
) -> None:
    submit(store, queue, spec)
    planned(spec)
    planned(spec, epoch=1)
    JobFolder.of(spec).finish_round(1, b"{}", "")
    redis.flushall()
    assert submit(store, queue, spec)[1] == "updating"
    view = store.view(spec.job_id)
    assert (view.epoch, view.reason) == (2, "update")


def test_a_round_that_was_begun_goes_on_on_a_server_that_never_heard_of_it(
    redis: Redis, store: JobStore, queue: WorkQueue, spec: JobSpec
) -> None:
    submit(store, queue, spec)
    planned(spec)
    JobFolder.of(spec).finish_round(0, b"{}", "")
    JobFolder.of(spec).open_round(1, "retry")
    redis.flushall()
    assert submit(store, queue, spec)[1] == "resumed"
    view = store.view(spec.job_id)
    assert (view.epoch, view.reason) == (1, "retry")


def test_a_job_whose_folder_was_removed_starts_anew(
    tmp_path: Path, store: JobStore, queue: WorkQueue, spec: JobSpec
) -> None:
    submit(store, queue, spec)
    store.update(spec.job_id, state=JobState.DONE.value, ok=2, images=2)
    (Path(JobFolder.of(spec).uri) / JOB).unlink()
    assert submit(store, queue, spec)[1] == "queued"
    assert store.view(spec.job_id).images == 0


def test_an_output_that_cannot_be_written_is_an_error_and_no_job(
    store: JobStore, queue: WorkQueue, tmp_path: Path
) -> None:
    touch(tmp_path, "file")
    with pytest.raises(StorageError, match="Choose another place"):
        submit(store, queue, job_spec(output=tmp_path / "file"))
    assert store.job_ids() == []


def test_a_newer_versions_folder_is_not_touched(store: JobStore, queue: WorkQueue, spec: JobSpec) -> None:
    document = json.dumps({**spec.model_dump(mode="json"), "schema_version": 2}).encode()
    made(JobFolder.of(spec)).storage.create(JOB, document)
    with pytest.raises(JobError, match="schema_version"):
        submit(store, queue, spec)
    assert store.job_ids() == []
    assert JobFolder.of(spec).storage.read(JOB) == document


# -- killed, sent twice, at once with another --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "earlier", [pytest.param(False, id="new"), pytest.param(True, id="known-from-a-folder-that-was-removed")]
)
def test_wherever_a_submission_is_killed_the_job_is_whole_or_not_there_and_the_same_command_goes_on(
    tmp_path: Path, server: EmbeddedServer, redis: Redis, earlier: bool
) -> None:
    commands = 0
    while True:
        redis.flushall()
        spec = job_spec(touch(tmp_path / "photos", "a.jpg"), tmp_path / f"out-{commands}")
        store, queue = JobStore(redis), WorkQueue(redis, "test")
        if earlier:
            store.create(spec.model_copy(update={"created_at": 1.0}), JobState.DONE, queue="test")
            redis.setbit(done_key(spec.job_id), 0, 1)
        client = Dying.from_url(server.url)
        assert isinstance(client, Dying)
        client.live_for(commands)
        try:
            submit(JobStore(client), WorkQueue(client, "test"), spec)
        except Killed:
            killed = True
        else:
            killed = False
        if redis.exists(job_key(spec.job_id)):
            state = store.state(spec.job_id)
            assert store.job_ids() == [spec.job_id]
            assert {name: count for name, count in store.counts("test").items() if count} == {state: 1}
            reconcile(store, queue)
            assert queue.pending() == ({(spec.job_id, PLAN)} if state == JobState.QUEUED else set())
        submit(store, queue, spec)
        assert queue.pending() == {(spec.job_id, PLAN)}
        assert store.view(spec.job_id).shards_done == 0
        if not killed:
            break
        commands += 1
    assert commands >= 3


def test_a_submission_whose_every_command_comes_twice_is_one(
    server: EmbeddedServer, redis: Redis, spec: JobSpec
) -> None:
    client = Twice.from_url(server.url)
    assert isinstance(client, Twice)
    store, queue = JobStore(client.recording()), WorkQueue(client, "test")
    assert submit(store, queue, spec, notify="https://hooks.example/", priority=Priority.HIGH)[1] == "queued"
    assert queue.pending() == {(spec.job_id, PLAN)}
    assert len(queue) == 1
    assert [event.event for event in store.events(spec.job_id)] == ["submitted"]
    assert cancel(store, spec.job_id)
    assert submit(store, queue, spec)[1] == "resumed"
    redis.delete("rq:queue:test")
    store.update(spec.job_id, state=JobState.DONE_WITH_ERRORS, failed=2)
    assert retry(store, queue, spec.job_id) == 2
    assert len(queue) == 1
    assert [event.event for event in store.events(spec.job_id)][1:] == ["cancelled", "continued", "continued"]


def test_of_many_that_submit_a_job_at_once_one_has_made_it(server: EmbeddedServer, redis: Redis, spec: JobSpec) -> None:
    def hand_in(_: int) -> str:
        client = Redis.from_url(server.url)
        return submit(JobStore(client), WorkQueue(client, "test"), spec)[1]

    assert all_at_once(6, hand_in).count("queued") == 1
    store = JobStore(redis)
    assert store.job_ids() == store.active_ids("test") == [spec.job_id]
    assert [event.event for event in store.events(spec.job_id)] == ["submitted"]


def test_a_job_that_was_made_by_a_call_whose_reply_was_lost_is_that_calls(
    server: EmbeddedServer, redis: Redis, spec: JobSpec
) -> None:
    client = Twice.from_url(server.url)
    assert isinstance(client, Twice)
    store = JobStore(client.recording())
    assert store.create(spec)
    assert not store.create(spec)
    once = keyspace(redis)
    first = next(call for call in client.calls if call.name == "CREATE")
    assert client.again(first) == 1
    assert keyspace(redis) == once


# -- queues ------------------------------------------------------------------------------------------------------------


def test_a_job_under_way_in_another_queue_is_refused_by_name(store: JobStore, redis: Redis, spec: JobSpec) -> None:
    submit(store, WorkQueue(redis, "alpha"), spec)
    before = keyspace(redis)
    with pytest.raises(JobError, match=r"'alpha'.*'beta'"):
        submit(store, WorkQueue(redis, "beta"), spec, priority=Priority.HIGH, notify="https://hooks.example/")
    assert keyspace(redis) == before


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_job_that_has_ended_continues_in_the_queue_of_the_command(
    store: JobStore, redis: Redis, spec: JobSpec, state: JobState
) -> None:
    alpha, beta = WorkQueue(redis, "alpha"), WorkQueue(redis, "beta")
    submit(store, alpha, spec)
    redis.delete("rq:queue:alpha")
    store.update(spec.job_id, state=state.value)
    submit(store, beta, spec)
    assert (store.queue_of(spec.job_id), len(alpha), len(beta)) == ("beta", 0, 1)
    assert (store.active_ids("alpha"), store.active_ids("beta")) == ([], [spec.job_id])
    assert set(store.counts("alpha").values()) == {0}
    assert store.counts("beta")["queued"] == 1


def test_a_job_is_retried_in_its_own_queue(store: JobStore, redis: Redis, spec: JobSpec) -> None:
    store.create(spec, JobState.DONE_WITH_ERRORS, queue="alpha")
    store.update(spec.job_id, failed=2)
    retry(store, WorkQueue(redis, "beta"), spec.job_id)
    assert WorkQueue(redis, "alpha").pending() == {(spec.job_id, PLAN)}
    assert len(WorkQueue(redis, "beta")) == 0


# -- the job of a `trtjob run` -----------------------------------------------------------------------------------------


def test_a_run_stops_its_job_which_waits_until_somebody_asks_for_it(
    store: JobStore, queue: WorkQueue, spec: JobSpec
) -> None:
    submit(store, queue, spec, runner="node-7")
    assert stop(store, spec.job_id, "node-7")
    view = store.view(spec.job_id)
    assert (view.state, view.message) == (JobState.STOPPED, f"Go on with: trtjob resume {spec.job_id}")
    assert store.claim(spec.job_id, PLAN, "worker", 10.0) == Refusal("stopped")
    assert reconcile(store, queue) == 0
    assert resume(store, queue, JobFolder.of(spec), runner="node-8") == (spec, "resumed")
    view = store.view(spec.job_id)
    assert (view.state, view.message, view.runner) == (JobState.QUEUED, "", "node-8")


@pytest.mark.parametrize(
    ("first", "second", "runner"),
    [
        pytest.param("node-7", "node-8", "node-8", id="a run takes it over from another, which may have been killed"),
        pytest.param("", "node-8", "", id="what the workers do stays theirs"),
        pytest.param("node-7", "", "", id="it is handed over to the workers"),
    ],
)
def test_a_job_under_way_is_of_one_run_or_of_the_workers(
    store: JobStore, queue: WorkQueue, spec: JobSpec, first: str, second: str, runner: str
) -> None:
    store.report_worker("node-9-1", {"host": "node", "pid": 9, "queue": queue.name})
    submit(store, queue, spec, runner=first)
    submit(store, queue, spec, runner=second)
    assert store.view(spec.job_id).runner == runner
    assert stop(store, spec.job_id, "node-8") == (runner == "node-8")
    assert not stop(store, spec.job_id, "node-7")


def test_a_run_takes_over_what_was_handed_in_to_workers_that_are_not_there(
    store: JobStore, queue: WorkQueue, spec: JobSpec
) -> None:
    store.report_worker("node-9-1", {"host": "node", "pid": 9, "queue": queue.name, "job": "another"})
    submit(store, queue, spec)
    submit(store, queue, spec, runner="node-8")
    assert store.view(spec.job_id).runner == "node-8"


@pytest.mark.parametrize("is_known", [True, False])
def test_a_finished_job_is_not_resumed(
    redis: Redis, store: JobStore, queue: WorkQueue, spec: JobSpec, is_known: bool
) -> None:
    submit(store, queue, spec)
    planned(spec)
    JobFolder.of(spec).finish_round(0, b"{}", "")
    store.update(spec.job_id, state=JobState.DONE.value)
    if not is_known:
        redis.flushall()
    with pytest.raises(JobError, match=r"has finished.*trtjob retry"):
        resume(store, queue, JobFolder.of(spec))


def test_a_job_is_resumed_on_a_server_that_never_heard_of_it(
    redis: Redis, store: JobStore, queue: WorkQueue, spec: JobSpec
) -> None:
    submit(store, queue, spec)
    planned(spec)
    redis.flushall()
    assert resume(store, queue, JobFolder.of(spec)) == (spec, "resumed")
    assert queue.pending() == {(spec.job_id, PLAN)}


def test_a_job_whose_list_is_gone_is_not_resumed_with_none(tmp_path: Path, store: JobStore, queue: WorkQueue) -> None:
    spec = job_spec(touch(tmp_path / "photos", "b.jpg"), tmp_path / "out", kind="list")
    submit(store, queue, spec, ["b.jpg"])
    JobFolder.of(spec).storage.delete(SOURCE_LIST)
    with pytest.raises(JobError, match="no list of the images"):
        resume(store, queue, JobFolder.of(spec))


# -- retry and cancel --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(frozenset(JobState) - FINISHED))
def test_only_a_finished_job_can_be_retried(store: JobStore, queue: WorkQueue, spec: JobSpec, state: JobState) -> None:
    store.create(spec, state)
    with pytest.raises(JobError, match=state):
        retry(store, queue, spec.job_id)
    assert len(queue) == 0


def test_retry_plans_a_round_of_the_failed_images(store: JobStore, queue: WorkQueue, spec: JobSpec) -> None:
    store.create(spec, JobState.DONE_WITH_ERRORS)
    store.update(spec.job_id, failed=2)
    assert retry(store, queue, spec.job_id) == 2
    view = store.view(spec.job_id)
    assert (view.state, view.epoch, view.reason) == (JobState.QUEUED, 1, "retry")
    assert queue.pending() == {(spec.job_id, PLAN)}


def test_a_run_retries_in_its_own_queue(store: JobStore, redis: Redis, spec: JobSpec) -> None:
    store.create(spec, JobState.DONE_WITH_ERRORS, queue="alpha", runner="node-7")
    store.update(spec.job_id, failed=2)
    beta = WorkQueue(redis, "beta")
    assert retry(store, beta, spec.job_id, runner="node-8") == 2
    assert (store.view(spec.job_id).runner, beta.pending()) == ("node-8", {(spec.job_id, PLAN)})


def test_retry_without_failures_does_nothing(store: JobStore, queue: WorkQueue, spec: JobSpec) -> None:
    store.create(spec, JobState.DONE)
    assert retry(store, queue, spec.job_id) == 0
    assert (store.state(spec.job_id), len(queue)) == (JobState.DONE, 0)


def test_a_running_job_is_cancelled_and_an_ended_one_stays_as_it_is(store: JobStore, spec: JobSpec) -> None:
    store.create(spec, JobState.RUNNING)
    assert cancel(store, spec.job_id)
    assert store.state(spec.job_id) == JobState.CANCELLED
    for state in TERMINAL - {JobState.STOPPED}:
        store.update(spec.job_id, state=state.value)
        assert not cancel(store, spec.job_id)
        assert store.state(spec.job_id) == state


def test_a_stopped_job_can_be_cancelled(store: JobStore, spec: JobSpec) -> None:
    store.create(spec, JobState.STOPPED)
    assert cancel(store, spec.job_id)
    assert store.state(spec.job_id) == JobState.CANCELLED


def test_cancelling_a_job_that_is_not_there_names_it(store: JobStore) -> None:
    with pytest.raises(UnknownJobError, match="no-such-job"):
        cancel(store, "no-such-job")
