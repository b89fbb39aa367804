"""Damaged documents of a job: refused in one line of ours, or read where the damage is harmless; never a traceback."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from converters.damage import damaged
from epochs import add_epoch, failed, found, job_spec
from samples import made

from trtjob.errors import JobError, StorageError
from trtjob.jobs.finish import finish
from trtjob.jobs.folder import ERRORS, JOB, RESULTS, JobFolder, manifest_key, plan_key, results_key
from trtjob.jobs.plan import committed_counts, kept_counts, planned_entries, read_shard
from trtjob.jobs.records import read_records
from trtjob.jobs.results import merged_records

SEED = 20261102
COUNTS = pytest.mark.parametrize("count", [1000, pytest.param(3000, marks=pytest.mark.chaos)])
LONGEST_MESSAGE = 2000
EPOCH = plan_key(0, 2)

# What reads each document.
READERS: dict[str, Callable[[JobFolder], object]] = {
    JOB: lambda folder: folder.spec(),
    EPOCH: lambda folder: folder.epochs(),
    plan_key(0, 0): lambda folder: (read_shard(folder, 0, 0), list(planned_entries(folder, folder.epochs()))),
    manifest_key(0): lambda folder: (folder.manifest(0), committed_counts(folder, 0), list(merged_records(folder))),
    results_key(0, "7"): lambda folder: list(merged_records(folder)),
    RESULTS: lambda folder: (list(read_records(folder.storage, RESULTS)), kept_counts(folder, folder.epochs()[0])),
}


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """A job's folder with all its documents."""
    folder = made(JobFolder.at(tmp_path / "job"))
    names = ["a.jpg", "b/c.jpg", "ä.jpg", "caf\udce9.jpg", "z.jpg"]
    add_epoch(folder, [failed(names[0]), *map(found, names[1:])], shard_size=3)
    folder.storage.write(JOB, job_spec(tmp_path).model_dump_json(indent=1).encode())
    finish(folder, job_spec(tmp_path))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(120)
@COUNTS
@pytest.mark.parametrize("key", READERS)
def test_a_damaged_document_is_refused_in_one_line(folder: JobFolder, key: str, count: int) -> None:
    path = Path(folder.storage.place(key))
    whole, refused = path.read_bytes(), 0
    READERS[key](folder)  # whole, it is read
    for number in range(count):
        path.write_bytes(damaged(whole, np.random.default_rng([SEED, number])))
        try:
            READERS[key](folder)
        except (StorageError, JobError) as err:
            refused += 1
            message = str(err)
            assert message, f"{number}: refused without a word"
            assert "\n" not in message, f"{number}: {message}"
            assert len(message) < LONGEST_MESSAGE, f"{number}: {message[:300]}"
    assert refused > count / 4


@pytest.mark.parametrize("key", [plan_key(0, 0), results_key(0, "7"), RESULTS])
def test_a_line_that_nests_without_end_is_refused(folder: JobFolder, key: str) -> None:
    folder.storage.write(key, b"[" * 100_000 + b"\n")
    with pytest.raises(StorageError):
        READERS[key](folder)


def test_a_number_of_shards_that_nobody_has_is_refused(folder: JobFolder) -> None:
    text = folder.storage.read(EPOCH).replace(b'"shards":2', b'"shards":2' + b"0" * 15)
    folder.storage.write(EPOCH, text)
    with pytest.raises(StorageError, match="shards: expected 10000000 or less"):
        folder.epochs()


@pytest.mark.parametrize("key", ["../../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "", "a\0.jpg"])
def test_a_key_that_leaves_its_root_is_neither_read_nor_written(folder: JobFolder, key: str) -> None:
    for reach in (folder.storage.read, folder.storage.place, lambda key: folder.storage.write(key, b"")):
        with pytest.raises(StorageError, match="leaves the folder"):
            reach(key)


def test_a_manifest_that_names_a_file_elsewhere_is_refused(folder: JobFolder, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(folder.storage.read(results_key(0, "7")))
    manifest = folder.manifest(0)
    assert manifest is not None
    forged = manifest.model_copy(update={"results": "../secret.jsonl"})
    folder.storage.write(manifest_key(0), forged.model_dump_json().encode())
    with pytest.raises(StorageError, match="leaves the folder"):
        list(merged_records(folder))
    assert folder.storage.exists(ERRORS)
