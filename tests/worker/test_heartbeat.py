"""The heart of a worker process: it keeps leases, reports, passes on what became of a unit, and ends a stand-still."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from terminal import wait_for
from worker.local_worker import LocalWorker

from trtjob.jobs.states import JobState
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.keys import job_key, lease_key, worker_key
from trtjob.queue.units import PLAN, shard_unit
from trtjob.storage import note_trouble
from trtjob.storage.trouble import forget_troubles
from trtjob.worker.exit_codes import STALLED
from trtjob.worker.heartbeat import POLL_S, HeartbeatThread
from trtjob.worker.interrupter import Interrupter


class Clock:
    """Tells the time, so many seconds ahead of the real one."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heart(local_worker: LocalWorker, server: EmbeddedServer, clock: Clock) -> Iterator[HeartbeatThread]:
    """A heart that does not beat yet."""
    client = redis_py.Redis.from_url(server.url)
    heart = HeartbeatThread(local_worker.context, client, clock=clock)
    yield heart
    if heart.is_alive():
        heart.end()
    client.close()


def work_on(local_worker: LocalWorker, unit: str = shard_unit(0)) -> Interrupter:
    """Have a unit in hand, as in the middle of `run_unit`. Returns what interrupts it."""
    if unit == PLAN:
        local_worker.submit()
    else:
        local_worker.plan(8)
    interrupter = local_worker.context.leases[local_worker.claim(unit)] = Interrupter()
    return interrupter


def lease_left_ms(local_worker: LocalWorker) -> int:
    return int(local_worker.store.redis.pttl(lease_key(local_worker.job_id, shard_unit(0))))


# -- leases ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_lease_is_renewed_while_its_unit_is_worked_on(local_worker: LocalWorker, heart: HeartbeatThread) -> None:
    work_on(local_worker)
    local_worker.store.redis.pexpire(lease_key(local_worker.job_id, shard_unit(0)), 5000)
    heart.start()
    wait_for(lambda: lease_left_ms(local_worker) > 6000, "a longer lease")


def test_a_renewal_is_no_interruption(local_worker: LocalWorker, heart: HeartbeatThread) -> None:
    interrupter = work_on(local_worker)
    heart.renew()
    interrupter.check()


@pytest.mark.parametrize(
    "state", [pytest.param(state, id=state.value) for state in (JobState.CANCELLED, JobState.FAILED, JobState.DONE)]
)
def test_a_unit_of_a_job_that_has_ended_is_interrupted(
    local_worker: LocalWorker, heart: HeartbeatThread, state: JobState
) -> None:
    interrupter = work_on(local_worker)
    local_worker.store.update(local_worker.job_id, state=state.value)
    heart.renew()
    assert interrupter.reason == state
    local_worker.context.interrupter.check()


def test_a_unit_that_another_has_by_now_is_interrupted(local_worker: LocalWorker, heart: HeartbeatThread) -> None:
    interrupter = work_on(local_worker)
    local_worker.store.redis.delete(lease_key(local_worker.job_id, shard_unit(0)))
    local_worker.claim(owner="worker-2")
    heart.renew()
    assert interrupter.reason == "lost"


def test_of_two_units_in_hand_only_the_lost_one_is_interrupted(
    local_worker: LocalWorker, heart: HeartbeatThread
) -> None:
    first = work_on(local_worker)
    second = local_worker.context.leases[local_worker.claim(shard_unit(1))] = Interrupter()
    local_worker.store.redis.delete(lease_key(local_worker.job_id, shard_unit(1)))
    local_worker.claim(shard_unit(1), owner="worker-2")
    heart.renew()
    first.check()
    assert second.reason == "lost"


class Leaving(HeartbeatThread):
    """A heart whose message ends between two looks at it."""

    looks: int

    @property
    def execution(self) -> tuple[Job, Execution] | None:
        self.looks += 1
        return self._held if self.looks == 1 else None

    @execution.setter
    def execution(self, value: tuple[Job, Execution] | None) -> None:
        self._held, self.looks = value, 0


def rq_execution(local_worker: LocalWorker) -> tuple[Job, Execution]:
    """Start a message as RQ does."""
    queue = Queue(local_worker.queue.name, connection=local_worker.store.redis)
    job = queue.enqueue("trtjob.worker.tasks.run_unit")
    with local_worker.store.redis.pipeline() as pipe:
        execution = Execution.create(job, ttl=5, pipeline=pipe)
        pipe.execute()
    return job, execution


def test_rqs_own_record_of_the_message_is_kept_alive(local_worker: LocalWorker, heart: HeartbeatThread) -> None:
    job, execution = rq_execution(local_worker)
    heart.execution = (job, execution)
    before = local_worker.store.redis.zscore(job.started_job_registry.key, execution.composite_key)
    heart.renew()
    assert local_worker.store.redis.zscore(job.started_job_registry.key, execution.composite_key) > before


def test_a_message_that_ends_while_it_is_renewed_does_not_stop_the_heart(local_worker: LocalWorker) -> None:
    heart = Leaving(local_worker.context, local_worker.store.redis)
    heart.execution = rq_execution(local_worker)
    heart.renew()
    assert heart.looks == 1


