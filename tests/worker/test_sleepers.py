"""A planner or a finisher that dies or sleeps before any one of its steps: the outputs are those of a calm run."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from s3_server import S3Server
from worker.rounds import Job, Killed, Steps, watch

from trtjob.jobs.folder import ERRORS, RECEIPT, RESULTS
from trtjob.jobs.records import read_records
from trtjob.jobs.states import ACTIVE
from trtjob.queue.submit import retry
from trtjob.queue.units import FINISH, PLAN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SAMPLE = 43  # so many steps apart are those of `make test`; `make chaos` takes each
UNITS = [(0, PLAN), (0, FINISH), (1, PLAN), (1, FINISH), (2, PLAN)]


@pytest.fixture(params=[pytest.param(SAMPLE, id="a sample"), pytest.param(1, id="each", marks=pytest.mark.chaos)])
def stride(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    watch(steps, monkeypatch)
    return steps


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all jobs on a disk lie, one after the other: what comes out is the same for all."""
    return tmp_path_factory.mktemp("sleepers") / "job"


@pytest.fixture
def start(redis: Redis, place: Path) -> Callable[[], Job]:
    """Begin a job anew, on an empty server."""

    def start() -> Job:
        redis.flushall()
        shutil.rmtree(place, ignore_errors=True)
        return Job(redis, place, str(place / "out"))

    return start


@pytest.fixture(scope="module")
def outputs_when_calm() -> list[dict[str, Any]]:
    """The outputs after each round of a job on a disk to which nothing happens, once a test has asked for them."""
    return []


