"""`trtjob resume` and `retry`: go on with a job, or try its failures again; here where it was a `trtjob run`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from trtjob.cli import options as o
from trtjob.cli.job_folders import named_folder, usual_folder
from trtjob.cli.run import Begun, run_here, say_continuing
from trtjob.cli.session import Session, open_session, start
from trtjob.cli.signals import Stop, run_until_stopped
from trtjob.cli.status import watch_job
from trtjob.cli.ui.say import say

if TYPE_CHECKING:
    from trtjob.jobs.folder import JobFolder

RESUME_EXAMPLE = "Example: trtjob resume photos-1a2b3c4d"
RETRY_EXAMPLE = "Example: trtjob retry photos-1a2b3c4d"

Queue = Annotated[
    bool,
    typer.Option(
        "--queue",
        help="Hand the job in to the workers instead. Default: work on it here, if `trtjob run` did.",
    ),
]
Wait = Annotated[
    bool,
    typer.Option("--wait", help="Show how the workers get on until the job ends. Default: return at once."),
]

Start = Callable[[Session, str], Begun]  # gets the runner, empty where the job is for the workers


def resume(
    job: o.JobOrFolderArgument,
    queue: Queue = False,
    wait: Wait = False,
    threads: o.Threads = None,
    image_processes: o.ImageProcesses = None,
    batch: o.Batch = None,
    engine: o.Engine = None,
    gpus: o.Gpus = None,
    processes: o.Processes = 1,
) -> None:
    """Go on with a job that was stopped, was cancelled or has failed: with what is missing.

    What `trtjob run` has begun goes on here, and this command waits for the results; another job goes to the workers.
    """
    settings = start(threads=threads, image_processes=image_processes, batch=batch, engine=engine, gpus=gpus)
    with open_session(settings) as session:
        folder = _folder(session, job)
        job_id = folder.spec().job_id

        def go_on(session: Session, runner: str) -> Begun:
            from trtjob.queue.submit import resume as resume_job

            queue = session.queue if runner else session.queue.named(session.store.queue_of(job_id))
            spec, outcome = resume_job(session.store, queue, folder, runner=runner)
            say_continuing(spec.job_id, outcome)
            return spec.job_id, outcome

        code = _again(session, go_on, processes, is_here=not queue and _is_here(session, job_id), wait=wait)
    raise typer.Exit(code)


def retry(
    job: o.JobOrFolderArgument,
    queue: Queue = False,
    wait: Wait = False,
    threads: o.Threads = None,
    image_processes: o.ImageProcesses = None,
    batch: o.Batch = None,
    engine: o.Engine = None,
    gpus: o.Gpus = None,
    processes: o.Processes = 1,
) -> None:
    """Run the failed images of a finished job again.

    After `trtjob run` they run here, and this command waits for the results; those of another job go to the workers.
    """
    from trtjob.jobs.states import FINISHED
    from trtjob.queue.submit import enter_from

    settings = start(threads=threads, image_processes=image_processes, batch=batch, engine=engine, gpus=gpus)
    with open_session(settings) as session:
        folder = _named(session, job)
        is_here = not queue and _is_here(session, job if folder is None else folder.spec().job_id)
        job_id = job if folder is None else enter_from(session.store, session.queue, folder)

        def try_again(session: Session, runner: str) -> Begun:
            from trtjob.queue.submit import retry as retry_job

            images = retry_job(session.store, session.queue, job_id, runner=runner)
            say(f"{job_id}: {images} failed images run again", err=True)
            return job_id, "resumed"

        view = session.store.view(job_id)
        if view.state in FINISHED and not view.failed:
            say(f"{job_id}: no image failed", err=True)
            return
        code = _again(session, try_again, processes, is_here=is_here, wait=wait)
    raise typer.Exit(code)


def _named(session: Session, job: str) -> "JobFolder | None":
    """Return the folder that is named, or the usual one of a job that the server does not know."""
    folder = named_folder(job)
    return usual_folder(job) if folder is None and not session.store.has(job) else folder


def _folder(session: Session, job: str) -> "JobFolder":
    """Return the folder of a job, by whichever name. Raises ConfigError, UnknownJobError."""
    from trtjob.jobs.folder import JobFolder

    return _named(session, job) or JobFolder.of(session.store.view(job).spec)


def _is_here(session: Session, job_id: str) -> bool:
    """Return whether a job is that of a `trtjob run`, as far as the server knows it."""
    return not session.store.has(job_id) or bool(session.store.view(job_id).runner)


def _again(session: Session, begin: Start, processes: int, *, is_here: bool, wait: bool) -> int:
    """Begin a job again, here or by the workers. Returns the exit code."""
    from trtjob.queue.progress import describe_limit

    if is_here:

        def begin_here(runner: str, _stop: Stop) -> Begun:
            return begin(session, runner)

        return run_until_stopped(run_here(session, begin_here, processes, as_json=False))
    job_id, _ = begin(session, "")
    if wait:
        return run_until_stopped(watch_job(session, job_id, is_live=False))
    if limit := describe_limit(session.store.view(job_id), session.store.workers()):
        say(limit, err=True)
    return 0
