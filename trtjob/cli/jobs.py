"""`trtjob status`, `cancel` and `retry`: look at jobs, and change them."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from trtjob.cli import options as o
from trtjob.cli.desk import Desk, open_desk, start
from trtjob.cli.stopping import Stop, run_until_stopped

STATUS_EXAMPLE = "Example: trtjob status photos-1a2b3c4d --watch"
CANCEL_EXAMPLE = "Example: trtjob cancel photos-1a2b3c4d"
RETRY_EXAMPLE = "Example: trtjob retry photos-1a2b3c4d --wait"

WATCH_S = 1.0
CLEAR_SCREEN = "\x1b[2J\x1b[H"


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
        elif job is None:
            raise typer.Exit(run_until_stopped(_watch_all(desk)))
        else:
            raise typer.Exit(run_until_stopped(_watch(desk, job)))


def _print(desk: Desk, job: str | None, *, as_json: bool) -> None:
    from trtjob.cli.output import job_document, print_job, print_jobs, print_json

    views = desk.store.views() if job is None else [desk.store.view(job)]
    workers = desk.store.workers()
    if as_json:
        documents: list[Any] = [job_document(view, workers) for view in views]
        print_json(documents if job is None else documents[0])
    elif job is None:
        print_jobs(views, workers)
    else:
        print_job(views[0], workers)


async def _watch(desk: Desk, job_id: str) -> int:
    from trtjob.cli.follow import follow
    from trtjob.cli.run import print_end

    stop = Stop()
    with stop.on_signals("No longer watching."):
        view = await follow(desk, job_id, stop)
    return stop.exit_code if view is None else print_end(view, is_fresh=False, as_json=False)


async def _watch_all(desk: Desk) -> int:
    stop = Stop()
    with stop.on_signals("No longer watching."):
        while not stop.event.is_set():
            if sys.stdout.isatty():
                typer.echo(CLEAR_SCREEN, nl=False)
            await asyncio.to_thread(_print, desk, None, as_json=False)
            await stop.sleep(WATCH_S)
    return stop.exit_code


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
            raise typer.Exit(run_until_stopped(_watch(desk, job)))
        if images and not desk.store.workers():
            typer.echo("No worker is running. Start one with: trtjob worker", err=True)
