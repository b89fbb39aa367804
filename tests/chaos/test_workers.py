"""Workers and daemons die, freeze and come back, and one image is poison."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from chaos.fleet import Fleet, kill_every
from terminal import descendants, wait_for

from trtjob.jobs.states import TERMINAL, JobState
from trtjob.queue.keys import job_key
from trtjob.queue.units import shard_unit

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(180)]


def test_a_random_worker_is_killed_every_two_seconds(fleet: Fleet, calm: bytes) -> None:
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit()
    kills = kill_every(
        2.0,
        lambda: fleet.worker_pids(*nodes),
        lambda: fleet.view(job_id).state in TERMINAL,
        random.Random(7),
    )
    assert kills >= 3
    fleet.check(job_id, calm)
    fleet.end(*nodes)


def test_a_node_that_slept_through_its_lease_commits_nothing_twice(fleet: Fleet, calm: bytes) -> None:
    """Daemon and worker freeze for 20 s, as a paused virtual machine does, and go on as if nothing had been."""
    sleeper = fleet.node()
    job_id = fleet.submit()
    fleet.wait_done(job_id, 60)
    frozen = [sleeper.pid, *descendants(sleeper.pid)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    frozen_at = time.monotonic()
    other = fleet.node()
    while time.monotonic() - frozen_at < 20:
        time.sleep(0.1)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    fleet.check(job_id, calm)
    fleet.end(sleeper, other)


def test_a_worker_that_freezes_is_replaced(fleet: Fleet, calm: bytes) -> None:
    node = fleet.node()
    job_id = fleet.submit()
    fleet.wait_done(job_id, 60)
    (worker,) = fleet.worker_pids(node)
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: fleet.worker_pids(node) not in ([], [worker]), "another worker", 25)
    fleet.check(job_id, calm)
    fleet.end(node)


def test_sigterm_gives_the_shard_back_without_spending_an_attempt(fleet: Fleet, calm: bytes) -> None:
    node = fleet.node()
    job_id = fleet.submit()
    fleet.wait_done(job_id, 60)
    fleet.end(node)
    attempts = fleet.store.redis.hgetall(job_key(job_id) + ":attempts")
    assert attempts == {}
    assert fleet.view(job_id).state is JobState.RUNNING
    other = fleet.node()
    fleet.check(job_id, calm)
    fleet.end(other)


def test_a_killed_daemon_leaves_no_worker_and_loses_nothing(fleet: Fleet, calm: bytes) -> None:
    node, other = fleet.node(), fleet.node()
    job_id = fleet.submit()
    fleet.wait_done(job_id, 60)
    orphans = descendants(node.pid)
    node.kill()
    node.communicate()
    wait_for(lambda: not [pid for pid in orphans if Path(f"/proc/{pid}").exists()], "the orphans' end")
    fleet.check(job_id, calm)
    fleet.end(other)


def test_a_dead_node_is_noticed_in_15_s_and_its_shard_runs_elsewhere_in_20(
    fleet: Fleet, calm: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Daemon and worker die in the same moment, so nobody is left who could tell."""
    node = fleet.node()
    job_id = fleet.submit("--shard-size", "600")
    fleet.wait_done(job_id, 30)
    (name,) = [worker.name for worker in fleet.store.workers()]

    def holder() -> str:
        return str(fleet.store.redis.hget(job_key(job_id) + ":holders", shard_unit(0)) or b"", "utf-8")

    assert holder().endswith(f"|{name}")
    other = fleet.node()
    for pid in (node.pid, *descendants(node.pid)):
        os.kill(pid, signal.SIGKILL)
    died = time.monotonic()
    node.communicate()
    wait_for(lambda: holder() and not holder().endswith(f"|{name}"), "the shard's new owner", 30)
    noticed_s = time.monotonic() - died
    done = fleet.view(job_id).done
    wait_for(lambda: fleet.view(job_id).done > done, "progress elsewhere", 30)
    running_s = time.monotonic() - died
    with capsys.disabled():
        print(f"\na dead node: its shard claimed after {noticed_s:.1f} s, progress after {running_s:.1f} s")
    assert noticed_s < 15
    assert running_s < 20
    fleet.check(job_id, calm)
    fleet.end(other)
