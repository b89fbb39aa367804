"""`trtjob resume`: go on with a job, here where it was a `trtjob run`."""

import typer

from trtjob.api.hand_in import Begun, tell_continuing
from trtjob.api.progress import StandardError
from trtjob.api.session import Session, WorkerOptions, open_session
from trtjob.cli import options as o
from trtjob.cli.continuing import Queue, Wait, continue_job, folder_of, is_here
from trtjob.cli.parameters import with_fields
from trtjob.cli.session import start

EXAMPLE = "Example: trtjob resume photos-1a2b3c4d"


@with_fields
def resume(
    job: o.JobOrFolderArgument,
    *,
    queue: Queue = False,
    wait: Wait = False,
    workers: WorkerOptions,
    processes: o.Processes = 1,
) -> None:
    """Go on with a job that was stopped, was cancelled or has failed: with what is missing.

    What `trtjob run` has begun goes on here, and this command waits for the results; another job goes to the workers.
    """
    settings = start(workers)
    with open_session(settings) as session:
        folder = folder_of(session, job)
        job_id = folder.spec().job_id

        def go_on(session: Session, runner: str) -> Begun:
            from trtjob.queue.submit import resume as resume_job

            queue = session.queue if runner else session.queue.named(session.store.queue_of(job_id))
            spec, outcome = resume_job(session.store, queue, folder, runner=runner)
            tell_continuing(StandardError(), spec.job_id, outcome)
            return spec.job_id, outcome

        code = continue_job(session, go_on, processes, is_here=not queue and is_here(session, job_id), wait=wait)
    raise typer.Exit(code)
