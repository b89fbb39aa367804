"""The queue: RQ carries small messages, one for each unit of work; one lost or doubled does no harm.

What a message asks for is checked against the job's state when a worker takes it, and what is missing is asked for
again by `trtjob.jobs.reconcile`. Payloads are JSON; a worker runs only the functions named here.
"""

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from redis import Redis

if TYPE_CHECKING:
    from rq import Queue

TASKS = "trtjob.worker.tasks."
RUN_UNIT = TASKS + "run_unit"
CONVERT = TASKS + "convert"
FUNCTIONS = frozenset({RUN_UNIT, CONVERT})

# What RQ knows of a failed message is for a look with RQ's own tools: a job's failures are in its state.
_FAILURE_TTL_S = 3600


class WorkQueue:
    """One RQ queue. Each worker listens to exactly one: only then does RQ keep a message that a dying worker took."""

    def __init__(self, redis: Redis, name: str) -> None:
        self.redis: Any = redis  # replies are bytes
        self.name = name

    def _queue(self) -> "Queue":
        from rq import Queue  # costs 0.1 s, and most commands never touch the queue
        from rq.serializers import JSONSerializer

        return Queue(self.name, connection=self.redis, serializer=JSONSerializer)

    def put(self, job_id: str, units: Iterable[str], *, at_front: bool = False) -> None:
        """Ask for units of work."""
        messages = [self._message(RUN_UNIT, [job_id, unit], f"{job_id}--{unit}", at_front) for unit in units]
        if messages:
            self._queue().enqueue_many(messages)

    def put_convert(self, request_id: str, request: dict[str, Any], *, at_front: bool = False) -> None:
        """Ask for a conversion; its outcome is in the hash `conversion_key(request_id)`."""
        self._queue().enqueue_many([self._message(CONVERT, [request_id, request], f"convert--{request_id}", at_front)])

    @staticmethod
    def _message(function: str, args: list[Any], name: str, at_front: bool) -> Any:
        from rq import Queue

        return Queue.prepare_data(
            function,
            args=args,
            timeout=-1,  # a shard may take as long as it makes progress: the worker watches for a stand-still
            result_ttl=0,
            failure_ttl=_FAILURE_TTL_S,
            description=name,
            job_id=f"{name}--{secrets.token_hex(4)}",
            at_front=at_front,
        )

    def pending(self) -> set[tuple[str, str]]:
        """Return the (job, unit) of every message that waits."""
        waiting = self.redis.lrange(f"rq:queue:{self.name}", 0, -1)
        parts = (message.decode().rsplit("--", 2) for message in waiting)
        return {(part[0], part[1]) for part in parts if len(part) == 3}

    def clear_abandoned(self) -> None:
        """Remove RQ's records of messages whose workers died: their units are asked for again by our own reckoning."""
        started = f"rq:wip:{self.name}"
        seconds, _ = self.redis.time()
        for entry in self.redis.zrangebyscore(started, 0, seconds):
            message, _, execution = entry.decode().rpartition(":")
            self.redis.delete(f"rq:job:{message}", f"rq:executions:{message}", f"rq:execution:{message}:{execution}")
            self.redis.zrem(started, entry)

    def __len__(self) -> int:
        return int(self.redis.llen(f"rq:queue:{self.name}"))


def conversion_key(request_id: str) -> str:
    return f"trtjob:conversion:{request_id}"
