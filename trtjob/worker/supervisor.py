"""The daemon: it keeps worker processes alive, frees what a dead one held, and sees that nothing is forgotten."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import RedisError

from trtjob.config import Settings
from trtjob.engines.choice import choose
from trtjob.errors import QueueError, TrtjobError
from trtjob.jobs.connection import Connection
from trtjob.jobs.joblog import JobLog
from trtjob.jobs.queue import WorkQueue
from trtjob.jobs.reconcile import reconcile, reconcile_job
from trtjob.jobs.store import JobStore
from trtjob.worker.heart import EXIT_SERVER_AWAY, EXIT_STALLED
from trtjob.worker.notify import send_due
from trtjob.worker.pipeline.batches import EXIT_DEVICE_LOST
from trtjob.worker.pipeline.limits import processes_of
from trtjob.worker.telemetry import Pulse, serve

log = logging.getLogger(__name__)

SILENCE_S = 12.0  # without a byte from its heart for so long, a process is dead or as good as dead
SWEEP_S = 2.0
SWEEP_LOCK = "trtjob:sweep:"  # for each queue
EXPIRED_AT_ONCE = 100
NOTIFY_LOCK = "trtjob:notifying"
PROBE = "trtjob:starts"  # how many worker processes were started; written to see that it can be
STABLE_S = 10.0  # a process that lived so long starts a new count of restarts
FREE_RESTARTS = 3  # an image that kills its worker costs two: no delay for the first few
MAX_BACKOFF_S = 30.0
MAX_FAILED_STARTS = 5
# Answers come and go through several threads: with a heap for each, glibc would keep what only one can use again.
# CUDA loads a kernel when it is first used, as versions from 12.2 on do by themselves; TensorRT has a gigabyte of them.
_CHILD_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "CUDA_MODULE_LOADING": "LAZY"}
_FATAL_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})


@dataclass(slots=True)
class _Child:
    name: str
    process: asyncio.subprocess.Process
    started_at: float
    has_beaten: bool = False
    was_silent: bool = False
    oom_kills: int = field(default_factory=lambda: oom_kills())
    pulse: Pulse | None = None


@dataclass(frozen=True, slots=True)
class _Death:
    """blame: why its work is to blame, empty where it is not; was_killed: by somebody outside."""

    blame: str
    was_killed: bool


class Supervisor:
    """Runs `processes` worker processes until told to stop; with TensorRT, so many on each GPU."""

    def __init__(self, settings: Settings, connection: Connection, *, processes: int = 1) -> None:
        """Choose the engine. Raises what `choose` raises."""
        self.settings = settings
        self.connection = connection
        self.choice = choose(settings.engine, settings.gpus)
        self._places = (self.choice.gpus or (None,)) * processes  # a GPU, or None for the CPU, for each process
        self.job_log = JobLog()
        self.store = JobStore(connection.heartbeat())
        self.queue = WorkQueue(connection.heartbeat(), settings.queue)
        self._dead: dict[str, _Death] = {}  # by worker, until the store has heard of it
        self._sweep_now = asyncio.Event()
        self._count = 0
        self._children: dict[str, _Child] = {}
        self._past: tuple[Counter[str], dict[str, float]] = (Counter(), {})  # of the processes that have ended
        self.restarts: Counter[str] = Counter()
        self.turned_at = time.monotonic()
        self._trouble = ""
        self.name = f"{_host()}-{os.getpid()}"
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

    async def _serve(self, stop: asyncio.Event) -> None:
        log.info("engine chosen", extra={"engine": self.choice.engine, "reason": self.choice.reason})
        with serve(self.settings.http, self, self.store, self.queue) as place:
            if place:
                log.info("answering", extra={"at": f"{place}/metrics"})
            await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                sweeping = group.create_task(self._sweep())
                notifying = group.create_task(self._notify())
                keeping = [group.create_task(self._keep(slot, gpu, stop)) for slot, gpu in enumerate(self._places)]
                await asyncio.wait(keeping)
                sweeping.cancel()
                notifying.cancel()
        except* TrtjobError as errors:
            raise errors.exceptions[0] from None
        await asyncio.to_thread(self._bury)
        with suppress(RedisError, QueueError):
            await asyncio.to_thread(send_due, self.store, self.settings)
            await asyncio.to_thread(self.job_log.ship, self.store.redis)
            await asyncio.to_thread(self.store.remove_daemon, self.name)

    # -- what is told to others ---------------------------------------------------------------------------------

    def pulses(self) -> dict[str, Pulse]:
        """Return the last word of each worker process that runs."""
        return {child.name: child.pulse for child in list(self._children.values()) if child.pulse is not None}

    def totals(self) -> tuple[Counter[str], dict[str, float]]:
        """Return the counts and the seconds of work of all worker processes since the start."""
        counts, busy_s = Counter(self._past[0]), dict(self._past[1])
        for pulse in self.pulses().values():
            counts, busy_s = _added(counts, busy_s, pulse)
        return counts, busy_s

    # -- worker processes ---------------------------------------------------------------------------------------

    async def _keep(self, slot: int, gpu: int | None, stop: asyncio.Event) -> None:
        """Keep one process running, with growing pauses where it dies young."""
        loop = asyncio.get_running_loop()
        young_deaths = failed_starts = 0
        while not stop.is_set():
            if not await self._server_answers(stop):
                return
            child = await self._spawn(gpu)
            try:
                await self._watch(child, stop)
            finally:
                blame = await self._reap(child)
            if stop.is_set():
                return
            lived_s = loop.time() - child.started_at
            young_deaths = 0 if lived_s > STABLE_S else young_deaths + 1
            is_away = child.process.returncode == EXIT_SERVER_AWAY
            failed_starts = 0 if child.has_beaten or is_away else failed_starts + 1
            if failed_starts >= MAX_FAILED_STARTS:
                raise QueueError(
                    f"the worker process ended {failed_starts} times before it could work (exit code "
                    f"{child.process.returncode}). Its reason is in the log above; check with: trtjob doctor"
                )
            pause_s = backoff_s(young_deaths)
            self.restarts["the queue's server was away" if is_away else blame or "killed or ended"] += 1
            if pause_s:
                cause = blame or f"exit code {child.process.returncode}"
                told = f"a worker process died {young_deaths} times in a row, last of {cause}; pause of {pause_s:g} s"
                self._pauses[slot] = told, time.monotonic() + pause_s + STABLE_S
            log.warning(
                "worker process restarts",
                extra={"exit_code": child.process.returncode, "pause_s": pause_s, "young_deaths": young_deaths},
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await stop.wait()

    async def _server_answers(self, stop: asyncio.Event) -> bool:
        """Wait until the queue's server can be written: no process could work before. Returns False after `stop`."""
        while not stop.is_set():
            with suppress(RedisError, QueueError):  # of which the sweep tells
                await asyncio.to_thread(self._probe)
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await stop.wait()
        return False

    def _probe(self) -> None:
        self.connection.ensure()
        self.store.redis.incr(PROBE)

    async def _spawn(self, gpu: int | None) -> _Child:
        self._count += 1
        name = f"{self.name}-{self._count}"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing in the folder that we happen to stand in is imported
            "-m",
            "trtjob.worker.process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C or a closed terminal is ours to handle
            env=os.environ | _CHILD_ENVIRONMENT,
        )
        assert process.stdin is not None
        with suppress(ConnectionError):  # it died at once: _watch finds out
            process.stdin.write(self._order(name, gpu))
            await process.stdin.drain()
        child = self._children[name] = _Child(name, process, asyncio.get_running_loop().time())
        return child

    def _order(self, name: str, gpu: int | None) -> bytes:
        settings = self.settings.model_dump(mode="json")
        if self.settings.redis_url is not None:
            settings["redis_url"] = self.settings.redis_url.get_secret_value()
        del settings["notify_secret"]  # which no worker process needs
        order = {"name": name, "engine": self.choice.engine, "gpu": gpu, "settings": settings}
        order["image_processes"] = processes_of(self.settings)
        return json.dumps(order).encode() + b"\n"

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
        """Hear a process's heart until it stops."""
        assert child.process.stdout is not None
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    line = await child.process.stdout.readline()
                if not line:
                    return
                child.has_beaten = True
                with suppress(ValueError):
                    child.pulse = Pulse(json.loads(line))
        except TimeoutError:
            child.was_silent = True
            log.error("worker process is silent", extra={"worker": child.name, "silence_s": SILENCE_S})

    async def _reap(self, child: _Child) -> str:
        """Make sure that a process is gone, and note what it died of. Returns why its work is to blame, if it is."""
        if child.process.returncode is None and not child.was_silent:
            with suppress(TimeoutError):  # its pipe closes a moment before it ends
                async with asyncio.timeout(2.0):
                    await child.process.wait()
        _send(child.process, signal.SIGKILL)
        code = await child.process.wait()
        if child.process.stdin is not None:
            child.process.stdin.close()
        del self._children[child.name]
        if child.pulse is not None:
            self._past = _added(*self._past, child.pulse)
        blame = blame_of(code, was_silent=child.was_silent, had_oom=oom_kills() > child.oom_kills)
        self._dead[child.name] = _Death(blame, was_killed=code != EXIT_SERVER_AWAY)
        self._sweep_now.set()
        return blame

    # -- the sweep ----------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Every two seconds, and when a process has died: free what it held and ask again for what is missing."""
        while True:
            self.turned_at = time.monotonic()
            try:
                await asyncio.to_thread(self._sweep_once)
            except (RedisError, QueueError) as err:
                log.warning("the queue's server is away", extra={"error": str(err)})
            except TrtjobError as err:  # a job that was forgotten meanwhile, or is another version's
                self._note_trouble(str(err))
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._sweep_now.wait()
            self._sweep_now.clear()

    async def _notify(self) -> None:
        """Every two seconds: tell who waits for it that a job has ended; one daemon at a time."""
        while True:
            with suppress(RedisError, QueueError):
                if await asyncio.to_thread(self._may_notify):
                    await asyncio.to_thread(send_due, self.store, self.settings)
            await asyncio.sleep(SWEEP_S)

    def _may_notify(self) -> bool:
        return bool(self.store.redis.set(NOTIFY_LOCK, os.getpid(), nx=True, px=int(SWEEP_S * 900)))

    def _note_trouble(self, trouble: str) -> None:
        """Log why a sweep was not complete, once and not every two seconds."""
        if trouble != self._trouble:
            log.error("the sweep is not complete", extra={"error": trouble})
        self._trouble = trouble

    def _sweep_once(self) -> None:
        self.connection.ensure()
        self._bury()
        self.store.report_daemon(self.name, self._report())
        self.job_log.ship(self.store.redis)
        # One daemon at a time: two would ask for everything twice, which is harmless and wasteful.
        if self.store.redis.set(SWEEP_LOCK + self.queue.name, os.getpid(), nx=True, px=int(SWEEP_S * 900)):
            self.store.forget_expired(self.queue.name, self.settings.keep_jobs, EXPIRED_AT_ONCE)
            reconcile(self.store, self.queue)

    def _report(self) -> dict[str, str | int]:
        now = time.monotonic()
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queue": self.queue.name,
            "engine": self.choice.engine,
            "processes": len(self._places),
            "restarts": json.dumps(self.restarts),
            "trouble": "; ".join(told for told, until in list(self._pauses.values()) if now < until),
        }

    def _bury(self) -> None:
        for name, death in list(self._dead.items()):
            with suppress(RedisError):
                freed = self.store.abandon(name, death.blame, was_killed=death.was_killed)
                self._dead.pop(name, None)  # the last sweep, in its thread, may have been here at the same time
                for job_id, unit in freed:
                    fields = {"unit": unit, "job_id": job_id, "blame": death.blame}
                    log.warning("unit of a dead worker freed", extra=fields)
                    reconcile_job(self.store, self.queue, job_id)


