"""Hand a job in, continue it, try its failures again, cancel it."""

from collections.abc import Iterable
from typing import Any, Literal

from trtjob.errors import JobError
from trtjob.jobs.finish import Receipt
from trtjob.jobs.folder import JOB, RECEIPT, SOURCE_LIST, JobFolder
from trtjob.jobs.plan import write_source_list
from trtjob.jobs.spec import JobSpec
from trtjob.jobs.states import ACTIVE, FINISHED, JobState, Priority
from trtjob.queue.job_store import JobStore
from trtjob.queue.notifications import ask_for_notice, check_notify_url
from trtjob.queue.reconcile import reconcile_job
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.units import PLAN

Outcome = Literal["queued", "running", "resumed", "updating"]


def submit(
    store: JobStore,
    queue: WorkQueue,
    spec: JobSpec,
    keys: Iterable[str] = (),
    *,
    priority: Priority | None = None,
    notify: str = "",
    runner: str = "",
) -> tuple[JobSpec, Outcome]:
    """Hand a job in; the same job again continues it with what is missing, new or changed.

    keys: the images that the source names; priority: None leaves a job that is there its own; notify: the URL that is
    told of the job's end; runner: the `trtjob run` that hands it in, as of `JobView`. One that is under way for another
    `run` changes hands; one that is under way for the workers stays theirs, while there are any.
    Returns the specification in force (that of the first submission) and what was done.
    A job that has ended continues in this queue, whichever it was in.
    Raises ConfigError for a URL that cannot be one, StorageError where the output cannot be written, JobError where the
    folder is another version's, or the job is under way in another queue.
    """
    if notify:
        check_notify_url(notify)
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    # Before job.json, which makes it a job; the id stands for the list too, so whoever writes it writes the same.
    if spec.source.kind != "folder" and not folder.storage.exists(SOURCE_LIST):
        write_source_list(folder, keys)
    is_new = folder.storage.create(JOB, spec.model_dump_json(indent=1).encode())
    if not is_new:
        spec = folder.spec()
    entered: Outcome | None = None
    if is_new or not store.knows(spec):
        entered = _enter(store, queue, folder, spec, priority or Priority.NORMAL, is_new=is_new, runner=runner)
    state = _state_here(store, queue, spec.job_id)
    if notify:
        ask_for_notice(store, spec.job_id, notify)
        state = store.state(spec.job_id)  # it may have ended before that: then it continues, and its next end is told
    if priority is not None:
        store.set_priority(spec.job_id, priority)
        queue.reorder(spec.job_id)
    if state in ACTIVE:
        if store.view(spec.job_id).runner or not any(worker.may_do(queue.name) for worker in store.workers()):
            store.update(spec.job_id, runner=runner)
        reconcile_job(store, queue, spec.job_id)
        return spec, entered or "running"
    return spec, _continue(store, queue, spec, state, runner)


def enter_from(store: JobStore, queue: WorkQueue, folder: JobFolder) -> str:
    """Make a job known again to a server that has forgotten it, or never knew it. Returns its id.

    Raises JobError where the folder is none of a job, was moved, or is of a job that is not complete; StorageError.
    """
    spec = folder.spec()
    if spec.uri != folder.uri:
        message = f"job '{spec.job_id}' writes to {spec.uri}, and its folder was moved to {folder.uri}. Move it back"
        raise JobError(message, job_id=spec.job_id)
    if not store.knows(spec):
        if not folder.storage.exists(RECEIPT):
            raise JobError(
                f"job '{spec.job_id}' is not complete. Go on with: trtjob resume {folder.uri}", job_id=spec.job_id
            )
        receipt = folder.document(Receipt, RECEIPT, remedy="Remove it")
        _enter(store, queue, folder, spec, Priority.NORMAL, failed=receipt.failed)
    return spec.job_id


def _enter(
    store: JobStore,
    queue: WorkQueue,
    folder: JobFolder,
    spec: JobSpec,
    priority: Priority,
    *,
    failed: int = 0,
    is_new: bool = False,
    runner: str = "",
) -> Outcome | None:
    """Make a job known to the server, as its folder says that it stands: new, or of an earlier server.

    failed: images, where it is done. Returns None where somebody else has done so meanwhile.
    """
    newest = folder.newest_round()
    has_ended = newest is not None and folder.has_finished(newest.epoch)
    made = store.create(
        spec,
        JobState.DONE if has_ended else JobState.QUEUED,
        priority=priority,
        queue=queue.name,
        epoch=0 if newest is None else newest.epoch,
        reason="submit" if newest is None else newest.reason,
        failed=failed,
        is_new=is_new,
        runner=runner,
    )
    if not made:
        return None
    return "queued" if newest is None else "resumed"


