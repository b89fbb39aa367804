"""How jobs stand: the document that scripts read, and the screen that people read."""

import dataclasses
import re
from typing import Any

import pytest
from terminal import ROOT

from trtjob.cli.ui.paint import Painted, bar, line
from trtjob.cli.ui.screens import Standing, job_document, job_lines, jobs_lines, status_document
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


@pytest.fixture(autouse=True)
def _without_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


def test_a_state_has_its_color_where_colors_are_wanted(view: JobView, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = dataclasses.replace(view, state=JobState.DONE_WITH_ERRORS, ok=188, failed=12, live_done=0, live_failed=0)
    standing = Standing([ended], [], [])
    assert "state      done, 12 failed, priority high" in job_lines(standing)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    assert any("\033[33mdone, 12 failed, priority high\033[0m" in line for line in job_lines(standing))


def test_what_is_painted_is_printable_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert line(Painted("a\033[2Jb", "red")) == "\033[1;31ma\\x1b[2Jb\033[0m"


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
    assert [*map(str, bar(job.done, job.images, 40))] == ["━" * filled, " " * (40 - filled)]
