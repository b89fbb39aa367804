"""Shard after shard: the next is fed while the last one drains, and each ends by itself."""

import logging
import threading
import time
from collections.abc import Callable

import pytest
from worker.desk import Desk
from worker.plain_engine import PlainEngine

from trtjob.engines.protocol import UInt8Array
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.states import JobState
from trtjob.jobs.units import FINISH, shard_unit
from trtjob.logs import fields_of
from trtjob.worker.tasks import run_unit


def committed(desk: Desk) -> list[int]:
    folder: JobFolder = desk.folder
    return [shard for shard in range(10) if folder.manifest(shard) is not None]


def wait_for_the_second(desk: Desk) -> None:
    """Have the engine wait, while it has images of the first shard, until the second is in hand."""
    deadline = time.monotonic() + 20
    while not any(claim.unit == shard_unit(1) for claim in list(desk.context.claims)):
        assert time.monotonic() < deadline, "the next shard does not come in"
        time.sleep(0.001)


class Once:
    """Does something at its first call only; the others wait for it to be done."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            action, self._action = self._action, None
            if action is not None:
                action()


def test_one_message_runs_all_shards_that_wait_for_their_turn(desk: Desk) -> None:
    desk.plan(12)
    run_unit(desk.job_id, shard_unit(0))
    assert committed(desk) == [0, 1, 2]
    assert {unit for _, unit in desk.queue.pending()} == {FINISH}
    assert desk.store.state(desk.job_id) is JobState.FINISHING


def test_the_next_shard_comes_in_while_the_last_images_of_the_first_are_worked_on(desk: Desk) -> None:
    desk.plan(8)
    held: list[set[str]] = []
    second = Once(lambda: wait_for_the_second(desk))

    def look(_images: UInt8Array) -> None:
        second()
        held.append({claim.unit for claim in list(desk.context.claims)})

    desk.use(PlainEngine(on_infer=look))
    run_unit(desk.job_id, shard_unit(0))
    assert {shard_unit(0), shard_unit(1)} in held


def test_no_more_than_two_shards_and_a_window_of_images_are_in_hand(desk: Desk) -> None:
    desk.plan(40)
    most: list[tuple[int, int]] = []
    inside = 0
    lock = threading.Lock()
    second = Once(lambda: wait_for_the_second(desk))

    def look(images: UInt8Array) -> None:
        nonlocal inside
        second()
        with lock:
            inside += len(images)
            most.append((len(desk.context.claims), inside))
            inside -= len(images)

    desk.use(PlainEngine(on_infer=look))
    run_unit(desk.job_id, shard_unit(0))
    assert committed(desk) == list(range(10))
    assert max(shards for shards, _ in most) == 2
    assert max(images for _, images in most) <= desk.context.settings.window


def test_a_shard_that_is_lost_does_not_disturb_its_neighbour(desk: Desk) -> None:
    desk.plan(8)

    second = Once(lambda: wait_for_the_second(desk))

    def lose_the_second(_images: UInt8Array) -> None:
        second()
        for claim, interrupter in list(desk.context.claims.items()):
            if claim.unit == shard_unit(1):
                interrupter.interrupt("lost")

    desk.use(PlainEngine(on_infer=lose_the_second))
    run_unit(desk.job_id, shard_unit(0))
    assert committed(desk) == [0]
    assert desk.context.claims == {}


def test_a_stop_gives_all_shards_in_hand_back_and_takes_no_more(desk: Desk) -> None:
    desk.plan(40)

    def wait_and_stop() -> None:
        wait_for_the_second(desk)
        desk.context.request_stop()

    second = Once(wait_and_stop)

    def stop(_images: UInt8Array) -> None:
        second()

    desk.use(PlainEngine(on_infer=stop))
    run_unit(desk.job_id, shard_unit(0))
    done = committed(desk)
    assert len(done) < 9
    assert all(desk.attempts(shard_unit(shard)) == 0 for shard in range(10))
    assert not any(desk.store.is_leased(desk.job_id, [shard_unit(shard) for shard in range(10)]))


@pytest.mark.parametrize("unit", [shard_unit(0), shard_unit(1)])
def test_a_shard_with_suspects_runs_alone(desk: Desk, unit: str) -> None:
    keys = desk.plan(12)
    crashed = desk.claim(unit)
    own = keys[:4] if unit == shard_unit(0) else keys[4:8]
    desk.crash(crashed, own[:2])
    alone: list[set[str]] = []

    def look(_images: UInt8Array) -> None:
        units = {claim.unit for claim in desk.context.claims}
        if unit in units:
            alone.append(units)

    desk.use(PlainEngine(on_infer=look))
    run_unit(desk.job_id, shard_unit(0))
    assert committed(desk) == [0, 1, 2]
    assert alone == [{unit}] * len(alone)
    assert alone


@pytest.mark.parametrize(
    ("second", "condemned"),
    [pytest.param(False, True, id="held alone"), pytest.param(True, False, id="held with another")],
)
def test_an_image_is_condemned_only_if_its_worker_held_nothing_else(desk: Desk, second: bool, condemned: bool) -> None:
    keys = desk.plan(8)
    claim = desk.claim()
    if second:
        desk.claim(shard_unit(1))
    assert desk.store.check(claim, [keys[2]], 0, 0) == "go"
    desk.store.abandon(claim.owner, "SIGSEGV")
    run_unit(desk.job_id, shard_unit(0))
    assert (desk.records()[keys[2]].error is not None) is condemned


def test_a_shard_of_another_model_waits_until_the_first_has_drained(desk: Desk, other_job: Callable[[], str]) -> None:
    desk.plan(4)
    other = other_job()
    held: list[int] = []
    desk.use(PlainEngine(on_infer=lambda _images: held.append(len(desk.context.claims))))
    run_unit(desk.job_id, shard_unit(0))
    assert committed(desk) == [0]
    assert max(held) == 1
    assert desk.store.state(other) is JobState.FAILED, "its model is not there"


@pytest.fixture
def other_job(desk: Desk) -> Callable[[], str]:
    """Plan a job whose model is another, and is not there."""

    def make() -> str:
        spec = desk.folder.spec()
        model = spec.model.model_copy(update={"sha256": "cd" * 32, "name": "other"})
        spec = spec.model_copy(update={"job_id": "other-1234abcd", "model": model})
        folder = JobFolder.of(spec)
        folder.storage.create("job.json", spec.model_dump_json().encode())
        folder.storage.write("plan/shard-00000.jsonl", desk.folder.storage.read("plan/shard-00000.jsonl"))
        desk.store.create(spec, JobState.RUNNING)
        desk.store.update(spec.job_id, shards=1, images=4, planned=1)
        desk.queue.put(spec.job_id, [shard_unit(0)])
        return spec.job_id

    return make


def test_what_the_engines_thread_logs_says_of_which_unit_it_is(desk: Desk) -> None:
    seen = []

    def note(_images: UInt8Array) -> None:
        seen.append(fields_of(logging.makeLogRecord({"msg": "in the engine"})))

    desk.plan(4)
    desk.use(PlainEngine(on_infer=note))
    run_unit(desk.job_id, shard_unit(0))
    assert {(line["job_id"], line["unit"], line["attempt"]) for line in seen} == {(desk.job_id, shard_unit(0), 1)}
