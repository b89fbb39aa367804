"""How jobs stand: the document that scripts read, and the screen that people read."""

import dataclasses
import re
from typing import Any

import pytest
from terminal import ROOT

from trtjob.cli.ui.screens import Standing, bar, job_document, job_lines, jobs_lines, status_document
from trtjob.jobs.states import JobState
from trtjob.queue.views import DaemonView, JobView, WorkerView

JOB = "photos-1a2b3c4d"
PAGE = (ROOT / "docs" / "status.md").read_text()


@pytest.fixture
def now(view: JobView) -> Standing:
    units = ((JOB, "shard-00003"), (JOB, "shard-00004"), ("other", "shard-00001"))
    busy = WorkerView("w-1", "node", 17, "cpu", "CPU", "busy", units, 1.2, 30.0, {"infer": 0.9})
    idle = WorkerView("w-2", "node", 18, "", "", "idle", (), 0.4, 0.0)
    daemon = DaemonView("d-1", "node", 16, "cpu", 2, {"SIGSEGV": 7}, "a worker process died 7 times", 0.9)
    return Standing([view], [busy, idle], [daemon])


def documented(heading: str) -> set[str]:
    """Return the fields that the page names below a heading."""
    section = re.split(r"^# |^## ", PAGE, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading)]
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_page_names_the_fields_of_the_document_and_no_others(now: Standing) -> None:
    document: dict[str, Any] = status_document(now)
    assert documented("`trtjob status --json`") == document.keys()
    assert documented("A job") == document["jobs"][0].keys()
    assert documented("A worker") == document["workers"][0].keys()
    assert documented("A daemon") == document["daemons"][0].keys()


def test_the_page_names_every_state() -> None:
    assert [state for state in JobState if f"`{state}`" not in PAGE] == []


def test_the_document_of_a_job(now: Standing) -> None:
    job = job_document(now.jobs[0], now.workers)
    assert (job["done"], job["ok"], job["failed"], job["failures"]) == (100, 70, 3, {"decode": 2, "read": 1})
    assert (job["shards"], job["shards_done"], job["shards_running"], job["retries"]) == (8, 3, 2, 2)
    assert (job["rate"], job["eta_s"], job["workers"]) == (20.0, 5.0, ["w-1"])


def test_the_screen_of_a_job_says_all_there_is_to_say(now: Standing) -> None:
    screen = "\n".join(job_lines(now))
    for said in (
        "running, priority high",
        "100 of 200  50%",
        "3 (2 decode, 1 read)",
        "s3://bucket fails: 503",
        "3 of 8 done, 2 running, 3 waiting, 2 tried again",
        "20.0 images/s",
        "5.0 s",
        f"{JOB}: shard-00003, shard-00004; other: shard-00001",
        "1 s ago",
        "busy   CPU  ",
        "Waiting: s3://bucket fails: 503",
        "node: a worker process died 7 times",
    ):
        assert said in screen
    assert "w-2" not in screen, "it works on nothing of this job"


def test_the_screen_of_all_jobs_has_a_line_for_each_job_and_worker(now: Standing) -> None:
    lines = jobs_lines(now)
    assert [line.split()[0] for line in lines if line][:2] == ["JOB", JOB]
    assert "running, degraded" in lines[1]
    assert "100/200" in lines[1]
    assert any(line.startswith("w-2") for line in lines)
    assert lines[-1] == "node: a worker process died 7 times"


def test_without_jobs_the_screen_says_how_to_begin() -> None:
    assert jobs_lines(Standing([], [], [])) == ["No jobs yet. Start one with: trtjob run SOURCE --model MODEL"]


@pytest.mark.parametrize(("images", "done", "filled"), [(0, 0, 0), (200, 100, 20), (100, 100, 40)])
def test_the_bar_is_as_long_as_the_job_is_done(view: JobView, images: int, done: int, filled: int) -> None:
    job = dataclasses.replace(view, images=images, ok=done, failed=0, live_done=0)
    assert bar(job) == f"[{'#' * filled}{'.' * (40 - filled)}]"
