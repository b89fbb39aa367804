"""`trtjob run` works on its own job: what another one has left undone, or does, is not its concern."""

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal import Terminal, job_folder, records, wait_for, worker_pids

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SMALL = 5
SOON_S = 5.0  # on a machine that does so much alone in half of it


def _begun(output: Path) -> list[Path]:
    """Return the commits below an output."""
    return list(output.glob("*/shards/[0-9]*.json"))


@pytest.fixture
def small(tmp_path: Path, scenes: list[Path]) -> Path:
    """A folder of a few images."""
    folder = tmp_path / "small"
    folder.mkdir()
    for scene in scenes[:SMALL]:
        (folder / scene.name).write_bytes(scene.read_bytes())
    return folder


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, id="stopped", marks=pytest.mark.chaos), pytest.param(signal.SIGKILL, id="killed")],
)
def test_a_small_run_does_not_wait_for_a_large_job_that_was_interrupted(
    number: signal.Signals,
    terminal: Terminal,
    digits: Path,
    photos: Callable[[int], Path],
    small: Path,
    tmp_path: Path,
    slowly: dict[str, str],
) -> None:
    alone_s = _small_run(terminal, digits, small, tmp_path / "before")
    command: list[str | Path] = ["run", photos(300), "--model", digits, "-o", tmp_path / "large", "--shard-size", "10"]
    large = terminal.start(*command, **slowly)
    wait_for(lambda: _begun(tmp_path / "large"), "a commit")
    pids = worker_pids(large.pid)
    large.send_signal(number)
    large.communicate(timeout=30)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the worker's end")
    before = _begun(tmp_path / "large")
    assert _small_run(terminal, digits, small, tmp_path / "after") < max(SOON_S, 2 * alone_s)
    assert _begun(tmp_path / "large") == before


def _small_run(terminal: Terminal, digits: Path, small: Path, output: Path) -> float:
    """Run the small folder. Returns how many seconds that took."""
    began = time.monotonic()
    outcome = terminal.run("run", small, "--model", digits, "-o", output)
    elapsed_s = time.monotonic() - began
    assert outcome.code == 0, outcome.err
    assert len(records(job_folder(output))) == SMALL
    return elapsed_s


def _job(terminal: Terminal, job_id: str) -> dict[str, Any]:
    """Return what `trtjob status` says of a job."""
    document: dict[str, Any] = terminal.status(job_id)["jobs"][0]
    return document


def test_a_stopped_job_keeps_its_count_and_waits_until_it_is_resumed(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], small: Path, tmp_path: Path, slowly: dict[str, str]
) -> None:
    output = tmp_path / "out"
    command: list[str | Path] = ["run", photos(80), "--model", digits, "-o", output, "--shard-size", "10"]
    first = terminal.start(*command, **slowly)
    wait_for(lambda: _begun(output), "a commit")
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=30)
    assert first.returncode == 130
    job_id = job_folder(output).name
    assert f"trtjob resume {job_id}" in err
    job = _job(terminal, job_id)
    assert (job["state"], job["limit"]) == ("stopped", f"Go on with: trtjob resume {job_id}")
    assert job["done"] == sum(len(path.read_bytes().splitlines()) for path in _results(output))
    worker = terminal.start("worker")
    wait_for(lambda: terminal.status()["workers"], "the worker")
    assert terminal.here("submit", small, "--model", digits, "-o", tmp_path / "other", "--wait").code == 0
    assert _job(terminal, job_id)["done"] == job["done"]
    worker.terminate()
    worker.communicate(timeout=30)
    resumed = terminal.here("resume", job_id)
    assert resumed.code == 0, resumed.err
    assert f"{job_id}: continues with what is missing" in resumed.err
    assert len(records(job_folder(output))) == 80


def _results(output: Path) -> list[Path]:
    """Return what is kept of a job's images: what shards have committed, and their checkpoints."""
    return [path for path in output.glob("*/shards/*.jsonl")]


@pytest.mark.parametrize("by", ["resume", "worker"])
def test_the_job_of_a_run_that_was_killed_goes_on_when_somebody_comes(
    by: str, terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, slowly: dict[str, str]
) -> None:
    output = tmp_path / "out"
    first = terminal.start("run", photos(80), "--model", digits, "-o", output, "--shard-size", "10", **slowly)
    wait_for(lambda: _begun(output), "a commit")
    (worker,) = worker_pids(first.pid)
    first.kill()
    first.communicate()
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker's end")
    job_id = job_folder(output).name
    assert f"trtjob resume {job_id}" in _job(terminal, job_id)["limit"]
    if by == "resume":
        resumed = terminal.here("resume", output / job_id)
        assert resumed.code == 0, resumed.err
    else:
        terminal.start("worker")
        wait_for(lambda: _job(terminal, job_id)["state"] == "done", "the job's end")
    assert len(records(job_folder(output))) == 80


def test_the_retry_that_run_names_does_it_here_and_now_unless_it_is_to_queue(
    terminal: Terminal, digits: Path, small: Path, scenes: list[Path], tmp_path: Path
) -> None:
    (small / "cut.jpg").write_bytes(b"no image")
    failed = terminal.here("run", small, "--model", digits, "-o", tmp_path / "out")
    assert failed.code == 1
    (command,) = re.findall("Try them again with: trtjob (.+)", failed.err)
    job_id = job_folder(tmp_path / "out").name
    queued = terminal.here(*command.split(), "--queue")
    assert (queued.code, "No worker is running" in queued.err) == (0, True)
    assert _job(terminal, job_id)["state"] == "queued"
    taken_over = terminal.here("run", small, "--model", digits, "-o", tmp_path / "out")
    assert taken_over.code == 1
    (small / "cut.jpg").write_bytes(scenes[0].read_bytes())
    retried = terminal.here(*command.split())
    assert retried.code == 0, retried.err
    assert "detections" in records(job_folder(tmp_path / "out"))["cut.jpg"]


def test_a_worker_that_runs_helps(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], small: Path, tmp_path: Path, slowly: dict[str, str]
) -> None:
    terminal.start("worker", "--threads", "1", **slowly)
    wait_for(lambda: terminal.status()["workers"], "the worker")
    command: list[str | Path] = ["--model", digits, "-o", tmp_path / "out", "--shard-size", "5"]
    outcome = terminal.here("run", photos(60), *command, **slowly)
    assert outcome.code == 0, outcome.err
    events = terminal.here("events", job_folder(tmp_path / "out").name, "--json").out.splitlines()
    workers = {event["worker"] for event in map(json.loads, events) if event["event"] == "committed"}
    assert len(workers) == 2
