"""Who works here: the worker processes, and the daemons that keep them running, as they last reported."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from redis import Redis

from trtjob.jobs.views import DaemonView, WorkerView, daemon_view, worker_view

PREFIX = "trtjob:"
WORKERS = PREFIX + "workers"  # set of names
DAEMONS = PREFIX + "daemons"
WORKER_TTL_S = 30

Item = TypeVar("Item")


class Roster:
    """Reads and writes the reports; each is forgotten after WORKER_TTL_S without another."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis  # redis-py types every reply as any of six things; ours are bytes and ints

    def report_worker(self, name: str, fields: Mapping[str, Any], redis: Any = None) -> None:
        """Write a worker's state."""
        _report(redis or self.redis, WORKERS, worker_key(name), name, fields)

    def remove_worker(self, name: str) -> None:
        _remove(self.redis, WORKERS, worker_key(name), name)

    def workers(self) -> list[WorkerView]:
        """Return the workers that reported lately, by name."""
        return [worker_view(*report) for report in _reports(self.redis, WORKERS, worker_key)]

    def report_daemon(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write a daemon's state."""
        _report(self.redis, DAEMONS, daemon_key(name), name, fields)

    def remove_daemon(self, name: str) -> None:
        _remove(self.redis, DAEMONS, daemon_key(name), name)

    def daemons(self) -> list[DaemonView]:
        """Return the daemons that reported lately, by name."""
        return [daemon_view(*report) for report in _reports(self.redis, DAEMONS, daemon_key)]


def worker_key(name: str) -> str:
    return f"{PREFIX}worker:{name}"


def daemon_key(name: str) -> str:
    return f"{PREFIX}daemon:{name}"


def _report(redis: Any, names: str, key: str, name: str, fields: Mapping[str, Any]) -> None:
    with redis.pipeline(transaction=False) as pipe:
        pipe.sadd(names, name)
        pipe.hset(key, mapping=dict(fields))
        pipe.pexpire(key, WORKER_TTL_S * 1000)
        pipe.execute()


def _remove(redis: Any, names: str, key: str, name: str) -> None:
    redis.srem(names, name)
    redis.delete(key)


def _reports(redis: Any, names: str, key_of: Any) -> Iterator[tuple[str, dict[bytes, bytes], float]]:
    """Yield the name, the fields and the age in seconds of each report that is not forgotten, by name."""
    listed = sorted(name.decode() for name in redis.smembers(names))
    with redis.pipeline(transaction=False) as pipe:
        for name in listed:
            pipe.hgetall(key_of(name))
            pipe.pttl(key_of(name))
        answers = batches(pipe.execute(), 2)
    for name, (fields, ttl_ms) in zip(listed, answers, strict=True):
        if b"pid" in fields:
            yield name, fields, max(0.0, WORKER_TTL_S - ttl_ms / 1000)
        else:
            redis.srem(names, name)


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
