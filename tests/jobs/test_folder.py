from pathlib import Path

import pytest
from epochs import add_epoch, commit, failed, found, job_spec
from samples import made

from trtjob.errors import JobError, StorageError
from trtjob.jobs.folder import JOB, JobFolder, annotated_key, manifest_key, plan_key, results_key, suffixed_key


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return made(JobFolder.at(tmp_path / "job"))


def test_a_jobs_folder_lies_in_its_output(tmp_path: Path) -> None:
    assert Path(JobFolder.of(job_spec(tmp_path)).uri) == tmp_path / "photos-1a2b3c4d"


def test_the_specification_survives_the_folder(folder: JobFolder, tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    folder.storage.write(JOB, spec.model_dump_json().encode())
    assert folder.spec() == spec


def test_a_folder_without_a_specification_is_no_jobs(folder: JobFolder) -> None:
    with pytest.raises(JobError, match=r"is not a job's folder: it has no job\.json") as caught:
        folder.spec()
    assert caught.value.job_id == "job"


def test_a_specification_of_a_newer_version_is_refused(folder: JobFolder, tmp_path: Path) -> None:
    newer = job_spec(tmp_path).model_dump_json().replace('"schema_version":1', '"schema_version":2')
    folder.storage.write(JOB, newer.encode())
    with pytest.raises(JobError, match=r"cannot read .*job\.json: schema_version: expected 1\. Was it") as caught:
        folder.spec()
    assert "\n" not in str(caught.value)


def test_epochs_come_in_their_order(folder: JobFolder) -> None:
    for number in range(12):
        add_epoch(folder, [found(f"{number}.jpg")], reason="update")
    assert [epoch.epoch for epoch in folder.epochs()] == list(range(12))
    assert [epoch.first_shard for epoch in folder.epochs()] == list(range(12))


def test_an_epoch_is_committed_once(folder: JobFolder) -> None:
    epoch = add_epoch(folder, [found("a.jpg")])
    folder.commit_epoch(epoch.model_copy(update={"images": 99}))
    assert folder.epochs() == [epoch]


def test_of_two_attempts_the_first_commits_and_the_losers_results_go(folder: JobFolder) -> None:
    assert commit(folder, 0, [found("a.jpg")], token="1")
    assert not commit(folder, 0, [failed("a.jpg")], token="2")
    manifest = folder.manifest(0)
    assert manifest is not None
    assert (manifest.results, manifest.ok) == (results_key(0, "1"), 1)
    assert folder.storage.list("shards") == ["00000.1.jsonl", "00000.json"]


def test_an_attempt_that_commits_twice_keeps_its_results(folder: JobFolder) -> None:
    assert commit(folder, 0, [found("a.jpg")], token="1")
    assert not commit(folder, 0, [found("a.jpg")], token="1")
    assert folder.storage.exists(results_key(0, "1"))


def test_a_shard_that_is_not_committed_has_no_manifest(folder: JobFolder) -> None:
    assert folder.manifest(0) is None


def test_a_damaged_manifest_is_named(folder: JobFolder) -> None:
    folder.storage.write(manifest_key(3), b'{"shard": 3')
    with pytest.raises(StorageError, match=r"00003\.json is damaged: .*Remove it and run"):
        folder.manifest(3)


def test_a_damaged_epoch_is_named(folder: JobFolder) -> None:
    add_epoch(folder, [found("a.jpg")])
    folder.storage.write(plan_key(0, 1), b"")
    with pytest.raises(StorageError, match=r"00000-00001\.jsonl is damaged: .*Remove the whole folder"):
        folder.epochs()


def test_a_missing_manifest_is_named(folder: JobFolder) -> None:
    commit(folder, 0, [found("a.jpg")])
    with pytest.raises(StorageError, match=r"shard 1 is not committed"):
        list(folder.manifests(range(2)))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param("a/b.jpg", "annotated/a/b.jpg", id="a kind that is written"),
        pytest.param("a/B.PNG", "annotated/a/B.PNG", id="in capitals"),
        pytest.param("a/b.gif", "annotated/a/b.gif.jpg", id="a kind that is not"),
        pytest.param("a/b.tif#2", "annotated/a/b.tif#2.jpg", id="a page"),
        pytest.param("a/b.mp4#t=01.040", "annotated/a/b.mp4#t=01.040.jpg", id="a frame"),
        pytest.param("a.d/b", "annotated/a.d/b.copy.jpg", id="no suffix"),
        pytest.param("b.JPG_large", "annotated/b.JPG_large.copy.jpg", id="unknown suffix"),
        pytest.param("b.gif.jpg", "annotated/b.gif.jpg.copy.jpg", id="called as a copy is"),
    ],
)
def test_an_annotated_copy_mirrors_its_image(key: str, expected: str) -> None:
    assert annotated_key(key) == expected


def test_no_two_images_have_one_copy() -> None:
    suffixes = ("", ".jpg", ".gif", ".JPG_large", ".copy.jpg", ".png", ".copy", "#1")
    names = [f"a{first}{second}{third}" for first in suffixes for second in suffixes for third in ("", ".jpg")]
    keys = {name for name in names if "#1" not in name or name.endswith("#1")}
    assert len({annotated_key(key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        pytest.param("x" * 251, True, id="fits exactly"),
        pytest.param("x" * 252, False, id="one byte more"),
        pytest.param("ü" * 126, False, id="bytes count, not characters"),
        pytest.param("\udcff" * 251, True, id="a byte that is no UTF-8 is one byte"),
    ],
)
def test_a_suffix_never_makes_a_name_too_long_for_a_file(tmp_path: Path, name: str, stays: bool) -> None:
    key = suffixed_key(f"folder/{name}", ".txt")
    assert key.startswith("folder/")
    assert key.endswith(".txt")
    assert (key == f"folder/{name}.txt") is stays
    JobFolder.at(tmp_path).storage.put(key, b"")


def test_long_names_that_differ_keep_differing() -> None:
    assert suffixed_key("x" * 254 + "a", ".txt") != suffixed_key("x" * 254 + "b", ".txt")
