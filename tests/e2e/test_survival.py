"""Stop it, kill it, fill its disk: the job ends by itself, or when the same command is run again."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from poison import hanging_file, put_into_every_process
from terminal import Terminal, descendants, job_folder, records, wait_for, worker_pids

from trtjob.config import Settings
from trtjob.queue.connection import Connection
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import job_key
from trtjob.queue.units import shard_unit


def _commits(output: Path) -> list[Path]:
    return list(output.glob("*/shards/[0-9]*.json"))


def _server_pid(home: Path) -> int:
    (pid_file,) = (home / "server").glob("*.pid")
    return int(pid_file.read_text())


@pytest.mark.slow
def test_ctrl_c_stops_and_the_same_command_does_only_what_is_missing(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, slowly: dict[str, str]
) -> None:
    command: list[str | Path] = ["run", photos(96), "--model", digits, "-o", tmp_path / "out", "--shard-size", "8"]
    first = terminal.start(*command, **slowly)
    wait_for(lambda: len(_commits(tmp_path / "out")) >= 3, "three commits")
    started = descendants(first.pid)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "again" in err
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    done = {path: path.stat().st_mtime_ns for path in _commits(tmp_path / "out")}
    assert 3 <= len(done) < 12
    outcome = terminal.here(*command)
    assert outcome.code == 0, outcome.err
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(records(job_folder(tmp_path / "out"))) == 96
    again = terminal.here(*command)
    assert again.code == 0, again.err
    assert len(_commits(tmp_path / "out")) == 12


@pytest.mark.slow
def test_running_again_takes_up_new_and_changed_images_only(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, scenes: list[Path]
) -> None:
    folder = photos(12)
    command: list[str | Path] = ["run", folder, "--model", digits, "-o", tmp_path / "out"]
    assert terminal.run(*command).code == 0
    before = records(job_folder(tmp_path / "out"))
    shutil.copy(scenes[2], folder / "new.jpg")
    shutil.copy(scenes[5], folder / "a" / "0000.jpg")
    assert terminal.here(*command).code == 0
    after = records(job_folder(tmp_path / "out"))
    assert set(after) - set(before) == {"new.jpg"}
    assert [image for image in before if before[image] != after[image]] == ["a/0000.jpg"]


@pytest.mark.slow
def test_retry_does_the_failed_images_only(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = photos(6)
    good = (folder / "b" / "0001.jpg").read_bytes()
    (folder / "b" / "0001.jpg").write_bytes(good[:500])
    terminal.start("worker")
    submitted = terminal.here("submit", folder, "--model", digits, "-o", tmp_path / "out", "--wait")
    assert submitted.code == 1, submitted.err
    job = job_folder(tmp_path / "out")
    assert "error" in records(job)["b/0001.jpg"]
    (folder / "b" / "0001.jpg").write_bytes(good)
    retried = terminal.here("retry", job.name, "--wait")
    assert retried.code == 0, retried.err
    assert "detections" in records(job)["b/0001.jpg"]
    assert terminal.status(job.name)["jobs"][0]["state"] == "done"


@pytest.mark.slow
def test_killing_the_server_loses_nothing(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, slowly: dict[str, str]
) -> None:
    process = terminal.start(
        "run", photos(80), "--model", digits, "-o", tmp_path / "out", "--shard-size", "8", **slowly
    )
    wait_for(lambda: len(_commits(tmp_path / "out")) >= 2, "two commits")
    os.kill(_server_pid(terminal.home), signal.SIGKILL)
    out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err + out
    assert len(records(job_folder(tmp_path / "out"))) == 80


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_killing_run_itself_ends_its_worker_and_the_next_run_finishes(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, slowly: dict[str, str]
) -> None:
    command: list[str | Path] = ["run", photos(80), "--model", digits, "-o", tmp_path / "out", "--shard-size", "8"]
    first = terminal.start(*command, **slowly)
    wait_for(lambda: len(_commits(tmp_path / "out")) >= 2, "two commits")
    (worker,) = worker_pids(first.pid)
    first.kill()
    first.communicate()
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), "the worker's end")
    outcome = terminal.here(*command)
    assert outcome.code == 0, outcome.err
    assert len(records(job_folder(tmp_path / "out"))) == 80


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_dead_node_is_noticed_and_its_shard_taken_over_within_15_seconds(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path
) -> None:
    """Daemon and worker die at once, as when a node loses power: only the lease tells the other node."""
    held = tmp_path / "held"
    held.touch()
    never_done = put_into_every_process(tmp_path / "site", hanging_file("0149.jpg", held))
    first = terminal.start("worker", "--threads", "1", **never_done)
    submit = terminal.start(
        "submit", photos(150), "--model", digits, "-o", tmp_path / "out", "--shard-size", "150", "--wait"
    )
    with Connection(Settings(home=terminal.home)) as connection:
        store = JobStore(connection.redis)
        wait_for(lambda: any(view.live_done for view in store.views()), "the first images")
        (job_id,) = store.job_ids()
        (name,) = (worker.name for worker in store.workers())
        second = terminal.start("worker")
        wait_for(lambda: len(store.workers()) == 2, "another worker")

        def holder() -> str:
            return str((store.redis.hget(job_key(job_id) + ":holders", shard_unit(0)) or b"").decode())

        assert holder().endswith(f"|{name}")
        (worker,) = worker_pids(first.pid)
        first.kill()
        os.kill(worker, signal.SIGKILL)
        held.unlink()  # the image process sees its end then
        killed = time.monotonic()
        wait_for(lambda: holder() and not holder().endswith(f"|{name}"), "the shard's new owner", 30)
        assert time.monotonic() - killed < 15
    out, err = submit.communicate(timeout=60)
    assert submit.returncode == 0, err + out
    assert second.poll() is None
    assert len(records(job_folder(tmp_path / "out"))) == 150


@pytest.mark.slow
def test_without_a_worker_the_job_waits_and_status_says_how_to_start_one(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path
) -> None:
    submitted = terminal.here("submit", photos(3), "--model", digits, "-o", tmp_path / "out")
    assert submitted.code == 0, submitted.err
    job_id = job_folder(tmp_path / "out").name
    status = terminal.here("status", job_id)
    assert status.code == 0
    assert "trtjob worker" in status.out + status.err
    terminal.start("worker")
    wait_for(lambda: terminal.status(job_id)["jobs"][0]["state"] == "done", "the job's end")
    assert len(records(job_folder(tmp_path / "out"))) == 3


@pytest.mark.slow
def test_cancel_stops_a_job_and_submitting_it_again_continues(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path, slowly: dict[str, str]
) -> None:
    terminal.start("worker", **slowly)
    command: list[str | Path] = [photos(90), "--model", digits, "-o", tmp_path / "out", "--shard-size", "15"]
    assert terminal.here("submit", *command).code == 0
    wait_for(lambda: _commits(tmp_path / "out"), "a commit")
    job_id = job_folder(tmp_path / "out").name
    cancelled = terminal.here("cancel", job_id)
    assert cancelled.code == 0
    job = terminal.status(job_id)["jobs"][0]
    assert job["state"] == "cancelled"
    assert f"cancelled: {job['done']} of 90 images" in cancelled.err
    folder = job_folder(tmp_path / "out")
    assert 0 < len(records(folder)) == job["done"] < 90
    assert not (folder / "_SUCCESS.json").exists()
    exported = terminal.here("export", job_id, "--format", "csv")
    assert (exported.code, f"cancelled: {job['done']} of 90" in exported.err) == (0, True)
    outcome = terminal.here("submit", *command, "--wait")
    assert outcome.code == 0, outcome.err
    assert len(records(job_folder(tmp_path / "out"))) == 90


@pytest.mark.slow
def test_too_many_failures_end_the_job(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = photos(60)
    for file in sorted((folder / "a").iterdir())[:10]:
        file.write_bytes(b"rubbish")
    command: list[str | Path] = ["run", folder, "--model", digits, "-o", tmp_path / "out", "--shard-size", "10"]
    outcome = terminal.here(*command, "--max-failures", "3")
    assert outcome.code == 1
    assert "--max-failures" in outcome.err
    assert not (job_folder(tmp_path / "out") / "_SUCCESS.json").exists()


@pytest.mark.slow
def test_a_full_disk_ends_the_job_with_a_clear_error_and_space_lets_it_continue(
    terminal: Terminal, digits: Path, photos: Callable[[int], Path], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system needs the right to mount one: {mounted.stderr.strip()}")
    try:
        command: list[str | Path] = ["run", photos(60), "--model", digits, "-o", disk / "out", "--shard-size", "10"]
        outcome = terminal.here(*command)
        assert outcome.code == 1
        assert "No space left" in outcome.err
        assert "Traceback" not in outcome.err
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        outcome = terminal.here(*command)
        assert outcome.code == 0, outcome.err
        assert len(records(job_folder(disk / "out"))) == 60
        leftovers = [p for p in disk.rglob("*") if p.name.startswith(".") or ".part" in p.name]
        assert leftovers == []
    finally:
        subprocess.run(["umount", disk], check=True)
