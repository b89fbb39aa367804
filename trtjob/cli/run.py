"""`trtjob run`: a job from its beginning to its end, with workers inside this command."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

from trtjob.cli import options as o
from trtjob.cli.job_request import (
    JobLocations,
    JobRequest,
    expect_decoders,
    find_locations,
    job_from,
    resolved_model,
)
from trtjob.cli.parameters import with_fields
from trtjob.cli.session import Session, open_session, start
from trtjob.cli.signals import Stop, run_until_stopped
from trtjob.cli.ui.say import say

if TYPE_CHECKING:
    from trtjob.queue.submit import Outcome
    from trtjob.queue.views import JobView

Begun: TypeAlias = "tuple[str, Outcome]"  # the job's id, and what was done
Begin: TypeAlias = "Callable[[str, Stop], Begun]"

EXAMPLE = "Example: trtjob run photos/ --model yolov3.weights -o results --classes dog,cat"

STOPPING = "Stopping at the next batch edge; Ctrl-C again stops at once. Either way the same command continues later."
STOPPED = "Stopped. What is done is kept: run the same command again to continue"
DETACHED = "The job is not this command's alone, and goes on. To end it: trtjob cancel"


@with_fields
def run(
    *,
    request: JobRequest,
    workers: o.WorkerOptions,
    processes: o.Processes = 1,
    json: o.Json = False,
) -> None:
    """Run a model over images on this machine, and wait for the results.

    The same command again does only what is missing, new or changed.
    """
    settings = start(workers)
    locations = find_locations(request)
    expect_decoders(locations)
    convert_ahead(request, settings.models_dir)
    with open_session(settings) as session:

        def begin(runner: str, stop: Stop) -> Begun:
            return hand_in(session, request, locations, stop, runner=runner)

        code = run_until_stopped(run_here(session, begin, processes, as_json=json))
    raise typer.Exit(code)


async def run_here(session: Session, begin: Begin, processes: int, *, as_json: bool) -> int:
    """Begin a job, work on it in this command until it ends, and print how it did. Returns the exit code.

    begin: called in a thread, with what is the job's `runner` from then on, and whether the user asks to stop.
    """
    from trtjob.errors import TrtjobError
    from trtjob.worker.supervisor import Supervisor

    supervisor = Supervisor(session.settings, session.connection, processes=processes, job_id="")
    if supervisor.choice.engine != "cpu" or supervisor.choice.is_wanting:
        say(supervisor.choice.reason, err=True)
    stop = Stop()
    own = _OwnJob(session, supervisor.name, stop)
    ending = asyncio.Event()  # of the workers: when the job has ended, or the user asks to stop
    with stop.on_signals(STOPPING):
        try:
            async with asyncio.TaskGroup() as group:
                # First of all: the worker process warms up while the model is converted and the job handed in.
                working = group.create_task(supervisor.run(ending))
                try:
                    code = await begin_and_follow(
                        session, lambda: own.begin(begin), stop, supervisor.work_on, as_json=as_json
                    )
                    told = await asyncio.to_thread(own.leave) if code is None else ""
                finally:
                    ending.set()
                    await asyncio.wait([working])
        except* TrtjobError as errors:
            raise errors.exceptions[0] from None
    if code is None:
        say(told, err=True)
        return stop.exit_code
    return code


@dataclass(slots=True)
class _OwnJob:
    """The job of a command that works on it: it stops with that. job_id: empty until it is handed in."""

    session: Session
    runner: str
    stop: Stop
    job_id: str = ""

    def begin(self, begin: Begin) -> Begun:
        begun = begin(self.runner, self.stop)
        self.job_id, _ = begun  # before the look: whoever comes second, the user or this, stops the job
        if self.stop.signal is not None:
            self.leave()
        return begun

    def leave(self) -> str:
        """Stop the job. Returns what a person must know."""
        from redis import RedisError

        from trtjob.errors import QueueError
        from trtjob.jobs.states import ACTIVE, JobState
        from trtjob.queue.submit import stop

        if not self.job_id:
            return STOPPED
        try:
            self.session.connection.ensure()
            stop(self.session.store, self.job_id, self.runner)
            state = self.session.store.state(self.job_id)
        except (RedisError, QueueError) as err:
            return f"{STOPPED}. The queue's server does not know it, and its workers may go on: {err}"
        if state is JobState.STOPPED:
            return f"{STOPPED}, or: trtjob resume {self.job_id}"
        return f"{DETACHED} {self.job_id}" if state in ACTIVE else f"{self.job_id}: {state}"


async def begin_and_follow(
    session: Session,
    begin: "Callable[[], Begun]",
    stop: Stop,
    on_begun: Callable[[str], Awaitable[None]] | None = None,
    *,
    as_json: bool,
) -> int | None:
    """Begin a job in a thread, show its progress and print how it ended.

    on_begun: gives the job's id to the workers of this command, None where it has none. Returns the exit code, None
    where the user stopped.
    """
    from trtjob.cli.follow import follow

    begun = await stop.unless_stopped(asyncio.to_thread(begin))
    if begun is None:
        return None
    job_id, outcome = begun
    if on_begun is not None:
        await on_begun(job_id)
    view = await follow(session, job_id, stop, works_here=on_begun is not None)
    return None if view is None else print_end(view, is_fresh=outcome == "queued", as_json=as_json)


def hand_in(
    session: Session,
    request: JobRequest,
    locations: JobLocations,
    stop: Stop | None = None,
    *,
    runner: str = "",
    upload: bool | None = None,
) -> Begun:
    """Resolve the model, bring to a bucket what workers need from there, and submit the job.

    stop: ends an upload; runner: the `run` that the job belongs to; upload: whether images go there too, None: where
    they must. Returns the job's id and what was done.
    """
    from trtjob.jobs.roots import check_servers, check_spec
    from trtjob.jobs.states import Priority
    from trtjob.queue.submit import submit

    notify = ""
    if request.notify:
        from trtjob.queue.notifications import check_notify_url

        notify = check_notify_url(request.notify)
    is_uploaded = _is_uploaded(session, locations, upload)
    if is_uploaded:
        locations = _upload(locations, stop, allow_local=session.settings.fetch_allow_local)
    spec = job_from(request, locations, session.settings.models_dir, say_converting, upload_model=is_uploaded)
    check_spec(spec, session.settings.roots, session.settings.home)
    check_servers(spec.source, allow_local=session.settings.fetch_allow_local)
    priority = Priority(request.priority) if request.priority else None
    spec, outcome = submit(
        session.store, session.queue, spec, locations.keys, priority=priority, notify=notify, runner=runner
    )
    say_continuing(spec.job_id, outcome)
    return spec.job_id, outcome


def _is_uploaded(session: Session, locations: JobLocations, upload: bool | None) -> bool:
    """Return whether the model, and a local folder's images, go to the output's bucket first."""
    from trtjob.errors import ConfigError
    from trtjob.storage import is_s3

    if upload and not is_s3(locations.output):
        raise ConfigError("--upload puts the images beside the outputs: give an --output such as s3://bucket/results")
    # Workers of a server elsewhere are elsewhere too; those of one on this machine see its folders.
    wanted = not session.connection.is_local if upload is None else upload
    return wanted and is_s3(locations.output)


def _upload(locations: JobLocations, stop: Stop | None, *, allow_local: bool) -> JobLocations:
    from trtjob.cli.ui.progress import open_stages
    from trtjob.errors import StorageError
    from trtjob.jobs.upload import uploaded_source
    from trtjob.storage import is_address

    if all(map(is_address, locations.source.roots)):
        return locations
    with open_stages(locations.source.shown) as display:

        def on_progress(done: int, total: int, sent_bytes: int) -> None:
            display.show(f"uploading, {sent_bytes / 1e6:.1f} MB sent", done, total)
            if stop is not None and stop.signal is not None:
                raise StorageError("the upload was stopped; the same command continues it")

        source, keys = uploaded_source(
            locations.source, locations.keys, locations.output, on_progress, allow_local=allow_local
        )
    return replace(locations, source=source, keys=keys)


_CONTINUES = {
    "running": "is under way; going on with what is missing",
    "resumed": "continues with what is missing",
    "updating": "was done before; looking for new and changed images",
}


def say_continuing(job_id: str, outcome: "Outcome") -> None:
    """Tell the user that a job does not begin anew."""
    if outcome != "queued":
        say(f"{job_id}: {_CONTINUES[outcome]}", err=True)


def convert_ahead(request: JobRequest, models_dir: Path) -> None:
    """Convert a model that TensorFlow reads, before this command has other threads and starts processes.

    What TensorFlow prints can be told apart only while nobody else writes to the same file descriptor, or is given it.
    """
    from trtjob.converters.sources import needs_tensorflow

    path = Path(request.model).expanduser()
    if path.exists() and needs_tensorflow(path):
        resolved_model(request, models_dir, say_converting)


def say_converting(model: Path) -> None:
    """Tell the user what the wait is for."""
    say(f"Converting {model.name}, once ...", err=True)


def print_end(view: "JobView", *, is_fresh: bool, as_json: bool) -> int:
    """Print how a job ended. Returns the exit code."""
    from trtjob.cli.ui.output import print_failures, print_json, print_summary
    from trtjob.cli.ui.screens import job_document
    from trtjob.jobs.states import FINISHED, JobState

    if as_json:
        print_json(job_document(view, ()))
    elif view.state in FINISHED:
        print_summary(view, is_fresh=is_fresh)
    if view.state not in FINISHED:
        say(f"error: job '{view.job_id}' {view.state}: {view.message}", err=True)
    elif view.failed:
        print_failures(view)
    return 0 if view.state is JobState.DONE else 1
