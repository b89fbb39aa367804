"""The queue: RQ carries small messages, one for each unit of work; one lost or doubled does no harm.

What a message asks for is checked against the job's state when a worker takes it, and what is missing is asked for
again by `trtjob.queue.reconcile`. Payloads are JSON; a worker runs only the functions named here. The order of the one
list is that of `trtjob.queue.scripts`, so priorities need no second queue, from which RQ can lose messages.
"""

import logging
import secrets
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from redis import Redis

from trtjob.queue import rq_internals
from trtjob.queue.events import new_call
from trtjob.queue.keys import taken_key
from trtjob.queue.replies import guarded
from trtjob.queue.scripts import load
from trtjob.queue.units import shard_of

if TYPE_CHECKING:
    from rq import Queue

log = logging.getLogger(__name__)

TASKS = "trtjob.worker.tasks."
RUN_UNIT = TASKS + "run_unit"
CONVERT = TASKS + "convert"
FUNCTIONS = frozenset({RUN_UNIT, CONVERT})

# What RQ knows of a failed message is for a look with RQ's own tools: a job's failures are in its state.
_FAILURE_TTL_S = 3600
# Messages of one job that wait at a time; the others are asked for as these are taken. It keeps the server small for a
# job of a million images, and the list short enough to be walked at each insertion.
WINDOW = 256
# How often a worker may pass the first message over for one whose model it has loaded.
MOST_PASSED = 16
# For so long what a taker took last is remembered: a client sends a command again for about a minute.
_TAKEN_TTL_S = 300


