"""RQ's SimpleWorker, the only one that keeps an engine, with what it lacks for long work in C.

Stock SimpleWorker sends no heartbeat while it works, ignores a stop, times out by a signal that C code never sees, and
runs whatever function a message names. Here a thread sends heartbeats, a stop reaches the unit under way at its next
batch edge, standing still ends the process, and only our own functions run. Retries are the reconciler's, not RQ's.
"""

import logging
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from redis import Redis, RedisError, ResponseError
from rq import Queue, SimpleWorker
from rq.exceptions import InvalidJobOperation, NoSuchJobError, StopRequested
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.timeouts import BaseDeathPenalty
from rq.worker.base import WorkerStatus

from trtjob.jobs.states import JobState
from trtjob.queue.replies import is_of_key, skip
from trtjob.queue.rq_internals import list_key
from trtjob.queue.rq_queue import FUNCTIONS
from trtjob.queue.scripts import load
from trtjob.worker.context import Context
from trtjob.worker.exit_codes import SERVER_AWAY
from trtjob.worker.heartbeat import HeartbeatThread

log = logging.getLogger(__name__)

ASIDE_POLL_S = 0.5
FOREIGN_POLL_S = 1.0
DEQUEUE_TIMEOUT_S = 5  # how long an idle worker waits before it looks around
MAINTENANCE_INTERVAL_S = 60
WORKER_TTL_S = 60
# A message of ours has some 500 bytes and 20 fields; a conversion's request may name many options.
MOST_BYTES = 65_536
MOST_FIELDS = 64
MOST_REASON = 300


class ForbiddenJob(Exception):
    """A message names a function that is not one of ours."""


class UnreadableMessage(Exception):
    """RQ's record of a message is too large, or is not what RQ writes."""


@contextmanager
def server_needed() -> Iterator[None]:
    """End the process where the server is away for longer than its client waits, or is full; RQ would just stop."""
    try:
        yield
    except RedisError as err:
        if is_of_key(err):
            raise
        log.warning("the queue's server is away: the worker process ends", extra={"error": str(err)})
        raise SystemExit(SERVER_AWAY) from None


@contextmanager
def foreign_left(key: str | bytes) -> Iterator[None]:
    """Leave a message where something of RQ's, or of its job, is not what it should be: a sweep sees to it.

    key: what stands for it in the log.
    """
    try:
        yield
    except ResponseError as err:
        if not is_of_key(err):
            raise
        skip(key, err)


class _NoDeathPenalty(BaseDeathPenalty):
    """No time-out by signal: the heartbeat's thread watches for a stand-still."""

    def setup_death_penalty(self) -> None:
        """Do nothing."""

    def cancel_death_penalty(self) -> None:
        """Do nothing."""


class SafeJob(Job):
    """A message that runs only functions that we know, and no callbacks or webhooks: whoever can write to the queue may
    ask for work, not for code, nor for a request to a web server that only this machine can reach."""

    def refresh(self) -> None:
        """Read RQ's record, if it is small enough to be ours. Raises UnreadableMessage."""
        kind: Any = self.connection.type(self.key)
        if kind not in (b"hash", b"none"):
            raise UnreadableMessage(f"its record is a {kind.decode()}")
        size = self.connection.eval(load("size"), 1, self.key, MOST_FIELDS)
        if not 0 <= size <= MOST_BYTES:
            shown = f"more than {MOST_FIELDS} fields" if size < 0 else f"{size:,} bytes"
            raise UnreadableMessage(f"its record has {shown}; a message is of at most {MOST_BYTES:,} bytes")
        try:
            super().refresh()  # type: ignore[no-untyped-call]
        except (RedisError, NoSuchJobError, UnreadableMessage):
            raise
        except Exception as err:  # whatever somebody has written there
            raise UnreadableMessage(f"its record is damaged: {type(err).__name__}: {err}"[:MOST_REASON]) from err

    def restore(self, raw_data: dict[bytes, bytes]) -> None:
        """Take a record over, without what a worker has no use for and what could unpack to gigabytes."""
        fields = {name: value for name, value in raw_data.items() if name not in (b"result", b"exc_info")}
        super().restore(fields | {b"data": _unpacked(fields.get(b"data", b""))})

    @property
    def func(self) -> Any:
        if self.func_name not in FUNCTIONS or self.instance is not None:
            raise ForbiddenJob(f"the queue's message {self.id!r} asks for {self.func_name!r}, which no worker runs")
        return super().func

    @property
    def success_callback(self) -> None:
        return None

    @property
    def failure_callback(self) -> None:
        return None

    @property
    def stopped_callback(self) -> None:
        return None

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Send nothing."""


def _unpacked(data: bytes) -> bytes:
    """Return the JSON that RQ has packed. Raises UnreadableMessage where it is something else, or too long."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(data, MOST_BYTES)
        if unpacker.unconsumed_tail:
            raise UnreadableMessage(f"its data unpack to more than {MOST_BYTES:,} bytes")
    except zlib.error:
        pass  # RQ takes data that are not packed, too
    if not data.startswith(b"["):  # RQ would unpack once more what looks packed
        raise UnreadableMessage("its data are not JSON")
    return data


