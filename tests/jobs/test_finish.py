import dataclasses
import hashlib
import json
import multiprocessing
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from epochs import add_epoch, commit, failed, found, job_spec
from samples import made

from trtjob.errors import FailureKind, StorageError
from trtjob.imaging.detections import Classification
from trtjob.jobs.finish import Receipt, Summary, finish, finish_partly
from trtjob.jobs.folder import ERRORS, RECEIPT, REPORT, RESULTS, SUMMARY, JobFolder, manifest_key
from trtjob.jobs.plan import checkpoint_key, read_shard, write_shard
from trtjob.jobs.records import Record, read_records, to_line
from trtjob.jobs.spec import JobSpec
from trtjob.storage.listing import Entry

BOX = (10.0, 20.0, 110.0, 70.0)
DOCUMENTS = (RESULTS, ERRORS, SUMMARY, REPORT, RECEIPT)


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return job_spec(tmp_path)


@pytest.fixture
def folder(spec: JobSpec) -> JobFolder:
    return made(JobFolder.of(spec))


def committed(folder: JobFolder) -> None:
    """Three images with a result, two without."""
    records = [
        found("a.jpg", (0, 0.9, BOX), (1, 0.25, BOX), (1, 0.24, BOX)),
        found("b.jpg", (1, 0.8, BOX)),
        found("c.jpg", (2, 0.1, BOX)),
        failed("d.jpg"),
        failed("e.jpg", FailureKind.MISSING, "no such file"),
    ]
    add_epoch(folder, records, ignored={".txt": 3})


def files(folder: JobFolder) -> set[str]:
    return {str(path.relative_to(Path(folder.uri))) for path in Path(folder.uri).rglob("*") if path.is_file()}


