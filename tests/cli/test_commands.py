"""The commands with a real server and real workers."""

import io
import json
import os
import pty
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import job_spec
from terminal import Outcome, Terminal, job_folder, wait_for, worker_pids

from trtjob.cli.completion import job_ids, job_ids_and_folders, model_names
from trtjob.config import Settings
from trtjob.jobs.states import JobState
from trtjob.queue.connection import Connection
from trtjob.queue.job_store import JobStore

Command = Callable[..., Outcome]


@pytest.mark.slow
def test_run_prints_a_summary_on_standard_output_only(
    terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path
) -> None:
    outcome = terminal.run("run", scenes, "--model", digits, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    folder = job_folder(tmp_path / "out")
    rows = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert rows["images"].endswith("ok, 0 failed)")
    assert rows["results"] == str(folder / "results.jsonl")
    assert rows["annotated"] == str(folder / "annotated")
    assert rows["report"] == str(folder / "report.html")
    assert f"{folder.name}: done" in outcome.err


@pytest.mark.slow
def test_run_with_json_prints_one_document(terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path) -> None:
    document = terminal.json("run", scenes, "--model", digits, "-o", tmp_path / "out", "--annotate", "none")
    outputs = {"results", "errors", "report", "summary", "images_with_detections", "detections"}
    assert document.keys() == terminal.status(document["job_id"])["jobs"][0].keys() | outputs
    assert document["state"] == "done"
    assert document["done"] == document["images"] == document["ok"]
    assert not (job_folder(tmp_path / "out") / "annotated").exists()
    results = Path(document["results"])
    records = map(json.loads, results.read_text().splitlines())
    conf = json.loads(results.with_name("job.json").read_text())["options"]["conf"]
    found = Counter(each["label"] for record in records for each in record["detections"] if each["score"] >= conf)
    assert document["detections"] == dict(found)
    assert Path(document["report"]).is_file()


@pytest.mark.slow
def test_failed_images_are_named_with_their_kind(
    terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(7):
        (photos / f"{index}.jpg").write_bytes(b"rubbish")
    outcome = terminal.here("run", photos, "--model", digits, "-o", tmp_path / "out")
    assert outcome.code == 1
    assert "7 decode" in outcome.out
    assert outcome.err.count("failed: ") == 5
    assert "... and 2 more" in outcome.err
    assert str(job_folder(tmp_path / "out") / "errors.jsonl") in outcome.err


@pytest.mark.slow
def test_a_wrong_model_ends_run_with_one_line(terminal: Terminal, scenes: Path, tmp_path: Path) -> None:
    outcome = terminal.here("run", scenes, "--model", "nobody", "-o", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.startswith("error: no model 'nobody'")
    assert outcome.err.count("\n") == 1


@pytest.mark.slow
def test_a_removed_output_is_made_anew(terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path) -> None:
    command: list[str | Path] = ["--model", digits, "-o", tmp_path / "out"]
    assert terminal.here("submit", scenes, *command).code == 0
    terminal.start("worker")
    wait_for(lambda: list((tmp_path / "out").glob("*/_SUCCESS.json")), "the job's end")
    shutil.rmtree(tmp_path / "out")
    outcome = terminal.here("submit", scenes, *command, "--wait")
    assert outcome.code == 0, outcome.err
    assert (job_folder(tmp_path / "out") / "results.jsonl").is_file()


@pytest.mark.slow
def test_a_daemon_stops_on_sigterm_with_0(terminal: Terminal) -> None:
    process = terminal.start("worker")
    (pid,) = wait_for(lambda: worker_pids(process.pid), "the worker process")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_sigterm_ends_run_with_143(terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path) -> None:
    process = terminal.start("run", scenes, "--model", digits, "-o", tmp_path / "out")
    wait_for(lambda: worker_pids(process.pid), "the worker process")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "run the same command again to continue" in err


@pytest.mark.slow
def test_waiting_for_a_job_can_be_given_up_while_no_worker_runs(
    terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path
) -> None:
    process = terminal.start("submit", scenes, "--model", digits, "-o", tmp_path / "out", "--wait")
    wait_for(lambda: list((tmp_path / "out").glob("*/job.json")), "the job")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "The job goes on" in err


@pytest.mark.slow
def test_a_job_is_exported_from_its_folder_and_by_its_id(
    terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path
) -> None:
    assert terminal.here("run", scenes, "--model", digits, "-o", tmp_path / "out").code == 0
    folder = job_folder(tmp_path / "out")
    by_folder = terminal.here("export", folder, "--format", "coco")
    assert by_folder.out == f"{folder / 'coco.json'}\n", by_folder.err
    by_id = terminal.here("export", folder.name, "--format", "coco", "-o", tmp_path / "coco.json")
    assert by_id.code == 0, by_id.err
    assert (tmp_path / "coco.json").read_bytes() == (folder / "coco.json").read_bytes()


@pytest.mark.slow
def test_status_shows_all_jobs_and_an_unknown_one_ends_with_2(
    terminal: Terminal, digits: Path, scenes: Path, tmp_path: Path
) -> None:
    assert terminal.here("submit", scenes, "--model", digits, "-o", tmp_path / "out").code == 0
    job_id = job_folder(tmp_path / "out").name
    assert [job["job_id"] for job in terminal.status()["jobs"]] == [job_id]
    assert job_id in terminal.here("status").out
    unknown = terminal.here("status", "nobody-00000000")
    assert unknown.code == 2
    assert unknown.err == "error: no job 'nobody-00000000'. List the jobs with: trtjob status\n"


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_is_one_line(terminal: Terminal) -> None:
    outcome = terminal.here("status", TRTJOB_REDIS_URL="redis://127.0.0.1:1/0")
    assert outcome.code == 1
    assert outcome.err.startswith("error: cannot reach the queue's server at 127.0.0.1:1/0")
    assert outcome.err.count("\n") == 1


@pytest.mark.slow
def test_progress_at_a_terminal_is_a_bar(digits: Path, scenes: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "trtjob", "run", scenes, "--model", digits, "-o", tmp_path / "out"]
    screen = io.BytesIO()

    def read(terminal_fd: int) -> bytes:
        seen = os.read(terminal_fd, 4096)
        screen.write(seen)
        return seen

    code = os.waitstatus_to_exitcode(pty.spawn([*map(str, words)], read, lambda _: b""))
    assert code == 0, screen.getvalue()
    assert b"images/s" in screen.getvalue()
    assert b"\x1b[2K" in screen.getvalue()


def test_models_are_converted_listed_shown_and_removed(trtjob: Command, digits: Path) -> None:
    assert trtjob("models").out == ""
    assert trtjob("convert", digits, "--local", "--name", "mine").code == 0
    assert trtjob("models").out.splitlines()[1].startswith("mine")
    assert json.loads(trtjob("models", "list", "--json").out)[0]["name"] == "mine"
    assert json.loads(trtjob("models", "show", "mine", "--json").out)["spec"]["task"] == "detect"
    assert model_names() == ["mine"]
    assert trtjob("models", "remove", "mine").code == 0
    assert trtjob("models").out == ""


def test_doctor_finds_everything_and_starts_no_server(trtjob: Command, tmp_path: Path) -> None:
    outcome = trtjob("doctor", "--json")
    assert outcome.code == 0, outcome.out
    checks = {check["name"]: check for check in json.loads(outcome.out)}
    assert "not running" in checks["server"]["found"]
    assert "ONNX Runtime" in checks["engine"]["found"]
    assert not list(tmp_path.rglob("server.sock"))


def test_doctor_says_what_is_wrong_with_the_home(
    trtjob: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRTJOB_HOME", str(tmp_path / "file" / "home"))
    outcome = trtjob("doctor")
    assert outcome.code == 1
    assert "MISSING" in outcome.out
    assert "TRTJOB_HOME" in outcome.out


def test_completion_without_a_server_offers_the_jobs_of_the_usual_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["old-1a2b3c4d", "new-1a2b3c4d"]):
        folder = tmp_path / "trtjob-out" / name
        folder.mkdir(parents=True)
        (folder / "job.json").write_text("{}")
        os.utime(folder / "job.json", (number, number))
    assert job_ids() == ["new-1a2b3c4d", "old-1a2b3c4d"]


def test_completion_without_a_server_offers_folders_only(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    assert job_ids() == []
    assert job_ids_and_folders(f"{tmp_path}/res") == [f"{tmp_path}/results/"]


@pytest.mark.slow
def test_a_cancel_that_comes_too_late_says_whether_the_job_has_ended(
    terminal: Terminal, settings: Settings, connection: Connection
) -> None:
    store = JobStore(connection.redis)
    assert terminal.home == settings.home
    for state, said in (
        (JobState.FINISHING, "is finishing: it ends by itself"),
        (JobState.DONE, "had ended before: done"),
    ):
        store.create(job_spec(job_id=f"photos-{state}"), state)
        outcome = terminal.here("cancel", f"photos-{state}")
        assert outcome.code == 0, outcome.err
        assert said in outcome.out
    assert terminal.here("cancel", "photos-finishing").out.count("ended before") == 0
