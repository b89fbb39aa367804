"""What we know of RQ's own keys is what RQ says of them."""

from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.registry import (
    BaseRegistry,
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from rq.serializers import JSONSerializer
from rq.version import VERSION
from rq.worker.base import BaseWorker

from trtjob.queue import rq_internals as internals
from trtjob.queue.rq_queue import RUN_UNIT

ABOUT = "RQ has changed: read its changelog, mend trtjob.queue.rq_internals, and note the version there"


def test_the_version_is_the_one_that_was_checked() -> None:
    assert VERSION.split(".")[:2] == [str(part) for part in internals.CHECKED_WITH], ABOUT


def test_the_names_of_keys_are_rqs(redis: Redis) -> None:
    queue = Queue("test", connection=redis)
    assert internals.list_key("test") == queue.key, ABOUT
    assert internals.intermediate_key("test") == queue.intermediate_queue_key, ABOUT
    assert internals.message_key("a-1") == Job("a-1", connection=redis).key, ABOUT
    assert internals.worker_key("w") == BaseWorker.redis_worker_namespace_prefix + "w", ABOUT
    assert set(internals.types_of("test")) >= {Queue.redis_queues_keys, BaseWorker.redis_workers_keys}, ABOUT


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("wip", StartedJobRegistry),
        ("failed", FailedJobRegistry),
        ("finished", FinishedJobRegistry),
        ("deferred", DeferredJobRegistry),
        ("scheduled", ScheduledJobRegistry),
        ("canceled", CanceledJobRegistry),
    ],
)
def test_the_names_of_registries_are_rqs(redis: Redis, name: str, registry: type[BaseRegistry]) -> None:
    assert internals.registry_key(name, "test") == registry("test", connection=redis).key, ABOUT


def test_a_message_that_is_parked_is_among_rqs_failed_ones(redis: Redis) -> None:
    internals.park(redis, "test", "a-1", "not ours", 60)
    assert FailedJobRegistry("test", connection=redis).get_job_ids() == ["a-1"], ABOUT


def test_of_a_message_that_nobody_renews_nothing_is_left(redis: Any) -> None:
    queue = Queue("test", connection=redis, serializer=JSONSerializer)
    job = queue.enqueue(RUN_UNIT)
    queue.remove(job)
    with redis.pipeline() as pipe:
        execution = Execution.create(job, 60, pipeline=pipe)
        pipe.execute()
    internals.renew(redis, "worker", job, execution, 60)
    assert ExecutionRegistry(job.id, connection=redis).get_execution_ids() == [execution.id], ABOUT
    redis.zadd(internals.registry_key("wip", "test"), {execution.composite_key: 1})
    internals.clear_abandoned(redis, "test")
    left = {key.decode() for key in redis.keys("rq:*")}
    assert not {key for key in left if job.id in key}, ABOUT
