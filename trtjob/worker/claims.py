"""A unit of work from its claim to its end: who may do it, and what becomes of it when it does not end well."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis import RedisError

from trtjob.errors import TrtjobError
from trtjob.jobs.store import Claim, Refusal
from trtjob.worker.context import Context, Interrupted

log = logging.getLogger(__name__)

_LEFT = {"stop": "the worker stops", "lost": "another has it", "cancelled": "the job is cancelled"}


def claim_unit(context: Context, job_id: str, unit: str) -> Claim | None:
    """Claim a unit of work; None where it is not wanted any more, another does it, or it has crashed too often."""
    settings = context.settings
    claim = context.store.claim(job_id, unit, context.name, settings.lease_s)
    if isinstance(claim, Refusal):
        log.debug("unit refused", extra={"job_id": job_id, "unit": unit, "reason": claim.reason})
        return None
    if claim.attempt <= settings.max_crashes:
        return claim
    blame = f" Last: {claim.blame}." if claim.blame else ""
    message = f"{unit} ended its worker {claim.attempt - 1} times.{blame}"
    context.store.fail(job_id, message)
    # Whoever submits it again, after a change of the machine, say, starts a new count.
    context.store.clear_attempts(claim)
    context.store.release(claim, take_back=True)
    return None


@contextmanager
def settled(context: Context, claim: Claim) -> Iterator[None]:
    """Do a unit in this block; how it ends is settled with the store. Raises RedisError alone."""
    fields = {"job_id": claim.job_id, "unit": claim.unit}
    try:
        yield
    except Interrupted as interruption:
        _give_back(context, claim, interruption.reason)
    except (TrtjobError, OSError) as err:
        log.error("job failed", extra=fields | {"event": "job_failed", "error": str(err)})
        _fail(context, claim, str(err))
    except RedisError:
        # The server was away for longer than a client waits, or is full. Where it is there again, this attempt does not
        # count; where it is not, the process ends, and the supervisor sees to that.
        context.store.release(claim, take_back=True)
        raise
    except Exception as err:
        # Left to RQ, the unit would be tried until it seems to have crashed its worker too often.
        log.exception("unexpected error", extra=fields | {"event": "job_failed"})
        _fail(context, claim, f"{claim.unit}: {_unexpected(err)}")


def _give_back(context: Context, claim: Claim, reason: str) -> None:
    """Leave a unit without spending an attempt; another worker, or this one's successor, takes it up."""
    log.info("unit left", extra={"job_id": claim.job_id, "unit": claim.unit, "reason": reason, "event": "unit_left"})
    why = _LEFT.get(reason, reason)
    if context.store.release(claim, take_back=True, why=why) and reason == "stop":
        context.queue.put(claim.job_id, [claim.unit], at_front=True)


def _fail(context: Context, claim: Claim, message: str) -> None:
    """End a job for a reason that is no crash, so it does not count as one when the job is tried again."""
    context.store.fail(claim.job_id, message)
    context.store.release(claim, take_back=True, why="the job has failed")


def _unexpected(err: Exception) -> str:
    return f"unexpected {type(err).__name__}: {err}. This is a mistake in trtjob; the worker's log says where"
