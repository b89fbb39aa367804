"""The queue's server dies, hangs, forgets everything, and hears everything twice."""

import time

import pytest
from chaos.fleet import Fleet
from terminal import wait_for

from trtjob.jobs.folder import JobFolder
from trtjob.jobs.states import JobState
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.units import FINISH, PLAN, shard_unit
from trtjob.storage import open_storage

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(180)]


def test_a_server_that_is_killed_comes_back_with_its_append_only_file(fleet: Fleet, calm: bytes) -> None:
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit()
    for images in (60, 240):
        fleet.wait_done(job_id, images)
        fleet.valkey.kill()
        fleet.valkey.start()
    fleet.check(job_id, calm)
    fleet.end(*nodes)


def test_half_a_minute_without_the_server_is_a_pause(fleet: Fleet, calm: bytes) -> None:
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit()
    fleet.wait_done(job_id, 60)
    fleet.valkey.kill()
    time.sleep(30)
    fleet.valkey.start()
    fleet.check(job_id, calm)
    assert all(node.poll() is None for node in nodes)
    fleet.end(*nodes)


def test_a_server_that_hangs_is_a_pause(fleet: Fleet, calm: bytes) -> None:
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit()
    fleet.wait_done(job_id, 60)
    fleet.valkey.freeze()
    time.sleep(15)
    fleet.valkey.thaw()
    fleet.check(job_id, calm)
    fleet.end(*nodes)


def test_a_server_that_is_full_is_a_pause(fleet: Fleet, calm: bytes) -> None:
    """It answers, and refuses every write: far more of them than a unit of work has attempts."""
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit()
    for images in (60, 240):
        fleet.wait_done(job_id, images)
        fleet.valkey.client.config_set("maxmemory", "1mb")
        time.sleep(15)
        fleet.valkey.client.config_set("maxmemory", "0")
    fleet.check(job_id, calm)
    assert all(node.poll() is None for node in nodes)
    fleet.end(*nodes)


def test_a_server_that_forgot_everything_is_told_again_by_the_same_command(fleet: Fleet, calm: bytes) -> None:
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit()
    fleet.wait_done(job_id, 150)
    fleet.valkey.client.flushall()
    committed = [n for n in range(24) if fleet.folder(job_id).manifest(n) is not None]
    assert committed, "nothing was committed before the loss"
    before = {n: fleet.folder(job_id).manifest(n) for n in committed}
    assert fleet.submit() == job_id
    fleet.check(job_id, calm)
    assert {n: fleet.folder(job_id).manifest(n) for n in committed} == before, "a committed shard was done again"
    fleet.end(*nodes)


def test_every_message_is_delivered_twice_and_some_for_ever(fleet: Fleet, calm: bytes) -> None:
    nodes = [fleet.node(), fleet.node()]
    job_id = fleet.submit()
    queue = WorkQueue(fleet.valkey.client, "trtjob")
    fleet.wait_done(job_id, 25)
    for _ in range(3):
        queue.put(job_id, [PLAN, FINISH, *map(shard_unit, range(24))])
        wait_for(lambda: len(queue) < 20, "the messages to be taken", 60)
    fleet.check(job_id, calm)
    fleet.end(*nodes)


def test_a_job_of_another_version_is_refused_in_one_line_and_left_alone(fleet: Fleet) -> None:
    job_id = fleet.submit()
    storage = open_storage(f"{fleet.output}/{job_id}")
    newer = storage.read("job.json").replace(b'"schema_version": 1', b'"schema_version": 2')
    storage.write("job.json", newer)
    fleet.valkey.client.flushall()
    outcome = fleet.terminal.run(
        "submit", fleet.photos, "--model", fleet.model, "-o", fleet.output, "--annotate", "none", "--shard-size", "25"
    )
    assert outcome.code == 1
    assert "another version of trtjob" in outcome.err
    assert "Traceback" not in outcome.err
    assert storage.read("job.json") == newer


def test_a_job_of_an_older_release_with_the_same_schema_is_continued(fleet: Fleet, calm: bytes) -> None:
    node = fleet.node()
    job_id = fleet.submit()
    fleet.wait_done(job_id, 100)
    fleet.end(node)
    folder: JobFolder = fleet.folder(job_id)
    spec = folder.spec()
    older = spec.model_copy(update={"versions": {**spec.versions, "trtjob": "0.0.1"}})
    folder.storage.write("job.json", older.model_dump_json(indent=1).encode())
    fleet.valkey.client.flushall()
    node = fleet.node()
    assert fleet.submit() == job_id
    view = fleet.check(job_id, calm)
    assert view.spec.versions["trtjob"] == "0.0.1"
    assert view.state is JobState.DONE_WITH_ERRORS
    fleet.end(node)
