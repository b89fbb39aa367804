"""Messages: small, readable, found again while they wait, in a fair order."""

import json
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from random import Random

import pytest
from at_once import all_at_once
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from trtjob.queue.keys import job_key
from trtjob.queue.rq_internals import intermediate_key, list_key
from trtjob.queue.rq_queue import CONVERT, MOST_PASSED, RUN_UNIT, WINDOW, WorkQueue
from trtjob.queue.units import FINISH, PLAN, shard_of, shard_unit


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


def test_what_goes_in_front_keeps_its_order(queue: WorkQueue) -> None:
    queue.put("job", shards(7))
    queue.put("job", shards(3, 4, 5), at_front=True)
    assert [unit for _, unit in _taken(queue, "m")] == shards(3, 4, 5, 7)


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
    redis.hset(job_key(job), mapping={"priority": priority, "model": model})
    return job


def order(queue: WorkQueue) -> str:
    """Return the jobs of what waits, each by its first letter, from the front on."""
    return "".join(message.decode()[0] for message in queue.redis.lrange(list_key(queue.name), 0, -1))


def shards(*numbers: int) -> list[str]:
    return [shard_unit(number) for number in numbers]


def test_jobs_of_one_priority_take_turns(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "big"), shards(*range(5)))
    queue.put(enter(redis, "small"), shards(0, 1))
    queue.put(enter(redis, "third"), [PLAN])
    assert order(queue) == "bstbsbbb"


def test_a_job_that_asks_for_little_at_a_time_has_its_turn_too(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "big"), shards(*range(4)))
    queue.put(enter(redis, "small"), shards(0))
    assert queue.take_shard("m") == ("big", shard_unit(0))
    queue.put("small", shards(1, 2))
    assert order(queue) == "sbsbsb"


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


def test_many_that_ask_at_once_keep_to_the_window(redis: Redis, queue: WorkQueue) -> None:
    enter(redis, "big")
    put = all_at_once(4, lambda number: queue.put("big", shards(*range(200 * number, 200 * number + 200))))
    assert sum(put) == WINDOW
    assert len(queue) == len(redis.keys("rq:job:*")) == WINDOW


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


def test_the_units_of_one_job_are_taken_past_those_of_others(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "large", "high"), [PLAN, *shards(0, 1)])
    queue.put(enter(redis, "small"), [PLAN, *shards(0, 1)])
    queue.put(enter(redis, "small-too"), shards(0))
    assert [queue.take_unit_of("small") for _ in range(4)] == [PLAN, shard_unit(0), shard_unit(1), None]
    large = [("large", unit) for unit in (PLAN, *shards(0, 1))]
    assert queue.pending() == {*large, ("small-too", shard_unit(0))}
    assert len(redis.keys("rq:job:*")) == 4


def test_of_one_job_shards_alone_are_taken_in_their_turn(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "other"), shards(0))
    queue.put(enter(redis, "one"), shards(0))
    queue.put("one", [FINISH])
    assert [queue.take_unit_of("one", shards_only=True) for _ in range(2)] == [shard_unit(0), None]
    assert queue.take_unit_of("one") == FINISH


@pytest.mark.parametrize("unit", [PLAN, FINISH])
def test_what_is_no_shard_is_left_to_rq(redis: Redis, queue: WorkQueue, unit: str) -> None:
    queue.put(enter(redis, "one"), [unit])
    queue.put("one", shards(0))
    assert queue.take_shard("m") is None
    assert len(queue) == 2


NO_UNITS = [b"", b"rubbish", b"a--b", b"job--shard-xyz--0123abcd", b"job--shard-0--0123abcd"]  # RQ passes over these
NO_NAMES = [b"a b", b"\xff\xfe", b"\xff--shard-00000--0123abcd", b"job--shard-00000--no hex"]  # and ends for these


@pytest.mark.parametrize("rubbish", NO_UNITS + NO_NAMES)
def test_rubbish_at_the_front_is_left_to_rq(redis: Redis, queue: WorkQueue, rubbish: bytes) -> None:
    redis.lpush(list_key(queue.name), rubbish)
    queue.put(enter(redis, "one"), shards(0))
    assert queue.take_shard("m") is None


@pytest.mark.parametrize("rubbish", NO_UNITS)
def test_rq_passes_over_a_message_that_it_has_no_record_of(redis: Redis, queue: WorkQueue, rubbish: bytes) -> None:
    redis.lpush(list_key(queue.name), rubbish)
    queue.put(enter(redis, "one"), shards(0))
    assert _dequeued(redis, queue) == ["one", shard_unit(0)]


@pytest.mark.parametrize("rubbish", NO_NAMES)
@pytest.mark.parametrize("key", [list_key, intermediate_key])
def test_what_rq_would_end_for_is_removed(
    redis: Redis, queue: WorkQueue, rubbish: bytes, key: Callable[[str], str]
) -> None:
    redis.lpush(key(queue.name), rubbish, rubbish)
    queue.put(enter(redis, "one"), shards(0))
    queue.clear_rubbish()
    assert redis.lrange(intermediate_key(queue.name), 0, -1) == []
    assert queue.pending() == {("one", shard_unit(0))}
    assert len(queue) == 1


