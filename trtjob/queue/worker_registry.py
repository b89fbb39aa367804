"""Who works here: the worker processes, and the daemons that keep them running, as they last reported."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from redis import Redis

from trtjob.queue import replies
from trtjob.queue.keys import DAEMONS, WORKERS, daemon_key, worker_key
from trtjob.queue.views import DaemonView, WorkerView, daemon_view, worker_view
from trtjob.utf8 import escaped_values

WORKER_TTL_S = 30

Item = TypeVar("Item")


class WorkerRegistry:
    """Reads and writes the reports; each is forgotten after WORKER_TTL_S without another."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis  # redis-py types every reply as any of six things; ours are bytes and ints

    def report_worker(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write a worker's state."""
        _report(self.redis, WORKERS, worker_key(name), name, fields)

    def remove_worker(self, name: str) -> None:
        _remove(self.redis, WORKERS, worker_key(name), name)

    def workers(self) -> list[WorkerView]:
        """Return the workers that reported lately, by name."""
        return _reports(self.redis, WORKERS, worker_key, worker_view)

    def report_daemon(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write a daemon's state."""
        _report(self.redis, DAEMONS, daemon_key(name), name, fields)

    def remove_daemon(self, name: str) -> None:
        _remove(self.redis, DAEMONS, daemon_key(name), name)

    def daemons(self) -> list[DaemonView]:
        """Return the daemons that reported lately, by name."""
        return _reports(self.redis, DAEMONS, daemon_key, daemon_view)


def _report(redis: Any, names: str, key: str, name: str, fields: Mapping[str, Any]) -> None:
    def write() -> bool:
        with redis.pipeline(transaction=False) as pipe:
            pipe.sadd(names, name)
            pipe.hset(key, mapping=escaped_values(fields))
            pipe.pexpire(key, WORKER_TTL_S * 1000)
            pipe.execute()
        return True

    if not replies.guarded(key, write, None):
        replies.drop_foreign(redis, {names: "set", key: "hash"})
        replies.guarded(key, write, None)


def _remove(redis: Any, names: str, key: str, name: str) -> None:
    replies.guarded(names, lambda: redis.srem(names, name), None)
    redis.delete(key)


def _reports(redis: Any, names: str, key_of: Callable[[str], str], view: Callable[..., Item]) -> list[Item]:
    """Return what is reported of each that is not forgotten, by name."""
    members = replies.guarded(names, lambda: redis.smembers(names), ())
    listed = sorted(replies.names(names, members, replies.NODE))
    with redis.pipeline(transaction=False) as pipe:
        for name in listed:
            pipe.hgetall(key_of(name))
            pipe.pttl(key_of(name))
        keys = [key for name in listed for key in (key_of(name),) * 2]
        found = replies.chunks(replies.answers(pipe, keys), 2)
    views = []
    for name, (fields, ttl_ms) in zip(listed, found, strict=True):
        if fields == {} or (fields is not None and b"pid" not in fields):
            redis.srem(names, name)
        elif fields is not None:
            try:
                views.append(view(name, fields, max(0.0, WORKER_TTL_S - ttl_ms / 1000)))
            except (KeyError, ValueError) as err:
                replies.skip(key_of(name), f"{type(err).__name__}: {err}")
    return views
