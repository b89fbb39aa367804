"""`trtjob cancel`: end a job, and write what it has come to."""

import time

from trtjob.api.session import Session, open_session
from trtjob.cli import options as o
from trtjob.cli.session import start
from trtjob.cli.ui.say import say

EXAMPLE = "Example: trtjob cancel photos-1a2b3c4d"

LEAVING_S = 10.0  # far above the half of a second in which a worker hears of a cancellation


def cancel(job: o.JobArgument) -> None:
    """End a job at the next batch edge. The results of what is done are written; submitting it again continues it.

    A conversion is cancelled by the name that `trtjob status` shows: convert-...
    """
    from trtjob.jobs.states import ACTIVE, JobState
    from trtjob.queue.conversions import named
    from trtjob.queue.submit import cancel as cancel_job

    with open_session(start()) as session:
        if (conversion := named(session.store.redis, job)) is not None:
            say(f"{job}: cancelled" if conversion.cancel() else f"{job}: nobody waits for it (any more)")
            return
        if not cancel_job(session.store, job) and (state := session.store.state(job)) is not JobState.CANCELLED:
            if state in ACTIVE:
                say(f"{job}: all its images are done and it is {state}: it ends by itself in a moment")
            else:
                say(f"{job}: had ended before: {state}")
            return
        say(f"{job}: cancelled")
        _write_results(session, job)


def _write_results(session: Session, job_id: str) -> None:
    """Write what a cancelled job has come to, once its workers have left it."""
    from trtjob.errors import JobError, StorageError
    from trtjob.jobs.finish import finish_partly
    from trtjob.jobs.folder import RESULTS, JobFolder
    from trtjob.jobs.states import JobState

    deadline = time.monotonic() + LEAVING_S
    while time.monotonic() < deadline and session.store.held(job_id):
        time.sleep(0.1)
    view = session.store.view(job_id)
    folder = JobFolder.of(view.spec)

    def still_cancelled() -> None:
        if session.store.state(job_id) is not JobState.CANCELLED:
            raise JobError(f"job '{job_id}' goes on: somebody has continued it", job_id=job_id)

    try:
        folder.spec()  # where it is not mounted there would be nothing, and nothing wrong
        summary = finish_partly(folder, view.spec, why="cancelled", listed=view.images, before_write=still_cancelled)
    except (JobError, StorageError) as err:
        hint = f"Where its folder is, this writes them: trtjob cancel {job_id}"
        say(f"No results were written: {err}. {hint}", err=True)
        return
    if summary is not None:
        say(f"{summary.incomplete} images: {folder.storage.place(RESULTS)}", err=True)
