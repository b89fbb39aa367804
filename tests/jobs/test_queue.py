"""Messages: small, readable, found again while they wait."""

import json
import zlib

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from trtjob.jobs.queue import CONVERT, RUN_UNIT, WorkQueue
from trtjob.jobs.units import FINISH, PLAN, shard_of, shard_unit


@pytest.fixture
def queue(redis: Redis) -> WorkQueue:
    return WorkQueue(redis, "test")


def waiting(redis: Redis) -> list[Job]:
    """Return the messages that wait, as RQ reads them, the next one first."""
    return Queue("test", connection=redis, serializer=JSONSerializer).jobs


def test_a_message_names_the_function_the_job_and_the_unit(redis: Redis, queue: WorkQueue) -> None:
    queue.put("photos-1a", [PLAN])
    (message,) = waiting(redis)
    assert (message.func_name, message.args, message.kwargs) == (RUN_UNIT, ["photos-1a", PLAN], {})


def test_a_message_is_json_that_anyone_can_read(redis: Redis, queue: WorkQueue) -> None:
    queue.put("photos-1a", [PLAN])
    (name,) = redis.keys("rq:job:*")
    data = redis.hget(name, "data")
    assert isinstance(data, bytes)
    assert json.loads(zlib.decompress(data)) == [RUN_UNIT, None, ["photos-1a", PLAN], {}]


def test_what_waits_is_told_by_job_and_unit(queue: WorkQueue) -> None:
    queue.put("photos-1a", [PLAN, shard_unit(0)])
    queue.put("a--b", [FINISH])
    assert queue.pending() == {("photos-1a", PLAN), ("photos-1a", "shard-00000"), ("a--b", FINISH)}
    assert len(queue) == 3


def test_a_message_that_was_taken_does_not_wait_any_more(redis: Redis, queue: WorkQueue) -> None:
    queue.put("photos-1a", [PLAN])
    redis.lpop("rq:queue:test")
    assert queue.pending() == set()


def test_messages_are_taken_in_the_order_of_asking(redis: Redis, queue: WorkQueue) -> None:
    queue.put("photos-1a", map(shard_unit, range(3)))
    assert [message.args[1] for message in waiting(redis)] == ["shard-00000", "shard-00001", "shard-00002"]


def test_what_is_older_goes_in_front(redis: Redis, queue: WorkQueue) -> None:
    queue.put("new", [PLAN])
    queue.put("old", [shard_unit(3)], at_front=True)
    assert [message.args[0] for message in waiting(redis)] == ["old", "new"]


def test_the_same_unit_asked_for_twice_is_two_messages(redis: Redis, queue: WorkQueue) -> None:
    """RQ would take a second message of the same id for a change of the first."""
    queue.put("photos-1a", [PLAN])
    queue.put("photos-1a", [PLAN])
    assert len({message.id for message in waiting(redis)}) == 2


def test_nothing_asked_for_is_no_message(queue: WorkQueue) -> None:
    queue.put("photos-1a", [])
    assert len(queue) == 0


def test_a_conversion_is_no_unit_of_a_job(redis: Redis, queue: WorkQueue) -> None:
    queue.put_convert("0123abcd", {"model": "/models/yolo.weights"})
    (message,) = waiting(redis)
    assert (message.func_name, message.args) == (CONVERT, ["0123abcd", {"model": "/models/yolo.weights"}])
    assert queue.pending() == {("convert", "0123abcd")}


def test_two_queues_of_one_server_do_not_mix(redis: Redis, queue: WorkQueue) -> None:
    queue.put("photos-1a", [PLAN])
    assert len(WorkQueue(redis, "other")) == 0


@pytest.mark.parametrize("shard", [0, 7, 99_999, 100_000, 1_234_567])
def test_a_shards_unit_names_its_number(shard: int) -> None:
    assert shard_of(shard_unit(shard)) == shard


@pytest.mark.parametrize("unit", [PLAN, FINISH])
def test_other_units_have_no_number(unit: str) -> None:
    assert shard_of(unit) is None
