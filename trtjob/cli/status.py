"""`trtjob status`: look at jobs."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from trtjob.api.job_folders import named_folder, usual_folder
from trtjob.api.session import Session, open_session
from trtjob.cli import options as o
from trtjob.cli.completion import job_ids_and_folders
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped, stopped_by_signals
from trtjob.cli.ui.say import say
from trtjob.cli.ui.screens import JOBS_SHOWN, Standing, job_lines, jobs_lines, standing, status_document
from trtjob.errors import QueueError

if TYPE_CHECKING:
    from trtjob.jobs.folder import JobFolder


EXAMPLE = "Example: trtjob status photos-1a2b3c4d --watch"


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
        int, o.limit("Show so many of the newest jobs, and of those under way. Default: 50.")
    ] = JOBS_SHOWN,
    json: Annotated[bool, o.json_instead_of("text")] = False,
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
    from trtjob.api.follow import follow
    from trtjob.api.progress import StandardError
    from trtjob.cli.run import print_end
    from trtjob.cli.screen import watch_screen

    with stopped_by_signals("No longer watching.") as stop:
        if job_id is None or is_live:
            view = await watch_screen(session, job_id, stop)
        else:
            view = await follow(session, job_id, stop, StandardError())
    return stop.exit_code if view is None else print_end(view, is_fresh=False, as_json=False)
