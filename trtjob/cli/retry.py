"""`trtjob retry`: try the failures of a job again, here where it was a `trtjob run`."""

import typer

from trtjob.api.hand_in import Begun
from trtjob.api.session import Session, WorkerOptions, open_session
from trtjob.cli import options as o
from trtjob.cli.continuing import Queue, Wait, continue_job, is_here, job_named
from trtjob.cli.parameters import with_fields
from trtjob.cli.session import start
from trtjob.cli.ui.say import say
from trtjob.counted import counted

EXAMPLE = "Example: trtjob retry photos-1a2b3c4d"


@with_fields
def retry(
    job: o.JobOrFolderArgument,
    *,
    queue: Queue = False,
    wait: Wait = False,
    workers: WorkerOptions,
    processes: o.Processes = 1,
) -> None:
    """Run the failed images of a finished job again.

    After `trtjob run` they run here, and this command waits for the results; those of another job go to the workers.
    """
    from trtjob.jobs.states import FINISHED
    from trtjob.queue.submit import enter_from

    settings = start(workers)
    with open_session(settings) as session:
        folder = job_named(session, job)
        runs_here = not queue and is_here(session, job if folder is None else folder.spec().job_id)
        job_id = job if folder is None else enter_from(session.store, session.queue, folder)

        def try_again(session: Session, runner: str) -> Begun:
            from trtjob.queue.submit import retry as retry_job

            images = retry_job(session.store, session.queue, job_id, runner=runner)
            say(f"{job_id}: {counted(images, 'failed image')} to run again", err=True)
            return job_id, "resumed"

        view = session.store.view(job_id)
        if view.state in FINISHED and not view.failed:
            say(f"{job_id}: no image failed", err=True)
            return
        code = continue_job(session, try_again, processes, is_here=runs_here, wait=wait)
    raise typer.Exit(code)
