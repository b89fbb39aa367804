"""The heartbeat of a worker process: a thread that renews its leases, says that it lives, and ends it when stalled.

It has a connection of its own, with short time-outs: the main thread's may wait a minute for a server that restarts.
"""

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis, RedisError
from rq.executions import Execution
from rq.job import Job

from trtjob.errors import JobError
from trtjob.jobs.states import ACTIVE
from trtjob.queue import rq_internals
from trtjob.queue.exclusions import Exclusions
from trtjob.queue.job_log import JobLog
from trtjob.queue.job_store import JobStore
from trtjob.queue.leases import Lease
from trtjob.queue.replies import is_outage
from trtjob.queue.units import shard_of
from trtjob.storage import is_bucket, troubles
from trtjob.worker.context import Context
from trtjob.worker.exit_codes import STALLED
from trtjob.worker.interrupter import OUTAGE, Interrupter

log = logging.getLogger(__name__)

BEAT_S = 1.0
POLL_S = 4.0  # between two looks at all other workers, while storage fails
PATIENCE = 2.0  # times stall_s: an image process that hangs is ended after one, and the rest goes on
LOADING_S = 900.0  # a first start may compile kernels, and try smaller batches one after another
# Enough for the rate to be steady, short enough to follow a change.
RATE_SPAN_S = 5.0
_NO_ENGINE = {"engine": "", "device": ""}


