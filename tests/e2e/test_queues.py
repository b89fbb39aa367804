"""Two queues on one server, with a daemon each: neither touches what is the other's."""

from pathlib import Path

import pytest
from redis import Redis
from terminal import Terminal, job_folder, records, wait_for

from trtjob.jobs.states import JobState
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_a_worker_of_one_queue_leaves_the_jobs_and_conversions_of_another_alone(
    terminal: Terminal, server: EmbeddedServer, redis: Redis, digits: Path, scenes: list[Path], tmp_path: Path
) -> None:
    terminal.environment["TRTJOB_REDIS_URL"] = server.url
    store = JobStore(redis)
    job = ["submit", str(scenes[0].parent), "--model", str(digits), "-o"]
    handed_in = terminal.here(*job, str(tmp_path / "alpha"), TRTJOB_QUEUE="alpha")
    assert handed_in.code == 0, handed_in.err
    alpha = handed_in.out.strip()
    assert "TRTJOB_QUEUE=alpha trtjob worker" in handed_in.err
    converting = terminal.start("convert", str(digits), "--name", "mine", TRTJOB_QUEUE="alpha")
    wait_for(lambda: redis.llen("rq:queue:alpha") == 2, "the plan's and the conversion's messages")

    terminal.start("worker", "--threads", "1", TRTJOB_QUEUE="beta")
    beta = terminal.here(*job, str(tmp_path / "beta"), "--wait", TRTJOB_QUEUE="beta")
    assert beta.code == 0, beta.err
    assert [event.event for event in store.events(alpha)] == ["submitted"]
    assert redis.llen("rq:queue:alpha") == 2
    refused = terminal.here(*job, str(tmp_path / "alpha"), TRTJOB_QUEUE="beta")
    assert (refused.code, "in the queue 'alpha'" in refused.err) == (1, True)
    assert {worker.queue for worker in store.workers()} == {daemon.queue for daemon in store.daemons()} == {"beta"}
    assert "queue alpha" in terminal.here("status").out

    terminal.start("worker", "--threads", "1", TRTJOB_QUEUE="alpha")
    wait_for(lambda: store.state(alpha) == JobState.DONE, "the job of alpha", 120)
    assert converting.wait(60) == 0
    assert len(records(job_folder(tmp_path / "alpha"))) == len(records(job_folder(tmp_path / "beta")))