@pytest.fixture
def expected(start: Callable[[], Job], outputs_when_calm: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs after each round of a job on a disk to which nothing happens."""
    if not outputs_when_calm:
        outputs_when_calm += calm(start())
    return outputs_when_calm


def go_to(job: Job, number: int, unit: str) -> None:
    """Do all that comes before a unit of a round."""
    for begin in job.rounds[:number]:
        begin()
        job.work(0)
    job.rounds[number]()
    job.work(0, until=unit)


def calm(job: Job) -> list[dict[str, Any]]:
    """Return the outputs after each round of a job to which nothing happens."""
    outputs = []
    for begin in job.rounds:
        begin()
        job.work(0)
        outputs.append(job.outputs())
    return outputs


def test_a_calm_run_has_all_that_can_go_wrong_in_it(expected: list[dict[str, Any]]) -> None:
    first, second, third = expected
    assert first[RECEIPT] | {"listed": 6, "ok": 4, "failed": 2} == first[RECEIPT]  # one damaged, one gone
    assert second[RECEIPT] | {"listed": 9, "ok": 8, "failed": 1} == second[RECEIPT]
    assert third[RECEIPT] | {"listed": 9, "ok": 9, "failed": 0} == third[RECEIPT]


@pytest.mark.parametrize(("number", "unit"), UNITS)
@pytest.mark.parametrize("is_wiped", [False, True], ids=["", "wiped"])
def test_a_unit_that_is_killed_anywhere_is_made_good(
    start: Callable[[], Job],
    expected: list[dict[str, Any]],
    steps: Steps,
    stride: int,
    number: int,
    unit: str,
    is_wiped: bool,
) -> None:
    ended = expected[number]
    for at in range(1, 1000, stride):
        job = start()
        go_to(job, number, unit)
        steps.at, steps.count, steps.is_dead, steps.action = at, 0, False, steps.kill
        with suppress(Killed), steps.watching():
            job.run(1, unit)
        steps.at = 0
        if steps.count < at:
            assert at > 20
            return
        steps.is_dead = False
        if is_wiped:
            job.wipe()
            job.submit()
            job.work(2)
            if number == 2:  # nothing but a planner that has begun knew of the retry
                job.rounds[2]()
        else:
            job.lose_lease(unit)
        job.work(2)
        found = job.outputs()
        if is_wiped:  # a round that had ended already is followed by one that finds nothing new
            found, wanted = ({name: out[name] for name in (RESULTS, ERRORS, RECEIPT)} for out in (found, ended))
            assert found == wanted, f"killed before step {at}"
        else:
            assert found == ended, f"killed before step {at}"
    raise AssertionError("it has no end")


def test_a_retry_that_is_cut_off_takes_no_part_in_the_next_round(
    start: Callable[[], Job], steps: Steps, stride: int
) -> None:
    """The server is wiped, and new images come before those that the retry was to plan."""
    for at in range(1, 1000, stride):
        job = start()
        job.rounds[0]()
        job.work(0)
        retry(job.store, job.workers[0].queue, job.spec.job_id)
        steps.at, steps.count, steps.is_dead, steps.action = at, 0, False, steps.kill
        with suppress(Killed), steps.watching():
            job.run(1, PLAN)
        steps.at = 0
        if steps.count < at:
            assert at > 20
            return
        steps.is_dead = False
        job.wipe()
        for name in ("a.jpg", "z.jpg"):
            job.put(name, b"new")
        for _ in range(2):  # the retry is completed, then the update looks for what is new
            job.submit()
            job.work(2)
        results = {record.image: record for record in read_records(job.folder.storage, RESULTS)}
        assert sorted(results) == [f"{name}.jpg" for name in "abcdefgz"], f"killed before step {at}"
        assert job.outputs()[RECEIPT]["listed"] == 8
        assert {name for name, record in results.items() if record.error} == {"d.jpg", "f.jpg"}
    raise AssertionError("it has no end")


def same_round(job: Job, _number: int) -> None:
    """Another completes the round."""
    job.work(2)


def all_rounds(job: Job, number: int) -> None:
    """Others complete it, and all rounds that follow."""
    job.work(2)
    for begin in job.rounds[number + 1 :]:
        begin()
        job.work(2)


def half_a_round(job: Job, number: int) -> None:
    """Others complete it, and plan the next one."""
    job.work(2)
    if number < 2:
        job.rounds[number + 1]()
        job.work(2, until=FINISH)


def wiped(job: Job, number: int) -> None:
    """The server is wiped, and then others go on."""
    job.wipe()
    job.submit()
    all_rounds(job, number)


@pytest.mark.parametrize(("number", "unit"), UNITS)
@pytest.mark.parametrize("meanwhile", [same_round, all_rounds, half_a_round, wiped])
def test_a_unit_that_sleeps_anywhere_changes_nothing(
    start: Callable[[], Job],
    expected: list[dict[str, Any]],
    steps: Steps,
    stride: int,
    number: int,
    unit: str,
    meanwhile: Callable[[Job, int], None],
) -> None:
    let_it_sleep_anywhere(start, expected, steps, stride, number, unit, meanwhile)


@pytest.mark.parametrize("unit", [PLAN, FINISH])
def test_in_a_bucket_it_changes_nothing_either(
    redis: Redis, s3: S3Server, bucket: str, tmp_path: Path, steps: Steps, stride: int, unit: str
) -> None:
    client = s3.client()

    def start() -> Job:
        redis.flushall()
        shutil.rmtree(tmp_path / "job", ignore_errors=True)
        for item in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])
        return Job(redis, tmp_path / "job", f"s3://{bucket}/out")

    let_it_sleep_anywhere(start, calm(start()), steps, stride, 1, unit, all_rounds)


def let_it_sleep_anywhere(
    start: Callable[[], Job],
    expected: list[dict[str, Any]],
    steps: Steps,
    stride: int,
    number: int,
    unit: str,
    meanwhile: Callable[[Job, int], None],
) -> None:
    for at in range(1, 1000, stride):
        job = start()
        go_to(job, number, unit)

        committed: dict[str, bytes] = {}

        def sleep(job: Job = job, committed: dict[str, bytes] = committed) -> None:
            job.lose_lease(unit)
            meanwhile(job, number)
            committed.update(job.committed())

        steps.at, steps.count, steps.action = at, 0, sleep
        with steps.watching():
            job.run(1, unit)
        steps.at = 0
        if steps.count < at:
            assert at > 20
            return
        assert committed.items() <= job.committed().items(), f"slept before step {at}"
        if job.store.state(job.spec.job_id) in ACTIVE:
            assert meanwhile is half_a_round, f"slept before step {at}"
            assert not job.folder.storage.exists(RECEIPT), f"slept before step {at}"
            job.work(2)
        ended = {"same_round": number, "half_a_round": min(number + 1, 2)}.get(meanwhile.__name__, 2)
        found, wanted = job.outputs(), expected[ended]
        if meanwhile is wiped:
            found, wanted = ({name: out[name] for name in (RESULTS, ERRORS, RECEIPT)} for out in (found, wanted))
        assert found == wanted, f"slept before step {at}"
    raise AssertionError("it has no end")
