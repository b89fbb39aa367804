import tempfile
from pathlib import Path

import pytest
from epochs import add_epoch, failed, found
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import made

from trtjob.errors import StorageError
from trtjob.jobs.folder import JobFolder, manifest_key, plan_key, results_key
from trtjob.jobs.records import Record
from trtjob.jobs.results import merged_records

# Names that sort in unlike ways by code point, by locale and by path; `\udcff` is a byte that is no UTF-8.
NAMES = st.sampled_from(
    ["a.jpg", "a/b.jpg", "a-b.jpg", "A.jpg", "ä.jpg", "z.jpg", "\udcff.jpg", "😀.jpg", "10.jpg", "9.jpg"]
)
ROUNDS = st.lists(st.tuples(st.sets(NAMES), st.integers(min_value=1, max_value=4)), max_size=4)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return made(JobFolder.at(tmp_path / "job"))


def test_records_come_sorted_by_code_point_whatever_the_shards(folder: JobFolder) -> None:
    names = ["b.jpg", "ä.jpg", "a/z.jpg", "a-b.jpg", "B.jpg"]
    add_epoch(folder, map(found, names), shard_size=2)
    assert [record.image for record in merged_records(folder)] == ["B.jpg", "a-b.jpg", "a/z.jpg", "b.jpg", "ä.jpg"]


def test_the_record_of_the_last_epoch_counts(folder: JobFolder) -> None:
    add_epoch(folder, [found("a.jpg"), failed("b.jpg"), found("c.jpg")])
    add_epoch(folder, [found("b.jpg")], reason="retry")
    assert list(merged_records(folder)) == [found("a.jpg"), found("b.jpg"), found("c.jpg")]


def test_an_error_of_the_last_epoch_counts_too(folder: JobFolder) -> None:
    add_epoch(folder, [found("a.jpg")])
    add_epoch(folder, [failed("a.jpg")], reason="update")
    assert list(merged_records(folder)) == [failed("a.jpg")]


def test_a_job_without_images_has_no_records(folder: JobFolder) -> None:
    add_epoch(folder, [])
    assert list(merged_records(folder)) == []


def test_a_shard_that_is_not_committed_is_named(folder: JobFolder) -> None:
    add_epoch(folder, map(found, ["a.jpg", "b.jpg", "c.jpg"]))
    folder.storage.delete(manifest_key(1))
    with pytest.raises(StorageError, match="shard 1 is not committed"):
        list(merged_records(folder))


def test_results_that_are_gone_are_named(folder: JobFolder) -> None:
    add_epoch(folder, [found("a.jpg")])
    folder.storage.delete(results_key(0, "7"))
    with pytest.raises(StorageError, match=r"cannot read .*00000\.7\.jsonl: it is not there"):
        list(merged_records(folder))


@pytest.mark.parametrize(
    ("images", "planned", "message"),
    [
        pytest.param(["a.jpg"], ["a.jpg", "b.jpg"], "lists 'b.jpg', but the shards hold no record", id="lost"),
        pytest.param(["a.jpg", "b.jpg"], ["a.jpg"], "lists no more images, but .* a record of 'b.jpg'", id="invented"),
        pytest.param(["a.jpg"], ["b.jpg"], "lists 'b.jpg', but .* a record of 'a.jpg'", id="another"),
        pytest.param(["a.jpg"], ["\udcff.jpg"], r"lists '\\udcff.jpg', but", id="name that is no UTF-8"),
    ],
)
def test_records_that_are_not_those_of_the_plan_are_refused(
    folder: JobFolder, tmp_path: Path, images: list[str], planned: list[str], message: str
) -> None:
    other = made(JobFolder.at(tmp_path / "other"))
    add_epoch(folder, map(found, images))
    add_epoch(other, map(found, planned))
    folder.storage.write(plan_key(0, 0), other.storage.read(plan_key(0, 0)))
    with pytest.raises(StorageError, match=message):
        list(merged_records(folder))


def test_a_plan_that_has_lost_images_together_with_their_results_is_refused(folder: JobFolder, tmp_path: Path) -> None:
    other = made(JobFolder.at(tmp_path / "other"))
    add_epoch(folder, [found("a.jpg"), found("b.jpg")])
    add_epoch(other, [found("a.jpg")])
    for key in (plan_key(0, 0), results_key(0, "7")):
        folder.storage.write(key, other.storage.read(key))
    with pytest.raises(StorageError, match="round 0 planned 2 images, but the plan holds 1: a file there is damaged"):
        list(merged_records(folder))


@pytest.mark.parametrize("listed", [2, 3])
def test_a_plan_that_has_less_than_the_source_listed_last_is_refused(folder: JobFolder, listed: int) -> None:
    add_epoch(folder, [found("a.jpg")], listed=1)
    add_epoch(folder, [found("b.jpg")], reason="update", listed=listed)
    add_epoch(folder, [found("a.jpg")], reason="retry")
    if listed == 2:
        assert len(list(merged_records(folder))) == 2
        return
    with pytest.raises(StorageError, match="the source listed 3 images, but the plan holds 2"):
        list(merged_records(folder))


@pytest.mark.slow
@given(ROUNDS)
@settings(max_examples=40)  # each example syncs files to a disk
def test_merging_equals_a_dict_that_later_epochs_update(rounds: list[tuple[set[str], int]]) -> None:
    expected: dict[str, Record] = {}
    with tempfile.TemporaryDirectory() as root:
        folder = made(JobFolder.at(Path(root)))
        for number, (names, shard_size) in enumerate(rounds):
            records = {name: found(name, width=number + 1) for name in names}
            add_epoch(folder, records.values(), reason="update" if number else "submit", shard_size=shard_size)
            expected.update(records)
        assert list(merged_records(folder)) == [expected[name] for name in sorted(expected)]
