"""The worker of `trtjob run`, in this process: it does one job, whatever else waits, and stops when it is told to."""

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from samples import job_spec
from terminal import wait_for
from worker.local_worker import LocalWorker
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


def work_until(local_worker: LocalWorker, condition: Callable[[], object]) -> None:
    """Work in this thread; another sends SIGTERM."""

    def stop() -> None:
        try:
            wait_for(condition, "what ends the work")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    JobWorker(local_worker.context).work()
    stopping.join()


def is_done(local_worker: LocalWorker) -> bool:
    return local_worker.store.state(local_worker.job_id) is JobState.DONE


@pytest.mark.slow
def test_it_does_its_job_from_the_plan_to_the_end_and_no_other_that_waits_before_it(local_worker: LocalWorker) -> None:
    write_images(local_worker.photos, 10)
    other = job_spec(local_worker.photos, local_worker.output, job_id="large-00000000")
    submit(local_worker.store, local_worker.queue, other)
    local_worker.submit()
    local_worker.context.job_id = local_worker.job_id
    work_until(local_worker, lambda: is_done(local_worker))
    assert local_worker.store.state(other.job_id) is JobState.QUEUED
    assert local_worker.queue.pending() == {(other.job_id, PLAN)}


def test_it_waits_for_the_name_of_its_job(local_worker: LocalWorker) -> None:
    write_images(local_worker.photos, 2)
    local_worker.submit()
    local_worker.context.job_id = ""
    naming = threading.Timer(0.2, setattr, (local_worker.context, "job_id", local_worker.job_id))
    naming.start()
    work_until(local_worker, lambda: is_done(local_worker))
    naming.join()


def test_told_to_stop_it_gives_back_what_it_has_in_hand(local_worker: LocalWorker) -> None:
    local_worker.plan(40)
    begun = threading.Event()

    def infer(_images: UInt8Array) -> None:
        begun.set()
        wait_for(lambda: local_worker.context.stopping, "the stop")

    local_worker.use(PlainEngine(on_infer=infer))
    local_worker.context.job_id = local_worker.job_id
    work_until(local_worker, begun.is_set)
    assert not local_worker.context.leases
    assert (local_worker.job_id, shard_unit(0)) in local_worker.queue.pending()


def test_a_job_that_is_gone_is_waited_for_by_nobody_else(local_worker: LocalWorker) -> None:
    local_worker.submit()
    local_worker.store.forget(local_worker.job_id)
    local_worker.context.job_id = local_worker.job_id
    work_until(local_worker, lambda: not local_worker.queue.pending())
    assert not local_worker.context.leases
