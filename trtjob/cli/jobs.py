"""`trtjob status`, `cancel` and `retry`: look at jobs, and change them."""

import sys
from typing import Annotated

import typer

from trtjob.cli import options as o
from trtjob.cli.desk import Desk, open_desk, start
from trtjob.cli.stopping import Stop, run_until_stopped

STATUS_EXAMPLE = "Example: trtjob status photos-1a2b3c4d --watch"
CANCEL_EXAMPLE = "Example: trtjob cancel photos-1a2b3c4d"
RETRY_EXAMPLE = "Example: trtjob retry photos-1a2b3c4d --wait"


def status(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB", show_default=False, help="A job's id. Default: all jobs.", autocompletion=o.job_ids
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow one job until it ends, or all jobs. Default: look once.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text. Default: text.")] = False,
) -> None:
    """Show where jobs stand: progress, speed, failures, and what limits the speed."""
    if watch and json:
        raise typer.BadParameter("--watch shows progress to a person: leave --json out, or call it repeatedly")
    with open_desk(start()) as desk:
        if not watch:
            _print(desk, job, as_json=json)
        else:
            raise typer.Exit(run_until_stopped(_watch(desk, job, is_live=sys.stdout.isatty())))


def _print(desk: Desk, job: str | None, *, as_json: bool) -> None:
    from trtjob.cli.output import print_json
    from trtjob.cli.screens import job_lines, jobs_lines, standing, status_document

    now = standing(desk.store, job)
    if as_json:
        print_json(status_document(now))
        return
    for line in jobs_lines(now) if job is None else job_lines(now):
        typer.echo(line)


async def _watch(desk: Desk, job_id: str | None, *, is_live: bool) -> int:
    """Watch until the job ends, or the user stops. is_live: as a screen and not by a line now and then."""
    from trtjob.cli.follow import follow, watch_screen
    from trtjob.cli.run import print_end

    stop = Stop()
    with stop.on_signals("No longer watching."):
        if job_id is None or is_live:
            view = await watch_screen(desk, job_id, stop)
        else:
            view = await follow(desk, job_id, stop)
    return stop.exit_code if view is None else print_end(view, is_fresh=False, as_json=False)


def cancel(job: o.JobArgument) -> None:
    """Stop a job at the next batch edge; what is done is kept, and submitting it again continues."""
    from trtjob.jobs.submit import cancel as cancel_job

    with open_desk(start()) as desk:
        if cancel_job(desk.store, job):
            typer.echo(f"{job}: cancelled")
        else:
            typer.echo(f"{job}: had ended before: {desk.store.state(job)}")


def retry(
    job: o.JobArgument,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show the progress until the job ends. Default: return at once.")
    ] = False,
) -> None:
    """Run the failed images of a finished job again."""
    from trtjob.jobs.submit import retry as retry_job

    with open_desk(start()) as desk:
        images = retry_job(desk.store, desk.queue, job)
        typer.echo(f"{job}: {images} failed images run again" if images else f"{job}: no image failed", err=True)
        if images and wait:
            raise typer.Exit(run_until_stopped(_watch(desk, job, is_live=False)))
        if images and not desk.store.workers():
            typer.echo("No worker is running. Start one with: trtjob worker", err=True)
