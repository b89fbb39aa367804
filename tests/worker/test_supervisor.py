"""The daemon and real worker processes: killed, stopped, crashed, never started; what they held is done by others."""

import asyncio
import hashlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from loop_model import write_endless
from poison import put_into_every_process, slow_files
from samples import job_spec
from terminal import wait_for, worker_pids
from worker.mean_model import write_model
from worker.plain_engine import CLASSIFIER

from trtjob.config import Settings
from trtjob.cpus import usable_cpus
from trtjob.engines.choice import ChosenGpu
from trtjob.engines.cuda.survey import SurveyedGpu
from trtjob.errors import QueueError
from trtjob.jobs.spec import JobSpec, ModelRef
from trtjob.jobs.states import FINISHED, TERMINAL, JobState
from trtjob.queue.connection import Connection
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import job_key
from trtjob.queue.rq_internals import list_key
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.submit import submit
from trtjob.queue.units import shard_unit
from trtjob.worker.exit_codes import DEVICE_LOST, STALLED
from trtjob.worker.process_slots import process_slots
from trtjob.worker.restart_policy import FREE_FAULTS, backoff_s, blame_of, oom_kills
from trtjob.worker.supervisor import MAX_FAILED_STARTS, Supervisor
from trtjob.worker.worker_handle import GPU_FAILED

Scenario = Callable[[], Awaitable[None]]


async def until(condition: Callable[[], object], what: str, timeout_s: float = 30) -> None:
    await asyncio.to_thread(wait_for, condition, what, timeout_s)


