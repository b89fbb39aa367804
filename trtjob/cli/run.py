"""`trtjob run`: a job from its beginning to its end, with workers inside this command."""

from typing import TYPE_CHECKING

import typer

from trtjob.api.hand_in import Begun, convert_ahead, hand_in
from trtjob.api.job_locations import expect_decoders, find_locations
from trtjob.api.job_request import JobRequest
from trtjob.api.local_run import Begin, work_here
from trtjob.api.progress import StandardError
from trtjob.api.session import Session, WorkerOptions, open_session
from trtjob.api.stop import Stop
from trtjob.cli import options as o
from trtjob.cli.parameters import with_fields
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped, stopped_by_signals
from trtjob.cli.ui.say import say

if TYPE_CHECKING:
    from trtjob.queue.views import JobView

EXAMPLE = "Example: trtjob run photos/ --model yolov3.weights -o results --classes dog,cat"

STOPPING = "Stopping at the next batch edge; Ctrl-C again stops at once. Either way the same command continues later."


@with_fields
def run(
    *,
    request: JobRequest,
    workers: WorkerOptions,
    processes: o.Processes = 1,
    json: o.Json = False,
) -> None:
    """Run a model over images on this machine, and wait for the results.

    The same command again does only what is missing, new or changed.
    """
    settings = start(workers)
    locations = find_locations(request)
    expect_decoders(locations)
    convert_ahead(request, settings.models_dir, StandardError())
    with open_session(settings) as session:

        def begin(runner: str, stop: Stop) -> Begun:
            return hand_in(session, request, locations, StandardError(), stop, runner=runner)

        code = run_until_stopped(run_here(session, begin, processes, as_json=json))
    raise typer.Exit(code)


async def run_here(session: Session, begin: Begin, processes: int, *, as_json: bool) -> int:
    """Begin a job, work on it in this command until it ends, and print how it did. Returns the exit code."""
    with stopped_by_signals(STOPPING) as stop:
        ended = await work_here(session, begin, stop, StandardError(), processes)
    if isinstance(ended, str):
        say(ended, err=True)
        return stop.exit_code
    return print_end(ended.view, is_fresh=ended.outcome == "queued", as_json=as_json)


def print_end(view: "JobView", *, is_fresh: bool, as_json: bool) -> int:
    """Print how a job ended. Returns the exit code."""
    from trtjob.cli.ui.output import outputs_document, print_failures, print_json, print_summary
    from trtjob.cli.ui.screens import job_document
    from trtjob.jobs.states import FINISHED, JobState

    if as_json:
        print_json(job_document(view, ()) | (outputs_document(view) if view.state in FINISHED else {}))
    elif view.state in FINISHED:
        print_summary(view, is_fresh=is_fresh)
    if view.state not in FINISHED:
        say(f"error: job '{view.job_id}' {view.state}: {view.message}", err=True)
    elif view.failed:
        print_failures(view)
    return 0 if view.state is JobState.DONE else 1
