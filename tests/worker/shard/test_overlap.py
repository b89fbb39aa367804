"""Shard after shard: the next is fed while the last one drains, and each ends by itself."""

import threading
import time
from collections.abc import Callable

from worker.local_worker import LocalWorker
from worker.plain_engine import PlainEngine

from trtjob.engines.protocol import UInt8Array
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.states import JobState
from trtjob.queue.units import FINISH, shard_unit
from trtjob.worker.tasks import run_unit


def committed(local_worker: LocalWorker) -> list[int]:
    folder: JobFolder = local_worker.folder
    return [shard for shard in range(10) if folder.manifest(shard) is not None]


def wait_for_the_second(local_worker: LocalWorker) -> None:
    """Have the engine wait, while it has images of the first shard, until the second is in hand."""
    deadline = time.monotonic() + 20
    while not any(lease.unit == shard_unit(1) for lease in list(local_worker.context.leases)):
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


def test_one_message_runs_all_shards_that_wait_for_their_turn(local_worker: LocalWorker) -> None:
    local_worker.plan(12)
    run_unit(local_worker.job_id, shard_unit(0))
    assert committed(local_worker) == [0, 1, 2]
    assert {unit for _, unit in local_worker.queue.pending()} == {FINISH}
    assert local_worker.store.state(local_worker.job_id) is JobState.FINISHING


def test_the_next_shard_comes_in_while_the_last_images_of_the_first_are_worked_on(local_worker: LocalWorker) -> None:
    local_worker.plan(8)
    held: list[set[str]] = []
    second = Once(lambda: wait_for_the_second(local_worker))

    def look(_images: UInt8Array) -> None:
        second()
        held.append({lease.unit for lease in list(local_worker.context.leases)})

    local_worker.use(PlainEngine(on_infer=look))
    run_unit(local_worker.job_id, shard_unit(0))
    assert {shard_unit(0), shard_unit(1)} in held


def test_no_more_than_two_shards_and_a_window_of_images_are_in_hand(local_worker: LocalWorker) -> None:
    local_worker.plan(40)
    most: list[tuple[int, int]] = []
    inside = 0
    lock = threading.Lock()
    second = Once(lambda: wait_for_the_second(local_worker))

    def look(images: UInt8Array) -> None:
        nonlocal inside
        second()
        with lock:
            inside += len(images)
            most.append((len(local_worker.context.leases), inside))
            inside -= len(images)

    local_worker.use(PlainEngine(on_infer=look))
    run_unit(local_worker.job_id, shard_unit(0))
    assert committed(local_worker) == list(range(10))
    assert max(shards for shards, _ in most) == 2
    assert max(images for _, images in most) <= local_worker.context.settings.window


def test_a_shard_that_is_lost_does_not_disturb_its_neighbour(local_worker: LocalWorker) -> None:
    local_worker.plan(8)

    second = Once(lambda: wait_for_the_second(local_worker))

    def lose_the_second(_images: UInt8Array) -> None:
        second()
        for lease, interrupter in list(local_worker.context.leases.items()):
            if lease.unit == shard_unit(1):
                interrupter.interrupt("lost")

    local_worker.use(PlainEngine(on_infer=lose_the_second))
    run_unit(local_worker.job_id, shard_unit(0))
    assert committed(local_worker) == [0]
    assert local_worker.context.leases == {}


def test_a_stop_gives_all_shards_in_hand_back_and_takes_no_more(local_worker: LocalWorker) -> None:
    local_worker.plan(40)

    def wait_and_stop() -> None:
        wait_for_the_second(local_worker)
        local_worker.stop()

    second = Once(wait_and_stop)

    def stop(_images: UInt8Array) -> None:
        second()

    local_worker.use(PlainEngine(on_infer=stop))
    run_unit(local_worker.job_id, shard_unit(0))
    done = committed(local_worker)
    assert len(done) < 9
    assert all(local_worker.attempts(shard_unit(shard)) == 0 for shard in range(10))
    assert not any(local_worker.store.is_leased(local_worker.job_id, [shard_unit(shard) for shard in range(10)]))
