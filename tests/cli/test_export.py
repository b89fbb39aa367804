import os
from collections.abc import Callable
from pathlib import Path

import pytest
from epochs import job_spec, write_records
from terminal import Outcome

from trtjob.errors import FailureKind
from trtjob.imaging.detections import Classification, Detection
from trtjob.imaging.masks import Mask
from trtjob.jobs.folder import JOB, RESULTS, JobFolder
from trtjob.jobs.records import ImageFailure, Record

Command = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """The folder of a job that found a mask and keypoints."""
    spec = job_spec(tmp_path)
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    folder.storage.create(JOB, spec.model_dump_json().encode())
    detection = Detection("dog", 1, 0.9, (1.0, 2.0, 3.0, 4.0), Mask((100, 200), "0P1"), ((1.0, 2.0, 0.9),))
    write_records(Path(folder.uri) / RESULTS, [Record("a.jpg", width=200, height=100, detections=(detection,) * 3)])
    return folder


def test_what_a_format_has_no_place_for_is_said_in_one_line(trtjob: Command, folder: JobFolder) -> None:
    exported = trtjob("export", folder.uri, "--format", "csv")
    assert exported.code == 0
    assert exported.err == ("csv has no place for masks and keypoints: only boxes are written\n1 image, 3 detections\n")


@pytest.mark.parametrize(
    ("format", "told"),
    [("coco", "0 images, 0 detections; 1 failed image left out"), ("megadetector", "1 failed image with the reason")],
)
def test_what_becomes_of_failed_images_is_said(trtjob: Command, folder: JobFolder, format: str, told: str) -> None:
    failure = ImageFailure(FailureKind.DECODE, "the file is empty", 1)
    write_records(Path(folder.uri) / RESULTS, [Record("a.jpg", error=failure)])
    assert told in trtjob("export", folder.uri, "--format", format).err


def test_of_a_classifier_no_detections_are_counted(trtjob: Command, tmp_path: Path) -> None:
    spec = job_spec(tmp_path)
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"task": "classify"})})
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    folder.storage.create(JOB, spec.model_dump_json().encode())
    found = (Classification("dog", 1, 0.9),)
    write_records(Path(folder.uri) / RESULTS, [Record("a.jpg", width=200, height=100, classes=found)])
    assert trtjob("export", folder.uri, "--format", "csv").err == "1 image\n"


def test_options_of_another_format_are_refused(trtjob: Command, folder: JobFolder) -> None:
    exported = trtjob("export", folder.uri, "--format", "csv", "--polygons")
    assert exported.code == 2
    assert "--polygons is for coco and label-studio, but the format is csv" in exported.err


def test_a_pipe_a_device_and_standard_output_are_refused(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").symlink_to("pipe")
    ends = os.pipe()  # `/dev/stdout` leads to such a one in `trtjob export ... | head`
    for output in (tmp_path / "pipe", tmp_path / "stdout", f"/dev/fd/{ends[1]}", "-"):
        outcome = trtjob("export", folder.uri, "--format", "csv", "--output", output)
        assert outcome.code != 0
        assert "not a file" in outcome.err or "is not written to standard output" in outcome.err
    for end in ends:
        os.close(end)
    assert (tmp_path / "pipe").is_fifo()
    assert not Path("-").exists()


@pytest.mark.parametrize("format", ["csv", "yolo"])
@pytest.mark.parametrize("output", [".", "/", "..", "../../empty/.."])
def test_a_place_without_a_name_is_refused_in_the_words_of_the_option(
    trtjob: Command, folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, format: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    outcome = trtjob("export", folder.uri, "--format", format, "--output", output)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: --output '{output}' has no name for what is written. Give one, such as")


def test_a_job_without_a_name_is_not_the_current_folder(
    trtjob: Command, folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.uri)
    outcome = trtjob("export", "", "--format", "csv")
    assert (outcome.code, outcome.err) == (2, "error: JOB is empty. Name a job's id, or its folder\n")
    assert trtjob("export", ".", "--format", "csv").code == 0


def test_a_home_that_no_shell_has_read_is_the_users(
    trtjob: Command, folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    job = f"~/{Path(folder.uri).relative_to(tmp_path)}"
    outcome = trtjob("export", job, "--format=csv", "--output=~/found.csv")
    assert (outcome.code, outcome.out) == (0, f"{tmp_path / 'found.csv'}\n")


def test_a_link_stays_and_what_it_leads_to_is_written(trtjob: Command, folder: JobFolder, tmp_path: Path) -> None:
    (tmp_path / "shared.csv").touch()
    (tmp_path / "link.csv").symlink_to("shared.csv")
    assert trtjob("export", folder.uri, "--format", "csv", "--output", tmp_path / "link.csv").code == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "shared.csv").read_text().startswith("image,")
