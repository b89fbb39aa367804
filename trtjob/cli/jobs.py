"""`trtjob jobs`: the jobs that the queue's server knows; list them, and have it forget some."""

from typing import Annotated

import typer

from trtjob.api.session import Session, open_session
from trtjob.cli import options as o
from trtjob.cli.completion import job_ids
from trtjob.cli.session import start
from trtjob.cli.ui.say import say
from trtjob.errors import ForeignJobError, JobError
from trtjob.jobs.states import JobState

EXAMPLE = "Example: trtjob jobs"
LIST_EXAMPLE = "Example: trtjob jobs list --state failed --limit 10"
REMOVE_EXAMPLE = "Example: trtjob jobs remove photos-1a2b3c4d"

LISTED = 100

app = typer.Typer(help="List the jobs that the queue's server knows, and remove some.", invoke_without_command=True)


@app.callback()
def _jobs(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_jobs()


@app.command("list", epilog=LIST_EXAMPLE)
def list_jobs(
    state: Annotated[
        JobState | None,
        typer.Option(
            metavar="STATE",
            help="Only jobs that are queued, planning, running, finishing, stopped, done, done_with_errors, failed "
            "or cancelled. Default: all.",
        ),
    ] = None,
    limit: Annotated[int, o.limit("List so many of the newest. Default: 100.")] = LISTED,
    json: Annotated[bool, o.json_instead_of("a table")] = False,
) -> None:
    """List jobs, the newest first."""
    from trtjob.cli.ui.output import print_json
    from trtjob.cli.ui.screens import job_document, jobs_table

    with open_session(start()) as session:
        views = session.store.views(session.store.job_ids(limit, state=state))
        workers, total = session.store.workers(), session.store.total()
    if json:
        print_json([job_document(view, workers) for view in views])
    elif not views:
        say("No such jobs." if total else "No jobs yet. Start one with: trtjob run SOURCE --model MODEL", err=True)
    else:
        say(*jobs_table(views, workers))
        if state is None and total > len(views):
            say(f"... and {total - len(views)} older ones; --limit shows more", err=True)


@app.command("remove", epilog=REMOVE_EXAMPLE)
def remove(
    jobs: Annotated[
        list[str],
        typer.Argument(metavar="JOB...", show_default=False, help="The ids of the jobs.", autocompletion=job_ids),
    ],
) -> None:
    """Have the queue's server forget jobs that have ended, with their events and logs; their folders stay.

    A job that is under way is refused: cancel it first. Jobs go by themselves after TRTJOB_KEEP_JOBS seconds.
    """
    with open_session(start()) as session:
        for job in jobs:
            _check_ended(session, job)
        for job in jobs:
            place = _place(session, job)
            if not session.store.forget_ended(job):
                _check_ended(session, job)  # somebody has continued it meanwhile
            say(f"{job}: removed from the queue's server; its folder stays{place}")


def _check_ended(session: Session, job: str) -> None:
    from trtjob.jobs.states import ACTIVE

    state = session.store.state(job)
    if state in ACTIVE:
        raise JobError(
            f"job '{job}' is {state}, and was not removed. Stop it first with: trtjob cancel {job}", job_id=job
        )


def _place(session: Session, job: str) -> str:
    try:
        return f": {session.store.view(job).spec.uri}"
    except ForeignJobError:
        return ""
