"""Ask again for every unit of work that is wanted, held by nobody and waiting nowhere.

This is the only retry there is: a message lost by a server's crash, a worker that died, a shard given back, all end
here.
"""

from collections.abc import Iterator
from itertools import islice

from trtjob.errors import UnknownJobError
from trtjob.jobs.states import JobState
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import types_of
from trtjob.queue.replies import drop_foreign, is_outage
from trtjob.queue.rq_queue import WINDOW, WorkQueue
from trtjob.queue.units import FINISH, PLAN, shard_unit

# How many units more than there is room for are looked at in one go, since workers hold the first ones.
_SOME = 64


def reconcile(store: JobStore, queue: WorkQueue) -> int:
    """Reconcile all jobs of a queue. Returns how many units were asked for again.

    Raises ForeignJobError for a job that cannot be read, or what else one has met, after all others have had their
    turn.
    """
    if drop_foreign(store.redis, types_of(queue.name) | queue.key_types):
        store.list_again()
    queue.clear_abandoned()
    queue.clear_rubbish()
    active = store.active_ids(queue.name)
    if not active:
        return 0
    pending = queue.pending()
    asked, failed = 0, None
    for job_id in active:
        try:
            asked += _reconcile(store, queue, job_id, pending)
        except UnknownJobError:  # forgotten meanwhile
            continue
        except Exception as err:
            if is_outage(err):
                raise
            failed = err
    if failed is not None:
        raise failed
    return asked


def reconcile_job(store: JobStore, queue: WorkQueue, job_id: str) -> int:
    """Reconcile one job, if it is the queue's. Returns how many units were asked for again."""
    if store.queue_of(job_id) not in (queue.name, ""):
        return 0
    return _reconcile(store, queue, job_id, queue.pending())


def _reconcile(store: JobStore, queue: WorkQueue, job_id: str, pending: set[tuple[str, str]]) -> int:
    waiting = [unit for job, unit in pending if job == job_id]
    wanted = (unit for unit in _wanted(store, job_id) if (job_id, unit) not in pending)
    room = max(0, WINDOW - len(waiting))
    missing: list[str] = []
    # There may be thousands of workers, and so of units that they hold, before the first that is free.
    while len(missing) <= room and (candidates := list(islice(wanted, room + _SOME))):
        leased = store.is_leased(job_id, candidates)
        missing += [unit for unit, is_leased in zip(candidates, leased, strict=True) if not is_leased]
    missing = missing[: room + 1]  # one more: a plan or a finish needs no room
    # What is older than all that waits was lost by a worker: somebody counts on its being done by now.
    oldest = min(map(_age, waiting), default=(0, ""))
    lost = [unit for unit in missing if _age(unit) < oldest]
    return queue.put(job_id, lost, at_front=True) + queue.put(job_id, missing[len(lost) :])


def _age(unit: str) -> tuple[int, str]:
    return len(unit), unit  # shards have five digits, and more from 100,000 on


def _wanted(store: JobStore, job_id: str) -> Iterator[str]:
    view = store.view(job_id)
    match view.state:
        case JobState.QUEUED | JobState.PLANNING:
            yield PLAN
        case JobState.FINISHING:
            yield FINISH
    if view.state in (JobState.PLANNING, JobState.RUNNING):
        yield from map(shard_unit, store.open_shards(job_id, view.shards))
