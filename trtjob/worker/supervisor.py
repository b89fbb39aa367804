"""The daemon: it keeps worker processes alive, frees what a dead one held, and sees that nothing is forgotten."""

import asyncio
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

from trtjob.config import Settings
from trtjob.engines.choice import choose
from trtjob.errors import ConfigError, QueueError
from trtjob.queue import replies
from trtjob.queue.connection import Connection
from trtjob.queue.job_log import JobLog
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import STARTS
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker.core_shares import cpus_each
from trtjob.worker.exit_codes import DEVICE_LOST, SERVER_AWAY
from trtjob.worker.metrics import Pulse, serve
from trtjob.worker.periodic import PeriodicTasks
from trtjob.worker.pipeline.limits import processes_of
from trtjob.worker.process_slots import ProcessSlot, process_slots
from trtjob.worker.restart_policy import FREE_FAULTS, FREE_RESTARTS, backoff_s
from trtjob.worker.sweep import Death, Sweep
from trtjob.worker.worker_config import WorkerConfig
from trtjob.worker.worker_handle import WorkerHandle

log = logging.getLogger(__name__)

SWEEP_S = 2.0
STABLE_S = 10.0  # a process that lived so long starts a new count of restarts
MAX_FAILED_STARTS = 5


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
        if sys.platform != "linux":
            raise ConfigError(
                f"workers run on Linux alone, and this is {sys.platform}: run them in a container, in WSL 2 or on "
                "another machine. Results can be read, exported and looked at here"
            )
        self.job_id = job_id
        self.settings = settings
        self.connection = connection
        self.choice = choose(settings.engine, settings.gpus)
        self.slots = process_slots((self.choice.gpus or (None,)) * processes)
        self.job_log = JobLog()
        self.store = JobStore(connection.heartbeat())
        self.queue = WorkQueue(connection.heartbeat(), settings.queue)
        self._sweep_now = asyncio.Event()
        self._count = 0
        self._children: dict[str, WorkerHandle] = {}
        # Of the processes that have ended; with the children, read by other threads.
        self._past: tuple[Counter[str], dict[str, float]] = (Counter(), {})
        self._counting = threading.Lock()
        self._has_worked = False  # one that has ended
        self.restarts: Counter[str] = Counter()
        self.turned_at = time.monotonic()
        self.periodic = PeriodicTasks()
        self.name = f"{_host()}-{os.getpid()}"
        self._sweep = Sweep(
            self.settings,
            connection,
            self.store,
            self.queue,
            self.periodic,
            report=lambda: self.store.report_daemon(self.name, self._report()),
            ship_log=lambda: self.job_log.ship(self.store.redis),
            leave=lambda: self.store.remove_daemon(self.name),
        )
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
            await child.tell(job_id)  # instead of one that dies, the next one finds the job in its config

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
                await asyncio.wait([group.create_task(self._keep(slot, stop)) for slot in self.slots])
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

    @property
    def _any_has_worked(self) -> bool:
        return self._has_worked or any(child.has_beaten for child in self._children.values())

    # -- worker processes ---------------------------------------------------------------------------------------

    async def _keep(self, slot: ProcessSlot, stop: asyncio.Event) -> None:
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
            if not self._any_has_worked and all(each.failed_starts >= MAX_FAILED_STARTS for each in self.slots):
                raise _CannotWork(
                    f"the worker process ended {slot.failed_starts} times before it could work{slot.last_end}. Its "
                    "reason is in the log above; check with: trtjob doctor"
                )
            await _unless(stop, pause_s)

    async def _one_life(self, slot: ProcessSlot, stop: asyncio.Event) -> float:
        """Start a process and watch it to its end. Returns how long to wait before the next."""
        if not await self._server_answers(stop):
            return 0.0
        child = await self._spawn(slot)
        self.periodic.went_well(slot.name)
        try:
            await child.watch(stop, self.settings.grace_s)
        finally:
            death = await self._reap(child)
        return 0.0 if stop.is_set() else self._after(slot, child, death.blame or death.fault)

    def _after(self, slot: ProcessSlot, child: WorkerHandle, why: str) -> float:
        """Count a process's end. Returns how long to wait before the next one."""
        code = child.process.returncode
        slot.young_deaths = 0 if time.monotonic() - child.started_at > STABLE_S else slot.young_deaths + 1
        is_away = code == SERVER_AWAY
        slot.failed_starts = 0 if child.has_beaten or is_away else slot.failed_starts + 1
        slot.last_end = f" (exit code {code})"
        if slot.failed_starts >= MAX_FAILED_STARTS and not self._any_has_worked:
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

    async def _spawn(self, slot: ProcessSlot) -> WorkerHandle:
        self._count += 1
        name = f"{self.name}-{self._count}"
        child = self._children[name] = await WorkerHandle.start(name, slot.environment)  # `work_on` reaches it now
        await child.tell(self.config_for(name, slot)._asdict())  # whether it died at once, its watch finds out
        return child

    def config_for(self, name: str, slot: ProcessSlot) -> WorkerConfig:
        """Return what a worker process is told."""
        threads = self.settings.threads or cpus_each(slot.cores, len(self.slots))
        shared = self.settings.model_copy(update={"threads": threads})
        settings = shared.model_dump(mode="json")
        if self.settings.redis_url is not None:
            settings["redis_url"] = self.settings.redis_url.get_secret_value()
        settings["notify_secret"] = None  # which no worker process needs, nor looks for in the file
        return WorkerConfig(
            name=name,
            engine=self.choice.engine,
            gpu=slot.gpu_number,
            gpu_name=slot.gpu.called if slot.gpu else "",
            settings=settings,
            image_processes=processes_of(shared),
            worker_processes=len(self.slots),
            job=self.job_id,
            cores=sorted(slot.cores) if self.settings.pin_cores else [],
        )

    async def _reap(self, child: WorkerHandle) -> Death:
        """Make sure that a process is gone, and note what it died of."""
        await child.end()
        with self._counting:
            del self._children[child.name]
            if child.pulse is not None:
                self._past = _added(*self._past, child.pulse)
        self._has_worked |= child.has_beaten
        death = self._sweep.dead[child.name] = child.death()
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
            "processes": len(self.slots),
            "restarts": json.dumps(self.restarts),
            "trouble": "; ".join(pauses + self.periodic.troubles),
        }
        return report if self.job_id is None else report | {"job": self.job_id}


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
