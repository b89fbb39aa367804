"""Messages through RQ to a unit: only our own functions run, and a stop reaches what is under way."""

import http.server
import json
import os
import pickle
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis as redis_py
from rq import Callback, Queue, Webhook
from rq.command import send_stop_job_command
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from samples import job_spec
from terminal import wait_for
from worker.burst import unit_worker, work
from worker.local_worker import LocalWorker
from worker.plain_engine import PlainEngine, write_images

from trtjob.engines.protocol import UInt8Array
from trtjob.jobs.states import JobState
from trtjob.queue.conversions import Conversion
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.keys import conversion_key
from trtjob.queue.reconcile import reconcile
from trtjob.queue.rq_internals import intermediate_key, list_key
from trtjob.queue.rq_queue import RUN_UNIT
from trtjob.queue.submit import submit
from trtjob.queue.units import PLAN, shard_unit
from trtjob.worker.rq_worker import UnitWorker


@pytest.fixture
def worker(local_worker: LocalWorker, server: EmbeddedServer) -> Iterator[UnitWorker]:
    """A worker that has not begun."""
    client = redis_py.Redis.from_url(server.url)
    with unit_worker(local_worker.context, client, local_worker.store.redis) as worker:
        yield worker
    client.close()


def rq_queue(local_worker: LocalWorker) -> Queue:
    return Queue(local_worker.queue.name, connection=local_worker.store.redis, serializer=JSONSerializer)


def status(job: Job) -> str:
    return job.get_status().value


# -- our own -----------------------------------------------------------------------------------------------------------


def test_a_job_runs_from_its_first_message_to_its_end(local_worker: LocalWorker, worker: UnitWorker) -> None:
    local_worker.plan(10)
    work(worker)
    assert local_worker.store.state(local_worker.job_id) is JobState.DONE
    assert len(local_worker.queue) == 0


def test_a_message_that_is_done_leaves_nothing_behind(local_worker: LocalWorker, worker: UnitWorker) -> None:
    local_worker.plan(4)
    work(worker)
    assert [key for key in local_worker.store.redis.keys("rq:job:*")] == []


@pytest.mark.parametrize("name", [b"a b", b"\xff\xfe"])
def test_a_name_that_rq_refuses_ends_no_worker(local_worker: LocalWorker, worker: UnitWorker, name: bytes) -> None:
    local_worker.plan(4)
    local_worker.store.redis.lpush(list_key(local_worker.queue.name), name)
    work(worker)
    assert local_worker.store.state(local_worker.job_id) is JobState.DONE


def test_a_conversion_is_a_message_too(local_worker: LocalWorker, worker: UnitWorker) -> None:
    Conversion(local_worker.store.redis, "request-1").want()
    local_worker.queue.put_convert("request-1", {"model": "/nowhere/a.weights"})
    work(worker)
    assert local_worker.store.redis.hget(conversion_key("request-1"), "state") == b"failed"


def test_the_heart_holds_the_message_only_while_it_is_worked_on(local_worker: LocalWorker, worker: UnitWorker) -> None:
    held: list[Any] = []
    local_worker.plan(1)
    local_worker.use(PlainEngine(on_infer=lambda _images: held.append(worker.heartbeat_thread.execution)))
    work(worker)
    assert len(held) == 1
    assert held[0] is not None
    assert worker.heartbeat_thread.execution is None


def test_rq_holds_a_message_for_no_longer_than_two_leases(local_worker: LocalWorker, worker: UnitWorker) -> None:
    """Its own limit for a message without a time-out would be seven minutes, alive or dead."""
    local_worker.plan(1)
    left: list[float] = []

    def look(_images: UInt8Array) -> None:
        registry = rq_queue(local_worker).started_job_registry
        left.extend(score for _, score in local_worker.store.redis.zrange(registry.key, 0, -1, withscores=True))

    local_worker.use(PlainEngine(on_infer=look))
    now = local_worker.store.redis.time()[0]
    work(worker)
    assert len(left) == 1
    assert left[0] - now <= 2 * local_worker.context.settings.lease_s + 2


