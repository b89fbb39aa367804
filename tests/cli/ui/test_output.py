"""What is printed of a job."""

import dataclasses
from pathlib import Path

import pytest
from epochs import add_epoch, found
from samples import made

from trtjob.api import progress
from trtjob.api.progress import LineDisplay, duration, numbers
from trtjob.cli.ui.output import print_summary, print_table
from trtjob.cli.ui.screens import job_document
from trtjob.jobs.finish import finish
from trtjob.jobs.folder import JobFolder
from trtjob.queue.progress import RateMeter
from trtjob.queue.views import JobView, WorkerView


def _worker(name: str, *jobs: str, rate: float) -> WorkerView:
    units = tuple((job_id, f"shard-{number:05}") for number, job_id in enumerate(jobs))
    return WorkerView(name, "host", 1, "cpu", "cpu", "busy", units, 0.1, rate)


def test_the_document_counts_shards_under_way(view: JobView) -> None:
    document = job_document(view, [])
    assert (document["done"], document["ok"], document["failed"]) == (100, 70, 3)
    assert document["output"] == "/out/photos-1a2b3c4d"


def test_the_rate_is_that_of_the_jobs_own_workers(view: JobView) -> None:
    mine = view.job_id
    workers = [_worker("a", mine, rate=10.0), _worker("b", mine, "other", rate=30.0), _worker("c", "other", rate=99.0)]
    document = job_document(view, workers)
    assert (document["rate"], document["eta_s"], document["workers"]) == (25.0, 4.0, ["a", "b"])


def test_without_a_worker_there_is_no_rate(view: JobView) -> None:
    document = job_document(view, [])
    assert (document["rate"], document["eta_s"]) == (None, None)


def test_the_numbers_of_a_running_job(view: JobView) -> None:
    meter = RateMeter()
    meter.add(0, now=0.0)
    meter.add(100, now=4.0)
    assert numbers(view, meter) == "100/200 images  25.0 images/s  4.0 s left  3 failed"


def test_a_run_whose_worker_has_not_said_yet_for_which_job_it_is_is_waited_for(
    view: JobView, capsys: pytest.CaptureFixture[str]
) -> None:
    starting = dataclasses.replace(_worker("a", rate=0.0), job="")
    LineDisplay().show(dataclasses.replace(view, degraded=""), [starting], RateMeter())
    assert "No worker" not in capsys.readouterr().err


@pytest.mark.parametrize("works_here", [True, False])
def test_a_command_that_works_itself_never_misses_a_worker(
    view: JobView, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, works_here: bool
) -> None:
    monkeypatch.setattr(progress, "NO_WORKER_AFTER_S", 0.0)
    LineDisplay(works_here=works_here).show(dataclasses.replace(view, degraded=""), [], RateMeter())
    assert ("No worker" in capsys.readouterr().err) is not works_here


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (12.4, "12 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7830, "2 h 10 min")],
)
def test_a_duration_is_as_exact_as_a_person_wants(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_columns_are_as_wide_as_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("long", "1"), ("x", "22")])
    assert capsys.readouterr().out == "A     B\nlong  1\nx     22\n"


@pytest.mark.parametrize(("images", "which"), [(0, None), (1, "1 image has"), (7, "7 images have")])
def test_images_that_may_lack_detections_are_counted_with_what_to_do(
    images: int, which: str | None, tmp_path: Path, view: JobView, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = view.spec.model_copy(update={"output": str(tmp_path)})
    folder = made(JobFolder.of(spec))
    records = [found(f"{number}.jpg") for number in range(8)]
    add_epoch(folder, [dataclasses.replace(r, is_truncated=number < images) for number, r in enumerate(records)])
    finish(folder, spec)
    print_summary(dataclasses.replace(view, spec=spec), is_fresh=True)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("truncated")]
    assert bool(said) == bool(which)
    if which:
        assert said[0].startswith(f"truncated  {which} as many candidates as the model gives")
        assert said[0].endswith("trtjob convert --candidates N")


def test_images_of_which_only_the_first_page_was_looked_at_are_counted(
    tmp_path: Path, view: JobView, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = view.spec.model_copy(update={"output": str(tmp_path)})
    folder = made(JobFolder.of(spec))
    add_epoch(folder, [dataclasses.replace(found("a.tif"), pages=3), found("b.jpg")])
    finish(folder, spec)
    print_summary(dataclasses.replace(view, spec=spec), is_fresh=True)
    assert "first page 1 image has more pages or frames, which were not looked at" in capsys.readouterr().out


def test_a_job_in_a_bucket_is_shown_where_no_credentials_are(view: JobView) -> None:
    spec = view.spec.model_copy(update={"output": "s3://bucket/out"})
    document = job_document(dataclasses.replace(view, spec=spec), [])
    assert document["output"] == "s3://bucket/out/photos-1a2b3c4d"
