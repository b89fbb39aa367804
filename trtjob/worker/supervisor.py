"""The daemon: it keeps worker processes alive, frees what a dead one held, and sees that nothing is forgotten."""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from trtjob.child_environment import environment, python
from trtjob.config import Settings
from trtjob.cpus import by_neighbourhood, near_cpus
from trtjob.engines.choice import ChosenGpu, choose
from trtjob.errors import QueueError
from trtjob.queue import replies
from trtjob.queue.connection import Connection
from trtjob.queue.job_log import JobLog
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import STARTS
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker.core_shares import core_shares, cpus_each
from trtjob.worker.exit_codes import DEVICE_LOST, SERVER_AWAY
from trtjob.worker.metrics import Pulse, serve
from trtjob.worker.periodic import PeriodicTasks
from trtjob.worker.pipeline.limits import processes_of
from trtjob.worker.restart_policy import FREE_FAULTS, FREE_RESTARTS, backoff_s, blame_of, oom_kills
from trtjob.worker.sweep import Death, Sweep

log = logging.getLogger(__name__)

SILENCE_S = 12.0  # without a heartbeat for so long, a process is dead or as good as dead
SWEEP_S = 2.0
STABLE_S = 10.0  # a process that lived so long starts a new count of restarts
GPU_FAILED = "its GPU failed"
MAX_FAILED_STARTS = 5
# Answers come and go through several threads: with a heap for each, glibc would keep what only one can use again.
# CUDA loads a kernel when it is first used, as versions from 12.2 on do by themselves; TensorRT has a gigabyte of them.
_CHILD_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "CUDA_MODULE_LOADING": "LAZY"}


@dataclass(slots=True)
class _Child:
    name: str
    process: asyncio.subprocess.Process
    started_at: float
    has_beaten: bool = False
    was_silent: bool = False
    blame: str = ""  # as the process itself has said
    oom_kills: int = field(default_factory=lambda: oom_kills())
    pulse: Pulse | None = None

    def hear(self, said: dict[str, Any]) -> None:
        """Take in a line: what the process has done, or, last of all, why it ends itself."""
        if "blame" in said:
            self.blame = str(said["blame"])
        else:
            self.pulse = Pulse(said)


@dataclass(slots=True)
class _Slot:
    """A place for one worker process, and how those fared that had it.

    gpu: None for the CPU; cores: its share of the machine's.
    young_deaths: in a row; failed_starts: how many in a row have ended, or were not started at all, before they worked.
    """

    number: int
    gpu: ChosenGpu | None
    cores: frozenset[int]
    young_deaths: int = 0
    failed_starts: int = 0
    last_end: str = ""

    @property
    def name(self) -> str:
        return f"worker process {self.number}" + (f" ({self.gpu.called})" if self.gpu else "")

    @property
    def environment(self) -> dict[str, str]:
        """What has a process see its own GPU alone: so another that is lost neither disturbs it nor moves numbers."""
        name = self.gpu.place.visible_as if self.gpu else ""
        return {"CUDA_VISIBLE_DEVICES": name} if name else {}

    @property
    def gpu_number(self) -> int | None:
        """The GPU's number in its process."""
        if self.gpu is None:
            return None
        return 0 if self.environment else self.gpu.number


class _CannotWork(QueueError):
    """No worker process of this daemon has ever worked."""


