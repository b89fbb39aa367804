"""`trtjob jobs` and `trtjob status` of jobs that the server knows, has forgotten, or never knew."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from epochs import add_epoch, failed, found
from epochs import job_spec as pets_spec
from redis import Redis
from samples import job_spec
from terminal import Outcome

from trtjob.jobs.finish import finish
from trtjob.jobs.folder import JOB, RECEIPT, SUMMARY, JobFolder
from trtjob.jobs.spec import JobSpec
from trtjob.jobs.states import ACTIVE, JobState
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore

Command = Callable[..., Outcome]


@pytest.fixture
def store(server: EmbeddedServer, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> JobStore:
    """A store that commands in this process find."""
    monkeypatch.setenv("TRTJOB_REDIS_URL", server.url)
    return JobStore(redis)


def made(spec: JobSpec) -> JobFolder:
    """Return the folder of a job that is handed in."""
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    folder.storage.create(JOB, spec.model_dump_json().encode())
    return folder


@pytest.fixture
def ended(tmp_path: Path) -> JobFolder:
    """The folder of a job that is done, but for one image."""
    folder = made(pets_spec(tmp_path / "trtjob-out"))
    add_epoch(folder, [found("a.jpg", (0, 0.9, (1, 2, 3, 4))), failed("b.jpg"), found("c.jpg")])
    finish(folder, folder.spec())
    return folder


@pytest.fixture
def stopped(tmp_path: Path) -> JobFolder:
    """The folder of a job of which one shard of two is committed."""
    folder = made(pets_spec(tmp_path / "stopped"))
    add_epoch(folder, [found(f"{name}.jpg") for name in "abcd"])
    (Path(folder.uri) / "shards" / "00001.json").unlink()
    return folder


def enter(store: JobStore, number: int, state: JobState, queue: str = "trtjob") -> str:
    job_id = f"photos-{number:08x}"
    spec = job_spec(job_id=job_id).model_copy(update={"created_at": 1e9 + number})
    assert store.create(spec, state, queue=queue)
    return job_id


# -- jobs list ---------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_the_newest_first_so_many_and_by_state(trtjob: Command, store: JobStore) -> None:
    states = [JobState.DONE, JobState.FAILED, JobState.DONE, JobState.RUNNING]
    names = [enter(store, number, state) for number, state in enumerate(states)]
    lines = trtjob("jobs").out.splitlines()
    assert [line.split()[0] for line in lines] == ["JOB", *reversed(names)]
    listed = json.loads(trtjob("jobs", "list", "--state", "done", "--json").out)
    assert [job["job_id"] for job in listed] == [names[2], names[0]]
    few = trtjob("jobs", "list", "--limit", "1")
    assert names[3] in few.out
    assert names[2] not in few.out
    assert "3 older ones" in few.err


def test_no_jobs_are_said_to_be_none(trtjob: Command, store: JobStore) -> None:
    assert trtjob("jobs").err.startswith("No jobs yet")
    assert trtjob("jobs", "list", "--json").out == "[]\n"
    enter(store, 1, JobState.DONE)
    assert trtjob("jobs", "list", "--state", "failed").err == "No such jobs.\n"


def test_the_help_names_every_state(trtjob: Command) -> None:
    words = trtjob("jobs", "list", "--help").out.replace(",", " ").replace(".", " ").split()
    assert [state for state in JobState if state not in words] == []


def test_a_state_that_is_none_is_wrong_usage(trtjob: Command, store: JobStore) -> None:
    outcome = trtjob("jobs", "list", "--state", "asleep")
    assert outcome.code == 2
    assert "done_with_errors" in outcome.err


# -- jobs remove -------------------------------------------------------------------------------------------------------


def test_ended_jobs_are_removed_and_their_folders_stay(
    trtjob: Command, redis: Redis, store: JobStore, ended: JobFolder
) -> None:
    spec = ended.spec()
    store.create(spec, JobState.DONE_WITH_ERRORS, queue="trtjob")
    other = enter(store, 1, JobState.CANCELLED)
    outcome = trtjob("jobs", "remove", spec.job_id, other)
    assert outcome.code == 0, outcome.err
    assert f"{spec.job_id}: removed from the queue's server; its folder stays: {ended.uri}" in outcome.out
    assert redis.keys("*") == []
    assert Path(ended.uri, "results.jsonl").is_file()


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_a_job_under_way_is_refused_and_nothing_removed(trtjob: Command, store: JobStore, state: JobState) -> None:
    done, active = enter(store, 1, JobState.DONE), enter(store, 2, state)
    outcome = trtjob("jobs", "remove", done, active)
    assert outcome.code == 1
    assert outcome.err == (
        f"error: job '{active}' is {state}, and was not removed. Stop it first with: trtjob cancel {active}\n"
    )
    assert sorted(store.job_ids()) == [done, active]


def test_a_job_that_is_not_there_is_named_and_nothing_removed(trtjob: Command, store: JobStore) -> None:
    done = enter(store, 1, JobState.DONE)
    outcome = trtjob("jobs", "remove", done, "nobody-00000000")
    assert (outcome.code, "nobody-00000000" in outcome.err) == (2, True)
    assert store.job_ids() == [done]


def test_a_job_of_another_version_is_removed_too(trtjob: Command, store: JobStore) -> None:
    done = enter(store, 1, JobState.DONE)
    store.update(done, spec='{"schema_version": 99}')
    assert trtjob("jobs", "remove", done).code == 0
    assert store.job_ids() == []


# -- status ------------------------------------------------------------------------------------------------------------


def only_job(outcome: Outcome) -> dict[str, object]:
    assert outcome.code == 0, outcome.err
    (job,) = json.loads(outcome.out)["jobs"]
    assert isinstance(job, dict)
    return job


def test_a_folder_tells_of_a_job_that_the_server_never_knew(trtjob: Command, store: JobStore, ended: JobFolder) -> None:
    job = only_job(trtjob("status", ended.uri, "--json"))
    assert (job["state"], job["images"], job["ok"], job["failed"]) == ("done_with_errors", 3, 2, 1)
    assert (job["failures"], job["shards"], job["shards_done"]) == ({"decode": 1}, 2, 2)
    assert job["finished_at"]
    assert "done, 1 failed" in trtjob("status", ended.uri).out
    assert store.job_ids() == []


def test_an_incomplete_folder_says_what_is_done_and_how_to_go_on(
    trtjob: Command, store: JobStore, stopped: JobFolder
) -> None:
    job = only_job(trtjob("status", stopped.uri, "--json"))
    assert (job["state"], job["images"], job["ok"], job["shards_done"]) == ("unknown", 4, 2, 1)
    assert f"Go on with: trtjob resume {stopped.uri}" in trtjob("status", stopped.uri, "--watch").out


def test_a_folder_of_a_job_that_the_server_knows_shows_how_it_stands_there(
    trtjob: Command, store: JobStore, stopped: JobFolder
) -> None:
    store.create(stopped.spec(), JobState.RUNNING, queue="trtjob")
    assert only_job(trtjob("status", stopped.uri, "--json"))["state"] == "running"


def test_a_copy_of_a_folder_is_not_the_job_that_the_server_knows(
    trtjob: Command, store: JobStore, ended: JobFolder, tmp_path: Path
) -> None:
    store.create(ended.spec(), JobState.RUNNING, queue="trtjob")
    shutil.copytree(ended.uri, tmp_path / "copy")
    assert only_job(trtjob("status", tmp_path / "copy", "--json"))["state"] == "done_with_errors"


def test_a_folder_is_read_while_the_server_is_away(
    trtjob: Command, ended: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTJOB_REDIS_URL", "redis://127.0.0.1:1/0")
    outcome = trtjob("status", ended.uri, "--json")
    assert only_job(outcome)["state"] == "done_with_errors"
    assert "cannot reach the queue's server" in outcome.err


@pytest.mark.parametrize("command", [["status"], ["export", "--format", "csv"]])
def test_an_id_that_the_server_has_forgotten_is_found_in_the_usual_output(
    trtjob: Command, store: JobStore, ended: JobFolder, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(Path(ended.uri).parent.parent)
    outcome = trtjob(*command, Path(ended.uri).name)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("by_folder", [True, False])
def test_the_failed_images_of_a_job_that_was_forgotten_are_tried_again(
    trtjob: Command, store: JobStore, ended: JobFolder, monkeypatch: pytest.MonkeyPatch, by_folder: bool
) -> None:
    spec = ended.spec()
    monkeypatch.chdir(Path(ended.uri).parent.parent)
    outcome = trtjob("retry", f"trtjob-out/{spec.job_id}" if by_folder else spec.job_id, "--queue")
    assert outcome.code == 0, outcome.err
    assert outcome.err.startswith(f"{spec.job_id}: 1 failed image to run again\n")
    view = store.view(spec.job_id)
    assert (view.state, view.epoch, view.reason, view.queue) == (JobState.QUEUED, 1, "retry", "trtjob")


def test_a_job_whose_folder_was_moved_is_not_retried(
    trtjob: Command, store: JobStore, ended: JobFolder, tmp_path: Path
) -> None:
    Path(ended.uri).rename(tmp_path / "moved")
    outcome = trtjob("retry", tmp_path / "moved")
    assert (outcome.code, "was moved to" in outcome.err) == (1, True)
    assert store.job_ids() == []


def test_an_incomplete_job_that_was_forgotten_is_not_retried(
    trtjob: Command, store: JobStore, stopped: JobFolder
) -> None:
    outcome = trtjob("retry", stopped.uri)
    assert (outcome.code, f"Go on with: trtjob resume {stopped.uri}" in outcome.err) == (1, True)
    assert store.job_ids() == []


def test_a_folder_that_is_no_jobs_says_so(trtjob: Command, store: JobStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = trtjob("status", tmp_path / "empty")
    assert outcome.code == 1
    assert "is not a job's folder" in outcome.err


@pytest.mark.parametrize("command", ["status", "report", "open"])
def test_a_bucket_without_a_name_holds_no_job(trtjob: Command, command: str) -> None:
    assert trtjob(command, "s3://") == Outcome(
        2, "", "error: JOB 's3://' names no bucket. Example: s3://bucket/photos\n"
    )


def test_status_shows_so_many_and_says_how_many_more_there_are(trtjob: Command, store: JobStore) -> None:
    running, *_, newest = [enter(store, number, JobState.DONE if number else JobState.RUNNING) for number in range(5)]
    outcome = trtjob("status", "--limit", "1")
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["JOB", newest, running, "..."]
    assert "3 older ones" in outcome.out


@pytest.mark.parametrize(("queue", "shown"), [("trtjob", False), ("alpha", True)])
def test_status_names_a_queue_that_is_not_the_usual_one(
    trtjob: Command, store: JobStore, queue: str, shown: bool
) -> None:
    job = enter(store, 1, JobState.RUNNING, queue)
    for command in (["status"], ["status", job], ["jobs", "list"]):
        assert ("alpha" in trtjob(*command).out) == shown
    assert only_job(trtjob("status", "--json"))["queue"] == queue


# -- cancel and resume -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.STOPPED, JobState.CANCELLED])
def test_a_cancelled_job_has_results_that_can_be_exported_and_no_receipt(
    trtjob: Command, store: JobStore, stopped: JobFolder, state: JobState
) -> None:
    spec = stopped.spec()
    store.create(spec, state)
    store.update(spec.job_id, images=4, ok=2)
    cancelled = trtjob("cancel", spec.job_id)
    assert (cancelled.code, cancelled.out) == (0, f"{spec.job_id}: cancelled\n")
    assert cancelled.err == f"cancelled: 2 of 4 images: {stopped.uri}/results.jsonl\n"
    assert json.loads(stopped.storage.read(SUMMARY))["incomplete"] == "cancelled: 2 of 4"
    assert not stopped.storage.exists(RECEIPT)
    exported = trtjob("export", spec.job_id, "--format", "csv")
    assert (exported.code, "cancelled: 2 of 4" in exported.err) == (0, True)


def test_a_cancelled_job_whose_folder_is_elsewhere_says_that_nothing_was_written(
    trtjob: Command, store: JobStore
) -> None:
    job_id = enter(store, 1, JobState.RUNNING)
    cancelled = trtjob("cancel", job_id)
    assert (cancelled.code, store.state(job_id)) == (0, JobState.CANCELLED)
    assert cancelled.err.startswith(f"No results were written: '/out/{job_id}' is not a job's folder")
    assert cancelled.err.endswith(f"Where its folder is, this writes them: trtjob cancel {job_id}\n")


@pytest.mark.parametrize("is_known", [True, False])
def test_a_job_is_queued_to_go_on_where_that_is_asked_for(
    trtjob: Command, store: JobStore, stopped: JobFolder, is_known: bool
) -> None:
    spec = stopped.spec()
    if is_known:
        store.create(spec, JobState.STOPPED, runner="node-7", queue="trtjob")
    outcome = trtjob("resume", spec.job_id if is_known else stopped.uri, "--queue")
    assert outcome.code == 0, outcome.err
    assert f"{spec.job_id}: continues with what is missing" in outcome.err
    view = store.view(spec.job_id)
    assert (view.state, view.runner) == (JobState.QUEUED, "")
    assert "Start one with: trtjob worker" in outcome.err


def test_a_finished_job_is_not_resumed(trtjob: Command, store: JobStore, ended: JobFolder) -> None:
    outcome = trtjob("resume", ended.uri, "--queue")
    assert (outcome.code, "has finished" in outcome.err) == (1, True)
