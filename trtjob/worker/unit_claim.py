"""A unit of work from its claim to its end: who may do it, and what becomes of it when it does not end well."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis import RedisError

from trtjob.errors import TooManyFailures, TrtjobError, UnknownJobError
from trtjob.queue.exclusions import Lack, lack_of
from trtjob.queue.leases import Lease, Refusal
from trtjob.storage import troubles
from trtjob.worker.context import Context
from trtjob.worker.interrupter import OUTAGE, Interrupted
from trtjob.worker.pipeline.failures import unexpected

log = logging.getLogger(__name__)

_LEFT = {
    "stop": "the worker stops",
    "lost": "another has it",
    "cancelled": "the job is cancelled",
    "stopped": "the job is stopped",
}
_KEPT = frozenset({"stop", "stopped", "cancelled"})  # reasons after which what a checkpoint keeps is still counted


def claim_unit(context: Context, job_id: str, unit: str) -> Lease | None:
    """Claim a unit of work; None where it is not wanted any more, another does it, this worker stands aside from it,
    or the unit has crashed too often."""
    settings = context.settings
    if job_id in context.own_exclusions.current():
        context.queue.put(job_id, [unit], at_front=True)
        return None
    lease = context.store.claim(job_id, unit, context.name, settings.lease_s, queue=context.queue.name)
    if isinstance(lease, Refusal):
        log.debug("unit refused", extra={"job_id": job_id, "unit": unit, "reason": lease.reason})
        return None
    if lease.attempt <= settings.max_crashes or context.node not in lease.crashed_on:
        return lease
    blame = f" Last: {lease.blame}." if lease.blame else ""
    message = f"{unit} ended its worker {lease.attempt - 1} times.{blame}"
    if context.exclusions.live_nodes(job_id) <= lease.crashed_on:
        context.store.fail(job_id, message)
        # Whoever submits it again, after a change of the machine, say, starts a new count.
        context.store.clear_attempts(lease)
        context.store.release(lease, take_back=True)
    else:  # that it crashes on this node says nothing of the others
        _stand_aside(context, lease, Lack.CRASH, message)
    return None


@contextmanager
def settled(context: Context, lease: Lease) -> Iterator[None]:
    """Do a unit in this block; how it ends is settled with the store. Raises RedisError alone.

    What goes wrong is taken to be this node's trouble, unless the error says that it ends the job: another node may do
    better, and where none does, the job fails with what they say.
    """
    fields = {"job_id": lease.job_id, "unit": lease.unit}
    try:
        yield
        context.own_exclusions.remove(lease.job_id)
    except Interrupted as interruption:
        if interruption.reason == OUTAGE:
            _stand_aside(context, lease, Lack.OUTAGE, troubles() or "storage fails")
        else:
            _give_back(context, lease, interruption)
    except UnknownJobError:
        context.store.release(lease, take_back=True)
    except TooManyFailures as err:
        log.error("job failed", extra=fields | {"event": "job_failed", "error": str(err)})
        context.store.fail(lease.job_id, str(err))
        context.store.release(lease, take_back=True, why="the job has failed")
    except RedisError:
        # The server was away for longer than a client waits, or is full. Where it is there again, this attempt does not
        # count; where it is not, the process ends, and the supervisor sees to that.
        context.store.release(lease, take_back=True)
        raise
    except (TrtjobError, OSError) as err:
        _stand_aside(context, lease, lack_of(err), str(err))
    except Exception as err:
        # Left to RQ, the unit would be tried until it seems to have crashed its worker too often.
        log.exception("unexpected error", extra=fields)
        _stand_aside(context, lease, Lack.FAULT, f"{lease.unit}: {unexpected(err)}")


def _give_back(context: Context, lease: Lease, interruption: Interrupted) -> None:
    """Leave a unit without spending an attempt; another worker, or this one's successor, takes it up."""
    reason = interruption.reason
    kept = interruption.kept if reason in _KEPT else None
    log.info("unit left", extra={"job_id": lease.job_id, "unit": lease.unit, "reason": reason, "event": "unit_left"})
    why = _LEFT.get(reason, reason)
    if context.store.release(lease, take_back=True, why=why, kept=kept) and reason == "stop":
        context.queue.put(lease.job_id, [lease.unit], at_front=True)


def _stand_aside(context: Context, lease: Lease, lack: Lack, reason: str) -> None:
    """Leave a job to other nodes for a while; where there are none, it waits or fails."""
    job_id = lease.job_id
    is_first = context.own_exclusions.add(job_id, lack)
    outcome = context.exclusions.stand_aside(job_id, context.name, lack, reason, wait_s=context.settings.place_wait_s)
    fields = {"job_id": job_id, "unit": lease.unit, "lack": lack.value, "error": reason}
    if outcome == "goes on":
        level = logging.WARNING if is_first else logging.INFO
        log.log(level, "this worker stands aside from the job", extra=fields | {"event": "stood_aside"})
    elif outcome == "failed":
        log.error("job failed", extra=fields | {"event": "job_failed"})
    why = f"this worker stands aside: {reason}" if outcome == "goes on" else "the job has ended"
    if context.store.release(lease, take_back=True, why=why) and outcome == "goes on":
        context.queue.put(job_id, [lease.unit], at_front=True)