# -- not ours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["os.mkdir", "os.makedirs", "pathlib.Path.mkdir", "shutil.rmtree", "builtins.exec"])
def test_a_function_that_is_not_ours_does_not_run(
    local_worker: LocalWorker, worker: UnitWorker, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "folder"
    if name == "shutil.rmtree":
        folder.mkdir()
    argument = f"import os; os.mkdir({str(folder)!r})" if name == "builtins.exec" else str(folder)
    job = rq_queue(local_worker).enqueue(name, argument)
    work(worker)
    assert status(job) == "failed"
    assert folder.exists() == (name == "shutil.rmtree")


@pytest.mark.parametrize(
    "name",
    [
        "os.getpid",
        "trtjob.worker.tasks.current",
        "trtjob.worker.tasks.Path",
        "trtjob.worker.tasks.run_unit.__class__",
        "trtjob.worker.tasks.json.loads",
        "trtjob.worker.tasks._finish",
    ],
)
def test_only_the_two_tasks_are_run_and_nothing_beside_them(
    local_worker: LocalWorker, worker: UnitWorker, name: str
) -> None:
    job = rq_queue(local_worker).enqueue(name)
    work(worker)
    assert status(job) == "failed"
    result = job.latest_result()
    assert result is not None
    assert f"asks for {name!r}, which no worker runs" in str(result.exc_string)


def test_a_method_of_an_object_in_the_message_does_not_run(local_worker: LocalWorker, worker: UnitWorker) -> None:
    job = rq_queue(local_worker).enqueue(RUN_UNIT, local_worker.job_id, PLAN)
    local_worker.store.redis.hset(job.key, "data", json.dumps(["append", ["a", "list"], ["b"], {}]))
    work(worker)
    assert status(job) == "failed"


def test_a_pickle_is_not_opened(local_worker: LocalWorker, worker: UnitWorker, tmp_path: Path) -> None:
    job = rq_queue(local_worker).enqueue(RUN_UNIT, local_worker.job_id, PLAN)

    class Trap:
        def __reduce__(self) -> Any:
            return Path.mkdir, (tmp_path / "sprung",)

    local_worker.store.redis.hset(job.key, "data", pickle.dumps(Trap()))
    work(worker)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe", id="binary"),
        pytest.param(b"{}", id="object"),
        pytest.param(b"[1, 2, 3, 4]", id="numbers"),
        pytest.param(b'["trtjob.worker.tasks.run_unit", null, ["no-such-job", "no-such-unit"], {}]', id="unit"),
        pytest.param(b'["trtjob.worker.tasks.run_unit", null, [["a"], {}], {}]', id="types"),
        pytest.param(b'["trtjob.worker.tasks.run_unit", null, [], {"surprise": 1}]', id="arguments"),
    ],
)
def test_a_message_of_rubbish_does_not_keep_the_next_from_running(
    local_worker: LocalWorker, worker: UnitWorker, data: bytes
) -> None:
    job = rq_queue(local_worker).enqueue(RUN_UNIT)
    local_worker.store.redis.hset(job.key, "data", data)
    write_images(local_worker.photos, 1)
    local_worker.submit()
    work(worker)
    assert local_worker.store.state(local_worker.job_id) is not JobState.QUEUED


Bytes: TypeAlias = bytes | Callable[[], bytes]  # what is large is made when it is wanted


def _made(value: Bytes) -> bytes:
    return value() if callable(value) else value


def packed_bomb(times: int = 1) -> bytes:
    """Return 50 MB of JSON, packed so many times."""
    data = b"[" + b" " * 50_000_000
    for _ in range(times):
        data = zlib.compress(data)
    return data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"data": lambda: b"x" * 130_000_000}, "its record has 130,", id="huge data"),
        pytest.param({"meta": b"x" * 100_000}, "bytes; a message is of at most 65,536", id="another field is huge"),
        pytest.param({f"field-{n}": "" for n in range(100)}, "more than 64 fields", id="many fields"),
        pytest.param({"n" * 70_000: ""}, "bytes; a message is of at most", id="a huge name"),
        pytest.param({"data": packed_bomb}, "unpack to more than 65,536 bytes", id="data that unpack to 50 MB"),
        pytest.param({"data": lambda: packed_bomb(2)}, "its data are not JSON", id="packed twice"),
        pytest.param({"data": pickle.dumps([1])}, "its data are not JSON", id="pickle"),
        pytest.param({"created_at": b"yesterday"}, "its record is damaged: ValueError", id="not a date"),
        pytest.param({"timeout": b"\xff"}, "its record is damaged: ", id="no text"),
        pytest.param({"retries_left": b"many"}, "its record is damaged: ValueError", id="not a number"),
    ],
)
def test_a_record_that_cannot_be_ours_is_parked_unread(
    local_worker: LocalWorker,
    worker: UnitWorker,
    fields: dict[str, Bytes],
    reason: str,
) -> None:
    local_worker.plan(4)
    job = rq_queue(local_worker).enqueue(RUN_UNIT, local_worker.job_id, PLAN, at_front=True)
    local_worker.store.redis.hset(job.key, mapping={name: _made(value) for name, value in fields.items()})
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    work(worker)
    assert peak_mb() - before < 100
    assert local_worker.store.state(local_worker.job_id) is JobState.DONE
    assert job.id in rq_queue(local_worker).failed_job_registry.get_job_ids()
    parked = Job.fetch(job.id, connection=local_worker.store.redis, serializer=JSONSerializer)
    assert status(parked) == "failed"
    assert reason in str(parked.description)
    assert local_worker.store.redis.llen(intermediate_key(local_worker.queue.name)) == 0
    assert local_worker.store.redis.hlen(job.key) < 10


