"""From what a user names to a job that waits; and what the same command does the second time."""

import json
from pathlib import Path

import pytest
from redis import Redis
from samples import job_spec, touch
from users import as_nobody

from trtjob.errors import ConfigError, JobError, StorageError, UnknownJobError
from trtjob.jobs.folder import JOB, RECEIPT, JobFolder, PlanEpoch
from trtjob.jobs.listing import Entry
from trtjob.jobs.models import JobSpec, Source
from trtjob.jobs.plan import source_images
from trtjob.jobs.queue import WorkQueue
from trtjob.jobs.states import FINISHED, TERMINAL, JobState
from trtjob.jobs.storage import LocalStorage
from trtjob.jobs.store import JobStore
from trtjob.jobs.submit import cancel, check_output, retry, source_from, submit
from trtjob.jobs.units import PLAN

# -- the source --------------------------------------------------------------------------------------------------------


def test_a_folder_is_listed_by_the_workers(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg")
    assert source_from(tmp_path / "photos") == (Source(kind="folder", root=str(tmp_path / "photos")), [])


def test_a_folder_is_known_by_the_place_that_its_links_lead_to(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg")
    (tmp_path / "link").symlink_to("photos")
    assert source_from(tmp_path / "link") == source_from(tmp_path / "photos")


def test_one_file_is_a_list_of_one(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg")
    source, keys = source_from(tmp_path / "photos" / "a.jpg")
    assert (source.kind, source.root, keys) == ("list", str(tmp_path / "photos"), ["a.jpg"])


def test_a_list_is_rooted_where_its_files_part(tmp_path: Path) -> None:
    lines = [f"{tmp_path}/a/b/1.jpg", f"{tmp_path}/a/c/d/2.jpg", f"{tmp_path}/a/c/3.jpg"]
    source, keys = source_from(lines)
    assert (source.root, keys) == (str(tmp_path / "a"), ["b/1.jpg", "c/3.jpg", "c/d/2.jpg"])


def test_a_list_of_files_of_one_folder_and_of_one_below_is_rooted_at_the_upper(tmp_path: Path) -> None:
    source, keys = source_from([f"{tmp_path}/a/1.jpg", f"{tmp_path}/a/b/2.jpg"])
    assert (source.root, keys) == (str(tmp_path / "a"), ["1.jpg", "b/2.jpg"])


def test_folders_whose_names_begin_alike_are_not_one(tmp_path: Path) -> None:
    source, keys = source_from([f"{tmp_path}/photo/1.jpg", f"{tmp_path}/photos/1.jpg"])
    assert (source.root, keys) == (str(tmp_path), ["photo/1.jpg", "photos/1.jpg"])


@pytest.mark.parametrize(
    "again",
    [
        pytest.param("{root}/a/1.jpg", id="twice"),
        pytest.param("a/1.jpg", id="relative"),
        pytest.param("./a//1.jpg", id="dots"),
        pytest.param("b/../a/1.jpg", id="up and down"),
        pytest.param("~/../a/1.jpg", id="from home"),
    ],
)
def test_one_file_named_in_two_ways_is_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg")
    monkeypatch.chdir(tmp_path)  # and conftest puts `~` into tmp_path/user
    source, keys = source_from([f"{tmp_path}/a/1.jpg", f"{tmp_path}/a/2.jpg", again.format(root=tmp_path)])
    assert (source.root, keys) == (str(tmp_path / "a"), ["1.jpg", "2.jpg"])


def test_a_line_may_begin_or_end_with_a_space_as_file_names_do(tmp_path: Path) -> None:
    _, keys = source_from([f"{tmp_path}/a .jpg ", f"{tmp_path}/b.jpg"])
    assert keys == ["a .jpg ", "b.jpg"]


def test_a_tilde_stands_for_home_only_before_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, keys = source_from(["~scan.jpg", "./~/a.jpg", "~/b.jpg"])
    assert keys == ["user/b.jpg", "~/a.jpg", "~scan.jpg"]


def test_a_link_in_a_list_keeps_the_name_under_which_the_user_knows_it(tmp_path: Path) -> None:
    touch(tmp_path, "real.jpg")
    (tmp_path / "known.jpg").symlink_to("real.jpg")
    assert source_from(tmp_path / "known.jpg")[1] == ["known.jpg"]


def test_the_order_of_the_lines_does_not_matter(tmp_path: Path) -> None:
    lines = [f"{tmp_path}/{name}" for name in ("a-b.jpg", "a/b.jpg", "é.jpg", "𝄞.jpg", "\uffee.jpg")]
    assert source_from(lines) == source_from(reversed(lines))


def test_a_list_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="one path on each line"):
        source_from(["", "  \n"])


def test_a_list_that_is_parted_by_zero_bytes_says_so() -> None:
    with pytest.raises(ConfigError, match=r"zero byte.*one path on each line"):
        source_from(["/photos/a.jpg\0/photos/b.jpg\0"])


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such folder or file: '.*/nowhere'"):
        source_from(tmp_path / "nowhere")


def test_a_folder_without_images_says_which_files_are_images(tmp_path: Path) -> None:
    touch(tmp_path / "docs", "read.me")
    with pytest.raises(ConfigError, match=r"no image in .*jpeg"):
        source_from(tmp_path / "docs")


def test_a_folder_that_may_not_be_listed_is_named(public_folder: Path) -> None:
    touch(public_folder / "closed", "a.jpg").chmod(0)
    with as_nobody(), pytest.raises(ConfigError, match=r"cannot list the folder .*Permission denied"):
        source_from(public_folder / "closed")


def test_a_source_whose_path_is_no_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Below it any name goes; the folder itself is written into documents that are UTF-8."""
    folder = touch(tmp_path / "caf\udce9", "a.jpg", "b.jpg")
    for paths in (folder, [str(folder / "a.jpg"), str(folder / "b.jpg")]):
        with pytest.raises(ConfigError, match=r"UTF-8.*Rename"):
            source_from(paths)


# -- the output --------------------------------------------------------------------------------------------------------


def test_an_output_in_the_source_is_refused(tmp_path: Path) -> None:
    source = Source(kind="folder", root=str(tmp_path / "photos"))
    for inside in ("photos", "photos/out", "photos/a/../out"):
        with pytest.raises(ConfigError, match="outputs would become inputs"):
            check_output(tmp_path / inside, source)


def test_an_output_that_a_link_leads_into_the_source_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg")
    (tmp_path / "out").symlink_to("photos")
    with pytest.raises(ConfigError, match="outputs would become inputs"):
        check_output(tmp_path / "out" / "new", Source(kind="folder", root=str(tmp_path / "photos")))


def test_an_output_beside_the_source_is_fine(tmp_path: Path) -> None:
    source = Source(kind="folder", root=str(tmp_path / "photos"))
    assert check_output(tmp_path / "photos-out", source) == tmp_path / "photos-out"


def test_a_list_may_have_its_output_beside_its_files(tmp_path: Path) -> None:
    assert check_output(tmp_path / "out", Source(kind="list", root=str(tmp_path))) == tmp_path / "out"


def test_a_relative_output_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_output(Path("out"), Source(kind="folder", root="/photos")) == tmp_path / "out"
    assert check_output(Path("~/out"), Source(kind="folder", root="/photos")) == tmp_path / "user" / "out"
    assert check_output(Path("~out"), Source(kind="folder", root="/photos")) == tmp_path / "~out"


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "out")
    with pytest.raises(ConfigError, match="is a file"):
        check_output(tmp_path / "out", Source(kind="folder", root="/photos"))


def test_an_output_whose_path_is_no_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"UTF-8.*--output"):
        check_output(tmp_path / "caf\udce9", Source(kind="folder", root="/photos"))


# -- submit ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(redis: Redis) -> JobStore:
    return JobStore(redis)


@pytest.fixture
def queue(redis: Redis) -> WorkQueue:
    return WorkQueue(redis, "test")


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return job_spec(touch(tmp_path / "photos", "a.jpg", "b.jpg"), tmp_path / "out")


def planned(spec: JobSpec, epoch: int = 0) -> None:
    """Leave a job's folder as a finished round of planning does."""
    reason = "submit" if epoch == 0 else "update"
    plan = PlanEpoch.model_validate({"epoch": epoch, "reason": reason, "first_shard": 0, "shards": 1, "images": 2})
    JobFolder.of(spec).commit_epoch(plan)


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


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_submitting_a_job_that_stopped_continues_it(
    store: JobStore, queue: WorkQueue, spec: JobSpec, state: JobState
) -> None:
    store.create(spec)
    store.update(spec.job_id, state=state.value, message="the disk is full")
    JobFolder.of(spec).storage.create(JOB, spec.model_dump_json().encode())
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
    JobFolder.of(spec).storage.create(RECEIPT, b"{}")
    redis.flushall()
    assert submit(store, queue, spec)[1] == "updating"
    view = store.view(spec.job_id)
    assert (view.epoch, view.reason) == (2, "update")


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
    with pytest.raises(StorageError, match="--output"):
        submit(store, queue, job_spec(output=tmp_path / "file"))
    assert store.job_ids() == []


def test_a_newer_versions_folder_is_not_touched(store: JobStore, queue: WorkQueue, spec: JobSpec) -> None:
    document = json.dumps({**spec.model_dump(mode="json"), "schema_version": 2}).encode()
    JobFolder.of(spec).storage.create(JOB, document)
    with pytest.raises(JobError, match="schema_version"):
        submit(store, queue, spec)
    assert store.job_ids() == []
    assert JobFolder.of(spec).storage.read(JOB) == document


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


def test_retry_without_failures_does_nothing(store: JobStore, queue: WorkQueue, spec: JobSpec) -> None:
    store.create(spec, JobState.DONE)
    assert retry(store, queue, spec.job_id) == 0
    assert (store.state(spec.job_id), len(queue)) == (JobState.DONE, 0)


def test_a_running_job_is_cancelled_and_an_ended_one_stays_as_it_is(store: JobStore, spec: JobSpec) -> None:
    store.create(spec, JobState.RUNNING)
    assert cancel(store, spec.job_id)
    assert store.state(spec.job_id) == JobState.CANCELLED
    for state in TERMINAL:
        store.update(spec.job_id, state=state.value)
        assert not cancel(store, spec.job_id)
        assert store.state(spec.job_id) == state


def test_cancelling_a_job_that_is_not_there_names_it(store: JobStore) -> None:
    with pytest.raises(UnknownJobError, match="no-such-job"):
        cancel(store, "no-such-job")