class Supervisor:
    """Runs `processes` worker processes until told to stop; with TensorRT, so many on each GPU."""

    def __init__(
        self, settings: Settings, connection: Connection, *, processes: int = 1, job_id: str | None = None
    ) -> None:
        """Choose the engine. Raises what `choose` raises.

        job_id: the only job that the processes work on, empty where `work_on` will name it; None: all of the queue.
        """
        self.job_id = job_id
        self.settings = settings
        self.connection = connection
        self.choice = choose(settings.engine, settings.gpus)
        self._slots = _slots((self.choice.gpus or (None,)) * processes)
        self.job_log = JobLog()
        self.store = JobStore(connection.heartbeat())
        self.queue = WorkQueue(connection.heartbeat(), settings.queue)
        self._sweep_now = asyncio.Event()
        self._count = 0
        self._children: dict[str, _Child] = {}
        # Of the processes that have ended; with the children, read by other threads.
        self._past: tuple[Counter[str], dict[str, float]] = (Counter(), {})
        self._counting = threading.Lock()
        self._has_worked = False
        self.restarts: Counter[str] = Counter()
        self.turned_at = time.monotonic()
        self.periodic = PeriodicTasks()
        self.name = f"{_host()}-{os.getpid()}"
        self._sweep = Sweep(self.settings, connection, self.store, self.queue, self.periodic)
        self._sweep.steps |= {
            "report": lambda: self.store.report_daemon(self.name, self._report()),
            "log": lambda: self.job_log.ship(self.store.redis),
        }
        self._sweep.last_steps["leave"] = lambda: self.store.remove_daemon(self.name)
        # Why a process is not started at once, and until when to say so.
        self._pauses: dict[int, tuple[str, float]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then let each process reach a batch edge, for at most `grace_s`.

        Raises TrtjobError where the processes cannot be started.
        """
        logging.getLogger().addHandler(self.job_log)
        try:
            await self._serve(stop)
        finally:
            logging.getLogger().removeHandler(self.job_log)

    async def work_on(self, job_id: str) -> None:
        """Name the only job to work on, once; the processes that run are ready for it."""
        self.job_id = job_id
        for child in list(self._children.values()):
            assert child.process.stdin is not None
            with suppress(ConnectionError):  # it is dead, or dies: the next one finds the job in its config
                child.process.stdin.write(json.dumps(job_id).encode() + b"\n")
                await child.process.stdin.drain()

    async def _serve(self, stop: asyncio.Event) -> None:
        log.info("engine chosen", extra={"engine": self.choice.engine, "reason": self.choice.reason})
        with serve(self.settings.http, self, self.store, self.queue) as place:
            if place:
                log.info("answering", extra={"at": f"{place}/metrics"})
            await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                always = [
                    group.create_task(self._turn()),
                    group.create_task(self.periodic.forever("sweep", self._sweep.once, self._until_death)),
                    group.create_task(self.periodic.forever("sending of notices", self._sweep.notify, _pause)),
                ]
                await asyncio.wait([group.create_task(self._keep(slot, stop)) for slot in self._slots])
                for task in always:
                    task.cancel()
        except* _CannotWork as errors:
            raise errors.exceptions[0] from None
        await asyncio.to_thread(self._sweep.take_leave)

    async def _until_death(self, least_s: float) -> None:
        """Wait for the next sweep: until a process has died, for SWEEP_S at most, and at least as told."""
        await asyncio.sleep(least_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(SWEEP_S):
                await self._sweep_now.wait()
        self._sweep_now.clear()

    async def _turn(self) -> None:
        """Note that the event loop turns."""
        while True:
            self.turned_at = time.monotonic()
            await asyncio.sleep(SWEEP_S)

    # -- what is told to others ---------------------------------------------------------------------------------

    def pulses(self) -> dict[str, Pulse]:
        """Return the last word of each worker process that runs."""
        return {child.name: child.pulse for child in list(self._children.values()) if child.pulse is not None}

    def totals(self) -> tuple[Counter[str], dict[str, float]]:
        """Return the counts and the seconds of work of all worker processes since the start."""
        with self._counting:  # no process is in both, or in neither
            counts, busy_s = Counter(self._past[0]), dict(self._past[1])
            for pulse in self.pulses().values():
                counts, busy_s = _added(counts, busy_s, pulse)
        return counts, busy_s

    # -- worker processes ---------------------------------------------------------------------------------------

    async def _keep(self, slot: _Slot, stop: asyncio.Event) -> None:
        """Keep one process running, with growing pauses where it dies young, or where it cannot be started.

        Raises _CannotWork where no process of this daemon has ever worked, and none can.
        """
        while not stop.is_set():
            try:
                pause_s = await self._one_life(slot, stop)
            except Exception as err:  # noqa: BLE001 - the boundary: the machine may be out of processes, say
                slot.failed_starts += 1
                self.periodic.failed(slot.name, err)
                pause_s = max(SWEEP_S, self.periodic.pause_s(slot.name))
            if not self._has_worked and all(each.failed_starts >= MAX_FAILED_STARTS for each in self._slots):
                raise _CannotWork(
                    f"the worker process ended {slot.failed_starts} times before it could work{slot.last_end}. Its "
                    "reason is in the log above; check with: trtjob doctor"
                )
            await _unless(stop, pause_s)

    async def _one_life(self, slot: _Slot, stop: asyncio.Event) -> float:
        """Start a process and watch it to its end. Returns how long to wait before the next."""
        if not await self._server_answers(stop):
            return 0.0
        child = await self._spawn(slot)
        self.periodic.went_well(slot.name)
        try:
            await self._watch(child, stop)
        finally:
            death = await self._reap(child)
        return 0.0 if stop.is_set() else self._after(slot, child, death.blame or death.fault)

    def _after(self, slot: _Slot, child: _Child, why: str) -> float:
        """Count a process's end. Returns how long to wait before the next one."""
        code = child.process.returncode
        slot.young_deaths = 0 if time.monotonic() - child.started_at > STABLE_S else slot.young_deaths + 1
        is_away = code == SERVER_AWAY
        slot.failed_starts = 0 if child.has_beaten or is_away else slot.failed_starts + 1
        slot.last_end = f" (exit code {code})"
        if slot.failed_starts >= MAX_FAILED_STARTS and not self._has_worked:
            return SWEEP_S  # it is for the other slots to say whether this node can work at all
        pause_s = backoff_s(slot.young_deaths, FREE_FAULTS if code == DEVICE_LOST else FREE_RESTARTS)
        self.restarts["the queue's server was away" if is_away else why or "killed or ended"] += 1
        if pause_s:
            who = f"{slot.gpu.called}: its worker process" if slot.gpu else "a worker process"
            cause = why or f"exit code {code}"
            told = f"{who} died {slot.young_deaths} times in a row, last of {cause}; pause of {pause_s:g} s"
            self._pauses[slot.number] = told, time.monotonic() + pause_s + STABLE_S
        log.warning(
            "worker process restarts",
            extra={"exit_code": code, "pause_s": pause_s, "young_deaths": slot.young_deaths},
        )
        return pause_s

    async def _server_answers(self, stop: asyncio.Event) -> bool:
        """Wait until the queue's server can be written: no process could work before. Returns False after `stop`."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(self._probe)
                return True
            except Exception as err:
                if not replies.is_outage(err):  # of which the sweep tells
                    raise
            await _unless(stop, SWEEP_S)
        return False

    def _probe(self) -> None:
        self.connection.ensure()
        self.store.redis.set(STARTS, int(time.time()))  # whatever stood there

    async def _spawn(self, slot: _Slot) -> _Child:
        self._count += 1
        name = f"{self.name}-{self._count}"
        process = await asyncio.create_subprocess_exec(
            *python("-m", "trtjob.worker.process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C or a closed terminal is ours to handle
            env=environment({**_CHILD_ENVIRONMENT, **slot.environment}, buckets=True),
        )
        assert process.stdin is not None
        child = self._children[name] = _Child(name, process, time.monotonic())  # from here on `work_on` reaches it
        with suppress(ConnectionError):  # it died at once: _watch finds out
            process.stdin.write(self._config(name, slot))
            await process.stdin.drain()
        return child

    def _config(self, name: str, slot: _Slot) -> bytes:
        threads = self.settings.threads or cpus_each(slot.cores, len(self._slots))
        shared = self.settings.model_copy(update={"threads": threads})
        settings = shared.model_dump(mode="json")
        if self.settings.redis_url is not None:
            settings["redis_url"] = self.settings.redis_url.get_secret_value()
        settings["notify_secret"] = None  # which no worker process needs, nor looks for in the file
        config = {
            "name": name,
            "engine": self.choice.engine,
            "gpu": slot.gpu_number,
            "gpu_name": slot.gpu.called if slot.gpu else "",
            "settings": settings,
            "image_processes": processes_of(shared),
            "job": self.job_id,
            "cores": sorted(slot.cores) if self.settings.pin_cores else [],
        }
        return json.dumps(config).encode() + b"\n"

    async def _watch(self, child: _Child, stop: asyncio.Event) -> None:
        """Return when a process has ended; end it when it is silent, or at the end of the grace after `stop`."""
        ending = asyncio.create_task(stop.wait())
        listening = asyncio.create_task(self._listen(child))
        try:
            await asyncio.wait([ending, listening], return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():
                _send(child.process, signal.SIGTERM)
                _, unfinished = await asyncio.wait([listening], timeout=self.settings.grace_s)
                if unfinished:
                    log.warning("worker process did not stop in time", extra={"grace_s": self.settings.grace_s})
        finally:
            for task in (ending, listening):
                task.cancel()

    async def _listen(self, child: _Child) -> None:
        """Hear a process's heartbeats until they stop."""
        assert child.process.stdout is not None
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    line = await child.process.stdout.readline()
                if not line:
                    return
                child.has_beaten = self._has_worked = True
                with suppress(ValueError, TypeError, AttributeError):
                    child.hear(json.loads(line))
        except TimeoutError:
            child.was_silent = True
            log.error("worker process is silent", extra={"worker": child.name, "silence_s": SILENCE_S})

    async def _reap(self, child: _Child) -> Death:
        """Make sure that a process is gone, and note what it died of."""
        if child.process.returncode is None and not child.was_silent:
            with suppress(TimeoutError):  # its pipe closes a moment before it ends
                async with asyncio.timeout(2.0):
                    await child.process.wait()
        _send(child.process, signal.SIGKILL)
        code = await child.process.wait()
        if child.process.stdin is not None:
            child.process.stdin.close()
        with self._counting:
            del self._children[child.name]
            if child.pulse is not None:
                self._past = _added(*self._past, child.pulse)
        blame = child.blame or blame_of(code, was_silent=child.was_silent, had_oom=oom_kills() > child.oom_kills)
        fault = GPU_FAILED if code == DEVICE_LOST else ""
        death = self._sweep.dead[child.name] = Death(blame, was_killed=code != SERVER_AWAY, fault=fault)
        self._sweep_now.set()
        return death

    def _report(self) -> dict[str, str | int]:
        now = time.monotonic()
        pauses = [told for told, until in list(self._pauses.values()) if now < until]
        report: dict[str, str | int] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queue": self.queue.name,
            "engine": self.choice.engine,
            "processes": len(self._slots),
            "restarts": json.dumps(self.restarts),
            "trouble": "; ".join(pauses + self.periodic.troubles),
        }
        return report if self.job_id is None else report | {"job": self.job_id}


def _slots(gpus: Sequence[ChosenGpu | None]) -> list[_Slot]:
    """Return a place for a process on each GPU, or on the CPU where that is None, the cores being shared out."""
    near = [near_cpus(gpu.place.pci_bus_id) if gpu else frozenset[int]() for gpu in gpus]
    shares = core_shares(near, by_neighbourhood(os.sched_getaffinity(0)))
    return [_Slot(number, gpu, share) for number, (gpu, share) in enumerate(zip(gpus, shares, strict=True))]


def _host() -> str:
    """Return this machine's name as a worker's may begin: Redis takes no space in the name of a connection."""
    return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-") or "node"


async def _unless(stop: asyncio.Event, seconds: float) -> None:
    """Wait for so long, unless told to stop."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def _pause(least_s: float) -> None:
    await asyncio.sleep(max(SWEEP_S, least_s))


def _added(counts: Counter[str], busy_s: dict[str, float], pulse: Pulse) -> tuple[Counter[str], dict[str, float]]:
    stages = {**busy_s, **pulse.busy_s}
    seconds = {stage: busy_s.get(stage, 0.0) + pulse.busy_s.get(stage, 0.0) for stage in stages}
    return counts + pulse.counts, seconds


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