@pytest.mark.parametrize("rubbish", NO_UNITS + NO_NAMES)
@pytest.mark.parametrize("priority", ["high", "normal"])
def test_rubbish_in_between_holds_nothing_up(redis: Redis, queue: WorkQueue, rubbish: bytes, priority: str) -> None:
    queue.put(enter(redis, "one"), shards(0))
    redis.rpush(list_key(queue.name), rubbish)
    queue.put(enter(redis, "two", priority), shards(0, 1))
    queue.reorder("one")
    queue.clear_rubbish()
    assert len({message for message in queue.pending() if message[0] in ("one", "two")}) == 3
    assert _dequeued(redis, queue) == ["two", shard_unit(0)]


def test_a_shard_whose_record_is_gone_is_a_hint_all_the_same(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "cats", model="cats"), shards(0))
    redis.delete(*redis.keys("rq:job:*"))
    queue.put(enter(redis, "dogs", model="dogs"), shards(0))
    assert queue.take_shard("dogs") == ("cats", shard_unit(0)), "it cannot be counted how often it is passed over"
    assert queue.take_shard("dogs") == ("dogs", shard_unit(0))
    assert redis.keys("rq:job:*") == []


def _dequeued(redis: Redis, queue: WorkQueue) -> list[str]:
    """Return the arguments of what RQ delivers next."""
    found = Queue.dequeue_any([Queue(queue.name, connection=redis)], None, connection=redis, serializer=JSONSerializer)
    assert found is not None
    return list(found[0].args)


def test_a_message_that_was_passed_over_is_delivered_by_rq_all_the_same(redis: Redis, queue: WorkQueue) -> None:
    queue.put(enter(redis, "cats", model="cats"), shards(0))
    queue.put(enter(redis, "dogs", model="dogs"), shards(0))
    assert queue.take_shard("dogs") == ("dogs", shard_unit(0))
    assert _dequeued(redis, queue) == ["cats", shard_unit(0)]


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


# -- the order, whatever happens ---------------------------------------------------------------------------------------

JOBS = ["ann", "bob", "cat", "dan"]
CLASSES = ["high", "normal", "low"]


class Asked:
    """What was asked for and what was taken, reckoned without the queue."""

    def __init__(self, classes: dict[str, str]) -> None:
        self.classes = {job: CLASSES.index(name) for job, name in classes.items()}
        self.waiting: dict[str, list[str]] = {job: [] for job in classes}
        # For two jobs: what the first had more than the second since both had something waiting.
        self.lead: Counter[tuple[str, str]] = Counter()
        self.number = 0

    def units(self, job: str, count: int) -> list[str]:
        units = shards(*range(self.number, self.number + count))
        self.number += count
        self.waiting[job] += units
        return units

    def take(self, job: str, unit: str) -> None:
        assert unit == self.waiting[job].pop(0), "lost, doubled, or out of its turn"
        best = min(self.classes[other] for other, units in self.waiting.items() if units or other == job)
        assert self.classes[job] == best, "another class was before this one"
        for pair in combinations(JOBS, 2):
            one, two = pair
            if job in pair and self.classes[one] == self.classes[two]:
                self.lead[pair] += 1 if job == one else -1
                other = two if job == one else one
                assert abs(self.lead[pair]) <= 1 or not self.waiting[other], f"{one} and {two} do not take turns"
            if not self.waiting[one] or not self.waiting[two]:
                self.lead[pair] = 0


STEPS = st.lists(st.tuples(st.sampled_from(JOBS), st.integers(0, 5)), max_size=40)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.fixed_dictionaries({job: st.sampled_from(CLASSES) for job in JOBS}), STEPS, st.randoms())
def test_whatever_is_asked_for_is_taken_once_and_in_a_fair_order(
    redis: Redis, classes: dict[str, str], steps: list[tuple[str, int]], random: Random
) -> None:
    """A step asks for so many shards of a job; none: one is taken."""
    redis.flushall()
    queue, asked = WorkQueue(redis, "fair"), Asked(classes)
    for job, priority in classes.items():
        enter(redis, job, priority)
    for job, count in steps:
        if count:
            queue.put(job, asked.units(job, count))
        for _ in range(random.randint(0, 3)):
            if (taken := queue.take_shard("m")) is not None:
                asked.take(*taken)
    for taken in _taken(queue, "m"):
        asked.take(*taken)
    assert not any(asked.waiting.values())
    assert redis.keys("rq:job:*") == []


# -- what reads the queue by itself ------------------------------------------------------------------------------------


def test_rqs_own_tools_read_the_queue(redis: Redis, queue: WorkQueue) -> None:
    """As `rq info`, rq-dashboard, rq-exporter and KEDA do."""
    queue.put(enter(redis, "one"), shards(0, 1))
    queue.put(enter(redis, "two", "high"), [PLAN])
    (found,) = Queue.all(connection=redis, serializer=JSONSerializer)
    assert (found.name, found.count, redis.llen("rq:queue:test")) == ("test", 3, 3)
    names = found.get_job_ids()
    assert [name.rsplit("--", 1)[0] for name in names] == ["two--plan", "one--shard-00000", "one--shard-00001"]
    for job in Job.fetch_many(names, connection=redis, serializer=JSONSerializer):
        assert job is not None
        assert (job.get_status(), job.origin, job.get_position()) == ("queued", "test", names.index(job.id))
        assert job.enqueued_at is not None
    registries = [found.started_job_registry, found.failed_job_registry, found.finished_job_registry]
    registries += [found.deferred_job_registry, found.scheduled_job_registry]
    assert [registry.get_job_ids(cleanup=False) for registry in registries] == [[]] * 5