def supervise(
    settings: Settings,
    connection: Connection,
    scenario: Scenario,
    *,
    processes: int = 1,
    known: list[Supervisor] | None = None,
) -> float:
    """Run a supervisor while a scenario plays, which finds it in `known`. Returns the seconds from the request to stop
    to the end."""

    async def run() -> float:
        stop = asyncio.Event()
        supervisor = Supervisor(settings, connection, processes=processes)
        if known is not None:
            known.append(supervisor)
        running = asyncio.create_task(supervisor.run(stop))
        playing = asyncio.ensure_future(scenario())
        try:
            await asyncio.wait([running, playing], return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                playing.result()
        finally:
            stop.set()
            told = time.monotonic()
            playing.cancel()
            await asyncio.wait([playing])
            await running
        return time.monotonic() - told

    return asyncio.run(run())


MANY = 300  # images: three seconds of work for a process
EACH_S = 0.01


class Node:
    """A machine's queue and store, as a test looks at them, and the one job on it."""

    def __init__(self, connection: Connection, settings: Settings, tmp_path: Path) -> None:
        self.store = JobStore(connection.redis)
        self.queue = WorkQueue(connection.redis, settings.queue)
        self.folder = tmp_path
        self.job_id = job_spec().job_id

    def pids(self) -> list[int]:
        """Return the processes that have reported and live."""
        return [worker.pid for worker in self.store.workers() if Path(f"/proc/{worker.pid}").exists()]

    def submit(
        self, images: int, *, shard_size: int = 100_000, model: Callable[[Path], ModelRef] = write_model
    ) -> JobSpec:
        """Hand a job over so many names of one image in. model: writes the model."""
        photos = self.folder / "photos"
        photos.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
        first = photos / "00000.jpg"
        first.write_bytes(cv2.imencode(".jpg", noise)[1].tobytes())
        for number in range(1, images):
            os.link(first, photos / f"{number:05}.jpg")
        spec = job_spec(photos, self.folder / "out", shard_size=shard_size)
        spec = spec.model_copy(update={"model": model(self.folder / "mean.onnx")})
        submit(self.store, self.queue, spec)
        return spec

    def is_under_way(self) -> bool:
        return self.store.view(self.job_id).live_done > 20

    def is_done(self) -> bool:
        return self.store.state(self.job_id) in FINISHED

    def attempts(self) -> int:
        return int(self.store.redis.hget(job_key(self.job_id) + ":attempts", shard_unit(0)) or 0)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with which many cores are no faster than few."""
    return settings.model_copy(update={"image_processes": 1})


@pytest.fixture
def node(connection: Connection, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node that waits for each of its images."""
    slow = put_into_every_process(tmp_path / "site", slow_files(".jpg", EACH_S))
    monkeypatch.setenv("PYTHONPATH", slow["PYTHONPATH"])
    return Node(connection, settings, tmp_path)


def freed(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the dead are to blame for, one for each unit that was freed."""
    return [str(vars(record)["blame"]) for record in caplog.records if record.message == "unit of a dead worker freed"]


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


# -- lives and deaths --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_model_that_never_answers_ends_its_process_and_then_its_job_which_names_it(
    node: Node, settings: Settings, connection: Connection
) -> None:
    settings = settings.model_copy(update={"stall_s": 2.0, "max_crashes": 1})  # the least of both

    async def wait() -> None:
        node.submit(1, model=endless)
        await until(lambda: node.store.state(node.job_id) in TERMINAL, "the job's end", 60)

    def endless(path: Path) -> ModelRef:
        write_endless(path, CLASSIFIER)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return ModelRef(name="endless", sha256=digest, path=str(path), task="classify", labels=CLASSIFIER.labels)

    supervise(settings, connection, wait)
    view = node.store.view(node.job_id)
    assert view.state is JobState.FAILED
    assert view.message == (
        "shard-00000 ended its worker 1 times. Last: a batch of the model 'endless' took more than 4 s."
    )


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_its_shard_taken_over_at_once(
    node: Node, settings: Settings, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async def kill_it() -> None:
        node.submit(MANY)
        await until(node.is_under_way, "images")
        (pid,) = node.pids()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: freed(caplog), "the unit's release", 5)  # not the end of the lease, which takes ten
        await until(lambda: node.pids() not in ([], [pid]), "another process")
        assert node.attempts() <= 1  # somebody killed it: that is nobody's crash
        await until(node.is_done, "the job's end")

    supervise(settings, connection, kill_it)
    assert freed(caplog) == [""]
    assert node.store.view(node.job_id).ok == MANY


@pytest.mark.slow
def test_a_process_that_crashes_blames_what_it_had_in_hand(
    node: Node, settings: Settings, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async def crash_it() -> None:
        node.submit(MANY)
        await until(node.is_under_way, "images")
        os.kill(node.pids()[0], signal.SIGSEGV)
        await until(lambda: freed(caplog), "the unit's release", 5)
        await until(node.is_done, "the job's end")

    supervise(settings, connection, crash_it)
    assert freed(caplog) == ["SIGSEGV"]
    assert node.store.view(node.job_id).ok == MANY


# In the place of a driver whose GPU breaks: the first process that runs its engine goes on when two others have ended.
_SICK_ENGINE = """
import os, sys, time
from importlib.abc import MetaPathFinder

class Sick(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            sys.meta_path.remove(self)
            import onnxruntime
            spoil(onnxruntime.InferenceSession)
            return onnxruntime.__spec__

def spoil(session):
    run, is_well = session.run, []

    def sick_run(*args):
        if not is_well:
            try:
                os.close(os.open({well!r}, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                with open({well!r}, "ab") as deaths:
                    deaths.write(b"x")
                os._exit({code})
            is_well.append(True)
        while os.path.getsize({well!r}) < 2:
            time.sleep(0.05)
        return run(*args)

    session.run = sick_run

sys.meta_path.insert(0, Sick())
"""


@pytest.mark.slow
def test_the_shards_of_a_process_whose_gpu_fails_go_on_on_another_and_none_is_blamed(
    node: Node,
    settings: Settings,
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    put_into_every_process(tmp_path / "site", _SICK_ENGINE.format(well=str(tmp_path / "well"), code=DEVICE_LOST))
    troubles: set[str] = set()

    def is_over() -> bool:
        troubles.update(daemon.trouble for daemon in node.store.daemons())
        return node.is_done() and any("its GPU failed" in trouble for trouble in troubles)

    async def work() -> None:
        node.submit(MANY, shard_size=20)
        await until(is_over, "the end of the job, and word of the GPU")

    supervise(settings, connection, work, processes=2)
    view = node.store.view(node.job_id)
    assert (view.state, view.ok, view.failed) == (JobState.DONE, MANY, 0)
    assert set(freed(caplog)) == {GPU_FAILED}
    assert not node.store.redis.exists(job_key(node.job_id) + ":crashes")
    assert any("in a row, last of its GPU failed; pause of " in trouble for trouble in troubles)


@pytest.mark.slow
def test_a_silent_process_is_found_within_15_s_and_ended(
    node: Node, settings: Settings, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[float] = []

    async def silence_it() -> None:
        node.submit(MANY)
        await until(node.is_under_way, "images")
        (pid,) = node.pids()
        os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        await until(lambda: is_gone(pid), "the end of the silent process")
        found.append(time.monotonic() - stopped)
        await until(node.is_done, "the job's end")

    supervise(settings, connection, silence_it)
    assert 5 < found[0] < 15
    assert freed(caplog) == ["it stopped responding"]
    assert node.store.view(node.job_id).ok == MANY


@pytest.mark.slow
def test_a_server_that_takes_nothing_is_waited_for_and_costs_no_attempt(
    node: Node, settings: Settings, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async def fill_it() -> None:
        node.submit(MANY)
        await until(node.is_under_way, "images")
        (pid,) = node.pids()
        connection.redis.config_set("maxmemory", "1mb")
        try:
            await until(lambda: is_gone(pid), "the end of the process that cannot report")
            await asyncio.sleep(5)
            assert node.pids() == [], "a process was started that could not work"
        finally:
            connection.redis.config_set("maxmemory", "0")
        await until(node.is_done, "the job's end")

    supervise(settings, connection, fill_it)
    assert set(freed(caplog)) <= {""}
    view = node.store.view(node.job_id)
    assert (view.ok, view.failed) == (MANY, 0)
    assert "Traceback" not in caplog.text


@pytest.mark.slow
def test_a_process_that_never_starts_is_tried_five_times_with_growing_pauses(
    settings: Settings, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    broken = settings.model_copy(update={"home": Path("/proc/nowhere")})  # no server can be started there

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(QueueError, match=r"ended 5 times before it could work \(exit code 1\)"):
        supervise(broken, connection, wait)
    pauses = [vars(record)["pause_s"] for record in caplog.records if record.message == "worker process restarts"]
    assert pauses == [0, 0, 0, 1.0]
    assert len(pauses) == MAX_FAILED_STARTS - 1
    assert worker_pids(os.getpid()) == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_process_that_dies_again_and_again_is_reported_and_paused(
    node: Node, settings: Settings, connection: Connection
) -> None:
    def kill() -> bool:
        for pid in node.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSEGV)
        return any(daemon.trouble for daemon in node.store.daemons())

    async def kill_them() -> None:
        await until(kill, "a word of the trouble", 60)
        (daemon,) = node.store.daemons()
        assert daemon.trouble.endswith("times in a row, last of SIGSEGV; pause of 1 s")
        assert daemon.restarts["SIGSEGV"] >= 4
        assert (daemon.pid, daemon.processes) == (os.getpid(), 1)

    supervise(settings, connection, kill_them)
    assert node.store.daemons() == []


@pytest.mark.slow
def test_as_many_processes_run_as_were_asked_for(node: Node, settings: Settings, connection: Connection) -> None:
    async def count() -> None:
        await until(lambda: len(node.pids()) == 2, "two processes")

    supervise(settings, connection, count, processes=2)
    assert node.store.workers() == []
    assert worker_pids(os.getpid()) == []


# -- stopping ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stop_gives_the_shard_back_and_costs_no_attempt(
    node: Node, settings: Settings, connection: Connection
) -> None:
    async def start_it() -> None:
        node.submit(MANY)
        await until(node.is_under_way, "images")

    took_s = supervise(settings, connection, start_it)
    assert took_s < 5
    assert node.attempts() == 0
    assert (node.job_id, shard_unit(0)) in node.queue.pending()
    assert node.store.is_leased(node.job_id, [shard_unit(0)]) == [False]
    assert node.store.workers() == []


@pytest.mark.slow
def test_a_process_that_does_not_stop_is_killed_after_its_grace(
    node: Node, settings: Settings, connection: Connection
) -> None:
    settings = settings.model_copy(update={"grace_s": 1.0})
    stopped: list[int] = []

    async def freeze_it() -> None:
        await until(node.pids, "a process")
        stopped.extend(node.pids())
        os.kill(stopped[0], signal.SIGSTOP)

    took_s = supervise(settings, connection, freeze_it)
    assert 1 <= took_s < 8
    assert is_gone(stopped[0])


# -- the sweep ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_message_that_was_lost_is_asked_for_again(node: Node, settings: Settings, connection: Connection) -> None:
    async def lose_it() -> None:
        node.submit(3)
        node.queue.redis.delete(list_key(settings.queue))
        await until(node.is_done, "the job's end")

    supervise(settings, connection, lose_it)


@pytest.mark.slow
def test_a_job_that_cannot_be_read_does_not_end_the_daemon(
    node: Node, settings: Settings, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be another version's."""
    node.store.create(job_spec(job_id="strange-1234abcd"), JobState.RUNNING)
    node.store.update("strange-1234abcd", spec='{"schema_version": 99}')

    async def sweep() -> None:
        await until(lambda: [r for r in caplog.records if r.message == "the sweep is not complete"], "a sweep")
        await until(node.pids, "a process")

    supervise(settings, connection, sweep)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_process_that_cannot_be_started_for_a_while_is_reported_and_tried_again(
    node: Node, settings: Settings, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, elsewhere = tmp_path / "python", tmp_path / "elsewhere"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))

    known: list[Supervisor] = []

    async def take_python_away() -> None:
        await until(lambda: known[0].pulses(), "a process that beats")
        (pid,) = node.pids()
        python.rename(elsewhere)
        os.kill(pid, signal.SIGKILL)
        await until(
            lambda: any("worker process 0 fails: FileNotFoundError" in d.trouble for d in node.store.daemons()),
            "a word of the trouble",
            60,
        )
        elsewhere.rename(python)
        await until(node.pids, "another process", 60)
        await until(lambda: not any(daemon.trouble for daemon in node.store.daemons()), "the end of the trouble", 60)

    supervise(settings, connection, take_python_away, known=known)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_daemon_whose_processes_have_worked_never_gives_up(
    node: Node, settings: Settings, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, broken = tmp_path / "python", tmp_path / "broken"
    python.write_text(f'#!/bin/sh\n[ -e "{broken}" ] && exit 3\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))

    known: list[Supervisor] = []

    async def break_it() -> None:
        await until(lambda: known[0].pulses(), "a process that beats")
        broken.touch()
        os.kill(node.pids()[0], signal.SIGKILL)
        often = MAX_FAILED_STARTS + 1
        await until(
            lambda: sum(sum(daemon.restarts.values()) for daemon in node.store.daemons()) > often, "many restarts", 90
        )
        broken.unlink()
        await until(node.pids, "a process that works", 60)

    supervise(settings, connection, break_it, known=known)


# -- small things ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_code", "was_silent", "had_oom", "blame"),
    [
        pytest.param(0, False, False, "", id="ended"),
        pytest.param(1, False, False, "", id="error"),
        pytest.param(-signal.SIGTERM, False, False, "", id="terminated"),
        pytest.param(-signal.SIGKILL, False, False, "", id="killed-by-somebody"),
        pytest.param(-signal.SIGKILL, False, True, "out of memory", id="killed-for-memory"),
        pytest.param(-signal.SIGKILL, True, False, "it stopped responding", id="killed-for-silence"),
        pytest.param(-signal.SIGSEGV, False, False, "SIGSEGV", id="segmentation-fault"),
        pytest.param(-signal.SIGABRT, False, True, "SIGABRT", id="abort"),
        pytest.param(STALLED, False, False, "it made no progress", id="stalled"),
        pytest.param(DEVICE_LOST, False, False, "", id="lost-its-gpu"),
    ],
)
def test_the_work_in_hand_is_to_blame_for_some_deaths(
    exit_code: int, was_silent: bool, had_oom: bool, blame: str
) -> None:
    assert blame_of(exit_code, was_silent=was_silent, had_oom=had_oom) == blame


@pytest.mark.parametrize(
    ("young_deaths", "pause_s"), [(0, 0.0), (3, 0.0), (4, 1.0), (5, 2.0), (8, 16.0), (9, 30.0), (5000, 30.0)]
)
def test_the_pauses_of_a_crash_loop_double_up_to_half_a_minute(young_deaths: int, pause_s: float) -> None:
    assert backoff_s(young_deaths) == pause_s


def test_who_has_lost_its_gpu_twice_pauses_at_once() -> None:
    assert [backoff_s(deaths, FREE_FAULTS) for deaths in (1, 2, 3, 9)] == [0.0, 1.0, 2.0, 30.0]


def test_the_kernels_count_of_kills_is_read() -> None:
    lines = Path("/proc/vmstat").read_text().splitlines()
    expected = [int(line.split()[1]) for line in lines if line.split()[0] == "oom_kill"]
    assert oom_kills() >= (expected[0] if expected else 0)


def test_a_process_is_told_every_setting_and_the_password(connection: Connection, tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path, "redis_url": "redis://:hush@host/0", "threads": 3})
    supervisor = Supervisor(settings, connection)
    config = supervisor.config_for("worker-1", supervisor.slots[0])
    assert (config.name, config.gpu, config.gpu_name) == ("worker-1", None, "")
    assert Settings(**config.settings) == settings


@pytest.mark.parametrize("is_pinned", [False, True])
def test_the_cores_are_shared_by_all_processes_and_not_counted_for_each(
    connection: Connection, tmp_path: Path, is_pinned: bool
) -> None:
    settings = Settings(home=tmp_path, engine="cpu", pin_cores=is_pinned)
    supervisor = Supervisor(settings, connection, processes=2)
    configs = [supervisor.config_for("worker-1", slot) for slot in supervisor.slots]
    counted = [config.image_processes for config in configs]
    assert sum(counted) == max(2, usable_cpus())
    assert [config.settings["threads"] for config in configs] == counted
    assert [config.worker_processes for config in configs] == [2, 2]
    pinned_to = {core for config in configs for core in config.cores}
    assert pinned_to == (os.sched_getaffinity(0) if is_pinned else set())


@pytest.mark.parametrize(
    ("visible_as", "environment", "number"),
    [
        pytest.param("GPU-2222", {"CUDA_VISIBLE_DEVICES": "GPU-2222"}, 0, id="by-its-name"),
        pytest.param("", {}, 1, id="a-driver-that-knows-no-names"),
    ],
)
def test_a_process_sees_its_own_gpu_alone(visible_as: str, environment: dict[str, str], number: int) -> None:
    gpu = ChosenGpu("GPU 1", SurveyedGpu(1, "NVIDIA L4", (8, 9), 1 << 34, visible_as))
    (slot,) = process_slots([gpu])
    assert (slot.environment, slot.gpu_number, slot.name) == (environment, number, "worker process 0 (GPU 1)")
