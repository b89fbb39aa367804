"""How jobs stand, as a document and as the lines of a screen. docs/status.md describes the document."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trtjob.api.progress import duration
from trtjob.cli.ui.output import row_lines, table_lines
from trtjob.cli.ui.paint import Color, Painted, Piece, bar, line
from trtjob.jobs.states import ACTIVE, JobState, in_words
from trtjob.printable import printable

if TYPE_CHECKING:
    from trtjob.queue.exclusions import Exclusion
    from trtjob.queue.job_store import JobStore
    from trtjob.queue.views import DaemonView, JobView, WorkerView

SCHEMA_VERSION = 1
JOBS_SHOWN = 50
BAR_WIDTH, SMALL_BAR_WIDTH = 40, 10
_COLORS: dict[JobState, Color] = {
    JobState.DONE: "green",
    JobState.DONE_WITH_ERRORS: "yellow",
    JobState.FAILED: "red",
    JobState.CANCELLED: "yellow",
    JobState.STOPPED: "yellow",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Jobs, and who works on them, all as they stood at one moment. more: jobs that are known beside these."""

    jobs: "Sequence[JobView]"
    workers: "Sequence[WorkerView]"
    daemons: "Sequence[DaemonView]"
    more: int = 0
    exclusions: "Mapping[str, Mapping[str, Exclusion]]" = field(default_factory=dict)  # by job and worker


def standing(store: "JobStore", job_id: str | None, most: int = JOBS_SHOWN) -> Standing:
    """Look at one job, or at the newest, and the newest that are under way. Raises UnknownJobError, ForeignJobError."""
    from trtjob.queue.exclusions import exclusions_of

    jobs = store.views(store.recent_ids(most)) if job_id is None else [store.view(job_id)]
    more = max(0, store.total() - len(jobs)) if job_id is None else 0
    active = [view.job_id for view in jobs if view.state in ACTIVE]
    workers, exclusions = store.workers(), exclusions_of(store, active)
    live = {worker.name for worker in workers}
    here = {job_id: {name: said[name] for name in live & said.keys()} for job_id, said in exclusions.items()}
    return Standing(jobs, workers, store.daemons(), more, here)


# -- the document ------------------------------------------------------------------------------------------------------


def status_document(now: Standing) -> dict[str, Any]:
    """Return what `trtjob status --json` prints."""
    return {
        "schema_version": SCHEMA_VERSION,
        "jobs": [job_document(view, now.workers, now.exclusions.get(view.job_id)) for view in now.jobs],
        "more": now.more,
        "workers": [_worker_document(worker) for worker in now.workers],
        "daemons": [_daemon_document(daemon) for daemon in now.daemons],
    }


def job_document(
    view: "JobView", workers: "Sequence[WorkerView]", exclusions: "Mapping[str, Exclusion] | None" = None
) -> dict[str, Any]:
    """Return what is said of one job. exclusions: who stands aside from it, by worker."""
    from trtjob.queue.progress import describe_limit, remaining

    mine = [worker for worker in workers if worker.units_of(view.job_id)]
    rate = sum(worker.rate_of(view.job_id) for worker in mine) or None
    left = remaining(view)
    return {
        "job_id": view.job_id,
        "state": view.state.value if view.is_known else "unknown",
        "message": view.message,
        "degraded": view.degraded,
        "priority": view.priority.value,
        "queue": view.queue,
        "planned": view.planned,
        "images": view.images,
        "done": view.done,
        "ok": view.ok,
        "failed": view.failures,
        "failures": dict(view.kinds),
        "skipped": view.skipped,
        "ignored": dict(view.ignored),
        "shards": view.shards,
        "shards_done": view.shards_done,
        "shards_running": _shards_running(view, mine),
        "retries": view.retries,
        "rate": rate,
        "eta_s": round(left / rate, 1) if rate and left is not None else None,
        "stand_aside": _aside_documents(exclusions),
        "limit": describe_limit(view, list(workers)),
        "source": view.spec.source.shown,
        "output": view.spec.uri,
        "model": view.spec.model.name,
        "submitted_at": view.spec.created_at,
        "started_at": view.started_at,
        "finished_at": view.finished_at,
        "workers": [worker.name for worker in mine],
    }


def _shards_running(view: "JobView", workers: "Sequence[WorkerView]") -> int:
    from trtjob.queue.units import shard_of

    return sum(shard_of(unit) is not None for worker in workers for unit in worker.units_of(view.job_id))


def _aside_documents(exclusions: "Mapping[str, Exclusion] | None") -> list[dict[str, Any]]:
    from trtjob.queue.views import node_of

    found = sorted((exclusions or {}).items())
    return [
        {"worker": worker, "node": node_of(worker), "lack": exclusion.lack.value, "reason": exclusion.reason}
        for worker, exclusion in found
    ]


def _worker_document(worker: "WorkerView") -> dict[str, Any]:
    return {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "queue": worker.queue,
        "job": worker.job,
        "state": worker.state,
        "engine": worker.engine,
        "device": worker.device,
        "heartbeat_age_s": round(worker.beat_age_s, 1),
        "rate": worker.rate,
        "busy": dict(worker.busy),
        "doing": worker.doing,
        "trouble": worker.trouble,
        "units": [{"job_id": job_id, "unit": unit} for job_id, unit in worker.units],
    }


def _daemon_document(daemon: "DaemonView") -> dict[str, Any]:
    return {
        "name": daemon.name,
        "host": daemon.host,
        "pid": daemon.pid,
        "queue": daemon.queue,
        "job": daemon.job,
        "engine": daemon.engine,
        "processes": daemon.processes,
        "restarts": dict(daemon.restarts),
        "trouble": daemon.trouble,
        "heartbeat_age_s": round(daemon.beat_age_s, 1),
    }