def test_the_results_hold_every_image_and_the_errors_those_that_failed(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    finish(folder, spec)
    images = [record.image for record in read_records(folder.storage, RESULTS)]
    errors = [record.image for record in read_records(folder.storage, ERRORS)]
    assert (images, errors) == (["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"], ["d.jpg", "e.jpg"])


def test_the_summary_counts_images_failures_and_the_detections_shown(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    summary = finish(folder, spec)
    assert (summary.images, summary.ok, summary.failed, summary.skipped) == (5, 3, 2, 0)
    assert summary.failures == {"decode": 1, "missing": 1}
    assert list(summary.detections.items()) == [("dog", 2), ("cat", 1)]
    assert summary.images_with_detections == 2
    assert summary.busy_s == {"decode": 0.75, "infer": 1.5}  # of three shards
    assert summary.ignored == {".txt": 3}
    assert summary.devices == {"CPU": 5}


def test_the_summary_counts_images_that_may_lack_detections(folder: JobFolder, spec: JobSpec) -> None:
    full = dataclasses.replace(found("a.jpg", (0, 0.9, BOX)), is_truncated=True)
    add_epoch(folder, [full, found("b.jpg", (1, 0.8, BOX))])
    assert finish(folder, spec).truncated == 1
    assert [record.is_truncated for record in read_records(folder.storage, RESULTS)] == [True, False]


def test_the_summary_counts_images_of_which_only_the_first_page_was_looked_at(folder: JobFolder, spec: JobSpec) -> None:
    scan = dataclasses.replace(found("a.tif", (0, 0.9, BOX)), pages=12)
    add_epoch(folder, [scan, found("b.jpg", (1, 0.8, BOX))])
    assert finish(folder, spec).multi_page == 1
    assert [record.pages for record in read_records(folder.storage, RESULTS)] == [12, None]


def test_the_summary_counts_images_that_are_damaged(folder: JobFolder, spec: JobSpec) -> None:
    add_epoch(folder, [dataclasses.replace(found("a.jpg"), damage="it ends early"), found("b.jpg")])
    assert finish(folder, spec).damaged == 1


def test_the_summary_on_disk_is_the_one_returned(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    assert finish(folder, spec) == Summary.model_validate_json(folder.storage.read(SUMMARY))


def test_a_classifiers_summary_counts_the_best_class_of_each_image(tmp_path: Path) -> None:
    spec = job_spec(tmp_path, task="classify")
    folder = made(JobFolder.of(spec))
    classes = (Classification("dog", 1, 0.2), Classification("cat", 0, 0.1))
    add_epoch(folder, [Record("a.jpg", "cd" * 32, 200, 100, classes=classes)])
    assert finish(folder, spec).detections == {"dog": 1}


def test_a_multi_label_classifiers_summary_counts_the_labels_that_are_sure_enough(tmp_path: Path) -> None:
    spec = job_spec(tmp_path, task="classify")
    folder = made(JobFolder.of(spec))
    labels = (Classification("dog", 1, 0.9), Classification("cat", 0, 0.6), Classification("owl", 2, 0.1))
    records = [Record("a.jpg", "cd" * 32, 200, 100, labels=labels), Record("b.jpg", "cd" * 32, 200, 100, labels=())]
    add_epoch(folder, records)
    summary = finish(folder, spec)
    assert summary.detections == {"cat": 1, "dog": 1}
    assert summary.images_with_detections == 1


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        pytest.param("retry", {".txt": 3}, id="a retry lists no source"),
        pytest.param("update", {}, id="an update finds the files gone"),
    ],
)
def test_ignored_files_are_those_of_the_last_listing(
    folder: JobFolder, spec: JobSpec, reason: Literal["retry", "update"], expected: dict[str, int]
) -> None:
    add_epoch(folder, [failed("a.jpg")], ignored={".txt": 3})
    add_epoch(folder, [found("a.jpg")], reason=reason)
    assert finish(folder, spec).ignored == expected


def test_the_receipt_names_the_results_by_their_content(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    finish(folder, spec)
    receipt = Receipt.model_validate_json(folder.storage.read(RECEIPT))
    assert receipt.results_sha256 == hashlib.sha256(folder.storage.read(RESULTS)).hexdigest()
    assert receipt.model_sha256 == spec.model.sha256
    assert (receipt.listed, receipt.ok, receipt.failed, receipt.skipped) == (5, 3, 2, 0)


def test_an_incomplete_job_gets_no_results_and_no_receipt(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    folder.storage.delete(manifest_key(2))
    with pytest.raises(StorageError, match="shard 2 is not committed"):
        finish(folder, spec)
    assert not any(folder.storage.exists(name) for name in DOCUMENTS)


@pytest.mark.parametrize("shard_size", [1, 2, 5])
def test_results_do_not_depend_on_the_shards(folder: JobFolder, spec: JobSpec, shard_size: int) -> None:
    names = [f"{number}.jpg" for number in range(5)]
    add_epoch(folder, map(found, names), shard_size=shard_size)
    finish(folder, spec)
    assert folder.storage.read(RESULTS) == b"".join(
        b'{"image": "%d.jpg", "sha256": "%s", "width": 200, "height": 100, "detections": []}\n' % (n, b"cd" * 32)
        for n in range(5)
    )


class Stop(Exception):
    """What a worker raises to leave its work."""


def test_a_finish_that_was_stopped_and_is_run_again_gives_the_same(
    folder: JobFolder, spec: JobSpec, tmp_path: Path
) -> None:
    whole_spec = job_spec(tmp_path / "whole")
    whole = made(JobFolder.of(whole_spec))
    committed(whole)
    finish(whole, whole_spec)
    committed(folder)
    seen: list[None] = []

    def stop_at_the_third_record() -> None:
        seen.append(None)
        if len(seen) == 3:
            raise Stop

    with pytest.raises(Stop):
        finish(folder, spec, stop_at_the_third_record)
    assert not folder.storage.exists(RECEIPT)
    finish(folder, spec)
    assert files(folder) == files(whole)
    assert all(folder.storage.read(name) == whole.storage.read(name) for name in (RESULTS, ERRORS))


def asleep(meanwhile: Callable[[], object]) -> Callable[[], None]:
    """Return what sleeps, once, while others work."""
    left = [meanwhile]

    def sleep() -> None:
        if left:
            left.pop()()

    return sleep


@pytest.mark.parametrize("where", ["on_record", "before_write"])
def test_a_finish_that_sleeps_through_the_next_round_leaves_that_rounds_documents(
    folder: JobFolder, spec: JobSpec, where: str
) -> None:
    committed(folder)

    def next_round() -> None:
        finish(folder, spec)
        add_epoch(folder, [found("d.jpg"), found("f.jpg")], reason="update")
        finish(folder, spec)

    waking: dict[str, Any] = {where: asleep(next_round)}
    with suppress(StorageError):  # the others have removed what it was writing
        finish(folder, spec, **waking)
    receipt = Receipt.model_validate_json(folder.storage.read(RECEIPT))
    assert receipt.results_sha256 == hashlib.sha256(folder.storage.read(RESULTS)).hexdigest()
    assert (receipt.listed, receipt.ok, receipt.failed) == (6, 5, 1)
    assert [record.image for record in read_records(folder.storage, ERRORS)] == ["e.jpg"]
    assert Summary.model_validate_json(folder.storage.read(SUMMARY)).images == 6


@pytest.mark.parametrize("where", ["on_record", "before_write"])
def test_a_finish_that_wakes_in_the_next_round_removes_nothing_of_it_and_gives_no_receipt(
    folder: JobFolder, spec: JobSpec, where: str
) -> None:
    committed(folder)
    working = ["shards/00003.9-0123abcd.jsonl", "shards/00003.part.jsonl", "annotated/.00112233445566aa.part"]

    def next_round() -> None:
        finish(folder, spec)
        folder.open_round(1, "update")
        folder.settle_receipt()
        assert write_shard(folder, 1, 3, [Entry("f.jpg", 1, "etag")])
        for name in working:
            folder.storage.put(name, b"x")

    waking: dict[str, Any] = {where: asleep(next_round)}
    with suppress(StorageError):  # the others have removed what it was writing
        finish(folder, spec, **waking)
    assert all(folder.storage.exists(name) for name in working)
    assert not folder.storage.exists(RECEIPT)


def test_videos_without_a_copy_are_named_in_the_summary(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    why = {"a.mp4": "it is cut off"}
    assert (
        finish(folder, spec, on_results=lambda: why if folder.storage.exists(RESULTS) else {}).videos_not_copied == why
    )
    assert Summary.model_validate_json(folder.storage.read(SUMMARY)).videos_not_copied == why


def test_a_finish_whose_claim_was_lost_changes_nothing(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    folder.storage.put("shards/00000.part-0123456789abcdef.jsonl", b"x")
    before = files(folder)

    def lost() -> None:
        raise Stop

    with pytest.raises(Stop):
        finish(folder, spec, before_write=lost)
    assert files(folder) - before == set()


def test_a_folder_without_a_plan_is_not_complete(folder: JobFolder, spec: JobSpec) -> None:
    with pytest.raises(StorageError, match="has no complete plan"):
        finish(folder, spec)


def test_finishing_twice_changes_only_times(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)

    def documents() -> list[object]:
        finish(folder, spec)
        summary, receipt = (json.loads(folder.storage.read(name)) for name in (SUMMARY, RECEIPT))
        del summary["elapsed_s"], receipt["finished_at"]
        return [summary, receipt, *(folder.storage.read(name) for name in (RESULTS, ERRORS, REPORT))]

    assert documents() == documents()


def test_a_retry_that_succeeds_empties_the_errors(folder: JobFolder, spec: JobSpec) -> None:
    add_epoch(folder, [found("a.jpg"), failed("b.jpg")])
    assert finish(folder, spec).failed == 1
    add_epoch(folder, [found("b.jpg")], reason="retry")
    assert finish(folder, spec).failed == 0
    assert folder.storage.read(ERRORS) == b""


def test_what_attempts_have_left_is_removed(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    finish(folder, spec)
    expected = files(folder)
    left = [
        "shards/00000.3.jsonl",  # an attempt that lost its lease
        "shards/00001.part-0123456789abcdef.jsonl",  # a checkpoint
        ".0123456789abcdef.part",
        "annotated/deep/er/.0123456789abcdef.part",
        ".fedcba9876543210.part/a.txt",  # an export that was killed
    ]
    for name in left:
        folder.storage.put(name, b"x")
    finish(folder, spec)
    assert files(folder) == expected


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "shards/notes.jsonl", "shards/00001.old.jsonl", "x.part", ".hidden.part", "annotated/a.part.jsonl"],
)
def test_a_users_file_stays(folder: JobFolder, spec: JobSpec, name: str) -> None:
    committed(folder)
    folder.storage.put(name, b"mine")
    finish(folder, spec)
    assert folder.storage.read(name) == b"mine"


def test_leftovers_behind_a_link_are_not_touched(folder: JobFolder, spec: JobSpec, tmp_path: Path) -> None:
    committed(folder)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".0123456789abcdef.part").write_bytes(b"another's")
    (Path(folder.uri) / "link").symlink_to(outside)
    finish(folder, spec)
    assert (outside / ".0123456789abcdef.part").exists()


def test_a_second_commit_of_a_shard_changes_nothing(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    finish(folder, spec)
    before = folder.storage.read(RESULTS)
    assert not commit(folder, 0, [failed("a.jpg"), failed("b.jpg")], token="8")
    finish(folder, spec)
    assert folder.storage.read(RESULTS) == before


def peak_of_finish(spec: JobSpec) -> int:
    """Return the most bytes that are held while a job is finished."""
    import trtjob.jobs.report.counts  # noqa: F401 - loads numpy, which is not what is held

    tracemalloc.start()
    finish(JobFolder.of(spec), spec)
    return tracemalloc.get_traced_memory()[1]


@pytest.mark.slow
def test_memory_does_not_hold_the_records(folder: JobFolder, spec: JobSpec) -> None:
    add_epoch(folder, (found(f"{number:05d}.jpg", (1, 0.8, BOX)) for number in range(8000)), shard_size=256)
    add_epoch(folder, (found(f"{number:05d}.jpg") for number in range(0, 8000, 2)), reason="update", shard_size=256)
    # A process of its own: Python keeps a table of path names, which grows by megabytes at once after many tests.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        peak = alone.submit(peak_of_finish, spec).result()
    assert peak < 2_000_000  # 8,000 records, held, take 3.6 MB


# -- a job that was left -----------------------------------------------------------------------------------------------


def leave(folder: JobFolder, spec: JobSpec) -> Summary:
    summary = finish_partly(folder, spec, why="cancelled", listed=2000)
    assert summary is not None
    return summary


def images(folder: JobFolder) -> list[str]:
    return [record.image for record in read_records(folder.storage, RESULTS)]


def test_a_job_that_was_left_has_the_documents_of_what_is_committed_and_no_receipt(
    folder: JobFolder, spec: JobSpec
) -> None:
    committed(folder)
    folder.storage.delete(manifest_key(1))  # c.jpg and d.jpg
    summary = leave(folder, spec)
    assert images(folder) == ["a.jpg", "b.jpg", "e.jpg"]
    assert [record.image for record in read_records(folder.storage, ERRORS)] == ["e.jpg"]
    assert (summary.images, summary.ok, summary.failed) == (3, 2, 1)
    assert (summary.incomplete, summary.ignored) == ("cancelled: 3 of 2,000", {".txt": 3})
    assert summary == Summary.model_validate_json(folder.storage.read(SUMMARY))
    assert b"cancelled: 3 of 2,000" in folder.storage.read(REPORT)
    assert not folder.storage.exists(RECEIPT)


def test_what_a_shard_had_done_when_it_was_left_is_among_the_documents(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    folder.storage.delete(manifest_key(1))  # c.jpg and d.jpg
    key = checkpoint_key(spec, 1, read_shard(folder, 0, 1))
    folder.storage.write(key, to_line(failed("d.jpg")) + to_line(found("c.jpg", (2, 0.1, BOX))))  # as they came
    summary = leave(folder, spec)
    assert images(folder) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    assert (summary.ok, summary.failed, summary.incomplete) == (3, 2, "cancelled: 5 of 2,000")
    folder.storage.write(key, to_line(failed("d.jpg")))
    leave(folder, spec)
    assert images(folder) == ["a.jpg", "b.jpg", "d.jpg", "e.jpg"]
    another = spec.model_copy(update={"created_at": 1.0})
    leave(folder, another)  # another life of the job, whose checkpoint this is not
    assert images(folder) == ["a.jpg", "b.jpg", "e.jpg"]


def test_a_job_that_was_left_and_continued_ends_as_any_other(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    manifest = folder.storage.read(manifest_key(1))
    folder.storage.delete(manifest_key(1))
    leave(folder, spec)
    folder.storage.create(manifest_key(1), manifest)
    assert finish(folder, spec).incomplete == ""
    assert images(folder) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    assert folder.storage.exists(RECEIPT)


def test_what_is_committed_of_a_plan_that_began_anew_in_the_middle_is_sorted(folder: JobFolder, spec: JobSpec) -> None:
    folder.open_round(0, "submit")
    for shard, keys in enumerate((("b.jpg", "d.jpg"), ("e.jpg",), ("a.jpg", "c.jpg"), ("f.jpg",))):
        assert write_shard(folder, 0, shard, [Entry(key, 1, "etag") for key in keys])
        if shard != 1:
            commit(folder, shard, [found(key) for key in keys])
    leave(folder, spec)
    assert images(folder) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "f.jpg"]


def test_an_update_that_was_left_keeps_the_records_of_the_rounds_before(folder: JobFolder, spec: JobSpec) -> None:
    committed(folder)
    finish(folder, spec)
    add_epoch(folder, [found("a.jpg"), found("f.jpg"), found("g.jpg")], reason="update")
    folder.storage.delete(manifest_key(4))
    summary = leave(folder, spec)
    assert images(folder) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    assert (summary.images, summary.detections) == (6, {"dog": 1})


def test_a_round_that_was_not_begun_leaves_the_documents_alone(folder: JobFolder, spec: JobSpec) -> None:
    assert finish_partly(folder, spec, why="cancelled", listed=0) is None
    committed(folder)
    finish(folder, spec)
    before = {key: folder.storage.read(key) for key in DOCUMENTS}
    assert finish_partly(folder, spec, why="cancelled", listed=5) is None
    assert {key: folder.storage.read(key) for key in DOCUMENTS} == before
