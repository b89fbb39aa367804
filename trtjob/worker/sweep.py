"""The sweep of a daemon: what the dead held is freed, what is missing is asked for again, who waits is told."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from trtjob.config import Settings
from trtjob.errors import ForeignJobError, UnknownJobError
from trtjob.queue.connection import Connection
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import forget_lock_key, sweep_lock_key
from trtjob.queue.reconcile import reconcile, reconcile_job
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker.periodic import PeriodicTasks
from trtjob.worker.webhooks import send_due

log = logging.getLogger(__name__)

LOCK_S = 1.8  # a little less than the time between two sweeps: one daemon of a queue does what one is enough for
EXPIRED_AT_ONCE = 100
NOTICES_S = 10.0  # in one round no other notice is begun after so long: a daemon that ends waits for the last

Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Death:
    """What a worker process died of. blame: why its work is to blame, empty where it is not; was_killed: from outside;
    fault: what it was of the machine that ended it, empty where nobody knows."""

    blame: str
    was_killed: bool
    fault: str = ""


class Sweep:
    """The steps of one daemon, each by itself, whatever another meets; a step raises nothing that the rounds let by.

    dead: processes by name, until the store has heard of them.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        store: JobStore,
        queue: WorkQueue,
        periodic: PeriodicTasks,
        *,
        report: Step,
        ship_log: Step,
        leave: Step,
    ) -> None:
        """report: says how the daemon fares; ship_log: brings its lines to the server; leave: says that it ends."""
        self._settings = settings
        self._store = store
        self._queue = queue
        self._periodic = periodic
        self.dead: dict[str, Death] = {}
        self._steps: dict[str, Step] = {
            "start of the server": connection.ensure,
            "burial": self._bury,
            "report": report,
            "log": ship_log,
            "forgetting of old jobs": self._forget,
            "sweep": self._reconcile,
        }
        self._leave = leave

    def once(self) -> None:
        """Sweep."""
        self._do(self._steps)

    def take_leave(self) -> None:
        """Do what must not be left undone when the daemon ends."""
        self._do({"burial": self._bury, "sending of the last notices": self._send, "log": self._steps["log"]})
        self._do({"leave": self._leave})

    def _do(self, steps: dict[str, Step]) -> None:
        for name, step in steps.items():
            if not self._periodic.guarded(name, step) and self._periodic.is_away:
                return

    def notify(self) -> None:
        """Tell who waits for it that jobs have ended."""
        self._do({"sending of notices": self._send})

    def _send(self) -> None:
        send_due(self._store, self._settings, for_s=NOTICES_S)

    def _reconcile(self) -> None:
        if self._is_first(sweep_lock_key(self._queue.name)):
            reconcile(self._store, self._queue)

    def _forget(self) -> None:
        if self._is_first(forget_lock_key(self._queue.name)):
            self._store.forget_expired(self._queue.name, self._settings.keep_jobs, EXPIRED_AT_ONCE)

    def _is_first(self, key: str) -> bool:
        """Return whether this daemon, of all of its queue, is to do something now: two would do it for nothing."""
        span_ms = int(LOCK_S * 1000)
        if self._store.redis.set(key, os.getpid(), nx=True, px=span_ms):
            return True
        if self._store.redis.pttl(key) != -1:
            return False
        return bool(self._store.redis.set(key, os.getpid(), px=span_ms))  # no daemon leaves one without an end

    def _bury(self) -> None:
        for name, death in list(self.dead.items()):
            freed = self._store.abandon(name, death.blame, was_killed=death.was_killed, fault=death.fault)
            self.dead.pop(name, None)  # the last sweep, in its thread, may have been here at the same time
            for job_id, unit in freed:
                fields = {"unit": unit, "job_id": job_id, "blame": death.blame or death.fault}
                log.warning("unit of a dead worker freed", extra=fields)
                with suppress(UnknownJobError, ForeignJobError):  # of which the sweep tells
                    reconcile_job(self._store, self._queue, job_id)
