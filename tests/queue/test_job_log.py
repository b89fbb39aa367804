"""What workers log of a job reaches the server, says what it is about, and never grows beyond its bounds."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from redis import Redis
from samples import job_spec

from trtjob.logs import log_context
from trtjob.queue.job_log import MOST_CHARACTERS, MOST_HELD, MOST_LINES, JobLog, read_log
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import log_key

JOB = job_spec().job_id


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("test.joblog")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers.clear()


@pytest.fixture
def job_log(logger: logging.Logger) -> JobLog:
    job_log = JobLog()
    logger.addHandler(job_log)
    return job_log


@pytest.fixture
def store(redis: Redis) -> JobStore:
    store = JobStore(redis)
    store.create(job_spec())
    return store


def messages(redis: Redis) -> list[str]:
    return [line.fields["msg"] for line in read_log(redis, JOB)]


def test_a_line_says_what_it_is_about(store: JobStore, job_log: JobLog, logger: logging.Logger) -> None:
    with log_context(job_id=JOB, unit="shard-00003"), log_context(attempt=2):
        logger.warning("image set aside", extra={"image": "a.jpg"})
    logger.warning("about nothing")
    logger.info("by its own field", extra={"job_id": JOB})
    job_log.ship(store.redis)
    first, second = read_log(store.redis, JOB)
    about = {name: first.fields[name] for name in ("job_id", "unit", "attempt", "image", "level", "msg")}
    assert about == {
        "job_id": JOB,
        "unit": "shard-00003",
        "attempt": 2,
        "image": "a.jpg",
        "level": "warning",
        "msg": "image set aside",
    }
    assert first.level == logging.WARNING
    assert second.fields["msg"] == "by its own field"
    assert read_log(store.redis, JOB, after=first.id) == [second]
    assert read_log(store.redis, JOB, last=1) == [second]


def test_what_is_bound_follows_into_tasks_and_threads_and_no_further(
    store: JobStore, job_log: JobLog, logger: logging.Logger
) -> None:
    async def work(unit: str) -> None:
        with log_context(job_id=JOB, unit=unit):
            await asyncio.sleep(0.01)
            await asyncio.to_thread(logger.info, unit)

    async def both() -> None:
        await asyncio.gather(work("shard-00001"), work("shard-00002"))
        logger.info("nobody's")

    asyncio.run(both())
    job_log.ship(store.redis)
    lines = read_log(store.redis, JOB)
    assert sorted(line.fields["msg"] for line in lines) == ["shard-00001", "shard-00002"]
    assert all(line.fields["msg"] == line.fields["unit"] for line in lines)


def test_details_for_developers_are_not_kept(store: JobStore, job_log: JobLog, logger: logging.Logger) -> None:
    logger.debug("a detail", extra={"job_id": JOB})
    job_log.ship(store.redis)
    assert messages(store.redis) == []


@pytest.mark.slow
def test_while_the_server_is_away_lines_are_held_and_the_oldest_give_way(
    store: JobStore, job_log: JobLog, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    away = redis_py.Redis(port=1)
    for number in range(MOST_HELD):
        logger.info("line %d", number, extra={"job_id": JOB})
    with pytest.raises(redis_py.ConnectionError):
        job_log.ship(away)
    for number in range(MOST_HELD, MOST_HELD + 10):
        logger.info("line %d", number, extra={"job_id": JOB})
    job_log.ship(store.redis)
    assert messages(store.redis)[0] == "line 10"
    assert messages(store.redis)[-1] == f"line {MOST_HELD + 9}"
    assert "10 lines about jobs were not kept" in caplog.text


def test_lines_that_come_while_others_are_on_their_way_are_the_ones_that_stay(
    store: JobStore, job_log: JobLog, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(redis_py.Redis):
        """A server that is lost in the middle of a shipment, in which so many new lines come."""

        def pipeline(self, *_arguments: Any, **_options: Any) -> Any:
            for number in range(MOST_HELD, MOST_HELD + new):
                logger.info("line %d", number, extra={"job_id": JOB})
            raise redis_py.ConnectionError("lost")

    for new in (0, 10, MOST_HELD):
        for number in range(MOST_HELD):
            logger.info("line %d", number, extra={"job_id": JOB})
        with pytest.raises(redis_py.ConnectionError):
            job_log.ship(Away())
        caplog.clear()
        store.redis.delete(log_key(JOB))
        job_log.ship(store.redis)
        kept = messages(store.redis)
        assert len(kept) == MOST_HELD
        assert (kept[0], kept[-1]) == (f"line {new}", f"line {MOST_HELD + new - 1}")
        assert (f"{new} lines about jobs were not kept" in caplog.text) == bool(new)


def test_only_the_last_lines_are_kept(store: JobStore, job_log: JobLog, logger: logging.Logger) -> None:
    for _ in range(MOST_LINES // MOST_HELD + 4):
        for number in range(MOST_HELD):
            logger.info("line %d", number, extra={"job_id": JOB})
        job_log.ship(store.redis)
    assert MOST_LINES <= store.redis.xlen(log_key(JOB)) < 1.2 * MOST_LINES


def test_a_long_traceback_keeps_its_end(store: JobStore, job_log: JobLog, logger: logging.Logger) -> None:
    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        raise ValueError("x" * 3000 + " at the bottom")

    try:
        dive(50)
    except ValueError:
        logger.exception("unexpected error", extra={"job_id": JOB})
    job_log.ship(store.redis)
    (line,) = read_log(store.redis, JOB)
    assert line.fields["exception"].endswith("at the bottom")
    assert len(json.dumps(line.fields)) < 2 * MOST_CHARACTERS


def test_a_job_that_was_forgotten_gets_no_log(redis: Redis, job_log: JobLog, logger: logging.Logger) -> None:
    logger.info("late", extra={"job_id": "nobody"})
    job_log.ship(redis)
    assert not redis.exists(log_key("nobody"))


def test_the_log_goes_with_its_job(store: JobStore, job_log: JobLog, logger: logging.Logger) -> None:
    logger.info("a line", extra={"job_id": JOB})
    job_log.ship(store.redis)
    store.forget(JOB)
    assert not store.redis.exists(log_key(JOB))


def test_what_is_no_line_of_ours_is_passed_over(store: JobStore, job_log: JobLog, logger: logging.Logger) -> None:
    for line in (b"rubbish", b"[]", b'{"msg": "no time"}', b'{"ts": "yesterday"}', b"\xff"):
        store.redis.xadd(log_key(JOB), {"line": line})
    store.redis.xadd(log_key(JOB), {"other": "field"})
    logger.info("a line", extra={"job_id": JOB})
    job_log.ship(store.redis)
    assert messages(store.redis) == ["a line"]