def _state_here(store: JobStore, queue: WorkQueue, job_id: str) -> JobState:
    """Return a job's state. Raises JobError where it is under way in another queue."""
    state, theirs = store.state(job_id), store.queue_of(job_id)
    if state in ACTIVE and theirs not in (queue.name, ""):
        raise JobError(
            f"job '{job_id}' is {state} in the queue '{theirs}', and this command's queue is '{queue.name}'. Follow it "
            f"there with TRTJOB_QUEUE={theirs}, or stop it first: trtjob cancel {job_id}",
            job_id=job_id,
        )
    return state


def _continue(store: JobStore, queue: WorkQueue, spec: JobSpec, state: JobState, runner: str) -> Outcome:
    if state in FINISHED:
        _next_epoch(store, queue, spec.job_id, "update", runner)
        return "updating"
    fields = {"message": "", "finished_at": "", "queue": queue.name, "runner": runner}
    store.move(spec.job_id, JobState.QUEUED, detail="what is missing", **fields)
    queue.put(spec.job_id, [PLAN])
    return "resumed"


def _next_epoch(store: JobStore, queue: WorkQueue, job_id: str, reason: str, runner: str) -> None:
    epoch = store.view(job_id).epoch + 1
    fields: dict[str, Any] = {"epoch": epoch, "reason": reason, "planned": 0, "message": "", "finished_at": ""}
    fields |= {"queue": queue.name, "runner": runner}
    detail = "failed images" if reason == "retry" else "new and changed images"
    if store.move(job_id, JobState.QUEUED, detail=detail, **fields):
        queue.put(job_id, [PLAN])


def resume(store: JobStore, queue: WorkQueue, folder: JobFolder, *, runner: str = "") -> tuple[JobSpec, Outcome]:
    """Go on with a job that has not finished, as the command that submitted it does.

    runner: as for `submit`. Raises JobError where it has finished, or only that command can say what it is to do.
    """
    spec = folder.spec()
    newest = folder.newest_round()
    if store.knows(spec):
        has_finished = store.state(spec.job_id) in FINISHED
    else:
        has_finished = newest is not None and folder.has_finished(newest.epoch)
    if has_finished:
        hint = f"Failed images are tried again with: trtjob retry {spec.job_id}"
        raise JobError(f"job '{spec.job_id}' has finished. {hint}", job_id=spec.job_id)
    if spec.source.kind != "folder" and not folder.storage.exists(SOURCE_LIST):
        hint = "Continue it with the command that submitted it"
        raise JobError(f"{folder.uri} has no list of the images. {hint}", job_id=spec.job_id)
    return submit(store, queue, spec, runner=runner)


def retry(store: JobStore, queue: WorkQueue, job_id: str, *, runner: str = "") -> int:
    """Run a finished job's failed images again, in the queue that it was in; for a `trtjob run`, in this one.

    Returns their number; raises JobError where it has not finished.
    """
    view = store.view(job_id)
    if view.state not in FINISHED:
        hint = "It is under way." if view.state in ACTIVE else f"Go on with: trtjob resume {job_id}"
        raise JobError(f"job '{job_id}' is {view.state}: its failed images are not known yet. {hint}", job_id=job_id)
    if view.failed:
        _next_epoch(store, queue if runner else queue.named(view.queue), job_id, "retry", runner)
    return view.failed


def stop(store: JobStore, job_id: str, runner: str) -> bool:
    """Stop the job of a `trtjob run` at the next batch edge, until somebody asks for it; what is done is kept.

    Returns False where it is not that `run`'s, or has ended.
    """
    message = f"Go on with: trtjob resume {job_id}"
    return store.move(job_id, JobState.STOPPED, detail="", of=runner, message=message, finished_at=store.now())


def cancel(store: JobStore, job_id: str) -> bool:
    """Stop a job at the next batch edge; what is committed stays. Returns False where it had ended before."""
    store.state(job_id)
    return store.move(job_id, JobState.CANCELLED, message="cancelled", finished_at=store.now())
