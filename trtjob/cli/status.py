"""`trtjob status` and `cancel`: look at jobs, and end them."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from trtjob.cli import options as o
from trtjob.cli.completion import job_ids_and_folders
from trtjob.cli.job_folders import named_folder, usual_folder
from trtjob.cli.session import Session, open_session, start
from trtjob.cli.signals import Stop, run_until_stopped
from trtjob.cli.ui.say import say
from trtjob.cli.ui.screens import JOBS_SHOWN, Standing, job_lines, jobs_lines, standing, status_document
from trtjob.errors import QueueError

if TYPE_CHECKING:
    from trtjob.jobs.folder import JobFolder

STATUS_EXAMPLE = "Example: trtjob status photos-1a2b3c4d --watch"
CANCEL_EXAMPLE = "Example: trtjob cancel photos-1a2b3c4d"

LEAVING_S = 10.0  # far above the half of a second in which a worker hears of a cancellation


def status(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB",
            show_default=False,
            help="A job's id, or its folder or s3:// prefix. Default: the newest jobs.",
            autocompletion=job_ids_and_folders,
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow one job until it ends, or all jobs. Default: look once.")
    ] = False,
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            max=100_000,
            metavar="JOBS",
            show_default=False,
            help="Show so many of the newest jobs, and of those under way. Default: 50.",
        ),
    ] = JOBS_SHOWN,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text. Default: text.")] = False,
) -> None:
    """Show where jobs stand: progress, speed, failures, and what limits the speed.

    Of a job that the queue's server does not know (any more), name the folder.
    """
    if watch and json:
        raise typer.BadParameter("--watch shows progress to a person: leave --json out, or call it repeatedly")
    settings = start()
    folder = None if job is None else named_folder(job)
    if folder is not None:
        job = folder.spec().job_id
    try:
        with open_session(settings) as session:
            if job is not None and (now := _at_rest(session, job, folder)) is not None:
                _print(now, is_one=True, as_json=json)
            elif watch:
                raise typer.Exit(run_until_stopped(watch_job(session, job, is_live=sys.stdout.isatty())))
            else:
                _print(standing(session.store, job, limit), is_one=job is not None, as_json=json)
    except QueueError as err:
        if folder is None:
            raise
        say(f"{err}. What follows is what the job's folder says", err=True)
        _print(_of_folder(folder), is_one=True, as_json=json)


def _at_rest(session: Session, job_id: str, folder: "JobFolder | None") -> Standing | None:
    """Return what a job's folder says, where the server does not know that job; None where it does."""
    if folder is None:
        folder = None if session.store.has(job_id) else usual_folder(job_id)
    elif session.store.knows(folder.spec()) and session.store.view(job_id).spec.uri == folder.uri:
        return None
    return None if folder is None else _of_folder(folder)


def _of_folder(folder: "JobFolder") -> Standing:
    from trtjob.queue.folder_view import folder_view

    return Standing([folder_view(folder)], (), ())


def _print(now: Standing, *, is_one: bool, as_json: bool) -> None:
    from trtjob.cli.ui.output import print_json

    if as_json:
        print_json(status_document(now))
        return
    say(*(job_lines(now) if is_one else jobs_lines(now)))


async def watch_job(session: Session, job_id: str | None, *, is_live: bool) -> int:
    """Watch until the job ends, or the user stops. is_live: as a screen and not by a line now and then."""
    from trtjob.cli.follow import follow, watch_screen
    from trtjob.cli.run import print_end

    stop = Stop()
    with stop.on_signals("No longer watching."):
        if job_id is None or is_live:
            view = await watch_screen(session, job_id, stop)
        else:
            view = await follow(session, job_id, stop)
    return stop.exit_code if view is None else print_end(view, is_fresh=False, as_json=False)


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
