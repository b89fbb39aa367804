"""Hand a job in, continue it, try its failures again, cancel it."""

import time
from collections.abc import Iterable
from typing import Literal

from trtjob.errors import JobError
from trtjob.jobs.folder import JOB, RECEIPT, JobFolder
from trtjob.jobs.models import JobSpec
from trtjob.jobs.notify import ask_for_notice
from trtjob.jobs.plan import write_source_list
from trtjob.jobs.queue import WorkQueue
from trtjob.jobs.reconcile import reconcile_job
from trtjob.jobs.states import ACTIVE, FINISHED, JobState, Priority
from trtjob.jobs.store import JobStore
from trtjob.jobs.units import PLAN

Outcome = Literal["queued", "running", "resumed", "updating"]


def submit(
    store: JobStore,
    queue: WorkQueue,
    spec: JobSpec,
    keys: Iterable[str] = (),
    *,
    priority: Priority | None = None,
    notify: str = "",
) -> tuple[JobSpec, Outcome]:
    """Hand a job in; the same job again continues it with what is missing, new or changed.

    keys: the images of a `list` source; priority: None leaves a job that is there its own; notify: the URL that is told
    of the job's end. Returns the specification in force (that of the first submission) and what
    was done.
    Raises StorageError where the output cannot be written, JobError where the folder is another version's.
    """
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    if folder.storage.create(JOB, spec.model_dump_json(indent=1).encode()):
        if spec.source.kind == "list":
            write_source_list(folder, keys)
        store.forget(spec.job_id)  # known from a folder that has been removed since
    else:
        spec = folder.spec()
    is_new = store.create(spec, priority=priority or Priority.NORMAL)
    if notify:
        ask_for_notice(store, spec.job_id, notify)
    if is_new:
        return spec, _enter(store, queue, folder, spec)
    if priority is not None:
        store.set_priority(spec.job_id, priority)
        queue.reorder(spec.job_id)
    state = store.state(spec.job_id)
    if state in ACTIVE:
        reconcile_job(store, queue, spec.job_id)
        return spec, "running"
    return spec, _continue(store, queue, spec, state)


def _enter(store: JobStore, queue: WorkQueue, folder: JobFolder, spec: JobSpec) -> Outcome:
    """Start a job that the store did not know: a new one, or one of an earlier server, found in its folder."""
    epochs = folder.epochs()
    if folder.storage.exists(RECEIPT):
        store.restore_done(spec.job_id, epochs[-1].epoch)
        return _continue(store, queue, spec, JobState.DONE)
    if epochs:
        store.update(spec.job_id, epoch=epochs[-1].epoch, reason=epochs[-1].reason)
    queue.put(spec.job_id, [PLAN])
    return "resumed" if epochs else "queued"


def _continue(store: JobStore, queue: WorkQueue, spec: JobSpec, state: JobState) -> Outcome:
    if state in FINISHED:
        _next_epoch(store, queue, spec.job_id, "update")
        return "updating"
    store.move(spec.job_id, JobState.QUEUED, detail="what is missing", message="", finished_at="")
    queue.put(spec.job_id, [PLAN])
    return "resumed"


def _next_epoch(store: JobStore, queue: WorkQueue, job_id: str, reason: str) -> None:
    epoch = store.view(job_id).epoch + 1
    fields: dict[str, str | float] = {"epoch": epoch, "reason": reason, "planned": 0, "message": "", "finished_at": ""}
    detail = "failed images" if reason == "retry" else "new and changed images"
    if store.move(job_id, JobState.QUEUED, detail=detail, **fields):
        queue.put(job_id, [PLAN])


def retry(store: JobStore, queue: WorkQueue, job_id: str) -> int:
    """Run a finished job's failed images again. Returns their number; raises JobError where it has not finished."""
    view = store.view(job_id)
    if view.state not in FINISHED:
        hint = "It is under way." if view.state in ACTIVE else "Continue it with the command that submitted it."
        raise JobError(f"job '{job_id}' is {view.state}: its failed images are not known yet. {hint}", job_id=job_id)
    if view.failed:
        _next_epoch(store, queue, job_id, "retry")
    return view.failed


def cancel(store: JobStore, job_id: str) -> bool:
    """Stop a job at the next batch edge; what is committed stays. Returns False where it had ended before."""
    store.state(job_id)
    return store.move(job_id, JobState.CANCELLED, message="cancelled", finished_at=time.time())
