"""Image processes are forks of one process, which has nothing of its own to say."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from terminal import children, descendants, wait_for

from trtjob.worker.pipeline.prestart import Started, end_process, shared_memory, start_process

PRESTARTED = """
from trtjob.worker.pipeline.prestart import PrestartedProcesses
prestarted = PrestartedProcesses(2)
print(*[started.process.pid for started in prestarted.started], flush=True)
input()
"""


def started() -> Started:
    """Start an image process, which waits for its config."""
    ring = shared_memory()
    try:
        return start_process(ring)
    finally:
        os.close(ring)


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def server_of(process: Started) -> int:
    """Return the process that an image process is a fork of."""
    return int(Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGSTOP, "SIGKILL")]
)
def test_how_one_has_ended_is_told(number: signal.Signals, how: str) -> None:
    process = started()
    os.kill(process.process.pid, number)
    if how == number.name:
        wait_for(lambda: has_ended(process.process.pid), "its end")
    assert end_process(process) == how


def test_one_that_hears_nothing_more_ends_by_itself() -> None:
    process = started()
    pid = process.process.pid
    os.close(process.commands)
    wait_for(lambda: has_ended(pid), "its end")
    assert end_process(process._replace(commands=os.dup(process.answers))) == "exit code 0"


def test_one_begins_in_the_folder_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = started()
    monkeypatch.setenv(
        "AWS_ENDPOINT_URL", "http://there"
    )  # what changes, and Python does not read, takes no new server
    monkeypatch.chdir(tmp_path)
    process = started()
    assert server_of(process) == server_of(earlier)
    assert Path(f"/proc/{process.process.pid}/cwd").readlink() == tmp_path
    end_process(earlier)
    end_process(process)


def test_what_python_reads_when_it_begins_takes_a_new_server(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = started()
    first = server_of(earlier)
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    later = started()
    assert server_of(later) != first
    assert end_process(later) == "SIGKILL"
    assert not has_ended(first), "one of its processes lives"
    assert end_process(earlier) == "SIGKILL"
    assert has_ended(first)


def test_a_server_that_dies_leaves_its_processes_and_is_replaced() -> None:
    process = started()
    pid, server = process.process.pid, server_of(process)
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: has_ended(server), "the server's end")
    assert not has_ended(pid)
    another = started()
    assert server_of(another) != server
    assert end_process(process) == "nobody saw how"
    wait_for(lambda: has_ended(pid), "its end")
    assert end_process(another) == "SIGKILL"


def test_of_a_server_that_has_died_no_answer_is_waited_for() -> None:
    held = [started(), started()]
    (server,) = {server_of(process) for process in held}
    os.kill(server, signal.SIGKILL)
    wait_for(lambda: has_ended(server), "its end")
    begun = time.monotonic()
    assert [end_process(process) for process in held] == ["nobody saw how"] * 2
    assert time.monotonic() - begun < 5


def test_a_server_has_one_thread_and_no_process_more_than_it_was_asked_for() -> None:
    processes = [started() for _ in range(3)]
    pids = {process.process.pid for process in processes}
    server = server_of(processes[0])
    assert set(children(server)) >= pids
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
    assert [end_process(process) for process in processes] == ["SIGKILL"] * 3
    assert not pids & set(children(server))


@pytest.mark.slow
def test_the_end_of_the_engine_process_ends_its_image_processes() -> None:
    engine = subprocess.Popen([sys.executable, "-c", PRESTARTED], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert engine.stdout is not None
    assert engine.stdin is not None
    forked = {int(pid) for pid in engine.stdout.readline().split()}
    pids = descendants(engine.pid)
    assert forked < set(pids)
    engine.kill()
    wait_for(lambda: all(map(has_ended, pids)), "the end of all")
    engine.communicate()
