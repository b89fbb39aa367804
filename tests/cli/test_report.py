from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from epochs import add_epoch, found, job_spec
from report_page import page_of, report
from report_truth import coco
from samples import made
from terminal import Outcome

from trtjob.jobs.finish import finish
from trtjob.jobs.folder import JOB, JobFolder
from trtjob.jobs.report.overlap import xywh
from trtjob.jobs.report.truth import TrueObject

Command = Callable[..., Outcome]
BOX = (10.0, 20.0, 110.0, 70.0)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """The folder of a job that is planned and done, and not finished."""
    spec = job_spec(tmp_path)
    folder = made(JobFolder.of(spec))
    folder.storage.create(JOB, spec.model_dump_json().encode())
    add_epoch(folder, [found("a.jpg", (0, 0.9, BOX)), found("b.jpg", (0, 0.3, BOX))])
    return folder


@pytest.fixture
def finished(folder: JobFolder) -> JobFolder:
    finish(folder, folder.spec())
    return folder


def test_a_report_is_made_again_with_another_threshold(trtjob: Command, finished: JobFolder) -> None:
    made_again = trtjob("report", finished.uri, "--conf", "0.4")
    assert (made_again.code, made_again.out) == (0, f"{finished.uri}/report.html\n")
    assert page_of(finished).index["threshold"] == 4000


def test_a_report_is_made_again_as_it_was(trtjob: Command, finished: JobFolder) -> None:
    before = finished.storage.read("report.html")
    finished.storage.delete("report.html")
    assert trtjob("report", finished.uri).code == 0
    assert finished.storage.read("report.html") == before


def with_photos(folder: JobFolder, photos: Path) -> JobFolder:
    """Give a finished job a source, in which b.jpg is no image."""
    spec = folder.spec()
    source = spec.source.model_copy(update={"root": str(photos)})
    folder.storage.write(JOB, spec.model_copy(update={"source": source}).model_dump_json().encode())
    photos.mkdir()
    cv2.imwrite(str(photos / "a.jpg"), np.full((100, 200, 3), 200, np.uint8))
    (photos / "b.jpg").write_bytes(b"no image")
    return folder


def test_thumbnails_are_made_again_from_the_images_alone(trtjob: Command, finished: JobFolder, tmp_path: Path) -> None:
    with_photos(finished, tmp_path / "photos")
    results = finished.storage.read("results.jsonl")
    made_again = trtjob("report", finished.uri, "--thumbnails", "all", "--thumbnail-size", "100")
    assert (made_again.code, made_again.err) == (0, "1 thumbnail; 1 image could not be read again\n")
    image = cv2.imread(str(Path(finished.uri, "thumbnails", "a.jpg.jpg")))
    assert image is not None
    assert image.shape == (50, 100, 3)
    assert finished.storage.read("results.jsonl") == results


@pytest.mark.parametrize(("which", "folder_of_them"), [("all", "thumbnails"), ("none", None)])
def test_a_page_keeps_to_the_thumbnails_that_were_made_last(
    trtjob: Command, finished: JobFolder, tmp_path: Path, which: str, folder_of_them: str | None
) -> None:
    with_photos(finished, tmp_path / "photos")
    assert trtjob("report", finished.uri, "--thumbnails", which).code == 0
    assert trtjob("report", finished.uri, "--conf", "0.4").code == 0
    assert page_of(finished).index["thumbnails"] == folder_of_them


def test_a_threshold_below_what_is_stored_is_refused(trtjob: Command, finished: JobFolder) -> None:
    refused = trtjob("report", finished.uri, "--conf", "0.01")
    assert refused.code == 2
    assert "has stored nothing below 0.05" in refused.err


@pytest.mark.parametrize("command", ["report", "open"])
def test_a_job_that_has_not_finished_has_no_report(trtjob: Command, folder: JobFolder, command: str) -> None:
    refused = trtjob(command, folder.uri)
    assert refused.code == 1
    assert "it has not finished" in refused.err


def use_browser(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("BROWSER", command)
    monkeypatch.setattr("webbrowser._tryorder", None)  # so that it looks again


def test_a_report_is_opened_in_the_browser(
    trtjob: Command, finished: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > "{tmp_path}/opened"\n')
    browser.chmod(0o755)
    use_browser(monkeypatch, f"{browser} %s")
    opened = trtjob("open", finished.uri)
    assert (opened.code, opened.out) == (0, f"{finished.uri}/report.html\n")
    assert (tmp_path / "opened").read_text() == (Path(finished.uri) / "report.html").as_uri()


def test_where_there_is_no_browser_the_place_is_said(
    trtjob: Command, finished: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    use_browser(monkeypatch, "/nowhere/browser %s")
    opened = trtjob("open", finished.uri)
    assert (opened.code, opened.out) == (0, f"{finished.uri}/report.html\n")
    assert "There is no browser here" in opened.err


@pytest.mark.slow
def test_a_report_in_a_bucket_is_not_opened(trtjob: Command, bucket: str) -> None:
    spec = job_spec(Path("/")).model_copy(update={"output": f"s3://{bucket}/out"})
    folder = JobFolder.of(spec)
    folder.storage.write(JOB, spec.model_dump_json().encode())
    folder.storage.write("report.html", b"<p>")
    refused = trtjob("open", spec.uri)
    assert refused.code == 2
    assert f"the report lies in a bucket: {spec.uri}/report.html" in refused.err


def test_a_report_is_held_against_labels(trtjob: Command, finished: JobFolder, tmp_path: Path) -> None:
    truth = coco(tmp_path / "coco.json", {"a.jpg": [TrueObject(0, xywh(BOX))], "b.jpg": []})
    assert trtjob("report", finished.uri, "--truth", truth).code == 0
    reference = page_of(finished).index["reference"]
    assert (reference["kind"], reference["name"], reference["objects"]) == ("truth", str(truth), [1, 0, 0, 1])
    assert reference["ap50"] == pytest.approx(1)


def test_labels_below_a_home_that_no_shell_has_read_are_found(
    trtjob: Command, finished: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    coco(tmp_path / "coco.json", {"a.jpg": [TrueObject(0, xywh(BOX))], "b.jpg": []})
    assert trtjob("report", finished.uri, "--truth=~/coco.json").code == 0
    assert page_of(finished).index["reference"]["name"] == "~/coco.json"


def test_a_report_is_compared_with_another_job(trtjob: Command, finished: JobFolder, tmp_path: Path) -> None:
    spec = job_spec(tmp_path).model_copy(update={"job_id": "photos-0ld"})
    earlier = report(spec, [found("a.jpg", (0, 0.9, BOX)), found("b.jpg")])
    earlier.storage.write(JOB, spec.model_dump_json().encode())
    assert trtjob("report", finished.uri, "--compare", earlier.uri).code == 0
    reference = page_of(finished).index["reference"]
    assert (reference["kind"], reference["name"], reference["objects"]) == ("job", "photos-0ld", [1, 0, 0, 1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ["--truth", "nothing.json"], "'nothing.json': no such file or folder", id="labels that are not there"
        ),
        pytest.param(["--truth", __file__], "expected COCO's JSON", id="labels of no kind that is known"),
        pytest.param(["--truth", "x", "--compare", "y"], "Leave one out", id="both"),
        pytest.param(["--compare", "./nothing"], "no job's folder './nothing'", id="a job that is not there"),
    ],
)
def test_what_a_report_cannot_be_held_against_is_refused(
    trtjob: Command, finished: JobFolder, words: list[str], message: str
) -> None:
    refused = trtjob("report", finished.uri, *words)
    assert refused.code == 2
    assert message in refused.err
