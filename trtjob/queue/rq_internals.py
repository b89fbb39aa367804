"""What we use of RQ that is no part of its API: the names of its keys, and the steps that write there.

Checked with RQ 3.0. tests/queue/test_rq_internals.py compares each name with RQ's own, and fails where RQ changes them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.job import Job

CHECKED_WITH = (3, 0)

MESSAGE = "rq:job:"
_REGISTRIES = ("wip", "failed", "finished", "deferred", "scheduled", "canceled")


def list_key(queue: str) -> str:
    """Return the list of the messages that wait."""
    return f"rq:queue:{queue}"


def intermediate_key(queue: str) -> str:
    """Return the list of the messages that a worker has taken and not begun."""
    return f"rq:queue:{queue}:intermediate"


def message_key(message: str) -> str:
    """Return the hash that RQ calls a job: its record of a message."""
    return MESSAGE + message


def registry_key(name: str, queue: str) -> str:
    """Return the sorted set of the messages that are in one of RQ's states."""
    return f"rq:{name}:{queue}"


def worker_key(worker: str) -> str:
    return f"rq:worker:{worker}"


def types_of(queue: str) -> dict[str, str]:
    """Return the types of a queue's keys: what is lost with one of another type is asked for again, or is for a look
    alone."""
    types = {list_key(queue): "list", intermediate_key(queue): "list", "rq:queues": "set", "rq:workers": "set"}
    return types | {registry_key(name, queue): "zset" for name in _REGISTRIES} | {f"rq:workers:{queue}": "set"}


def park(redis: Any, queue: str, message: str, reason: str, kept_s: int) -> None:
    """Put a message that cannot be read among RQ's failed ones, for so long, with the reason instead of its record."""
    key, until = message_key(message), int(redis.time()[0]) + kept_s
    fields = {"status": "failed", "data": "", "origin": queue, "description": reason}
    with redis.pipeline() as pipe:
        pipe.unlink(key)
        pipe.hset(key, mapping=fields)
        pipe.expire(key, kept_s)
        pipe.zadd(registry_key("failed", queue), {message: until})
        pipe.lrem(intermediate_key(queue), 1, message)
        pipe.execute()


def clear_abandoned(redis: Any, queue: str) -> None:
    """Remove RQ's records of messages whose workers have not renewed them in time."""
    started = registry_key("wip", queue)
    seconds, _ = redis.time()
    for entry in redis.zrangebyscore(started, 0, seconds):
        message, _, execution = entry.rpartition(b":")
        records = (
            MESSAGE.encode() + message,
            b"rq:executions:" + message,
            b"rq:execution:" + message + b":" + execution,
        )
        redis.delete(*records)
        redis.zrem(started, entry)


def renew(redis: Any, worker: str, job: "Job", execution: "Execution", ttl_s: int) -> None:
    """Keep RQ's records of a message under way, and of its worker: it may last as long as there are shards."""
    with redis.pipeline() as pipe:
        # Not its heartbeat(): where RQ's record ran out in an outage, that would make half of one.
        execution.save(ttl_s, pipeline=pipe)
        job.started_job_registry.add_execution(execution, ttl=ttl_s, pipeline=pipe, xx=True)
        job.execution_registry.add(execution, ttl=ttl_s, pipeline=pipe)
        pipe.expire(worker_key(worker), ttl_s)
        pipe.execute()
