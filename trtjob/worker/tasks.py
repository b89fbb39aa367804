"""The functions that a queue's message may name: the only ones a worker runs."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trtjob.config import Settings
from trtjob.converters.own_files import project_folders
from trtjob.converters.process import convert_in_child
from trtjob.converters.request import ConversionRequest
from trtjob.errors import ConfigError, TrtjobError
from trtjob.jobs.finish import finish
from trtjob.jobs.folder import RESULTS, JobFolder, PlanEpoch
from trtjob.jobs.plan import committed_counts, kept_counts, plan_epoch
from trtjob.jobs.records import read_records
from trtjob.jobs.roots import check_places
from trtjob.jobs.source_images import open_source
from trtjob.jobs.states import ACTIVE, JobState
from trtjob.queue.conversions import MOST_TRIES, Conversion, name_of
from trtjob.queue.job_store import JobStore
from trtjob.queue.leases import Lease
from trtjob.queue.reconcile import reconcile_job
from trtjob.queue.units import FINISH, PLAN, shard_of, shard_unit
from trtjob.queue.views import JobView
from trtjob.worker.context import Context, current
from trtjob.worker.interrupter import Interrupted
from trtjob.worker.preflight import expect_output, expect_source
from trtjob.worker.shard.overlap import run_shards
from trtjob.worker.unit_claim import claim_unit, settled
from trtjob.worker.video_copies import write_video_copies

log = logging.getLogger(__name__)

# Raises Interrupted where a unit must be left; takes, and does not need, what is failing where it waits.
Check = Callable[..., None]


def run_unit(job_id: str, unit: str) -> None:
    """Do one unit of work of a job, if it is still wanted and nobody else does it; after a shard, those that follow."""
    context = current()
    lease = claim_unit(context, job_id, unit)
    if lease is None:
        return
    context.interrupter.reset()
    if context.stopping:
        context.interrupter.interrupt("stop")
    if shard_of(unit) is not None:
        run_shards(context, lease)
        return
    with context.holding(lease) as interrupter, settled(context, lease):

        def check(_trouble: str = "") -> None:
            context.still_wanted(interrupter)

        still_mine = _ownership(context, lease, check)
        try:
            still_mine()
            if unit == PLAN:
                _plan(context, lease, check, still_mine)
            else:
                _finish(context, lease, check, still_mine)
        except (TrtjobError, OSError):
            still_mine()  # what fails for one that slept, since others have gone on, is no failure of the job
            raise


def _plan(context: Context, lease: Lease, check: Check, still_mine: Callable[[], None]) -> None:
    """List the source, write the shards, and ask for them: those of a first submission as soon as they are written.

    check: called often; raises Interrupted where the unit must be left; still_mine: asks the server too.
    """
    store, job_id = context.store, lease.job_id
    view = context.view(job_id)
    folder = JobFolder.of(view.spec, check)
    expect_output(folder, view.spec)
    if view.reason != "retry":  # which lists no source
        expect_source(view.spec)
    store.move(job_id, JobState.PLANNING, started_at=store.now())
    epoch, reason = _open_round(folder, view, still_mine)
    if (epoch, reason) != (view.epoch, view.reason):
        log.warning("planning goes on with another round", extra={"job_id": job_id, "epoch": epoch, "reason": reason})
        _leave_unless(store.note(lease, epoch=epoch, reason=reason))
    is_first = epoch == 0
    committed: set[int] = set()
    if is_first:
        committed = _sync_first_round(store, lease, folder)
    else:
        folder.settle_receipt()

    def on_shards(shards: list[int], images: int) -> None:
        check()
        if is_first:
            _leave_unless(store.add_shards(lease, first=min(shards, default=0), shards=len(shards), images=images))
            context.queue.put(job_id, map(shard_unit, (n for n in shards if n not in committed)))

    source = open_source(view.spec.source, on_trouble=check, allow_local=context.settings.fetch_allow_local)
    with _telling(context, check) as on_wait:
        plan = plan_epoch(
            folder,
            view.spec,
            source,
            epoch=epoch,
            reason=reason,
            on_shards=on_shards,
            before_write=still_mine,
            on_wait=on_wait,
        )
    if not is_first:
        _sync_later_round(store, lease, folder, plan)
    _leave_unless(store.note(lease, ignored=json.dumps(plan.ignored)))
    state = store.planned(lease)
    _leave_unless(state != "lost")
    store.release(lease, take_back=True)
    if state == JobState.FINISHING:
        context.queue.put(job_id, [FINISH])
    else:
        reconcile_job(store, context.queue, job_id)


@contextmanager
def _telling(context: Context, check: Check) -> Iterator[Callable[[str], None]]:
    """Yield what is called while a unit waits for something: it tells a person what, until the block ends."""

    def on_wait(what: str) -> None:
        check()
        context.doing = what

    try:
        yield on_wait
    finally:
        context.doing = ""


def _sync_first_round(store: JobStore, lease: Lease, folder: JobFolder) -> set[int]:
    """Tell the server what the folder holds before the first round is planned. Returns the committed shards."""
    counts = committed_counts(folder, 0)
    _leave_unless(store.sync(lease, shards=0, images=0, **counts))
    return set(counts["committed"])


def _sync_later_round(store: JobStore, lease: Lease, folder: JobFolder, plan: PlanEpoch) -> None:
    """Tell the server what the folder holds now that a later round is planned: what is kept, and what is to come."""
    counts = committed_counts(folder, plan.first_shard)
    ok, kinds = kept_counts(folder, plan)
    is_mine = store.sync(
        lease,
        shards=plan.first_shard + plan.shards,
        images=ok + kinds.total() + plan.images,
        ok=ok + counts["ok"],
        failed=kinds.total() + counts["failed"],
        kinds=kinds + counts["kinds"],
        committed=[*range(plan.first_shard), *counts["committed"]],
    )
    _leave_unless(is_mine)


def _open_round(folder: JobFolder, view: JobView, still_mine: Callable[[], None]) -> tuple[int, str]:
    """Open the round of planning that a job asks for. Returns its number and its reason.

    Where the server has forgotten rounds of the folder, they differ from what it asks for: a round that has ended stays
    as it is, and one that was opened for another reason is completed.
    """
    for epoch in count(view.epoch):
        still_mine()
        opened = folder.open_round(epoch, view.reason)
        if epoch == 0 or not folder.has_finished(epoch):
            return epoch, opened.reason
    raise AssertionError("numbers do not end")


def _leave_unless(is_mine: bool) -> None:
    """Leave a unit that another worker has by now. Raises Interrupted."""
    if not is_mine:
        raise Interrupted("lost")


def _ownership(context: Context, lease: Lease, check: Check) -> Callable[[], None]:
    """Return what leaves a unit that another worker has by now, or that nobody wants any more."""

    def still_mine() -> None:
        check()
        answer = context.store.renew(lease)
        if answer not in ACTIVE:
            raise Interrupted(answer)

    return still_mine


def _finish(context: Context, lease: Lease, check: Check, still_mine: Callable[[], None]) -> None:
    store, job_id = context.store, lease.job_id
    view = context.view(job_id)
    folder = JobFolder.of(view.spec, check)
    expect_output(folder, view.spec)

    def on_results() -> dict[str, str]:
        if not view.spec.options.annotate_video:
            return {}
        return write_video_copies(view.spec, read_records(folder.storage, RESULTS), on_wait)

    with _telling(context, check) as on_wait:
        summary = finish(folder, view.spec, check, still_mine, on_results)
    target = JobState.DONE_WITH_ERRORS if summary.failed else JobState.DONE
    detail = f"{summary.ok} ok, {summary.failed} failed"
    counts = {"images": summary.images, "ok": summary.ok, "failed": summary.failed}
    _leave_unless(
        store.end(lease, target, epoch=view.epoch, detail=detail, finished_at=store.now(), message="", **counts)
    )
    store.release(lease, take_back=True)
    log.info("job finished", extra={"job_id": job_id, "ok": summary.ok, "failed": summary.failed})


def convert(request_id: str, request: dict[str, Any]) -> None:
    """Convert a foreign model, as long as somebody waits for it; how it stands and how it ended is told in Redis.

    While it runs, what is told lives as long as this process does; one that a stop ends goes back to the queue.
    """
    context = current()
    conversion = Conversion(context.store.redis, request_id)
    if conversion.is_over():
        return  # its message came twice
    if not conversion.is_wanted():
        conversion.tell("cancelled")
        return
    if conversion.begin() > MOST_TRIES:
        conversion.tell("failed", message=f"it was begun {MOST_TRIES} times, and its worker was stopped each time")
        return
    try:
        _check_request(ConversionRequest.model_validate(request), context.settings)
    except (ConfigError, ValidationError) as err:
        conversion.tell("failed", message=str(err))
        return
    with context.converting(conversion.id):
        _convert(context, conversion, request)


def _convert(context: Context, conversion: Conversion, request: dict[str, Any]) -> None:
    def on_step(step: dict[str, Any]) -> None:
        conversion.tell("running", context.settings.lease_s, **step)
        at = f" {step['done']}/{step['total']}" if step["total"] else ""
        context.doing = f"{name_of(conversion.id)}: {Path(request['model']).name}, {step['stage']}{at}"

    outcome = convert_in_child(
        request, context.settings, on_step, lambda: context.stopping or not conversion.is_wanted()
    )
    if outcome is None and context.stopping:
        conversion.tell("queued")
        context.queue.put_convert(conversion.id, request)
    elif outcome is None:
        conversion.tell("cancelled")
    elif "model" in outcome:
        conversion.tell("done", model=json.dumps(outcome["model"]))
    else:
        conversion.tell("failed", message=outcome["message"])


def _check_request(request: ConversionRequest, settings: Settings) -> None:
    """Refuse what a message may not ask for: code to run, and files outside of the allowed places."""
    if request.allow_unsafe:
        raise ConfigError("a worker runs no code that a model's file carries: use --allow-unsafe together with --local")
    files = {what: getattr(request, what) for what in ("model", "cfg", "labels", "calibrate", "out")}
    places = {what: path for what, path in files.items() if path is not None}
    # Files are looked for beside these, which may be links into a place that is allowed.
    beside = {f"folder of the {what}": places[what].parent for what in ("model", "cfg", "labels") if what in places}
    project = {f"{folder.name} of the model": folder for folder in project_folders(request.model)}
    check_places(places | beside | project, settings.roots)
