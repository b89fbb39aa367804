"""Messages: small, readable, found again while they wait, in a fair order."""

import json
import zlib
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from trtjob.jobs.queue import CONVERT, MOST_PASSED, RUN_UNIT, WINDOW, WorkQueue
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


# -- the order ---------------------------------------------------------------------------------------------------------


def enter(redis: Redis, job: str, priority: str = "normal", model: str = "m") -> str:
    redis.hset(f"trtjob:job:{job}", mapping={"priority": priority, "model": model})
    return job


def order(queue: WorkQueue) -> str:
    """Return the jobs of what waits, each by its first letter, from the front on."""
    return "".join(message.decode()[0] for message in queue.redis.lrange(f"rq:queue:{queue.name}", 0, -1))


def shards(*numbers: int) -> list[str]:
    return [shard_unit(number) for number in numbers]


def test_jobs_of_one_priority_take_turns(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "big"), shards(*range(5)))
    queue.put(enter(redis, "small"), shards(0, 1))
    queue.put(enter(redis, "third"), [PLAN])
    assert order(queue) == "bstbsbbb"


def test_a_class_comes_before_the_next_whenever_it_is_asked_for(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "low", "low"), shards(0, 1))
    queue.put(enter(redis, "normal"), shards(0, 1))
    queue.put(enter(redis, "high", "high"), shards(0, 1))
    queue.put("normal", shards(2))
    assert order(queue) == "hhnnnll"


def test_the_front_is_that_of_its_own_class(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "high", "high"), shards(0))
    queue.put(enter(redis, "normal"), shards(0, 1))
    queue.put("normal", shards(7), at_front=True)
    assert [unit for _, unit in _taken(queue, "m")] == shards(0, 7, 0, 1)


def test_a_job_whose_priority_changes_moves(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "big"), shards(0, 1, 2))
    queue.put(enter(redis, "small"), shards(0, 1))
    enter(redis, "small", "high")
    queue.reorder("small")
    assert order(queue) == "ssbbb"


def test_a_conversion_comes_first(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "job"), shards(0, 1))
    queue.put_convert("ab", {})
    assert order(queue) == "cjj"


def test_no_more_than_a_window_of_a_job_waits(redis: Redis, queue: WorkQueue) -> None:
    assert queue.put(enter(redis, "big"), shards(*range(3907))) == WINDOW
    assert queue.put("big", shards(1000)) == 0
    assert queue.put("big", [PLAN]) == 1, "a plan always has room"
    assert queue.put(enter(redis, "small"), shards(0)) == 1
    assert len(queue) == WINDOW + 2


def test_a_job_of_a_million_images_takes_under_a_megabyte_of_the_server(redis: Redis, queue: WorkQueue) -> None:
    before = redis.info("memory")["used_memory"]
    queue.put(enter(redis, "big"), shards(*range(3907)))
    assert redis.info("memory")["used_memory"] - before < 1_000_000


# -- taking without RQ -------------------------------------------------------------------------------------------------


def _taken(queue: WorkQueue, model: str) -> list[tuple[str, str]]:
    found = []
    while (unit := queue.take_shard(model)) is not None:
        found.append(unit)
    return found


def test_shards_are_taken_in_the_order_of_the_queue(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "one"), shards(0, 1))
    queue.put(enter(redis, "two"), shards(0, 1))
    assert _taken(queue, "m") == [(job, shard_unit(n)) for n in (0, 1) for job in ("one", "two")]
    assert redis.keys("rq:job:*") == []


@pytest.mark.parametrize("unit", [PLAN, FINISH])
def test_what_is_no_shard_is_left_to_rq(redis: Redis, queue: WorkQueue, unit: str) -> None:
    queue.put(enter(redis, "one"), [unit])
    queue.put("one", shards(0))
    assert queue.take_shard("m") is None
    assert len(queue) == 2


@pytest.mark.parametrize("rubbish", ["", "rubbish", "a--b", "a--shard-00000--no hex"])
def test_rubbish_at_the_front_is_left_to_rq(redis: Redis, queue: WorkQueue, rubbish: str) -> None:
    redis.lpush(f"rq:queue:{queue.name}", rubbish)
    queue.put(enter(redis, "one"), shards(0))
    assert queue.take_shard("m") is None


def test_a_worker_keeps_to_the_model_that_it_has(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "one", model="cats"), shards(0, 1))
    queue.put(enter(redis, "two", model="dogs"), shards(0, 1))
    queue.put(enter(redis, "three", "low", model="dogs"), shards(0))
    assert [job for job, _ in _taken(queue, "dogs")] == ["two", "two", "one", "one", "three"]


def test_a_message_is_not_passed_over_for_ever(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "cats", model="cats"), shards(0))
    queue.put(enter(redis, "dogs", model="dogs"), shards(*range(100)))
    jobs = [job for job, _ in _taken(queue, "dogs")]
    assert jobs.index("cats") == MOST_PASSED


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=12), st.data())
def test_whatever_is_asked_for_is_taken_once_and_in_a_fair_order(
    redis: Redis, asked: list[tuple[str, int]], data: st.DataObject
) -> None:
    redis.flushall()
    queue = WorkQueue(redis, "fair")
    classes = {job: data.draw(st.sampled_from(["high", "normal", "low"]), label=job) for job in "abc"}
    wanted: Counter[tuple[str, str]] = Counter()
    for job, priority in classes.items():
        enter(redis, job, priority)
    for number, (job, count) in enumerate(asked):
        units = shards(*range(10 * number, 10 * number + count))
        queue.put(job, units)
        wanted.update((job, unit) for unit in units)
    taken = _taken(queue, "m")
    assert Counter(taken) == wanted
    order_of = ["high", "normal", "low"].index
    assert [order_of(classes[job]) for job, _ in taken] == sorted(order_of(classes[job]) for job, _ in taken)
    for one, two in combinations([job for job in "abc" if wanted], 2):
        if classes[one] != classes[two]:
            continue
        turns = [job for job, _ in taken if job in (one, two)]
        both = 2 * min(turns.count(one), turns.count(two))
        counts = [turns[:n].count(one) - turns[:n].count(two) for n in range(both + 1)]
        assert max(map(abs, counts)) <= 1
