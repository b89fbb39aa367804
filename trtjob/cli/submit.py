"""`trtjob submit`: hand a job in to the workers that run elsewhere."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import typer

from trtjob.api.hand_in import Begun, convert_ahead, converting, hand_in
from trtjob.api.job_locations import JobLocations, find_locations
from trtjob.api.job_request import JobRequest
from trtjob.api.job_spec import job_from
from trtjob.api.local_run import begin_and_follow
from trtjob.api.progress import StandardError
from trtjob.api.session import Session, open_session
from trtjob.api.stop import Stop
from trtjob.cli import options as o
from trtjob.cli.parameters import with_fields
from trtjob.cli.run import print_end
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped, stopped_by_signals
from trtjob.cli.ui.say import say

if TYPE_CHECKING:
    from trtjob.config import Settings

EXAMPLE = "Example: trtjob submit photos/ --model yolov3 -o results --wait"

STOPPING = "No longer waiting."
DETACHED = "The job goes on in the workers. The same command again waits for it; to stop it: trtjob cancel JOB"


@with_fields
def submit(
    *,
    wait: bool = typer.Option(
        False,
        "--wait",
        rich_help_panel=o.MACHINE,
        help="Show the progress until the job ends. Default: return at once.",
    ),
    upload: bool | None = typer.Option(
        None,
        "--upload/--no-upload",
        rich_help_panel=o.MACHINE,
        show_default=False,
        help="Copy a local source into the output's bucket first, for workers that cannot see it; what is there is "
        "left. Default: where the queue's server is on another machine.",
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", rich_help_panel=o.MACHINE, help="Print the job, and hand nothing in. Default: hand it in."
    ),
    request: JobRequest,
    json: o.Json = False,
) -> None:
    """Hand a job in to the workers, which `trtjob worker` starts.

    The same command again continues the job with what is missing, new or changed.
    """
    settings = start()
    locations = find_locations(request)
    convert_ahead(request, settings.models_dir, StandardError())
    if dry_run:
        _print_plan(settings, request, locations)
        return
    with open_session(settings) as session:
        begin = partial(hand_in, session, request, locations, StandardError(), upload=upload)
        if wait:
            raise typer.Exit(run_until_stopped(_wait(session, begin, as_json=json)))
        _hand_in(session, begin, as_json=json)


def _print_plan(settings: "Settings", request: JobRequest, locations: JobLocations) -> None:
    from trtjob.cli.ui.output import print_json
    from trtjob.jobs.roots import check_servers
    from trtjob.jobs.source_images import chosen_images, open_source

    spec = job_from(request, locations, settings.models_dir, converting(StandardError()))
    allow_local = settings.fetch_allow_local
    check_servers(spec.source, allow_local=allow_local)
    images = sum(
        1 for _ in chosen_images(spec.source, locations.keys, open_source(spec.source, allow_local=allow_local))
    )
    print_json({"images": images, **spec.model_dump(mode="json")})


def _hand_in(session: Session, begin: Callable[[], Begun], *, as_json: bool) -> None:
    from trtjob.cli.ui.output import print_json
    from trtjob.cli.ui.screens import job_document
    from trtjob.queue.progress import describe_limit

    job_id, _ = begin()
    view, workers = session.store.view(job_id), session.store.workers()
    if as_json:
        print_json(job_document(view, workers))
    else:
        say(job_id)
        for line in (describe_limit(view, workers), f"Follow the job with: trtjob status {job_id} --watch"):
            if line:
                say(line, err=True)


async def _wait(session: Session, begin: Callable[[Stop], Begun], *, as_json: bool) -> int:
    with stopped_by_signals(STOPPING) as stop:
        ended = await begin_and_follow(session, lambda: begin(stop), stop, StandardError())
    if ended is None:
        say(DETACHED, err=True)
        return stop.exit_code
    return print_end(ended.view, is_fresh=ended.outcome == "queued", as_json=as_json)
