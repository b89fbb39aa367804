"""The functions that a queue's message may name: the only ones a worker runs."""

import json
import logging
import time
from typing import Any

from redis import RedisError

from trtjob.errors import JobError, TrtjobError
from trtjob.jobs.finish import finish
from trtjob.jobs.folder import RECEIPT, JobFolder
from trtjob.jobs.plan import committed_counts, kept_counts, plan_epoch
from trtjob.jobs.queue import conversion_key
from trtjob.jobs.reconcile import reconcile_job
from trtjob.jobs.states import JobState
from trtjob.jobs.storage import open_storage
from trtjob.jobs.store import Claim, Refusal
from trtjob.jobs.units import FINISH, PLAN, shard_of, shard_unit
from trtjob.worker.context import Context, Interrupted, current
from trtjob.worker.convert_process import convert_apart
from trtjob.worker.shard import run_shard

log = logging.getLogger(__name__)

CONVERSION_TTL_S = 86_400


def run_unit(job_id: str, unit: str) -> None:
    """Do one unit of work of a job, if it is still wanted and nobody else does it."""
    context = current()
    settings = context.settings
    claim = context.store.claim(job_id, unit, context.name, settings.lease_s)
    if isinstance(claim, Refusal):
        log.debug("unit refused", extra={"job_id": job_id, "unit": unit, "reason": claim.reason})
        return
    if claim.attempt > settings.max_crashes:
        blame = f" Last: {claim.blame}." if claim.blame else ""
        message = f"{unit} ended its worker {claim.attempt - 1} times, with no single image to blame.{blame}"
        context.store.fail(job_id, message)
        # Whoever submits it again, after a change of the machine, say, starts a new count.
        context.store.clear_attempts(claim)
        context.store.release(claim, take_back=True)
        return
    context.claim = claim
    context.interrupter.reset()
    if context.stopping:
        context.interrupter.interrupt("stop")
    try:
        _do(context, claim)
    except Interrupted as interruption:
        _give_back(context, claim, interruption.reason)
    except (TrtjobError, OSError) as err:
        log.error("job failed", extra={"job_id": job_id, "unit": unit, "error": str(err)})
        _fail(context, claim, str(err))
    except RedisError:  # nothing can be said to the server: the lease runs out, and the unit is asked for again
        raise
    except Exception as err:
        # Left to RQ, the unit would be tried until it seems to have crashed its worker too often.
        log.exception("unexpected error", extra={"job_id": job_id, "unit": unit})
        _fail(context, claim, f"{unit}: {_unexpected(err)}")
    finally:
        context.claim = None


def _fail(context: Context, claim: Claim, message: str) -> None:
    """End a job for a reason that is no crash, so it does not count as one when the job is tried again."""
    context.store.fail(claim.job_id, message)
    context.store.release(claim, take_back=True)


def _unexpected(err: Exception) -> str:
    return f"unexpected {type(err).__name__}: {err}. This is a mistake in trtjob; the worker's log says where"


def _do(context: Context, claim: Claim) -> None:
    shard = shard_of(claim.unit)
    if shard is not None:
        run_shard(context, claim, shard)
    elif claim.unit == PLAN:
        _plan(context, claim)
    elif claim.unit == FINISH:
        _finish(context, claim)
    else:
        raise JobError(f"unknown unit of work '{claim.unit}'", job_id=claim.job_id)


def _give_back(context: Context, claim: Claim, reason: str) -> None:
    """Leave a unit without spending an attempt; another worker, or this one's successor, takes it up."""
    log.info("unit left", extra={"job_id": claim.job_id, "unit": claim.unit, "reason": reason})
    if context.store.release(claim, take_back=True) and reason == "stop":
        context.queue.put(claim.job_id, [claim.unit], at_front=True)


def _plan(context: Context, claim: Claim) -> None:
    """List the source, write the shards, and ask for them: those of a first submission as soon as they are written."""
    store, job_id = context.store, claim.job_id
    store.move(job_id, JobState.PLANNING, started_at=time.time())
    view = store.view(job_id)
    folder = JobFolder.of(view.spec)
    is_first = view.epoch == 0
    if is_first:
        _still(store.sync(claim, shards=0, images=0, **committed_counts(folder, 0)))
    else:
        folder.storage.delete(RECEIPT)

    def on_shards(shards: list[int], images: int) -> None:
        context.interrupter.check()
        if is_first:
            _still(store.add_shards(claim, shards=len(shards), images=images))
            context.queue.put(job_id, map(shard_unit, (n for n in shards if folder.manifest(n) is None)))

    source = open_storage(view.spec.source.root)
    plan = plan_epoch(folder, view.spec, source, epoch=view.epoch, reason=view.reason, on_shards=on_shards)
    if not is_first:
        counts = committed_counts(folder, plan.first_shard)
        images, ok, failed = kept_counts(folder, plan)
        is_mine = store.sync(
            claim,
            shards=plan.first_shard + plan.shards,
            images=images + plan.images,
            ok=ok + counts["ok"],
            failed=failed + counts["failed"],
            committed=[*range(plan.first_shard), *counts["committed"]],
        )
        _still(is_mine)
    store.update(job_id, ignored=json.dumps(plan.ignored))
    state = store.planned(claim)
    _still(state != "lost")
    store.release(claim, take_back=True)
    if state == JobState.FINISHING:
        context.queue.put(job_id, [FINISH])
    else:
        reconcile_job(store, context.queue, job_id)


def _still(is_mine: bool) -> None:
    """Leave a unit that another worker has by now."""
    if not is_mine:
        raise Interrupted("lost")


def _finish(context: Context, claim: Claim) -> None:
    store, job_id = context.store, claim.job_id
    view = store.view(job_id)

    def on_record() -> None:
        context.steps += 1
        context.interrupter.check()

    summary = finish(JobFolder.of(view.spec), view.spec, on_record)
    target = JobState.DONE_WITH_ERRORS if summary.failed else JobState.DONE
    store.move(
        job_id, target, finished_at=time.time(), images=summary.images, ok=summary.ok, failed=summary.failed, message=""
    )
    store.release(claim, take_back=True)
    log.info("job finished", extra={"job_id": job_id, "ok": summary.ok, "failed": summary.failed})


def convert(request_id: str, request: dict[str, Any]) -> None:
    """Convert a foreign model; how it stands and how it ended is in the hash `conversion_key(request_id)`.

    While it runs, the hash lives as long as this process does; a stopped conversion goes back to the queue.
    """
    context = current()
    key = conversion_key(request_id)

    def report(ttl_s: float, fields: dict[str, Any]) -> None:
        context.store.redis.hset(key, mapping=fields)
        context.store.redis.expire(key, int(ttl_s))

    def on_step(step: dict[str, Any]) -> None:
        report(context.settings.lease_s, {"state": "running", **step})

    outcome = convert_apart(request, context.settings, on_step, lambda: context.stopping)
    if outcome is None:
        report(CONVERSION_TTL_S, {"state": "queued"})
        context.queue.put_convert(request_id, request, at_front=True)
    elif "model" in outcome:
        report(CONVERSION_TTL_S, {"state": "done", "model": json.dumps(outcome["model"])})
    else:
        report(CONVERSION_TTL_S, {"state": "failed", "message": outcome["message"]})
