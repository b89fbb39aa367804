import json
from collections.abc import Callable
from pathlib import Path

import pytest
from epochs import failed, found, job_spec, write_records
from terminal import Outcome

from trtjob.jobs.folder import JOB, RESULTS, JobFolder
from trtjob.jobs.spec import Source

Command = Callable[..., Outcome]
BOX = (1.0, 2.0, 30.0, 40.0)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """The folder of a job over three photos, of which one has gone."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (photos / name).write_bytes(name.encode())
    spec = job_spec(tmp_path / "out").model_copy(update={"source": Source(kind="folder", root=str(photos))})
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    folder.storage.create(JOB, spec.model_dump_json().encode())
    write_records(
        Path(folder.uri) / RESULTS,
        [found("a.jpg", (1, 0.9, BOX)), found("b.jpg", (1, 0.3, BOX)), failed("c.jpg")],
    )
    return folder


def test_it_says_where_images_went_and_which_were_left(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    outcome = trtjob("sort", folder.uri, "--into", tmp_path / "sorted", "--conf", "0.5")
    assert outcome.code == 1
    assert outcome.out.split() == ["1", "dog", "1", "empty"]
    assert "left: c.jpg: No such file or directory" in outcome.err
    assert f"Take it back with: trtjob sort photos-1a2b3c4d --into {tmp_path / 'sorted'} --undo" in outcome.err


def test_it_is_taken_back_by_the_jobs_id_or_folder(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    for job in ("photos-1a2b3c4d", folder.uri):
        trtjob("sort", folder.uri, "--into", tmp_path / "sorted", "--move")
        assert not (tmp_path / "photos/a.jpg").exists()
        outcome = trtjob("sort", job, "--into", tmp_path / "sorted", "--undo")
        assert (outcome.code, outcome.out) == (0, "2 taken back\n")
        assert (tmp_path / "photos/a.jpg").exists()


def test_json_names_everything(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    into = tmp_path / "sorted"
    document = json.loads(trtjob("sort", folder.uri, "--into", into, "--link", "--json").out)
    assert document == {
        "job_id": "photos-1a2b3c4d",
        "into": str(into),
        "folders": {"dog": 2},
        "left": [{"image": "c.jpg", "why": "No such file or directory"}],
        "list": str(into / "sort-photos-1a2b3c4d.jsonl"),
    }
    document = json.loads(trtjob("sort", folder.uri, "--into", into, "--undo", "--json").out)
    assert document == {"job_id": "photos-1a2b3c4d", "taken_back": 2, "left": []}


def test_a_dry_run_touches_nothing(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    outcome = trtjob("sort", folder.uri, "--into", tmp_path / "sorted", "--by", "empty", "--move", "--dry-run")
    assert (outcome.code, outcome.out.split()) == (0, ["2", "found", "1", "failed"])
    assert not (tmp_path / "sorted").exists()


def test_what_excludes_each_other_is_refused(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    outcome = trtjob("sort", folder.uri, "--into", tmp_path / "sorted", "--move", "--link")
    assert outcome.code == 2
    assert "exclude each other" in outcome.err


@pytest.mark.parametrize("place", ["s3://bucket/sorted", "gs://bucket/sorted"])
def test_a_bucket_is_no_folder(trtjob: Command, folder: JobFolder, place: str) -> None:
    outcome = trtjob("sort", folder.uri, "--into", place)
    assert outcome.code == 2
    assert "expected a folder of this machine" in outcome.err
    assert not Path(place.partition("/")[0]).exists()


def test_a_job_without_results_is_not_sorted(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    (Path(folder.uri) / RESULTS).unlink()
    outcome = trtjob("sort", folder.uri, "--into", tmp_path / "sorted")
    assert outcome.code == 1
    assert "it has not finished" in outcome.err


def test_a_dry_run_takes_nothing_back(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    trtjob("sort", folder.uri, "--into", tmp_path / "sorted", "--move")
    outcome = trtjob("sort", folder.uri, "--into", tmp_path / "sorted", "--undo", "--dry-run")
    assert outcome.code == 2
    assert "exclude each other" in outcome.err
    assert not (tmp_path / "photos/a.jpg").exists()


def test_the_command_that_takes_it_back_can_be_pasted(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    outcome = trtjob("sort", folder.uri, "--into", tmp_path / "my photos")
    assert f"--into '{tmp_path / 'my photos'}' --undo" in outcome.err