@pytest.mark.parametrize("command", [["SET", "text"], ["RPUSH", "list"], ["ZADD", "1", "set"]])
def test_a_record_that_is_none_is_parked(local_worker: LocalWorker, worker: UnitWorker, command: list[str]) -> None:
    local_worker.plan(4)
    name, redis = "photos--plan--01234567", local_worker.store.redis
    redis.execute_command(command[0], f"rq:job:{name}", *command[1:])
    redis.lpush(list_key(local_worker.queue.name), name)
    work(worker)
    assert local_worker.store.state(local_worker.job_id) is JobState.DONE
    assert name in rq_queue(local_worker).failed_job_registry.get_job_ids()


def test_what_rqs_upkeep_stumbles_over_ends_no_worker(
    local_worker: LocalWorker, worker: UnitWorker, caplog: pytest.LogCaptureFixture
) -> None:
    local_worker.plan(4)
    job = rq_queue(local_worker).enqueue(RUN_UNIT, local_worker.job_id, PLAN)
    local_worker.store.redis.hset(job.key, "created_at", b"yesterday")
    local_worker.store.redis.lrem(list_key(local_worker.queue.name), 0, job.id)
    local_worker.store.redis.rpush(intermediate_key(local_worker.queue.name), job.id)
    worker.last_cleaned_at = None  # the upkeep is due
    work(worker)
    assert local_worker.store.state(local_worker.job_id) is JobState.DONE
    assert "unhandled exception" not in caplog.text


def peak_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3


@pytest.mark.parametrize("unit", ["shard-00009", "shard-" + "9" * 9, "shard-" + "9" * 5000, "shard-1", "x", "../plan"])
def test_a_unit_that_the_job_has_not_is_passed_over(local_worker: LocalWorker, worker: UnitWorker, unit: str) -> None:
    local_worker.plan(4)
    rq_queue(local_worker).enqueue(RUN_UNIT, local_worker.job_id, unit, at_front=True)
    name = f"{local_worker.job_id}--{unit}--01234567"
    if unit.startswith("shard-"):  # by name alone, as shards are taken behind the first
        local_worker.store.redis.rpush(list_key(local_worker.queue.name), name)
    work(worker)
    assert local_worker.store.state(local_worker.job_id) is JobState.DONE


EVIDENCE = """
from pathlib import Path
def leave(*_args):
    Path({path!r}).write_text("it ran")
"""


@pytest.mark.parametrize("is_good", [pytest.param(True, id="success"), pytest.param(False, id="failure")])
def test_callbacks_do_not_run(
    local_worker: LocalWorker, worker: UnitWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_good: bool
) -> None:
    (tmp_path / "modules").mkdir()
    evidence = tmp_path / "evidence"
    (tmp_path / "modules" / "someone_elses.py").write_text(EVIDENCE.format(path=str(evidence)))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    callback = Callback("someone_elses.leave")
    arguments = ("no-such-job", PLAN) if is_good else ()
    job = rq_queue(local_worker).enqueue(
        RUN_UNIT, *arguments, on_success=callback, on_failure=callback, on_stopped=callback, result_ttl=60
    )
    work(worker)
    assert status(job) == ("finished" if is_good else "failed")
    assert not evidence.exists()


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A web server of somebody else, and the requests that it got."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            requests.append(self.rfile.readline().decode())

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", requests
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("is_good", [pytest.param(True, id="success"), pytest.param(False, id="failure")])
def test_a_message_cannot_make_the_worker_call_a_web_server(
    local_worker: LocalWorker, worker: UnitWorker, listener: tuple[str, list[str]], is_good: bool
) -> None:
    url, requests = listener
    hooks = [Webhook(url, job_status="finished"), Webhook(url, job_status="failed")]
    arguments = ("no-such-job", PLAN) if is_good else ()
    job = rq_queue(local_worker).enqueue(RUN_UNIT, *arguments, webhooks=hooks, result_ttl=60)
    work(worker)
    assert status(job) == ("finished" if is_good else "failed")
    assert requests == []


