"""`trtjob run`: a job from its beginning to its end, with workers inside this command."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trtjob.cli import options as o
from trtjob.cli.desk import Desk, open_desk, start
from trtjob.cli.order import DEFAULT_OUTPUT, JobOrder, Place, find_place, job_from
from trtjob.cli.stopping import Stop, run_until_stopped

if TYPE_CHECKING:
    from trtjob.jobs.submit import Outcome
    from trtjob.jobs.views import JobView

OnSubmitted = Callable[[str], Awaitable[None]]  # gets the job's id

EXAMPLE = "Example: trtjob run photos/ --model yolov3.weights -o results --classes dog,cat"

STOPPING = "Stopping at the next batch edge; Ctrl-C again stops at once. Either way the same command continues later."
STOPPED = "Stopped. What is done is kept: run the same command again to continue."


def run(
    source: o.SourceArgument,
    model: o.Model,
    output: o.Output = DEFAULT_OUTPUT,
    cfg: o.Cfg = None,
    labels: o.Labels = None,
    conf: o.Conf = None,
    min_score: o.MinScore = None,
    iou: o.Iou = None,
    classes: o.Classes = None,
    annotate: o.AnnotateOption = "all",
    resize: o.Resize = None,
    decode: o.Decode = "cpu",
    shard_size: o.ShardSize = 256,
    max_failures: o.MaxFailures = None,
    priority: o.Priority = None,
    notify: o.Notify = "",
    threads: o.Threads = None,
    image_processes: o.ImageProcesses = None,
    batch: o.Batch = None,
    engine: o.Engine = None,
    gpus: o.Gpus = None,
    processes: o.Processes = 1,
    json: o.Json = False,
) -> None:
    """Run a model over images on this machine, and wait for the results.

    The same command again does only what is missing, new or changed.
    """
    order = JobOrder(
        source=source,
        model=model,
        output=output,
        cfg=cfg,
        labels=labels,
        conf=conf,
        min_score=min_score,
        iou=iou,
        classes=classes,
        annotate=annotate,
        resize=resize,
        decode=decode,
        shard_size=shard_size,
        max_failures=max_failures,
        priority=priority,
        notify=notify,
    )
    settings = start(threads=threads, image_processes=image_processes, batch=batch, engine=engine, gpus=gpus)
    place = find_place(order)
    with open_desk(settings) as desk:
        code = run_until_stopped(_run(desk, order, place, processes, as_json=json))
    raise typer.Exit(code)


async def _run(desk: Desk, order: JobOrder, place: Place, processes: int, *, as_json: bool) -> int:
    from trtjob.errors import TrtjobError
    from trtjob.worker.supervisor import Supervisor

    stop = Stop()
    supervisor = Supervisor(desk.settings, desk.connection, processes=processes, job_id="")
    if supervisor.choice.engine != "cpu" or supervisor.choice.is_wanting:
        typer.echo(supervisor.choice.reason, err=True)
    ending = asyncio.Event()  # of the workers: when the job has ended, or the user asks to stop
    with stop.on_signals(STOPPING):
        try:
            async with asyncio.TaskGroup() as group:
                # First of all: the worker process warms up while the model is converted and the job handed in.
                working = group.create_task(supervisor.run(ending))
                try:
                    code = await submit_and_follow(desk, order, place, stop, supervisor.work_on, as_json=as_json)
                finally:
                    ending.set()
                    await asyncio.wait([working])
        except* TrtjobError as errors:
            raise errors.exceptions[0] from None
    if code is None:
        typer.echo(STOPPED, err=True)
        return stop.exit_code
    return code


async def submit_and_follow(
    desk: Desk, order: JobOrder, place: Place, stop: Stop, on_submitted: OnSubmitted | None = None, *, as_json: bool
) -> int | None:
    """Hand a job in, show its progress and print how it ended. Returns the exit code, None where the user stopped."""
    from trtjob.cli.follow import follow

    handed_in = await stop.unless_stopped(asyncio.to_thread(hand_in, desk, order, place, stop))
    if handed_in is None:
        return None
    job_id, outcome = handed_in
    if on_submitted is not None:
        await on_submitted(job_id)
    view = await follow(desk, job_id, stop)
    return None if view is None else print_end(view, is_fresh=outcome == "queued", as_json=as_json)


def hand_in(desk: Desk, order: JobOrder, place: Place, stop: Stop | None = None) -> "tuple[str, Outcome]":
    """Resolve the model, bring to a bucket what workers need from there, and submit the job.

    stop: ends an upload. Returns the job's id and what was done.
    """
    from trtjob.jobs.roots import check_spec
    from trtjob.jobs.states import Priority
    from trtjob.jobs.submit import submit

    notify = ""
    if order.notify:
        from trtjob.jobs.notify import check_notify_url

        notify = check_notify_url(order.notify)
    is_shipped = _is_shipped(desk, order, place)
    if is_shipped:
        place = _ship(place, stop)
    spec = job_from(order, place, desk.settings.models_dir, say_converting, ship_model=is_shipped)
    check_spec(spec, desk.settings.roots, desk.settings.home)
    priority = Priority(order.priority) if order.priority else None
    spec, outcome = submit(desk.store, desk.queue, spec, place.keys, priority=priority, notify=notify)
    if outcome != "queued":
        typer.echo(f"{spec.job_id}: {_CONTINUES[outcome]}", err=True)
    return spec.job_id, outcome


def _is_shipped(desk: Desk, order: JobOrder, place: Place) -> bool:
    """Return whether the model, and a local folder's images, go to the output's bucket first."""
    from trtjob.errors import ConfigError
    from trtjob.jobs.storage import is_s3

    if order.upload and not is_s3(place.output):
        raise ConfigError("--upload puts the images beside the outputs: give an --output such as s3://bucket/results")
    # Workers of a server elsewhere are elsewhere too; those of one on this machine see its folders.
    wanted = not desk.connection.is_local if order.upload is None else order.upload
    return wanted and is_s3(place.output)


def _ship(place: Place, stop: Stop | None) -> Place:
    from trtjob.cli.progress import open_stages
    from trtjob.errors import StorageError
    from trtjob.jobs.shipping import shipped_source
    from trtjob.jobs.storage import is_s3

    if is_s3(place.source.root):
        return place
    with open_stages(place.source.root) as display:

        def on_progress(done: int, total: int, sent_bytes: int) -> None:
            display.show(f"uploading, {sent_bytes / 1e6:.1f} MB sent", done, total)
            if stop is not None and stop.signal is not None:
                raise StorageError("the upload was stopped; the same command continues it")

        return replace(place, source=shipped_source(place.source, place.keys, place.output, on_progress))


_CONTINUES = {
    "running": "is under way; going on with what is missing",
    "resumed": "continues with what is missing",
    "updating": "was done before; looking for new and changed images",
}


def say_converting(model: Path) -> None:
    """Tell the user what the wait is for."""
    typer.echo(f"Converting {model.name}, once ...", err=True)


def print_end(view: "JobView", *, is_fresh: bool, as_json: bool) -> int:
    """Print how a job ended. Returns the exit code."""
    from trtjob.cli.output import print_failures, print_json, print_summary
    from trtjob.cli.screens import job_document
    from trtjob.jobs.states import FINISHED, JobState

    if as_json:
        print_json(job_document(view, ()))
    elif view.state in FINISHED:
        print_summary(view, is_fresh=is_fresh)
    if view.state not in FINISHED:
        typer.echo(f"error: job '{view.job_id}' {view.state}: {view.message}", err=True)
    elif view.failed:
        print_failures(view)
    return 0 if view.state is JobState.DONE else 1
