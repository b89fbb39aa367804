"""What `trtjob resume` and `retry` share: a job goes on here where it was a `trtjob run`, else by the workers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from trtjob.api.hand_in import Begun
from trtjob.api.job_folders import named_folder, usual_folder
from trtjob.api.session import Session
from trtjob.api.stop import Stop
from trtjob.cli.run import run_here
from trtjob.cli.signals import run_until_stopped
from trtjob.cli.status import watch_job
from trtjob.cli.ui.say import say

if TYPE_CHECKING:
    from trtjob.jobs.folder import JobFolder


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


def job_named(session: Session, job: str) -> "JobFolder | None":
    """Return the folder that is named, or the usual one of a job that the server does not know."""
    folder = named_folder(job)
    return usual_folder(job) if folder is None and not session.store.has(job) else folder


def folder_of(session: Session, job: str) -> "JobFolder":
    """Return the folder of a job, by whichever name. Raises ConfigError, UnknownJobError."""
    from trtjob.jobs.folder import JobFolder

    return job_named(session, job) or JobFolder.of(session.store.view(job).spec)


def is_here(session: Session, job_id: str) -> bool:
    """Return whether a job is that of a `trtjob run`, as far as the server knows it."""
    return not session.store.has(job_id) or bool(session.store.view(job_id).runner)


def continue_job(session: Session, begin: Start, processes: int, *, is_here: bool, wait: bool) -> int:
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