class HeartbeatThread(threading.Thread):
    """Beats once a second until the process ends."""

    def __init__(
        self,
        context: Context,
        redis: Redis,
        job_log: JobLog | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """job_log: what is to be brought to the server of it; clock: tells the time, in seconds."""
        super().__init__(name="trtjob-heartbeat", daemon=True)
        self.job_log = job_log
        self.context = context
        self.store = JobStore(redis)
        self.execution: tuple[Job, Execution] | None = None  # of RQ, kept alive with our own lease
        self._ended = threading.Event()
        self._clock = clock
        self._errors_seen: set[type] = set()  # what beats have failed of
        self._steps = -1
        self._moved_at = self._clock()
        self._sample: tuple[float, int, dict[str, float]] = (self._clock(), 0, {})
        self._rate: dict[str, Any] = {"rate": 0.0, "busy": "{}"}
        self._exclusions = Exclusions(self.store, context.queue.name)
        self._trouble = ""
        self._trouble_since = self._looked_at = 0.0
        self._told: set[str] = set()  # jobs that wait for storage, as far as this process has said

    def run(self) -> None:
        renewed = reported = 0.0
        while not self._ended.wait(BEAT_S):
            self._tell_supervisor()
            self.check_progress()
            now = self._clock()
            try:
                if now - renewed >= self.context.settings.lease_s / 4:
                    self.renew()
                    renewed = now
                if now - reported >= 2 * BEAT_S:
                    self.report()
                    reported = now
                self._ship()
            except Exception as err:
                if is_outage(err):
                    log.debug("no heartbeat: %s", err)  # the main thread waits for the server too
                elif type(err) not in self._errors_seen:
                    self._errors_seen.add(type(err))
                    log.exception("a heartbeat has failed; the next one comes")

    def end(self) -> None:
        self._ended.set()
        self.join()
        with suppress(RedisError):
            self._ship()

    def _ship(self) -> None:
        if self.job_log is not None:
            self.job_log.ship(self.store.redis)

    def renew(self) -> None:
        """Renew the leases in hand, and interrupt the units that are no longer this process's."""
        for lease, interrupter in list(self.context.leases.items()):
            answer = self.store.renew(lease)
            if answer not in ACTIVE:
                interrupter.interrupt(answer)
        held = self.execution  # the main thread may end it at any moment
        if held is not None:
            job, execution = held
            ttl_s = 2 * int(self.context.settings.lease_s)
            rq_internals.renew(self.store.redis, self.context.name, job, execution, ttl_s)

    def check_progress(self) -> None:
        """End the process where a batch takes too long, or a shard stands still: a thread that hangs in C cannot be
        stopped otherwise."""
        limit_s = PATIENCE * self.context.settings.stall_s
        steps, now, pipeline = self.context.steps, self._clock(), self.context.pipeline
        if pipeline is not None and pipeline.batches.longest_s() > limit_s:
            self._end_process(f"a batch of the model '{self.context.model_name}' took more than {limit_s:.0f} s")
        has_shard = any(shard_of(lease.unit) is not None for lease in list(self.context.leases))
        if not has_shard or steps != self._steps:
            self._steps, self._moved_at = steps, now
        elif now - self._moved_at > max(limit_s, LOADING_S if self.context.doing else 0.0):
            self._end_process(f"no image in {now - self._moved_at:.0f} s")

    def _end_process(self, why: str) -> None:
        for lease in list(self.context.leases):
            about = {"job_id": lease.job_id, "unit": lease.unit, "attempt": lease.attempt}
            log.error("%s: the worker process ends", why, extra=about)
        with suppress(RedisError):
            self._ship()
        _write(json.dumps({"blame": why}).encode() + b"\n")  # so that its jobs can say why, too
        os._exit(STALLED)

    def report(self) -> None:
        """Write the worker's state for `trtjob status`."""
        context = self.context
        self._measure()
        fields = self._engine() | {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "state": "busy" if context.leases or context.conversion else "idle",
            "doing": context.doing,
            "queue": context.queue.name,
        }
        if context.job_id is not None:
            fields["job"] = context.job_id
        # What failed for a unit that was given back since is nobody's trouble: nothing asks there any more.
        waiting = self._remote_leases() if troubles() else {}
        trouble = troubles() if waiting else ""
        self.store.report_worker(context.name, fields | {"trouble": trouble} | self._rate)
        self._tell_trouble(trouble, waiting)

    def _tell_trouble(self, trouble: str, waiting: dict[Lease, Interrupter]) -> None:
        """Say which jobs wait because storage fails; where others can go on with them, leave them after a while."""
        before, now = self._trouble, self._clock()
        if trouble != before:
            log.warning("storage fails: waiting" if trouble else "storage works again", extra={"trouble": trouble})
        if not before:
            self._trouble_since = now
        self._trouble = trouble
        if not trouble:
            self._say_degraded(set(), "")
            return
        if now - self._looked_at < POLL_S:
            return
        self._looked_at = now
        jobs = {lease.job_id for lease in waiting}
        if not self._exclusions.others_work(sorted(jobs), self.context.node):
            self._say_degraded(jobs, trouble)
            return
        self._say_degraded(set(), "")
        if now - self._trouble_since >= self.context.settings.outage_s:
            for interrupter in waiting.values():
                interrupter.interrupt(OUTAGE)

    def _say_degraded(self, jobs: set[str], trouble: str) -> None:
        for job_id in sorted(self._told - jobs):
            self.store.degrade(job_id, "")
        for job_id in sorted(jobs):
            self.store.degrade(job_id, trouble)
        self._told = jobs

    def _remote_leases(self) -> dict[Lease, Interrupter]:
        """Return the units in hand that a bucket can hold up."""
        return {lease: found for lease, found in list(self.context.leases.items()) if self._is_remote(lease)}

    def _is_remote(self, lease: Lease) -> bool:
        try:
            spec = self.store.view(lease.job_id).spec
        except JobError:
            return False
        return any(is_bucket(place) for place in (*spec.source.roots, spec.output, spec.model.uri))

    def _measure(self) -> None:
        now, images, busy_s = self._clock(), self.context.images, self.context.busy_s()
        then, images_then, busy_then = self._sample
        elapsed = now - then
        pipeline = self.context.pipeline
        if elapsed < RATE_SPAN_S and images_then:
            return
        gained = {stage: max(0.0, s - busy_then.get(stage, 0.0)) for stage, s in busy_s.items()}
        shares = (
            pipeline.limits.shares(gained, elapsed, pipeline.engine.concurrency) if pipeline and elapsed > 0 else {}
        )
        rate = (images - images_then) / elapsed if elapsed > 0 and self.context.leases else 0.0
        self._rate = {"rate": round(rate, 2), "busy": json.dumps(shares)}
        self._sample = (now, images, busy_s)

    def _tell_supervisor(self) -> None:
        """Write a line to the pipe that the supervisor reads: the proof of life, with what was done since the start."""
        context, pipeline = self.context, self.context.pipeline
        pulse = self._engine() | {
            "images": context.images,
            "failed": context.failed,
            "shards": context.shards,
            "batches": context.batches,
            "busy_s": {stage: round(seconds, 3) for stage, seconds in context.busy_s().items()},
            "rss_bytes": _rss_bytes() + (pipeline.process_pool.rss_bytes() if pipeline else 0),
        }
        _write(json.dumps(pulse).encode() + b"\n")

    def _engine(self) -> dict[str, Any]:
        engine = self.context.engine
        return {"engine": engine.name, "device": self.context.device_of(engine)} if engine else _NO_ENGINE


def _rss_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _write(line: bytes) -> None:
    try:
        os.write(sys.stdout.fileno(), line)
    except OSError:  # the supervisor is gone: the process is told so by the end of its standard input
        return