# -- reports -----------------------------------------------------------------------------------------------------------


def test_a_report_says_who_and_what_the_worker_is(local_worker: LocalWorker, heart: HeartbeatThread) -> None:
    heart.report()
    (worker,) = local_worker.store.workers()
    assert (worker.name, worker.engine, worker.device, worker.state) == ("worker-1", "plain", "test", "idle")
    assert worker.beat_age_s < 5


def test_a_report_says_what_is_worked_on(local_worker: LocalWorker, heart: HeartbeatThread) -> None:
    work_on(local_worker)
    heart.report()
    (worker,) = local_worker.store.workers()
    assert (worker.state, worker.units) == ("busy", ((local_worker.job_id, shard_unit(0)),))


def test_a_report_without_an_engine_is_one_too(local_worker: LocalWorker, heart: HeartbeatThread) -> None:
    local_worker.context.close_engine()
    heart.report()
    assert local_worker.store.workers()[0].engine == ""


def test_a_report_says_how_fast_and_how_busy_the_worker_is(
    local_worker: LocalWorker, heart: HeartbeatThread, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_on(local_worker)
    monkeypatch.setattr(local_worker.context, "busy_s", lambda: {"decode": 2.0})
    heart.report()
    clock.ahead_s = 10
    local_worker.context.images = 50
    monkeypatch.setattr(local_worker.context, "busy_s", lambda: {"decode": 8.0, "infer": 5.0})
    heart.report()
    (worker,) = local_worker.store.workers()
    assert worker.rate == pytest.approx(5, rel=0.1)
    assert worker.busy["decode"] == pytest.approx(0.6, rel=0.1)  # 6 s in 10 s, by one process
    assert worker.busy["infer"] == pytest.approx(0.5, rel=0.1)


def test_a_rate_is_kept_until_there_is_enough_to_measure(
    local_worker: LocalWorker, heart: HeartbeatThread, clock: Clock
) -> None:
    work_on(local_worker)
    clock.ahead_s = 10
    local_worker.context.images = 50
    heart.report()
    local_worker.context.images = 51
    heart.report()
    assert local_worker.store.workers()[0].rate == pytest.approx(5, rel=0.1)


def test_an_idle_worker_has_no_rate(local_worker: LocalWorker, heart: HeartbeatThread, clock: Clock) -> None:
    local_worker.context.images = 50
    clock.ahead_s = 10
    heart.report()
    assert local_worker.store.workers()[0].rate == 0


@pytest.mark.slow
def test_a_heart_goes_on_beating_while_the_server_is_away(
    local_worker: LocalWorker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = redis_py.Redis(unix_socket_path=str(tmp_path / "nowhere"), retry=Retry(NoBackoff(), 0))
    heart = HeartbeatThread(local_worker.context, nowhere)
    work_on(local_worker)
    heart.start()
    beats: list[str] = []

    def has_beaten_on() -> bool:
        beats.append(capfd.readouterr().out)
        return "".join(beats).count("\n") >= 3  # the second report has failed by then

    try:
        wait_for(has_beaten_on, "three beats")
        assert heart.is_alive()
    finally:
        heart.end()


# -- standing still ----------------------------------------------------------------------------------------------------

STANDING_STILL = """
import sys
import redis
from trtjob.config import Settings
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.job_store import JobStore
from trtjob.queue.leases import Lease
from trtjob.worker.context import Context
from trtjob.worker.heartbeat import LOADING_S, PATIENCE, HeartbeatThread
client = redis.Redis.from_url(sys.argv[1])
context = Context("worker", Settings(), JobStore(client), WorkQueue(client, "trtjob"))
unit, what = sys.argv[2:]
now = 0.0
heart = HeartbeatThread(context, client, clock=lambda: now)
lease = Lease("photos-1234abcd", unit, "worker", 1, 1, 10.0)
if what != "waiting for work":
    context.leases[lease] = context.interrupter
heart.check_progress()  # notes where the unit stands
if what == "moving":
    context.steps += 1
if what.startswith("loading"):
    context.doing = "loading the model"
now += LOADING_S + 1 if what == "loading for ever" else PATIENCE * context.settings.stall_s + 1
heart.check_progress()
context.leases[lease] = context.interrupter
now += 1
heart.check_progress()
"""


@pytest.mark.parametrize(
    ("unit", "what", "code"),
    [
        pytest.param(shard_unit(0), "still", STALLED, id="a-shard-that-stands"),
        pytest.param(shard_unit(0), "moving", 0, id="a-shard-that-moves"),
        pytest.param(PLAN, "still", 0, id="planning-takes-its-time"),
        pytest.param(shard_unit(0), "waiting for work", 0, id="a-shard-that-has-just-come"),
        pytest.param(shard_unit(0), "loading", 0, id="a-model-that-loads"),
        pytest.param(shard_unit(0), "loading for ever", STALLED, id="a-model-that-does-not"),
    ],
)
@pytest.mark.slow
def test_a_process_whose_shard_stands_still_ends_itself(
    server: EmbeddedServer, unit: str, what: str, code: int
) -> None:
    command = [sys.executable, "-c", STANDING_STILL, server.url, unit, what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr


@pytest.mark.slow
def test_a_beat_is_a_line_on_standard_output_with_what_was_done(
    local_worker: LocalWorker, heart: HeartbeatThread, capfd: pytest.CaptureFixture[str]
) -> None:
    local_worker.context.images, local_worker.context.failed = 7, 2
    heart.start()
    beats: list[str] = []

    def has_beaten() -> bool:
        beats.append(capfd.readouterr().out)
        return "\n" in "".join(beats)

    wait_for(has_beaten, "a beat")
    heart.end()
    pulse = json.loads("".join(beats).splitlines()[0])
    assert (pulse["images"], pulse["failed"], pulse["engine"]) == (7, 2, "plain")
    assert pulse["rss_bytes"] > 1 << 20


def test_shares_are_reported_as_json(local_worker: LocalWorker, heart: HeartbeatThread) -> None:
    heart.report()
    assert json.loads(local_worker.store.redis.hget(worker_key("worker-1"), "busy")) == {
        "decode": 0.0,
        "infer": 0.0,
        "finish": 0.0,
    }


# -- storage that fails ------------------------------------------------------------------------------------------------


@pytest.fixture
def trouble() -> Iterator[str]:
    """Storage that fails, for as long as the test runs or until it says otherwise."""
    forget_troubles()  # that other tests have left
    note_trouble("s3://b", "s3://b fails: no answer in time")
    yield "s3://b fails: no answer in time"
    note_trouble("s3://b", "")


def report_another(local_worker: LocalWorker, trouble: str = "") -> None:
    """Let a worker of another node report."""
    fields = {"host": "other", "pid": 1, "state": "idle", "trouble": trouble, "queue": local_worker.queue.name}
    local_worker.store.report_worker("other-17-1", fields)


def move_to_bucket(local_worker: LocalWorker) -> None:
    """Let the job write into a bucket."""
    key = job_key(local_worker.job_id)
    spec = json.loads(local_worker.store.redis.hget(key, "spec")) | {"output": "s3://b/out"}
    local_worker.store.redis.hset(key, "spec", json.dumps(spec))


def test_a_job_is_degraded_where_no_node_works_and_only_as_long(
    local_worker: LocalWorker, heart: HeartbeatThread, clock: Clock, trouble: str
) -> None:
    work_on(local_worker)
    move_to_bucket(local_worker)
    heart.report()
    assert local_worker.store.view(local_worker.job_id).degraded == trouble
    report_another(local_worker, trouble)
    clock.ahead_s += POLL_S
    heart.report()
    assert local_worker.store.view(local_worker.job_id).degraded == trouble
    report_another(local_worker)
    clock.ahead_s += POLL_S
    heart.report()
    assert local_worker.store.view(local_worker.job_id).degraded == ""
    (mine,) = (worker for worker in local_worker.store.workers() if worker.name == local_worker.context.name)
    assert mine.trouble == trouble, "it is the node's own trouble"


def test_a_job_is_not_degraded_once_storage_works(
    local_worker: LocalWorker, heart: HeartbeatThread, trouble: str
) -> None:
    work_on(local_worker)
    move_to_bucket(local_worker)
    heart.report()
    note_trouble("s3://b", "")
    heart.report()
    assert local_worker.store.view(local_worker.job_id).degraded == ""
    assert [event.event for event in local_worker.store.events(local_worker.job_id)][-2:] == ["degraded", "recovered"]


@pytest.mark.usefixtures("trouble")
def test_after_an_outage_a_unit_goes_back_where_another_node_works(
    local_worker: LocalWorker, heart: HeartbeatThread, clock: Clock
) -> None:
    interrupter = work_on(local_worker)
    move_to_bucket(local_worker)
    local_worker.context.settings = local_worker.context.settings.model_copy(update={"outage_s": 0.0})
    heart.report()
    assert interrupter.reason == "", "it may be over for all of them at any moment"
    report_another(local_worker)
    clock.ahead_s += POLL_S
    heart.report()
    assert interrupter.reason == "outage"


@pytest.mark.usefixtures("trouble")
def test_a_short_outage_is_waited_for(local_worker: LocalWorker, heart: HeartbeatThread) -> None:
    interrupter = work_on(local_worker)
    move_to_bucket(local_worker)
    report_another(local_worker)
    heart.report()
    assert interrupter.reason == ""


@pytest.mark.usefixtures("trouble")
def test_a_bucket_that_fails_holds_no_job_up_that_needs_none(
    local_worker: LocalWorker, heart: HeartbeatThread, clock: Clock
) -> None:
    interrupter = work_on(local_worker)
    local_worker.context.settings = local_worker.context.settings.model_copy(update={"outage_s": 0.0})
    for _ in range(2):
        clock.ahead_s += POLL_S
        heart.report()
        report_another(local_worker)
    assert interrupter.reason == ""
    assert local_worker.store.view(local_worker.job_id).degraded == ""
    assert not any(worker.trouble for worker in local_worker.store.workers()), "nothing here waits for it"
