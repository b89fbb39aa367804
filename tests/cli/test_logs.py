"""`events` and `logs`, of a real job."""

import json
import logging
import signal
import time
from pathlib import Path

import pytest
from samples import job_spec
from terminal import DIGITS, Terminal, job_folder, wait_for

from trtjob.cli.events import event_line
from trtjob.cli.logs import log_line
from trtjob.jobs.states import JobState
from trtjob.logs import log_context
from trtjob.queue.events import Event
from trtjob.queue.job_log import JobLog, LogLine
from trtjob.queue.job_store import JobStore

JOB = job_spec().job_id


def test_an_event_is_one_line_with_what_there_is_of_it() -> None:
    at = time.mktime((2026, 9, 21, 12, 30, 5, 0, 0, -1))
    lost = Event("1-0", at, "lost", "shard-00003", 2, "node-17-1", "SIGSEGV")
    assert event_line(lost) == "2026-09-21 12:30:05  lost          shard-00003  SIGSEGV  node-17-1  attempt 2"
    ended = Event("1-0", at, "cancelled", "", 0, "", "by\nme")
    assert event_line(ended) == "2026-09-21 12:30:05  cancelled     by\\nme"


def test_a_line_of_the_log_is_one_line_with_what_there_is_of_it() -> None:
    fields = {"ts": "2026-09-21T12:30:05.123+00:00", "level": "warning", "logger": "l", "msg": "image set aside"}
    about = {"job_id": JOB, "unit": "shard-00003", "attempt": 2, "worker": "node-17-1"}
    shown = log_line(LogLine("1-0", {**fields, **about, "image": "a\nb.jpg"}))
    assert shown[20:] == " warning  image set aside  image=a\\nb.jpg  shard-00003  node-17-1  attempt 2"
    shown = log_line(LogLine("1-0", {**fields, "exception": "Traceback\n  ValueError"}))
    assert shown[20:] == " warning  image set aside\nTraceback\n  ValueError"


@pytest.mark.slow
def test_events_of_a_job_are_one_document_a_line(store: JobStore, terminal: Terminal) -> None:
    store.move(JOB, JobState.CANCELLED, message="cancelled")
    outcome = terminal.here("events", JOB, "--json")
    assert outcome.code == 0, outcome.err
    documents = [json.loads(line) for line in outcome.out.splitlines()]
    assert [document["event"] for document in documents] == ["submitted", "cancelled"]
    assert documents[0].keys() == {"at", "event", "unit", "attempt", "worker", "detail"}
    assert documents[0]["unit"] is None
    assert terminal.here("events", JOB, "--lines", "1").out.split()[2] == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["events", "logs"])
def test_an_unknown_job_is_one_line(store: JobStore, terminal: Terminal, command: str) -> None:
    outcome = terminal.here(command, "nobody-00000000")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no job 'nobody-00000000'" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(JobState.CANCELLED, 1), (JobState.FAILED, 1)])
def test_following_ends_with_the_job(store: JobStore, terminal: Terminal, end: JobState, code: int) -> None:
    following = terminal.start("events", JOB, "--follow")
    assert following.stdout is not None
    assert "submitted" in following.stdout.readline()
    store.degrade(JOB, "s3://b fails")
    assert "s3://b fails" in following.stdout.readline()
    store.move(JOB, end, message="the end")
    assert "the end" in following.stdout.readline()
    assert following.wait(10) == code


@pytest.mark.slow
@pytest.mark.parametrize("command", ["events", "logs"])
def test_following_ends_with_ctrl_c(store: JobStore, terminal: Terminal, command: str) -> None:
    job_log = JobLog()
    with log_context(job_id=JOB):
        job_log.emit(logging.LogRecord("l", logging.WARNING, "", 0, "all is submitted", None, None))
    job_log.ship(store.redis)
    following = terminal.start(command, JOB, "--follow", TRTJOB_LOG_LEVEL="DEBUG")
    assert following.stdout is not None
    assert "submitted" in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    out, err = following.communicate(timeout=10)
    assert following.returncode == 130, err
    assert "No longer following." in err
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_a_job_tells_its_whole_way(terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path) -> None:
    worker = terminal.start("worker")
    wait_for(lambda: terminal.status()["workers"], "a worker")
    outcome = terminal.here("submit", scenes, "--model", digits, "-o", tmp_path / "out", "--shard-size", "6", "--wait")
    assert outcome.code == 0, outcome.err
    job_id = job_folder(tmp_path / "out").name
    outcome = terminal.here("events", job_id, "--follow", "--json")
    assert outcome.code == 0, outcome.err
    told = [(event["event"], event["unit"]) for event in map(json.loads, outcome.out.splitlines())]
    assert told[:3] == [("submitted", None), ("taken", "plan"), ("planned", "plan")]
    assert told[-2:] == [("taken", "finish"), ("finished", None)]
    shards = {(event, f"shard-{number:05}") for event in ("taken", "committed") for number in (0, 1)}
    assert sorted(shards) == sorted(told[3:-2])
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_log_of_a_real_job_names_its_shards_and_workers(terminal: Terminal, digits: Path, tmp_path: Path) -> None:
    daemon = terminal.start("worker", TRTJOB_LOG_LEVEL="ERROR")
    submit: list[str | Path] = [
        "submit",
        DIGITS / "scenes",
        "--model",
        digits,
        "-o",
        tmp_path / "out",
        "--shard-size",
        "4",
    ]
    job_id = terminal.here(*submit).out.strip()
    outcome = terminal.here("logs", job_id, "--follow", "--json")
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    committed = [line for line in lines if line["msg"] == "shard committed"]
    assert sorted(line["unit"] for line in committed) == ["shard-00000", "shard-00001", "shard-00002"]
    assert {(line["job_id"], line["attempt"], line["ok"]) for line in committed} == {(job_id, 1, 4)}
    assert all(line["worker"] for line in lines)
    assert terminal.here("logs", job_id, "--level", "warning").out == ""
    daemon.terminate()
    _, err = daemon.communicate(timeout=30)
    assert "shard committed" not in err, "TRTJOB_LOG_LEVEL is for standard error"
