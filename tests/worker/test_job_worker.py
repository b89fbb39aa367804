"""The worker of `trtjob run`, in this process: it does one job, whatever else waits, and stops when it is told to."""

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from samples import job_spec
from terminal import wait_for
from worker.local_worker import Desk
from worker.plain_engine import PlainEngine, write_images

from trtjob.engines.protocol import UInt8Array
from trtjob.jobs.states import JobState
from trtjob.queue.submit import submit
from trtjob.queue.units import PLAN, shard_unit
from trtjob.worker.job_worker import JobWorker


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def work_until(desk: Desk, condition: Callable[[], object]) -> None:
    """Work in this thread; another sends SIGTERM."""

    def stop() -> None:
        try:
            wait_for(condition, "what ends the work")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    JobWorker(desk.context).work()
    stopping.join()


def is_done(desk: Desk) -> bool:
    return desk.store.state(desk.job_id) is JobState.DONE


def test_it_does_its_job_from_the_plan_to_the_end_and_no_other_that_waits_before_it(desk: Desk) -> None:
    write_images(desk.photos, 10)
    other = job_spec(desk.photos, desk.output, job_id="large-00000000")
    submit(desk.store, desk.queue, other)
    desk.submit()
    desk.context.job_id = desk.job_id
    work_until(desk, lambda: is_done(desk))
    assert desk.store.state(other.job_id) is JobState.QUEUED
    assert desk.queue.pending() == {(other.job_id, PLAN)}


def test_it_waits_for_the_name_of_its_job(desk: Desk) -> None:
    write_images(desk.photos, 2)
    desk.submit()
    desk.context.job_id = ""
    naming = threading.Timer(0.2, setattr, (desk.context, "job_id", desk.job_id))
    naming.start()
    work_until(desk, lambda: is_done(desk))
    naming.join()


def test_told_to_stop_it_gives_back_what_it_has_in_hand(desk: Desk) -> None:
    desk.plan(40)
    begun = threading.Event()

    def infer(_images: UInt8Array) -> None:
        begun.set()
        wait_for(lambda: desk.context.stopping, "the stop")

    desk.use(PlainEngine(on_infer=infer))
    desk.context.job_id = desk.job_id
    work_until(desk, begun.is_set)
    assert not desk.context.leases
    assert (desk.job_id, shard_unit(0)) in desk.queue.pending()


def test_a_job_that_is_gone_is_waited_for_by_nobody_else(desk: Desk) -> None:
    desk.submit()
    desk.store.forget(desk.job_id)
    desk.context.job_id = desk.job_id
    work_until(desk, lambda: not desk.queue.pending())
    assert not desk.context.leases