class UnitWorker(SimpleWorker):
    """One worker process, listening to one queue."""

    death_penalty_class = _NoDeathPenalty
    job_class = SafeJob

    def __init__(self, context: Context, heartbeat_thread: HeartbeatThread, redis: Redis, queue: str) -> None:
        super().__init__(
            [Queue(queue, connection=redis, serializer=JSONSerializer, job_class=SafeJob)],
            name=context.name,
            connection=redis,
            serializer=JSONSerializer,
            job_class=SafeJob,
            worker_ttl=WORKER_TTL_S,
            maintenance_interval=MAINTENANCE_INTERVAL_S,
            log_job_description=False,
        )
        self.context = context
        self.heartbeat_thread = heartbeat_thread
        self._is_working = False

    def _set_ip_address(self, connection: Redis) -> None:
        """Name the connection, and say no address: RQ would look for it in CLIENT INFO, where a socket's path may have
        spaces and `=` that its parser stumbles over."""
        connection.client_setname(self.name)
        self.ip_address = "unknown"

    @property
    def dequeue_timeout(self) -> int:
        return DEQUEUE_TIMEOUT_S

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Take a message; a name that RQ refuses is removed instead of ending the worker."""
        while True:
            try:
                with server_needed():
                    if timeout is not None:  # else nothing is waited for
                        self._pass_over()
                    return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
            except ResponseError as err:
                skip(list_key(self.context.queue.name), err)
                time.sleep(FOREIGN_POLL_S)  # a sweep removes it; a stop ends this by StopRequested
            except UnreadableMessage as err:
                self.context.queue.park(err.job_id, str(err))  # type: ignore[attr-defined]  # which RQ adds
            except ValueError:  # no text, or none of RQ's names
                self.context.queue.clear_rubbish()

    def _pass_over(self) -> None:
        """Wait while all that waits in the queue is of jobs that this node stands aside from: others take those."""
        while (exclusions := self.context.own_exclusions.current()) and not self.context.queue.bring_forward(
            exclusions
        ):
            self.heartbeat()
            time.sleep(ASIDE_POLL_S)  # a stop ends it by StopRequested

    def run_maintenance_tasks(self) -> None:
        """Let RQ clean up; a message that it stumbles over ends no worker."""
        try:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except RedisError:
            raise
        except Exception as err:  # noqa: BLE001 - whatever somebody has written there
            log.warning("RQ could not clean up", extra={"error": repr(err)[:MOST_REASON]})

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        return 2 * int(self.context.settings.lease_s)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a message's function in this thread, with the heartbeat keeping RQ's record of it alive."""
        self._is_working = True
        try:
            with server_needed(), foreign_left(job.key):
                execution = self.prepare_execution(job)
                self.heartbeat_thread.execution = (job, execution)
                self.perform_job(job, queue, execution)
                self.set_state(WorkerStatus.IDLE)
        finally:
            self.heartbeat_thread.execution = None
            self._is_working = False

    def handle_job_success(self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution) -> None:
        """End a message. Where the reply to that is lost, RQ ends it once more and stumbles, for its record is gone."""
        try:
            super().handle_job_success(job, queue, started_job_registry, execution)
        except InvalidJobOperation:
            if self.connection.exists(job.key):
                raise
            with self.connection.pipeline() as pipe:
                self.cleanup_execution(job, pipeline=pipe, execution=execution)
                pipe.execute()

    def request_stop(self, signum: int | None, frame: FrameType | None) -> None:
        """Stop at the next batch edge; at once where there is nothing to do. A second signal changes nothing."""
        if self._stop_requested:
            return  # the worker may be in the middle of its goodbye
        self._stop_requested = True
        self.context.request_stop()
        if not self._is_working:
            raise StopRequested

    def teardown(self) -> None:
        """Take leave, unheard where the server is away: RQ's record of this worker runs out."""
        with suppress(RedisError):
            super().teardown()  # type: ignore[no-untyped-call]
        self.unsubscribe()

    def unsubscribe(self) -> None:
        """Leave RQ's command channel without waiting a second for its thread, which ends with the process."""
        if self.pubsub_thread is not None:
            # Its connection is closed under it, and what it then raises concerns nobody.
            self.pubsub_thread.exception_handler = lambda _error, _pubsub, thread: thread.stop()
            self.pubsub_thread.stop()

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Say in one line what RQ cannot do with a message: units settle their own failures before it hears of them."""
        log.warning(
            "RQ could not end a message", extra={"message_id": job.id[:80], "error": repr(exc_info[1])[:MOST_REASON]}
        )

    def kill_horse(self, sig: Any = None) -> None:
        """Obey RQ's stop-job command, which comes from its pubsub thread: the job is cancelled."""
        for job_id in {lease.job_id for lease in list(self.context.leases)}:
            self.context.store.move(
                job_id, JobState.CANCELLED, message="stopped through RQ", finished_at=self.context.store.now()
            )
            self.context.interrupt_job(job_id, JobState.CANCELLED)