# -- stopping ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_signal_while_a_shard_is_worked_on_ends_the_worker_at_a_batch_edge(
    local_worker: LocalWorker, worker: UnitWorker
) -> None:
    local_worker.plan(100, shard_size=50)
    counted: list[int] = []
    lock = threading.Lock()

    def signal_at_ten(images: UInt8Array) -> None:
        with lock:
            counted.append(len(images))
            if len(counted) == 10:
                signal.raise_signal(signal.SIGTERM)
                wait_for(lambda: local_worker.context.stopping, "the main thread, which hears it")

    local_worker.use(PlainEngine(on_infer=signal_at_ten))
    worker.work(logging_level="CRITICAL")
    assert len(counted) <= 14
    assert local_worker.store.is_leased(local_worker.job_id, [shard_unit(0), shard_unit(1)]) == [False, False]
    assert local_worker.attempts() == 0
    assert {(local_worker.job_id, shard_unit(0)), (local_worker.job_id, shard_unit(1))} <= local_worker.queue.pending()


def test_a_second_signal_changes_nothing(local_worker: LocalWorker, worker: UnitWorker) -> None:
    local_worker.plan(50, shard_size=50)
    counted: list[int] = []

    def signal_twice(images: UInt8Array) -> None:
        counted.append(len(images))
        if len(counted) in (5, 6):
            signal.raise_signal(signal.SIGTERM)

    local_worker.use(PlainEngine(on_infer=signal_twice))
    worker.work(logging_level="CRITICAL")
    assert (local_worker.job_id, shard_unit(0)) in local_worker.queue.pending()
    assert local_worker.store.state(local_worker.job_id) is JobState.RUNNING


def test_a_signal_while_there_is_nothing_to_do_ends_the_wait(worker: UnitWorker) -> None:
    with pytest.raises(StopRequested):
        worker.request_stop(signal.SIGTERM, None)
    assert worker.context.stopping


def test_a_signal_after_that_does_not_disturb_the_end(worker: UnitWorker) -> None:
    """The supervisor's end closes our standard input, which is a second signal while the worker says goodbye."""
    with pytest.raises(StopRequested):
        worker.request_stop(signal.SIGTERM, None)
    worker.request_stop(signal.SIGTERM, None)


def test_rqs_own_stop_command_cancels_the_job(local_worker: LocalWorker, worker: UnitWorker) -> None:
    local_worker.plan(200, shard_size=200)
    sent = threading.Event()

    def stop(_images: UInt8Array) -> None:
        if not sent.is_set():
            sent.set()
            execution = worker.heartbeat_thread.execution
            assert execution is not None
            send_stop_job_command(local_worker.store.redis, execution[0].id, serializer=JSONSerializer)
            wait_for(lambda: local_worker.store.state(local_worker.job_id) is JobState.CANCELLED, "the job's end")

    local_worker.use(PlainEngine(on_infer=stop))
    work(worker)
    view = local_worker.store.view(local_worker.job_id)
    assert (view.state, view.message, view.shards_done) == (JobState.CANCELLED, "stopped through RQ", 0)
    assert local_worker.store.is_leased(local_worker.job_id, [shard_unit(0)]) == [False]


def test_a_stop_command_without_a_unit_in_hand_does_nothing(local_worker: LocalWorker, worker: UnitWorker) -> None:
    local_worker.plan(4)
    worker.kill_horse()
    assert local_worker.store.state(local_worker.job_id) is JobState.RUNNING
    local_worker.context.interrupter.check()


# -- standing aside ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_does_other_jobs_while_it_stands_aside_from_one(local_worker: LocalWorker, worker: UnitWorker) -> None:
    local_worker.plan(4)
    away = local_worker.photos.rename(local_worker.photos.with_name("away"))
    other = job_spec(away, local_worker.output, job_id="others-1234abcd")
    submit(local_worker.store, local_worker.queue, other)

    def is_done(job_id: str) -> bool:
        reconcile(local_worker.store, local_worker.queue)  # as a daemon does every two seconds
        return local_worker.store.state(job_id) is JobState.DONE

    def stop_when_done() -> None:
        try:
            wait_for(lambda: is_done(other.job_id), "the other job")
            away.rename(local_worker.photos)
            wait_for(lambda: is_done(local_worker.job_id), "the job whose folder is there again")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=stop_when_done)
    ending.start()
    worker.work(burst=False, logging_level="CRITICAL")
    ending.join()
    assert local_worker.store.view(local_worker.job_id).ok == 4
    assert local_worker.store.state(other.job_id) is JobState.DONE