def _host() -> str:
    return socket.gethostname().split(".")[0].lower()


def _added(counts: Counter[str], busy_s: dict[str, float], pulse: Pulse) -> tuple[Counter[str], dict[str, float]]:
    stages = {**busy_s, **pulse.busy_s}
    seconds = {stage: busy_s.get(stage, 0.0) + pulse.busy_s.get(stage, 0.0) for stage in stages}
    return counts + pulse.counts, seconds


def backoff_s(young_deaths: int) -> float:
    """Return how long to wait before a process starts again that has died young so many times in a row."""
    if young_deaths <= FREE_RESTARTS:
        return 0.0
    doublings = min(young_deaths - FREE_RESTARTS, 16)  # a float ends at 1,024 of them, a crash loop does not
    return float(min(MAX_BACKOFF_S, 0.5 * 2**doublings))


def blame_of(exit_code: int, *, was_silent: bool, had_oom: bool) -> str:
    """Say why the work in hand is to blame for a process's death; empty where it is not (somebody killed it)."""
    if was_silent:
        return "it stopped responding"
    if exit_code == EXIT_STALLED:
        return "it made no progress"
    if exit_code == EXIT_DEVICE_LOST:
        return "its GPU failed"
    if exit_code < 0 and -exit_code in _FATAL_SIGNALS:
        return signal.Signals(-exit_code).name
    if exit_code == -signal.SIGKILL and had_oom:
        return "out of memory"
    return ""


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
