"""One worker process, started as the supervisor starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from terminal import descendants, wait_for

from trtjob.config import Settings
from trtjob.queue.connection import Connection
from trtjob.queue.conversions import Conversion
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import conversion_key
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker.worker_config import WorkerConfig

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(settings: Settings, connection: Connection) -> Iterator[Start]:
    """Start worker processes, and end what is left of them: before the connection, whose end then stops the server."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(
        config: bytes | None = None,
        *,
        cores: Sequence[int] = (),
        job: str | None = None,
        more: bytes = b"",
        **changes: Any,
    ) -> subprocess.Popen[bytes]:
        document = WorkerConfig(
            name="worker-1",
            engine="cpu",
            gpu=None,
            gpu_name="",
            settings=settings.model_dump(mode="json") | changes,
            image_processes=1,
            worker_processes=1,
            job=job,
            cores=list(cores),
        )._asdict()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trtjob.worker.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdin is not None
        process.stdin.write((config if config is not None else json.dumps(document).encode() + b"\n") + more)
        process.stdin.flush()
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def store(connection: Connection) -> JobStore:
    return JobStore(connection.redis)


def await_worker(store: JobStore) -> None:
    wait_for(store.workers, "a report of the worker")


def await_readiness(store: JobStore) -> None:
    """Wait until the worker listens to its queue: before, a signal ends it as it ends any process."""
    wait_for(lambda: store.redis.hget("rq:worker:worker-1", "state") == b"idle", "the worker at its queue")


def knows(pid: int, text: bytes) -> bool:
    """Tell whether a text stands in what a process has written."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for first, last in written(pid):
            memory.seek(first)
            if text in memory.read(last - first):
                return True
    return False


def written(pid: int) -> Iterator[tuple[int, int]]:
    """Yield from where to where a process has memory that it may have written (proc(5): maps and pagemap)."""
    page = os.sysconf("SC_PAGE_SIZE")
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pages:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                first, last = (int(address, 16) for address in span.split("-"))
                pages.seek(first // page * 8)
                entries = np.frombuffer(pages.read((last - first) // page * 8), np.uint64)
                is_there = np.concatenate([[0], (entries >> np.uint64(62) != 0).astype(np.int8), [0]])
                turns = np.flatnonzero(np.diff(is_there)).reshape(-1, 2)  # in memory, or swapped out
                yield from ((first + int(begin) * page, first + int(end) * page) for begin, end in turns)


def end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Wait for a process's end. Returns its exit code and what it logged."""
    _, err = process.communicate(timeout=20)
    return process.returncode, err.decode()


def test_a_process_reports_itself_and_beats(start: Start, store: JobStore) -> None:
    process = start()
    await_worker(store)
    (worker,) = store.workers()
    assert (worker.name, worker.pid, worker.state) == ("worker-1", process.pid, "idle")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["images"] == 0


def test_a_pinned_process_and_its_image_processes_keep_to_their_cores(start: Start, store: JobStore) -> None:
    core = max(os.sched_getaffinity(0))
    process = start(cores=[core])
    await_worker(store)
    below = wait_for(lambda: pids if len(pids := descendants(process.pid)) > 1 else None, "the image process")
    assert all(os.sched_getaffinity(pid) == {core} for pid in (process.pid, *below))


def test_an_image_process_is_a_fork_from_before_the_config_was_read(start: Start, store: JobStore) -> None:
    process = start(queue="what-the-config-says")
    await_worker(store)
    server, image_process = wait_for(lambda: pids if len(pids := descendants(process.pid)) > 1 else None, "both")
    assert knows(process.pid, b"what-the-config-says")
    for pid in (server, image_process):
        assert not knows(pid, b"what-the-config-says")
        assert Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0") == b"trtjob.worker.pipeline.image_process"


def test_an_idle_process_ends_at_once_when_told_and_says_goodbye(start: Start, store: JobStore) -> None:
    process = start()
    await_worker(store)
    assert process.stdout is not None
    process.stdout.read(1)
    await_readiness(store)
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, err = end(process)
    assert (code, err) == (0, "")
    assert time.monotonic() - told < 5
    assert store.workers() == []


def test_a_process_that_is_told_to_end_while_it_imports_says_nothing() -> None:
    # NumPy imports datetime while its own compiled part begins, which makes an error of whatever is raised there.
    code = """
import os, signal, sys
from trtjob.worker import process

class EndsAtDatetime:
    def find_spec(self, name, *_):
        if name == "datetime":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, EndsAtDatetime())
sys.exit(process.main())
"""
    config = json.dumps(WorkerConfig("worker-1", "cpu", None, "", {}, 0, 1, None, [])._asdict())
    ended = subprocess.run([sys.executable, "-P", "-c", code], input=config, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (-signal.SIGTERM, "")


def test_a_process_ends_when_its_supervisor_is_gone(start: Start, store: JobStore) -> None:
    process = start()
    await_worker(store)
    await_readiness(store)
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None  # for communicate, which would flush it
    assert end(process) == (0, "")


@pytest.mark.parametrize("is_at_once", [True, False])
def test_a_process_of_one_job_hears_which_it_is_and_takes_no_message_of_others(
    start: Start, store: JobStore, settings: Settings, is_at_once: bool
) -> None:
    name = b'"photos-1234abcd"\n'
    WorkQueue(store.redis, settings.queue).put_convert("request-1", {"model": "/nowhere/a.weights"})
    process = start(job="", more=name if is_at_once else b"")
    await_worker(store)
    if not is_at_once:
        assert [worker.job for worker in store.workers()] == [""]
        assert process.stdin is not None
        process.stdin.write(name)
        process.stdin.flush()
    wait_for(lambda: [worker.job for worker in store.workers()] == ["photos-1234abcd"], "the job's name")
    process.send_signal(signal.SIGTERM)
    assert end(process) == (0, "")
    assert len(WorkQueue(store.redis, settings.queue)) == 1


def test_a_process_takes_messages(start: Start, store: JobStore, settings: Settings) -> None:
    Conversion(store.redis, "request-1").want()
    WorkQueue(store.redis, settings.queue).put_convert("request-1", {"model": "/nowhere/a.weights"})
    start()
    wait_for(lambda: store.redis.hget(conversion_key("request-1"), "state") == b"failed", "the conversion's end")


def test_a_server_that_is_not_there_ends_the_process_with_one_line_and_no_password(start: Start) -> None:
    process = start(redis_url="redis://:hush-hush@127.0.0.1:1/0", log_format="json")
    code, err = end(process)
    assert code == 1
    (line,) = err.splitlines()
    assert "cannot reach the queue's server at 127.0.0.1:1/0" in json.loads(line)["msg"]
    assert "hush-hush" not in err


def test_an_order_that_is_none_ends_the_process(start: Start) -> None:
    code, _ = end(start(b"\n"))
    assert code == 1