# -- the screen --------------------------------------------------------------------------------------------------------


def job_lines(now: Standing) -> list[str]:
    """Return the screen of the one job."""
    (view,) = now.jobs
    job = job_document(view, now.workers)
    share = view.done / view.images if view.images else 0.0
    rows: list[tuple[str, Piece]] = [
        ("job", view.job_id),
        ("state", _state(view, f", priority {job['priority']}" if job["priority"] != "normal" else "")),
        ("queue", _named_queue(job)),
        ("images", f"{job['done']} of {job['images']}{'' if view.planned else ' listed so far'}  {share:.0%}"),
        ("failed", Painted(_failed(job), "red") if job["failed"] else _failed(job)),
        ("degraded", Painted(job["degraded"], "yellow")),
        ("shards", _shards(job)),
        ("speed", f"{job['rate']:.1f} images/s" if job["rate"] else ""),
        ("left", duration(job["eta_s"]) if job["eta_s"] else ""),
        ("model", job["model"]),
        ("source", job["source"]),
        ("output", job["output"]),
    ]
    lines: list[str] = [*row_lines(row for row in rows if str(row[1]))]
    mine = [worker for worker in now.workers if worker.units_of(view.job_id)]
    if mine:
        lines += ["", *_worker_lines(mine)]
    if job["limit"]:
        lines += ["", printable(job["limit"])]
    lines += [_aside_line(exclusion) for exclusion in _aside_documents(now.exclusions.get(view.job_id))]
    lines += _troubles(now)
    return [*lines, "", line(*bar(view.done, view.images, BAR_WIDTH))] if view.state in ACTIVE else lines


def _aside_line(exclusion: dict[str, Any]) -> str:
    return printable(f"{exclusion['worker']} stands aside: {exclusion['reason']}")


def _state(view: "JobView", more: str = "") -> Painted:
    """Return a job's state for people, in the colour that it has on all screens."""
    said = in_words(view.state, view.failures) if view.is_known else "unknown"
    return Painted(said + more, _COLORS.get(view.state, "cyan") if view.is_known else "yellow")


def jobs_lines(now: Standing) -> list[str]:
    """Return the screen of all jobs, the newest first, and of all workers."""
    if not now.jobs:
        lines = ["No jobs yet. Start one with: trtjob run SOURCE --model MODEL"]
    else:
        lines = jobs_table(now.jobs, now.workers)
    if now.more:
        lines.append(f"... and {now.more} older ones: trtjob jobs list --limit {now.more + len(now.jobs)}")
    if now.workers:
        lines += ["", *_worker_lines(now.workers)]
    for view in now.jobs:
        lines += [
            f"{view.job_id}: {_aside_line(exclusion)}"
            for exclusion in _aside_documents(now.exclusions.get(view.job_id))
        ]
    return lines + _troubles(now)


def jobs_table(jobs: "Sequence[JobView]", workers: "Sequence[WorkerView]") -> list[str]:
    """Return a line for each job."""
    heads = ("JOB", "STATE", "", "IMAGES", "FAILED", "LEFT", "MODEL", "SUBMITTED")
    return [*table_lines(heads, [_job_cells(view, job_document(view, workers)) for view in jobs])]


def _named_queue(job: dict[str, Any]) -> str:
    """Return a job's queue, empty where it is the usual one."""
    from trtjob.config import DEFAULT_QUEUE

    return "" if job["queue"] == DEFAULT_QUEUE else str(job["queue"])


def _failed(job: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in job["failures"].items())
    return f"{job['failed']} ({kinds})" if kinds else str(job["failed"])


def _shards(job: dict[str, Any]) -> str:
    waiting = max(0, job["shards"] - job["shards_done"] - job["shards_running"])
    parts = [f"{job['shards_done']} of {job['shards']} done"]
    parts += [f"{job['shards_running']} running"] if job["shards_running"] else []
    parts += [f"{waiting} waiting"] if waiting else []
    parts += [f"{job['retries']} tried again"] if job["retries"] else []
    return ", ".join(parts)


def _job_cells(view: "JobView", job: dict[str, Any]) -> tuple[Piece, ...]:
    submitted = time.strftime("%Y-%m-%d %H:%M", time.localtime(job["submitted_at"]))
    queue = _named_queue(job)
    state = _state(view, (", degraded" if job["degraded"] else "") + (f", queue {queue}" if queue else ""))
    left = duration(job["eta_s"]) if job["eta_s"] else ""
    images = f"{job['done']}/{job['images']}"
    failed = Painted(str(job["failed"]), "red") if job["failed"] else "0"
    done, _ = bar(view.done, view.images, SMALL_BAR_WIDTH)
    return job["job_id"], state, done if view.state in ACTIVE else "", images, failed, left, job["model"], submitted


def _worker_lines(workers: "Sequence[WorkerView]") -> list[str]:
    heads = ("WORKER", "STATE", "DEVICE", "IMAGES/S", "HEARD", "WORKS ON")
    return [*table_lines(heads, [_worker_cells(worker) for worker in workers])]


def _worker_cells(worker: "WorkerView") -> tuple[str, ...]:
    jobs = dict.fromkeys(job_id for job_id, _ in worker.units)
    units = "; ".join(f"{job_id}: {', '.join(worker.units_of(job_id))}" for job_id in jobs)
    works_on = units or worker.doing
    return worker.name, worker.state, worker.device, f"{worker.rate:.1f}", f"{worker.beat_age_s:.0f} s ago", works_on


def _troubles(now: Standing) -> list[str]:
    told = [f"{daemon.host}: {daemon.trouble}" for daemon in now.daemons if daemon.trouble]
    told += [f"{worker.name}: {worker.trouble}" for worker in now.workers if worker.trouble]
    return list(map(printable, told))