class WorkQueue:
    """One RQ queue. Each worker listens to exactly one: only then does RQ keep a message that a dying worker took."""

    def __init__(self, redis: Redis, name: str) -> None:
        self.redis: Any = redis  # replies are bytes
        self.name = name
        self._taken_key = taken_key(new_call())
        self._put = redis.register_script(load("put"))
        self._reorder = redis.register_script(load("reorder"))
        self._count = redis.register_script(load("count"))
        self._clear_rubbish = redis.register_script(load("clear_rubbish"))
        self._bring_forward = redis.register_script(load("bring_forward"))
        self._take = redis.register_script(load("take"))
        self._take_of = redis.register_script(load("take_of"))

    def named(self, name: str) -> "WorkQueue":
        """Return another queue of the same server; an empty name: this one."""
        return self if name in ("", self.name) else WorkQueue(self.redis, name)

    @property
    def _list(self) -> str:
        return rq_internals.list_key(self.name)

    def _queue(self) -> "Queue":
        from rq import Queue  # costs 0.1 s, and most commands never touch the queue
        from rq.serializers import JSONSerializer

        class RecordsOnly(Queue):
            """RQ writes its records of messages, and leaves it to us to put them into the list."""

            def push_job_id(self, job_id: str, pipeline: Any = None, at_front: bool = False) -> None:
                """Do nothing."""

        return RecordsOnly(self.name, connection=self.redis, serializer=JSONSerializer)

    def put(self, job_id: str, units: Iterable[str], *, at_front: bool = False) -> int:
        """Ask for units of work; of shards, for as many of the first as WINDOW leaves room for. Returns how many."""
        listed = list(islice(units, WINDOW + 2))  # no more can be put, the plan and the finish included
        if not listed:
            return 0
        # Asked first, so that a full window costs little; the script asks again, with nobody in between.
        room = WINDOW - int(self._count(keys=[self._list], args=[job_id]))
        shards = [unit for unit in listed if shard_of(unit) is not None][: max(0, room)]
        wanted = [unit for unit in listed if shard_of(unit) is None] + shards
        return self._send([self._message(RUN_UNIT, [job_id, unit], f"{job_id}--{unit}") for unit in wanted], at_front)

    def _send(self, messages: list[Any], at_front: bool) -> int:
        """Put messages of one job into the list, together with RQ's records of them. Returns how many had room."""
        if not messages:
            return 0
        with self.redis.pipeline() as pipe:
            self._queue().enqueue_many(messages, pipeline=pipe)
            names = [message.job_id for message in messages]
            self._put(keys=[self._list], args=[WINDOW, "1" if at_front else "0", *names], client=pipe)
            return int(pipe.execute()[-1])

    def take_shard(self, model: str) -> tuple[str, str] | None:
        """Take the first message, if it asks for a shard: the first of its class whose job has this model, else itself.

        A worker so goes on without a pause, and keeps its engine; a message is passed over MOST_PASSED times at most.
        Returns the job and the unit; None where nothing waits, or something that is for RQ to deliver.
        """
        args: list[str | int] = [model, MOST_PASSED, new_call(), _TAKEN_TTL_S]
        found = self._take(keys=[self._list, self._taken_key], args=args)
        return None if found is None else (found[0].decode(), found[1].decode())

    def take_unit_of(self, job_id: str, *, shards_only: bool = False) -> str | None:
        """Take the first message of one job, past those of all others; None where it has none, or that is no shard.

        Should the taker die, the unit is asked for again by a sweep.
        """
        args: list[str | int] = [job_id, "1" if shards_only else "0", new_call(), _TAKEN_TTL_S]
        unit = self._take_of(keys=[self._list, self._taken_key], args=args)
        return None if unit is None else str(unit.decode(errors="replace"))

    def bring_forward(self, others: list[str]) -> bool:
        """Put the first message that is of none of these jobs before all. Returns whether there is one."""
        return bool(self._bring_forward(keys=[self._list], args=others))

    def reorder(self, job_id: str) -> None:
        """Give a job's waiting messages the places of its present priority."""
        self._reorder(keys=[self._list], args=[job_id])

    def put_convert(self, request_id: str, request: dict[str, Any]) -> None:
        """Ask for a conversion, behind those that wait; its outcome is in the hash `conversion_key(request_id)`."""
        self._send([self._message(CONVERT, [request_id, request], f"convert--{request_id}")], at_front=False)

    @staticmethod
    def _message(function: str, args: list[Any], name: str) -> Any:
        from rq import Queue

        return Queue.prepare_data(
            function,
            args=args,
            timeout=-1,  # a shard may take as long as it makes progress: the worker watches for a stand-still
            result_ttl=0,
            failure_ttl=_FAILURE_TTL_S,
            description=name,
            job_id=f"{name}--{secrets.token_hex(4)}",
        )

    def pending(self) -> set[tuple[str, str]]:
        """Return the (job, unit) of every message that waits."""
        waiting = guarded(self._list, lambda: self.redis.lrange(self._list, 0, -1), ())
        parts = (message.decode(errors="replace").rsplit("--", 2) for message in waiting)
        return {(part[0], part[1]) for part in parts if len(part) == 3}

    def clear_rubbish(self) -> None:
        """Remove what RQ would end a worker for: what waits, or was taken, under a name that it cannot have written."""
        count = int(self._clear_rubbish(keys=[self._list, rq_internals.intermediate_key(self.name)]))
        if count:
            log.warning("removed from the queue what is no message", extra={"count": count})

    def park(self, message: str, reason: str) -> None:
        """Put a message that cannot be read among RQ's failed ones. What was in its record is not kept: say why."""
        rq_internals.park(self.redis, self.name, message, reason, _FAILURE_TTL_S)
        log.warning("a message of the queue was refused", extra={"message_id": message[:80], "reason": reason})

    def clear_abandoned(self) -> None:
        """Remove RQ's records of messages whose workers died: their units are asked for again by our own reckoning."""
        rq_internals.clear_abandoned(self.redis, self.name)

    @property
    def key_types(self) -> dict[str, str]:
        """The types of RQ's keys, by name."""
        return rq_internals.types_of(self.name)

    def __len__(self) -> int:
        return int(guarded(self._list, lambda: self.redis.llen(self._list), 0))
